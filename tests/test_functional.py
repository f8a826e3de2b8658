"""agile() and combined_agile(): values, gradients, exactness, order of sums, layouts, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import agileact as ag
from agileact import functional
from tests.cases import CASES, DTYPES, IDS, INPUT_IDS, INPUTS, Case, Input, pairwise, parameters
from tests.tolerances import assert_gradients, assert_sums, assert_values

# Called with lists of arguments and with arguments that are wrong on purpose.
agile: Any = functional.agile
combined_agile: Any = functional.combined_agile
DOUBLE = torch.float64
GRANULARITIES = ("channel", "layer", "element")


def _oracle(x: Tensor, scale: Tensor, location: Tensor, formula: Callable[[Tensor], Tensor], axes: range) -> Tensor:
    """The a f(x - b) in float64, by a loop over the parameters: no broadcasting, no code of the library."""
    x, scale, location = x.double(), scale.double().reshape(-1), location.double().reshape(-1)
    order = [*axes, *(axis for axis in range(x.ndim) if axis not in axes)]
    moved = x.permute(order)
    rows = moved.reshape(scale.numel(), -1) if x.numel() else moved.reshape(scale.numel(), 0)
    out = torch.stack([a * formula(row - b) for row, a, b in zip(rows, scale, location, strict=True)])
    return out.reshape(moved.shape).permute([order.index(axis) for axis in range(x.ndim)])


def _axes(x: Tensor, granularity: str, dim: int) -> range:
    if granularity == "layer":
        return range(0)
    if granularity == "element":
        return range(min(1, x.ndim - 1), x.ndim)
    axis = 0 if x.ndim == 1 else dim % x.ndim
    return range(axis, axis + 1)


def _size(x: Tensor, axes: range) -> int:
    size = 1
    for axis in axes:
        size *= x.shape[axis]
    return size


# --- Exactness at the start -----------------------------------------------------------------------------------------


def _every_pattern(dtype: torch.dtype) -> Tensor:
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return patterns[torch.isfinite(patterns)]


def _assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)
    assert torch.equal(actual[~nan].view(integer), expected[~nan].view(integer))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_start_is_f_bit_for_bit_for_every_number_of_half_precision(case, dtype):
    x = _every_pattern(dtype)
    one, zero = torch.ones(1), torch.zeros(1)
    _assert_same_bits(agile(x, one, zero, case.base, granularity="layer", **case.options), case.native(x))
    for size in (1, 3, 17, 33, 255, 1001):  # where vectorised and scalar code meet
        x = x.roll(4321)
        part = x[:size].view(1, -1).contiguous()
        found = agile(part, torch.ones(size), torch.zeros(size), case.base, **case.options)
        _assert_same_bits(found, case.native(part))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_start_is_f_bit_for_bit(case, dtype):
    for size in (1, 7, 16, 65, 1031):
        x = 6 * torch.randn(size, 3, dtype=dtype)
        x[0] = torch.tensor([0.0, -0.0, torch.finfo(dtype).tiny])
        found = agile(x, torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype), case.base, **case.options)
        _assert_same_bits(found, case.native(x))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_start_has_the_gradient_of_f(case):
    x = 3 * torch.randn(64, 5, dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    agile(ours, torch.ones(5).double(), torch.zeros(5).double(), case.base, **case.options).sum().backward()
    case.native(theirs).sum().backward()
    # See test_bases.py for the float32 constants in backward kernels of PyTorch.
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-12)


# --- Values and gradients over the table ------------------------------------------------------------------------------


@pairwise(entry=INPUTS, dtype=DTYPES, granularity=GRANULARITIES)
def test_values_and_gradients(entry: Input, dtype: torch.dtype, granularity: str):
    for name in ("relu", "sigmoid", "silu", "gelu"):
        case = next(case for case in CASES if case.base == name)
        x = entry.make(dtype)
        axes = _axes(x, granularity, entry.dim)
        # The parameters have another dtype than the input where that is half precision.
        scale, location = parameters(_size(x, axes), torch.promote_types(dtype, torch.float32))
        leaves = [x.detach().requires_grad_(), scale.requires_grad_(), location.requires_grad_()]
        out = agile(*leaves, name, entry.dim, granularity, **case.options)
        assert out.dtype == dtype
        assert out.shape == x.shape
        wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
        expected = _oracle(wide[0], wide[1], wide[2], case.formula, axes)
        finite = x.isfinite() & expected.isfinite()
        if name in ("sigmoid", "relu"):
            assert_values(out, expected)
        assert_values(out[finite], expected[finite])
        if entry.name == "special":
            continue
        gradient = torch.randn_like(out)
        found = torch.autograd.grad(out, leaves, gradient)
        by_hand = torch.autograd.grad(expected, wide, gradient.double())
        assert [one.dtype for one in found] == [leaf.dtype for leaf in leaves]
        assert_gradients(found[0], by_hand[0], gradient, scale.detach())
        for one, other in zip(found[1:], by_hand[1:], strict=True):
            assert_sums(one, other, dtype)


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_base_in_every_dtype(case: Case, dtype: torch.dtype):
    x = 3 * torch.randn(41, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    scale, location = parameters(3, dtype)
    # Half precision: z is rounded before f for some; away from a jump of f that is as good as rounding f.
    jumps = case.base in ("threshold", "hardshrink")
    for kink in ag.bases.get(case.base).facts(**case.options).kinks if jumps else ():
        x = x + (((x - location) - kink).abs() < 0.05).to(dtype)
    found = agile(x, scale, location, case.base, **case.options)
    expected = scale.double() * case.formula(x.double() - location.double())
    tolerance = 4 if dtype.itemsize == 2 else 1
    assert_values(found / tolerance, expected / tolerance)


@pytest.mark.parametrize("entry", INPUTS, ids=INPUT_IDS)
def test_layout_is_kept(entry: Input):
    x = entry.make(torch.float32)
    scale, location = parameters(x.shape[0 if x.ndim == 1 else entry.dim], torch.float32)
    assert agile(x, scale, location, "sigmoid", entry.dim).stride() == torch.sigmoid(x).stride() or 1 in x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_stays_channels_last_in_both_directions(dtype):
    x = torch.randn(3, 5, 7, 9).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = agile(x, torch.ones(5), torch.zeros(5), "silu")
    assert out.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("base", ["relu", "sigmoid", "tanh", "hardtanh", "softplus"])
def test_nan_and_infinity_pass_as_through_f(base):
    x = torch.tensor([[float("nan"), float("inf"), float("-inf")]])
    f: Any = getattr(torch.nn.functional, base)
    found = agile(x, torch.full((3,), 2.0), torch.full((3,), 0.5), base)
    torch.testing.assert_close(found, 2 * f(x - 0.5), equal_nan=True)


def test_scale_zero_still_learns():
    x = torch.randn(50, 2, dtype=DOUBLE)
    scale, location = torch.zeros(2, dtype=DOUBLE, requires_grad=True), torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    agile(x, scale, location, "sigmoid").sum().backward()
    torch.testing.assert_close(scale.grad, torch.sigmoid(x).sum(0))
    assert torch.equal(location.grad, torch.zeros(2, dtype=DOUBLE))  # type: ignore[arg-type]


# --- Granularity, axes ------------------------------------------------------------------------------------------------


def test_parameters_without_axes_fit_every_granularity():
    x = torch.randn(4, 3, 2, dtype=DOUBLE)
    a, b = torch.tensor(1.5, dtype=DOUBLE, requires_grad=True), torch.tensor(0.25, dtype=DOUBLE, requires_grad=True)
    for granularity in GRANULARITIES:
        out = agile(x, a, b, "tanh", granularity=granularity)
        torch.testing.assert_close(out, 1.5 * torch.tanh(x - 0.25))
        to_a, _ = torch.autograd.grad(out.sum(), (a, b))
        assert to_a.shape == ()
        torch.testing.assert_close(to_a, torch.tanh(x - 0.25).sum())


@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_one_parameter_may_have_axes_and_the_other_none(granularity):
    x = torch.randn(4, 3, dtype=DOUBLE)
    a = torch.tensor([1.0, -2.0, 3.0], dtype=DOUBLE, requires_grad=True)
    b = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    out = agile(x, a, b, "relu", granularity=granularity)
    torch.testing.assert_close(out, a * torch.relu(x - 0.5))
    to_a, to_b = torch.autograd.grad(out.sum(), (a, b))
    torch.testing.assert_close(to_a, torch.relu(x - 0.5).sum(0))
    torch.testing.assert_close(to_b, -(a * (x > 0.5)).sum())
    torch.testing.assert_close(agile(x, b, a, "relu", granularity=granularity), 0.5 * torch.relu(x - a))


def test_element_parameters_may_have_the_shape_of_a_sample():
    x = torch.randn(4, 3, 2)
    scale, location = torch.randn(3, 2), torch.randn(3, 2)
    found = agile(x, scale, location, "tanh", granularity="element")
    torch.testing.assert_close(found, scale * torch.tanh(x - location))
    torch.testing.assert_close(found, agile(x, scale.flatten(), location.flatten(), "tanh", granularity="element"))


def test_an_unbatched_sample_has_its_channels_along_its_only_axis():
    x, scale, location = torch.randn(3), torch.randn(3), torch.randn(3)
    expected = scale * torch.relu(x - location)
    for dim in (1, 0, -1):
        torch.testing.assert_close(agile(x, scale, location, dim=dim), expected)
    torch.testing.assert_close(agile(x, scale, location, granularity="element"), expected)


def test_a_scalar_input_takes_one_pair():
    x = torch.tensor(2.0)
    for scale, location in ((torch.tensor(3.0), torch.tensor(0.5)), (torch.tensor([3.0]), torch.tensor([0.5]))):
        assert float(agile(x, scale, location, granularity="layer")) == 4.5
    assert float(agile(x, torch.tensor(3.0), torch.tensor(0.5))) == 4.5


@given(data=st.data())
def test_any_shape_axis_and_granularity(data):
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4), label="shape")
    granularity = data.draw(st.sampled_from(GRANULARITIES), label="granularity")
    dim = data.draw(st.integers(-len(shape), len(shape) - 1), label="dim")
    case = data.draw(st.sampled_from(CASES), label="base")
    x = torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    axes = _axes(x, granularity, dim)
    scale, location = (one.requires_grad_() for one in parameters(_size(x, axes)))
    out = agile(x, scale, location, case.base, dim, granularity, **case.options)
    assert out.shape == x.shape
    if scale.numel() == 0:
        return
    expected = _oracle(x, scale, location, case.formula, axes)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-11)
    gradient = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, scale, location), gradient)
    if x.numel():
        for one, other in zip(found, torch.autograd.grad(expected, (x, scale, location), gradient), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@given(data=st.data())
def test_moving_the_channel_axis_moves_nothing_else(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    dim = data.draw(st.integers(0, len(shape) - 1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    scale, location = parameters(shape[dim], torch.float32)
    moved = agile(x.movedim(dim, 0), scale, location, "tanh", 0).movedim(0, dim)
    torch.testing.assert_close(agile(x, scale, location, "tanh", dim), moved)
    assert torch.equal(agile(x, scale, location, "tanh", dim), agile(x, scale, location, "tanh", dim - len(shape)))


# --- Sums of terms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_combined_is_the_sum_of_its_terms(granularity, dtype):
    x = torch.randn(4, 3, 2).to(dtype)
    size = {"channel": 3, "layer": 1, "element": 6}[granularity]
    scale, location = parameters((3, size), dtype)
    found = combined_agile(x, scale, location, "silu", granularity=granularity)
    assert found.dtype == dtype
    expected = sum(
        agile(x.double(), a.double(), b.double(), "silu", granularity=granularity)
        for a, b in zip(scale, location, strict=True)
    )
    assert isinstance(expected, Tensor)
    assert_values(found, expected)
    one = combined_agile(x, scale[:1], location[:1], "silu", granularity=granularity)
    assert torch.equal(one, agile(x, scale[0], location[0], "silu", granularity=granularity))


def test_combined_takes_other_shapes_of_a_term():
    x = torch.randn(4, 3, 2)
    scale, location = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    flat = combined_agile(x, scale.flatten(1), location.flatten(1), granularity="element")
    assert torch.equal(combined_agile(x, scale, location, granularity="element"), flat)
    numbers = torch.tensor([1.0, -0.5]), torch.tensor([0.0, 0.5])
    for granularity in GRANULARITIES:
        found = combined_agile(x, *numbers, granularity=granularity)
        torch.testing.assert_close(found, torch.relu(x) - 0.5 * torch.relu(x - 0.5))


def test_combined_gradcheck():
    x = torch.randn(4, 3, dtype=DOUBLE, requires_grad=True)
    scale, location = (one.requires_grad_() for one in parameters((2, 3)))
    for base in ("tanh", "gelu"):
        assert torch.autograd.gradcheck(lambda *leaves, f=base: combined_agile(*leaves, f), (x, scale, location))
        assert torch.autograd.gradgradcheck(lambda *leaves, f=base: combined_agile(*leaves, f), (x, scale, location))


# --- Order of the sums ------------------------------------------------------------------------------------------------

LARGE = (
    ("filters", (100, 16, 28, 28), 1, "channel"),
    ("last-axis", (64, 130, 96), -1, "channel"),
    ("nodes", (3001, 96), 1, "channel"),
    ("few-channels", (700, 2, 131), 1, "channel"),
    ("one-channel", (70001, 1), 1, "channel"),
    ("layer", (100, 16, 28, 28), 1, "layer"),
    ("layer-flat", (1000003,), 1, "layer"),
    ("element", (400, 4, 97), 1, "element"),
)


@pytest.mark.parametrize(
    ("shape", "dim", "granularity", "channels_last"),
    [(*entry[1:], last) for entry in LARGE for last in (False, True)[: 1 + (len(entry[1]) == 4)]],
    ids=[name + suffix for name, shape, *_ in LARGE for suffix in ("", "-last")[: 1 + (len(shape) == 4)]],
)
def test_parameter_gradients_have_the_same_bits_for_every_number_of_threads(shape, dim, granularity, channels_last):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    scale, location = parameters(_size(x, _axes(x, granularity, dim)), torch.float32)
    scale.requires_grad_()
    location.requires_grad_()
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            out = agile(x, scale, location, "relu", dim, granularity)
            results.append(torch.autograd.grad(out, (x, scale, location), gradient))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)


def test_parameter_gradients_are_summed_wide():
    # In bfloat16 a running sum of ones stops at 256; in float32 it does not.
    x = torch.ones(4096, 2, dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16, DOUBLE):
        scale, location = torch.ones(2, dtype=dtype, requires_grad=True), torch.zeros(2, dtype=dtype)
        agile(x, scale, location).sum(dtype=torch.float32).backward()
        assert scale.grad is not None
        assert scale.grad.dtype == dtype
        assert scale.grad.tolist() == [4096.0, 4096.0]


@given(rows=st.integers(1, 5), length=st.integers(0, 100000))
def test_the_sum_of_a_long_row(rows, length):
    from agileact._common.broadcasting import collect

    matrix = torch.randint(-8, 9, (rows, length), generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(collect(matrix, 0, 1, DOUBLE), matrix.sum(1))
    assert torch.equal(collect(matrix, 0, 0, DOUBLE), matrix.sum().view(1))


# --- Errors -----------------------------------------------------------------------------------------------------------

ONE = torch.ones(3)


def _x(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((_x(2, 3).int(), ONE, ONE), {}, "x must be float64, float32, bfloat16 or float16, not int32"),
        ((_x(2, 3).bool(), ONE, ONE), {}, "not bool"),
        ((_x(2, 3).to(torch.complex64), ONE, ONE), {}, "not complex64"),
        (([1.0, 2.0], ONE, ONE), {}, "x must be a tensor, not list"),
        ((_x(2, 3).to_sparse(), ONE, ONE), {}, r"dense tensor, not a sparse_coo one; try x.to_dense\(\)"),
        ((_x(2, 3), 1.0, ONE), {}, "scale must be a tensor, not float"),
        ((_x(2, 3), ONE, ONE.int()), {}, "location must be float64, float32, bfloat16 or float16, not int32"),
        ((_x(2, 3), ONE, torch.ones(3, device="meta")), {}, "location must be on the device of x, cpu, not on meta"),
        ((_x(2, 5), ONE, ONE), {}, r"shape \(3,\), but x of shape \(2, 5\) has 5 channels along axis 1"),
        ((_x(2, 5, 3), ONE, ONE), {}, "axis 2 has 3: pass dim=2"),
        ((_x(3, 5, 3), ONE, ONE), {}, "axis 0 or 2 has 3: pass dim=0"),
        ((_x(2, 5), torch.ones(1), torch.ones(1)), {}, "granularity 'layer'"),
        ((_x(2, 3), ONE.view(1, 3), ONE.view(1, 3)), {}, r"needs shape \(3,\)"),
        ((_x(2, 3), ONE, torch.ones(2)), {}, r"same shape, not \(3,\) and \(2,\)"),
        ((_x(2, 3), ONE, ONE), {"dim": 2}, r"dim must be from -2 to 1 for x of shape \(2, 3\), not 2"),
        ((_x(2, 3), ONE, ONE), {"dim": -3}, "not -3"),
        ((_x(3), ONE, ONE), {"dim": 2}, "dim must be from -1 to 0"),
        ((_x(2, 3), ONE, ONE), {"dim": 1.0}, "dim must be an integer, not 1.0 of type float"),
        ((_x(2, 3), ONE, ONE), {"dim": True}, "dim must be an integer"),
        ((_x(), ONE, ONE), {}, "x has no axes"),
        ((_x(2, 3), ONE, ONE), {"granularity": "layer"}, r"one element, of shape \(\) or \(1,\), not shape \(3,\)"),
        ((_x(2, 3, 4), ONE, ONE), {"granularity": "element"}, r"shape of one sample, \(3, 4\) or \(12,\)"),
        ((_x(), ONE, ONE), {"granularity": "element"}, "one sample"),
        ((_x(2, 3), ONE, ONE), {"granularity": "filter"}, "one of 'channel', 'layer', 'element', not 'filter'"),
        ((_x(2, 3), ONE, ONE), {"base": "geluu"}, "did you mean 'gelu'"),
        ((_x(2, 3), ONE, ONE), {"base": "elu", "alfa": 1.0}, "did you mean 'alpha'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        agile(*arguments, **options)
    if not isinstance(arguments[1], Tensor) or "same shape" in message:
        return
    scale, location = (one.unsqueeze(0) if isinstance(one, Tensor) else one for one in arguments[1:])
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError)):
        combined_agile(arguments[0], scale, location, **options)


@pytest.mark.parametrize(
    ("scale", "location", "message"),
    [
        (torch.ones(()), torch.ones(()), "at least one term"),
        (torch.ones(0, 3), torch.ones(0, 3), "at least one term"),
        (torch.ones(2, 3), torch.ones(3, 3), "same shape"),
        (torch.ones(2, 4), torch.ones(2, 4), "3 channels"),
    ],
)
def test_terms_that_do_not_fit_are_refused(scale, location, message):
    with pytest.raises(ag.ArgumentError, match=message):
        combined_agile(torch.zeros(2, 3), scale, location)
