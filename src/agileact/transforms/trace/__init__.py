"""A recorded run: the calls, their tensors and the modules that made them."""
