"""Agile activation functions, a f(x - b) for any f, with a size a and a position b learned by gradient descent."""

import sys

from agileact._common.interrupt import is_command  # first: from here on Ctrl-C ends the command without a traceback
from agileact._common.optional import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

if not is_command(sys.orig_argv):
    # A program may load a saved model next, which finds its operators only if they are registered. The command prints
    # help, and refuses what it does not understand, without PyTorch.
    from agileact import ops as ops
