"""Which modules and functions of PyTorch are activations, what their base function is, and what cannot be agile."""

from typing import Any

from torch import nn

from agileact import bases
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.bases import Value
from agileact.transforms.trace.operations import PASSING
from agileact.transforms.trace.recording import Call, words

MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.Threshold: "threshold",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Softshrink: "softshrink",
    nn.Hardshrink: "hardshrink",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.Softplus: "softplus",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Sigmoid: "sigmoid",
    nn.LogSigmoid: "log_sigmoid",
    nn.Tanh: "tanh",
    nn.Tanhshrink: "tanhshrink",
    nn.Softsign: "softsign",
}
"""Modules that have a base function; its options are their attributes of the same names."""

FUNCTIONS: dict[str, str] = {
    **{name: name for name in MODULES.values()},
    "logsigmoid": "log_sigmoid",
    "expit": "sigmoid",
}
"""Functions by the plain names of a recording, and their base functions, whose options are arguments in order."""

GATES = words("sigmoid expit tanh hardsigmoid softsign")
"""Functions that are as often a gate as an activation."""

_SOFTMAX = "it is not elementwise: every result depends on a whole axis"
_RECURRENT = "the activations of a recurrent layer are inside one fused kernel; write the cell with activation modules"
_ATTENTION = "attention is one fused kernel, and its softmax is not elementwise"
_LEARNS = "it learns parameters of its own; an agile activation of a base function can take its place"
_GATED = "it is a gate: it halves the channels, and is not elementwise"
_RANDOM = "it draws its slopes at random in training"

REFUSED_FUNCTIONS = {
    **dict.fromkeys(words("softmax log_softmax softmin gumbel_softmax"), _SOFTMAX),
    **dict.fromkeys(words("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"), _RECURRENT),
    **dict.fromkeys(words("multi_head_attention_forward scaled_dot_product_attention"), _ATTENTION),
    "prelu": _LEARNS,
    "glu": _GATED,
    "rrelu": _RANDOM,
}
"""Functions with an activation in them that cannot be agile, and why."""

REFUSED_MODULES: dict[type[nn.Module], str] = {
    nn.PReLU: _LEARNS,
    nn.RReLU: _RANDOM,
    nn.GLU: _GATED,
    nn.Softmax: _SOFTMAX,
    nn.Softmin: _SOFTMAX,
    nn.LogSoftmax: _SOFTMAX,
    nn.Softmax2d: _SOFTMAX,
    nn.AdaptiveLogSoftmaxWithLoss: _SOFTMAX,
    nn.MultiheadAttention: _ATTENTION,
    nn.RNNBase: _RECURRENT,
    nn.RNNCellBase: _RECURRENT,
}
"""Modules likewise."""

ACTIVATING = frozenset(FUNCTIONS) | words("erf erfc expm1 sin sinh cosh atan arctan asinh arcsinh")
"""Functions that activations are made of: what is elementwise and has none of them is arithmetic."""
POINTWISE = (
    ACTIVATING
    | PASSING
    | words(
        "add sub rsub mul div rdiv neg pow rpow square sqrt rsqrt exp exp2 log log1p log2 log10 cos tan abs sign "
        "clamp clamp_min clamp_max clip minimum maximum where lerp addcmul addcdiv reciprocal logaddexp heaviside "
        "floor ceil round trunc frac fmod remainder masked_fill xlogy sinc gt lt ge le eq ne logical_and logical_or "
        "logical_not isnan nan_to_num zeros_like ones_like full_like"
    )
)
"""Functions whose every result depends on one element of each argument."""

# Classes that an activation is chosen by although they compute nothing.
_IDENTITIES = {("transformers.activations", "LinearActivation"): "identity"}


def known_module(module: nn.Module) -> tuple[str, dict[str, Value]] | None:
    """Return the base function of a module and its options; None if there is none or the class computes its own."""
    kind = type(module)
    identity = _IDENTITIES.get((kind.__module__, kind.__name__))
    if identity is not None:
        return identity, {}
    name = torch_activation(module)
    if name is None:
        return None
    return _resolved(name, {option: getattr(module, option) for option in bases.get(name).options})


def torch_activation(module: nn.Module) -> str | None:
    """Return the base function of a module of PyTorch or of a subclass that computes nothing else; None for others."""
    kind: Any = type(module)
    for ancestor in kind.__mro__:
        name = MODULES.get(ancestor)
        if name is not None:
            same = kind.forward is ancestor.forward and kind.__call__ is nn.Module.__call__
            return name if same and "forward" not in module.__dict__ else None
    return None


def known_call(call: Call) -> tuple[str, dict[str, Value]] | None:
    """Return the base function of a call and its options; None if there is none for the options given."""
    base = FUNCTIONS.get(call.name)
    if base is None or (not call.args and "input" not in call.kwargs):
        return None
    names = tuple(bases.get(base).options)
    given: dict[str, Any] = {}
    for position, name in enumerate(names, start=1):
        value = call.argument(position, name)
        if value is not None:
            given[name] = value
    # Two arguments of a function of one: such as the in-place flag, or an overload that means something else.
    extra = [arg for arg in call.args[len(names) + 1 :] if not isinstance(arg, bool)]
    other = set(call.kwargs) - set(names) - {"input", "inplace", "out"}
    if extra or other or call.kwargs.get("out") is not None:
        return None
    return _resolved(base, given)


def _resolved(base: str, options: dict[str, Any]) -> tuple[str, dict[str, Value]] | None:
    try:
        return base, bases.get(base).resolve(options)
    except (ArgumentError, ArgumentTypeError):
        # PyTorch takes some values for which our function is not defined: f is then wrapped as it is.
        return None


def refused_module(module: nn.Module) -> str | None:
    """Return why a module with an activation in it cannot be agile; None if it is no such module."""
    return next((reason for kind, reason in REFUSED_MODULES.items() if isinstance(module, kind)), None)


def step_of(call: Call) -> str:
    """Say of a call in the forward of an autograd.Function why it cannot be agile."""
    return f"it is a step of {call.step_of}, an autograd.Function whose backward is written for it as it is"


def refused_call(call: Call) -> str | None:
    """Return why a call with an activation in it cannot be agile; None if it is no such call."""
    if call.step_of and (call.name in ("clamp", "clip", "clamp_min") or call.name in REFUSED_FUNCTIONS):
        return step_of(call)
    if call.name in ("clamp", "clip", "clamp_min"):
        low = call.argument(1, "min")
        high = None if call.name == "clamp_min" else call.argument(2, "max")
        if isinstance(low, (int, float)) and low == 0 and high is None:
            return "it is a ReLU written as arithmetic; write it as F.relu(x) or nn.ReLU()"
    return REFUSED_FUNCTIONS.get(call.name)
