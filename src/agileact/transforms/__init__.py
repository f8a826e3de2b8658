"""Into a model and out again: where activations are, convert, fold, lint."""
