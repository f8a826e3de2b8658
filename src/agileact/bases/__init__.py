"""Base functions: f, f', f'', their options, and what is true of each.

There is one for every elementwise activation of ``torch.nn`` that draws no random numbers and has no parameters
of its own. Left out are RReLU (random in training), PReLU (learns a slope itself; ``leaky_relu`` is its fixed
form), and those that are not elementwise: GLU, Softmin, Softmax, Softmax2d, LogSoftmax and MultiheadAttention.
"""

from agileact.bases.base import Base as Base
from agileact.bases.base import Facts as Facts
from agileact.bases.base import Option as Option
from agileact.bases.base import Value as Value
from agileact.bases.exponential import EXPONENTIAL
from agileact.bases.piecewise import PIECEWISE
from agileact.bases.registry import add as _add
from agileact.bases.registry import get as get
from agileact.bases.registry import names as names
from agileact.bases.registry import register_base as register_base
from agileact.bases.smooth import SMOOTH

_add(*PIECEWISE, *EXPONENTIAL, *SMOOTH)

__all__ = ["Base", "Facts", "Option", "Value", "get", "names", "register_base"]
