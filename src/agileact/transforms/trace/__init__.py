"""A run written down: the calls, their tensors and the modules that made them."""
