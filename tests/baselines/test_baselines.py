"""Each activation against its formula, written again in numpy and float64, one element at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from agileact import ArgumentError, ArgumentTypeError, baselines
from agileact.baselines import ACONC, AGLU, APL, PReLU, Rational, Snake, Swish
from tests.tolerances import assert_sums, assert_values

NAMES = baselines.names()


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def prelu(x, weight):
    return x if x >= 0 else weight[0] * x


def swish(x, beta):
    return x * sigmoid(beta[0] * x)


def aconc(x, p1, p2, beta):
    return (p1[0] - p2[0]) * x * sigmoid(beta[0] * (p1[0] - p2[0]) * x) + p2[0] * x


def pau(x, numerator, denominator):
    above = sum(c * x**j for j, c in enumerate(numerator))
    return above / (1 + abs(sum(c * x**k for k, c in enumerate(denominator, start=1))))


def apl(x, slope, hinge):
    return max(0.0, x) + sum(a * max(0.0, -x + b) for a, b in zip(slope, hinge, strict=True))


def snake(x, frequency):
    return x + math.sin(frequency[0] * x) ** 2 / frequency[0]


def aglu(x, lam, kappa):
    return x * (lam[0] * math.exp(-kappa[0] * x) + 1) ** (-1 / lam[0])


FORMULAS: dict[str, Callable[..., float]] = {
    "prelu": prelu,
    "swish": swish,
    "aconc": aconc,
    "pau": pau,
    "apl": apl,
    "snake": snake,
    "aglu": aglu,
}


def made(name, size=3, seed=0, **arguments):
    """An activation of this name whose parameters are away from their start."""
    activation = baselines.build(name, size, **arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in activation.parameters():
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 0.4 + 0.1
            parameter.add_(noise.to(parameter))
    return activation


def expected(name, activation, x, channel_of):
    """Evaluate the formula in float64, element by element; ``channel_of`` maps an index to a set of coefficients."""
    sets = {key: p.detach().double().numpy().reshape(-1, activation.num_parameters) for key, p in _named(activation)}
    y = np.empty(tuple(x.shape))
    values = x.double().numpy()
    for index in np.ndindex(*values.shape):
        which = channel_of(index)
        y[index] = FORMULAS[name](float(values[index]), **{key: value[:, which] for key, value in sets.items()})
    return torch.from_numpy(y)


def _named(activation):
    return activation.named_parameters(recurse=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_against_the_formula(name, dtype):
    x = (torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2).to(dtype)
    activation = made(name, dtype=torch.float64)
    y = activation(x)
    assert y.dtype == dtype
    assert_values(y.detach(), expected(name, activation, x, lambda index: index[1]), dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "arguments", "size", "channel_of"),
    [
        ((2, 5, 3), {"dim": -1}, 3, lambda index: index[2]),
        ((3, 5, 2), {"dim": 0}, 3, lambda index: index[0]),
        ((3,), {}, 3, lambda index: index[0]),
        ((2, 3), {"granularity": "layer"}, None, lambda index: 0),
        ((), {"granularity": "layer"}, 1, lambda index: 0),
        ((4, 2, 3), {"granularity": "element"}, 6, lambda index: index[1] * 3 + index[2]),
        ((4, 2, 3), {"granularity": "element"}, (2, 3), lambda index: index[1] * 3 + index[2]),
        ((6,), {"granularity": "element"}, 6, lambda index: index[0]),
        ((0, 3), {}, 3, lambda index: index[1]),
    ],
)
def test_layouts(name, shape, arguments, size, channel_of):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    activation = made(name, size, dtype=torch.float64, **arguments)
    assert all(parameter.ndim == 1 for parameter in activation.parameters())
    y = activation(x)
    assert y.shape == x.shape
    assert_values(y.detach(), expected(name, activation, x, channel_of))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", ["channel", "layer", "element"])
def test_gradients_by_the_input_and_by_every_parameter(name, granularity):
    size = {"channel": 2, "layer": 1, "element": 4}[granularity]
    activation = made(name, size, dtype=torch.float64, granularity=granularity)
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    names = [key for key, _ in _named(activation)]
    values = [p.detach().clone().requires_grad_() for _, p in _named(activation)]

    def evaluate(x, *values):
        return torch.func.functional_call(activation, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(evaluate, (x, *values))
    assert torch.autograd.gradgradcheck(evaluate, (x, *values))


@pytest.mark.parametrize("name", NAMES)
def test_far_inputs_stay_finite(name):
    x = torch.tensor([[-1e4], [-300.0], [0.0], [300.0], [1e4]], requires_grad=True)
    activation = made(name, 1)
    activation(x).sum().backward()
    for gradient in [x.grad, *(p.grad for p in activation.parameters())]:
        assert gradient is not None
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_compiled_whole_graph_and_channels_last(name):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4)).to(memory_format=torch.channels_last)
    activation = made(name)
    traced = torch.compile(activation, fullgraph=True, backend="eager")
    assert_values(traced(x), activation(x).detach().double(), torch.float32)
    assert activation(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_loads_and_the_start_comes_back(name):
    fresh, other = baselines.build(name, 3), made(name)
    fresh.load_state_dict(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), other.parameters(), strict=True))
    other.reset_parameters()
    start = baselines.build(name, 3)
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), other.parameters(), strict=True))


def test_starts_are_the_functions_that_the_docs_say():
    x = torch.linspace(-4, 4, 81)[:, None]
    silu = torch.nn.functional.silu(x)
    assert torch.equal(APL(1, hinges=3)(x), torch.relu(x))
    for activation in (Swish(1), ACONC(1), AGLU(1)):
        assert_values(activation(x).detach(), silu.double(), torch.float32)
    assert torch.equal(PReLU(1)(x), torch.nn.functional.prelu(x, torch.tensor([0.25])))
    assert_values(Snake(1)(x).detach(), (x.double() + torch.sin(x.double()) ** 2), torch.float32)
    assert torch.equal(Snake(1, frequency=0.0)(x), x)


@pytest.mark.parametrize(("start", "slope", "largest"), [("leaky_relu", 0.01, 0.01313), ("relu", 0.0, 0.01326)])
def test_the_rational_start_is_as_close_as_its_docs_say(start, slope, largest):
    x = torch.linspace(-3, 3, 100_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        error = (Rational(1, start=start, dtype=torch.float64)(x) - torch.nn.functional.leaky_relu(x, slope)).abs()
    assert largest - 1e-5 < float(error.max()) < largest


def test_prelu_has_the_gradients_of_torchs_module():
    x = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    ours, theirs = PReLU(3), torch.nn.PReLU(3)
    for module in (ours, theirs):
        module(x).square().sum().backward()
    assert ours.weight.grad is not None
    assert theirs.weight.grad is not None
    assert_sums(ours.weight.grad, theirs.weight.grad.double(), torch.float32)


def test_aglu_keeps_lambda_positive():
    x = torch.tensor([[-1.0, 1.0]])
    with torch.no_grad():
        assert torch.equal(AGLU(2, lam=-3.0)(x), AGLU(2, lam=1e-4)(x))


@pytest.mark.parametrize(
    ("make", "error", "part"),
    [
        (lambda: PReLU(), ArgumentError, "num_parameters must be given with granularity 'channel'"),
        (lambda: PReLU(0), ArgumentError, "at least 1, not 0"),
        (lambda: PReLU(2.0), ArgumentTypeError, "must be an integer"),  # type: ignore[arg-type]
        (lambda: PReLU((2, 3)), ArgumentTypeError, "a shape is for granularity 'element'"),
        (lambda: PReLU(3, granularity="layer"), ArgumentError, "must be 1 or None"),
        (lambda: PReLU(3, granularity="filter"), ArgumentError, "granularity must be one of"),  # type: ignore[arg-type]
        (lambda: PReLU(3, dim=1.0), ArgumentTypeError, "dim must be an integer"),  # type: ignore[arg-type]
        (lambda: PReLU(3, dtype=torch.int64), ArgumentTypeError, "floating-point"),
        (lambda: PReLU(3, weight=math.nan), ArgumentError, "weight must be finite"),
        (lambda: PReLU(3, weight="a"), ArgumentTypeError, "weight must be a number"),  # type: ignore[arg-type]
        (lambda: APL(3, hinges=0), ArgumentError, "hinges must be at least 1"),
        (lambda: APL(3, hinges=1.5), ArgumentTypeError, "hinges must be an integer"),  # type: ignore[arg-type]
        (lambda: Rational(3, start="gelu"), ArgumentError, "'leaky_relu' or 'relu'"),  # type: ignore[arg-type]
        (lambda: PReLU(3)(torch.zeros(2, 4)), ArgumentError, r"3 channels, but x of shape \(2, 4\) has 4 along axis 1"),
        (lambda: PReLU(3)(torch.zeros(2, 3, dtype=torch.int64)), ArgumentTypeError, "float"),
        (lambda: PReLU(4, granularity="element")(torch.zeros(2, 3)), ArgumentError, "samples of 4 elements"),
        (lambda: PReLU((2, 2), granularity="element")(torch.zeros(3, 4)), ArgumentError, r"samples of \(2, 2\)"),
        (lambda: baselines.build("swich", 3), ArgumentError, "did you mean 'swish'"),
        (lambda: baselines.build("swish", 3, betta=1.0), ArgumentError, "did you mean 'beta'"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, part):
    with pytest.raises(error, match=part):
        make()


def test_repr_says_how_it_is_laid_out():
    assert repr(APL(3, hinges=4, dim=-1)) == "APL(3, dim=-1, hinges=4)"
    assert repr(PReLU((2, 3), granularity="element")) == "PReLU((2, 3), granularity='element')"
    assert repr(Swish(granularity="layer")) == "Swish(granularity='layer')"


def test_every_name_has_a_formula_here():
    assert set(FORMULAS) == set(NAMES)
