"""Which base functions the fused kernels know, and under which names and numbers."""

from collections.abc import Mapping
from typing import NamedTuple

# The two numbers of an operator are these options, in this order; gelu's option chooses a name instead.
FUSED: dict[str, tuple[str, ...]] = {
    "relu": (),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "sigmoid": (),
    "tanh": (),
    "softplus": ("beta", "threshold"),
    "identity": (),
    "silu": (),
    "gelu": (),
    "gelu_tanh": (),
    "mish": (),
    "hardswish": (),
    "hardsigmoid": (),
}


class Settings(NamedTuple):
    """What a call of an operator has behind its tensors, in the order and with the defaults of the schema."""

    base: str
    p: float = 0.0
    q: float = 0.0
    dim: int = 1
    ndim: int = 1
    terms: int = 1
    from_output: bool = False


def fused_name(base: str, options: Mapping[str, float | str]) -> tuple[str, float, float] | None:
    """Return an operator's ``base``, ``p`` and ``q``, or None if the base function is not fused.

    Example:
        >>> fused_name("gelu", {"approximate": "tanh"})
        ('gelu_tanh', 0.0, 0.0)
        >>> fused_name("softplus", {"beta": 2.0, "threshold": 20.0})
        ('softplus', 2.0, 20.0)
        >>> fused_name("sine", {}) is None
        True
    """
    if base == "gelu":
        return ("gelu_tanh" if options["approximate"] == "tanh" else "gelu"), 0.0, 0.0
    if base not in FUSED:
        return None
    numbers = [float(options[name]) for name in FUSED[base]] + [0.0, 0.0]
    return base, numbers[0], numbers[1]


def unfused(base: str, p: float, q: float) -> tuple[str, dict[str, float | str]]:
    """Return the base function and its options; the inverse of :func:`fused_name`."""
    if base in ("gelu", "gelu_tanh"):
        return "gelu", {"approximate": "tanh" if base == "gelu_tanh" else "none"}
    return base, dict(zip(FUSED[base], (p, q), strict=False))
