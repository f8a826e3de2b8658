"""A local page to play with: one activation, XOR, one training step, and the activations of a network."""
