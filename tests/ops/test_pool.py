"""Fused activation and pooling against the two steps."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

import agileact as ag
from agileact.functional import windows_have_elements
from agileact.ops import CPU
from tests.cases import CASES, Case, pairwise, parameters
from tests.ops.test_agile import CLOSE, FUSED_CASES, needs_compiled

agile: Any = ag.functional.agile
agile_max_pool2d: Any = ag.functional.agile_max_pool2d
max_pool2d: Any = F.max_pool2d
WINDOWS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1},
)


def two_steps(x: Tensor, scale: Tensor, location: Tensor, case: Case, window: dict[str, Any]) -> Any:
    y = agile(x, scale, location, case.base, **case.options)
    return max_pool2d(y, **window, return_indices=True)


def compare(x: Tensor, case: Case, window: dict[str, Any], scale: Tensor, location: Tensor) -> None:
    wanted_inputs = [t.detach().clone().requires_grad_() for t in (x, scale, location)]
    inputs = [t.detach().clone().requires_grad_() for t in (x, scale, location)]
    value, index = two_steps(wanted_inputs[0], wanted_inputs[1], wanted_inputs[2], case, window)
    got = agile_max_pool2d(*inputs, **window, return_indices=True, base=case.base, **case.options)
    tolerance = CLOSE[x.dtype]
    torch.testing.assert_close(got[0], value, rtol=tolerance, atol=tolerance)
    assert got[0].stride() == value.stride()
    # An index may differ only where two elements are equal but for the last bit.
    y = agile(x, scale, location, case.base, **case.options).flatten(2)
    torch.testing.assert_close(
        y.gather(2, got[1].flatten(2)), y.gather(2, index.flatten(2)), rtol=tolerance, atol=tolerance
    )
    if case.base in ("relu", "leaky_relu", "identity"):
        assert torch.equal(got[1], index)
    # Along the two-step result's own choice, so that ties do not count.
    if torch.equal(got[1], index):
        grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
        for one, other in zip(
            torch.autograd.grad(got[0], inputs, grad), torch.autograd.grad(value, wanted_inputs, grad), strict=True
        ):
            size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)


@pairwise(case=FUSED_CASES, window=WINDOWS, layout=["contiguous", "channels-last"])
def test_same_as_two_steps(case: Case, window: dict[str, Any], layout: str) -> None:
    scale, location = parameters(5, torch.float32)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = (2 * torch.randn(3, 5, 9, 37, generator=torch.Generator().manual_seed(0))).to(dtype)
        if layout == "channels-last":
            x = x.contiguous(memory_format=torch.channels_last)
        compare(x, case, window, scale, location)


@pytest.mark.parametrize("channels", [2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 67])
@pytest.mark.parametrize("base", ["relu", "identity", "silu"])
def test_two_by_two_channels_last_for_any_number_of_channels(base: str, channels: int) -> None:
    # Whole vectors and what is left of them, in every dtype; a row and a column behind the last window.
    case = next(case for case in FUSED_CASES if case.base == base)
    scale, location = parameters(channels, torch.float32)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for height, width in ((8, 6), (9, 7)):
            x = (2 * torch.randn(2, channels, height, width)).to(dtype)
            x[0, :, :2, :2] = 0.25  # equals: the first of them counts
            compare(x.contiguous(memory_format=torch.channels_last), case, {"kernel_size": 2}, scale, location)


@given(
    st.sampled_from(FUSED_CASES), st.integers(1, 12), st.integers(1, 70), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 2), st.integers(1, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_window(
    case: Case, height: int, width: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool, last: bool
) -> None:
    padding = min(padding, kernel // 2)
    span = dilation * (kernel - 1) + 1
    if min(height, width) + 2 * padding < span:
        return
    out = (min(height, width) + 2 * padding - span) // stride + 2
    if not all(windows_have_elements(n, out, kernel, stride, padding, dilation) for n in (height, width)):
        return
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    window = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
    scale, location = parameters(3, torch.float32)
    compare(x, case, window, scale, location)


def test_ties_and_not_a_number_as_in_torch() -> None:
    x = torch.tensor([[-1.0, -2.0, 1.0, 1.0], [-3.0, -0.5, 1.0, 0.5], [torch.nan, 2.0, 3.0, -torch.inf]])
    x = torch.cat([x, torch.tensor([[1.0, torch.nan, torch.inf, 0.0]])])[None, None].contiguous()
    for window in ({"kernel_size": 2}, {"kernel_size": 2, "stride": 1}):
        value, index = max_pool2d(torch.relu(x), **window, return_indices=True)
        got = agile_max_pool2d(x, None, None, **window, return_indices=True)
        torch.testing.assert_close(got[0], value, equal_nan=True)
        assert torch.equal(got[1], index)


@pytest.mark.parametrize("base", ["relu6", "sine"])
def test_a_base_that_is_not_fused(base: str) -> None:
    case = next(case for case in CASES if case.base == base)
    scale, location = parameters(5, torch.float32)
    compare(torch.randn(2, 5, 6, 7), case, {"kernel_size": 2}, scale, location)


def test_derivatives_and_tracing() -> None:
    x = torch.linspace(-2, 2, 2 * 3 * 4 * 4, dtype=torch.float64).reshape(2, 3, 4, 4).cos().requires_grad_()
    scale = torch.tensor([-1.5, 0.7, 1.2], dtype=torch.float64, requires_grad=True)
    location = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, a: Tensor, b: Tensor) -> Any:
        return agile_max_pool2d(x, a, b, 2, base="silu")

    assert torch.autograd.gradcheck(function, (x, scale, location))
    assert torch.autograd.gradgradcheck(function, (x, scale, location))
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, scale, location), function(x, scale, location))
    window = ((2, 2), (2, 2), (0, 0), (1, 1))
    if not CPU.loaded:
        return  # the operator's autograd is in the compiled library; without it the expression has its own
    torch.library.opcheck(
        torch.ops.agileact.agile_max_pool2d.default, (x, scale, location, "silu", 0.0, 0.0, *window, (2, 2))
    )


@needs_compiled
def test_saves_no_more_than_the_output() -> None:
    sizes: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x, module = torch.randn(4, 3, 8, 8, requires_grad=True), ag.AgileMaxPool2d(3, 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        module(x)
    # The inputs picked, a byte each for their places, and the parameters.
    assert sum(sizes.values()) == 4 * 3 * 4 * 4 * (4 + 1) + 2 * 3 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": 2, "padding": 2}, "padding must be at most half"),
        ({"kernel_size": 9}, "nothing is left"),
        ({"kernel_size": 2, "padding": 1, "dilation": 5}, "nothing is left|lie outside"),
        ({"kernel_size": (2, 2, 2)}, "must be an integer or a pair"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ag.AgileactError, match=message):
        agile_max_pool2d(torch.zeros(1, 3, 4, 4), None, None, **arguments)


def test_a_module_refuses_what_no_input_fits() -> None:
    with pytest.raises(ag.ArgumentError, match="padding must be at most half"):
        ag.AgileMaxPool2d(3, 2, padding=2)
    with pytest.raises(ag.ArgumentError, match="granularity must be 'channel' or 'layer'"):
        ag.AgileMaxPool2d(3, 2, granularity="element")


@pytest.mark.parametrize("base", ["relu", "sine"])
def test_without_indices_there_is_one_tensor(base: str) -> None:
    x = torch.randn(2, 3, 6, 6)
    pooled = agile_max_pool2d(x, torch.ones(3), torch.zeros(3), 2, base=base)
    assert isinstance(pooled, Tensor)
    f = torch.relu if base == "relu" else torch.sin
    torch.testing.assert_close(pooled, F.max_pool2d(f(x), 2))


@pytest.mark.parametrize("base", ["relu", "silu"])
def test_vmap_and_forward_mode(base: str) -> None:
    """As of the two steps, whose rules are PyTorch's own."""
    many = torch.randn(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = torch.tensor([1.5, -0.7, 1.2, 0.4], dtype=torch.float64)
    location = torch.tensor([0.1, 0.2, -0.1, 0.0], dtype=torch.float64)

    def fused(x: Tensor, a: Tensor, b: Tensor) -> Any:
        return agile_max_pool2d(x, a, b, 2, base=base)

    def steps(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        z = x - b.reshape(-1, 1, 1)
        return F.max_pool2d(a.reshape(-1, 1, 1) * (torch.relu(z) if base == "relu" else F.silu(z)), 2)

    for axes, arguments in (
        ((0, None, None), (many, scale, location)),
        ((1, None, 0), (many, scale, torch.stack([location, -location]))),
        ((None, 0, None), (many[0], torch.stack([scale, 2 * scale, -scale]), location)),
    ):
        torch.testing.assert_close(torch.vmap(fused, axes)(*arguments), torch.vmap(steps, axes)(*arguments))
        gradients = [
            torch.vmap(torch.func.grad(lambda *t, f=f: f(*t).square().sum(), (0, 1, 2)), axes)(*arguments)
            for f in (fused, steps)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
    tangents = (torch.ones_like(many[0]), torch.ones_like(scale), torch.ones_like(location))
    primals = (many[0], scale, location)
    torch.testing.assert_close(torch.func.jvp(fused, primals, tangents), torch.func.jvp(steps, primals, tangents))


@pytest.mark.parametrize("channels_last", [False, True])
def test_one_parameter_for_all_channels_has_the_sum_of_their_gradients(channels_last: bool):
    # The oracle is the formula in float64 and autograd, with one number for all three channels.
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (1.3, -0.2))
    wanted = torch.autograd.grad(max_pool2d(a * torch.relu(x - b), 2).square().sum(), (a, b))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    got = torch.autograd.grad(agile_max_pool2d(x, a, b, 2, base="relu").square().sum(), (a, b))
    torch.testing.assert_close(got, wanted)


@needs_compiled
def test_what_the_kernels_would_read_beyond_its_end_is_refused() -> None:
    function, window = ("relu", 0.0, 0.0), ((2, 2), (2, 2), (0, 0), (1, 1))
    x = torch.randn(2, 3, 6, 6)
    forward, backward = torch.ops.agileact.agile_max_pool2d, torch.ops.agileact.agile_max_pool2d_backward
    with pytest.raises(RuntimeError, match="no kernel for Half"):
        forward(x.half(), None, None, *function, *window, (3, 3))
    y, picked, places = forward(x, None, None, *function, *window, (3, 3))
    for grad, where in ((y[:1], places), (y.double(), places), (y, places[:, :1])):
        with pytest.raises(RuntimeError, match="the gradient does not match what was saved"):
            backward(grad, picked, where, None, None, *function, *window, (6, 6))
