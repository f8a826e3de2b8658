"""The fused operator against formulas in float64, over layouts, dtypes and the values that go wrong first."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

import agileact as ag
from agileact import bases, reference
from agileact.ops import CPU
from agileact.ops.fused import FUSED, fused_name, unfused
from tests.cases import CASES, INPUTS, Case, Input, pairwise, parameters

FUSED_CASES = [case for case in CASES if case.base in FUSED]
FUSED_IDS = [case.id for case in FUSED_CASES]
# Relative to the largest value expected, or to 1: where f' comes from a rounded output, as in torch's own sigmoid and
# tanh, it is off by a rounding of f, however small it is itself.
CLOSE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
# Without its types, or the checker cannot pass a list of tensors on.
agile: Any = ag.functional.agile
needs_compiled = pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")


def expected(x: Tensor, scale: Tensor, location: Tensor, grad: Tensor, case: Case, dim: int) -> list[Tensor]:
    """Value and gradients in float64, from f and f' by hand."""
    base = bases.get(case.base)
    options = base.resolve(case.options)
    wide, a, b = (t.detach().double() for t in (x, scale, location))
    value = reference.forward(wide, a, b, base, options, dim, dim + 1)
    return [value, *reference.backward(grad.double(), wide, a, b, base, options, dim, dim + 1)]


def computed(x: Tensor, scale: Tensor, location: Tensor, grad: Tensor, case: Case, dim: int) -> list[Tensor]:
    inputs = [t.detach().requires_grad_() for t in (x, scale, location)]
    y = agile(*inputs, case.base, dim, **case.options)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def assert_close(actual: list[Tensor], wanted: list[Tensor], dtype: torch.dtype, unit: float = 1.0) -> None:
    """Compare value and gradients; all but the gradient of the scale (the third) are proportional to the scale."""
    for index, (got, want) in enumerate(zip(actual, wanted, strict=True)):
        finite = want[want.isfinite()]
        size = max(float(finite.abs().max()) if finite.numel() else 0.0, 1.0 if index == 2 else unit)
        torch.testing.assert_close(
            got.double(), want.double(), rtol=CLOSE[dtype], atol=CLOSE[dtype] * size, equal_nan=True
        )


@pairwise(case=FUSED_CASES, entry=[entry for entry in INPUTS if entry.name != "special"], dtype=list(CLOSE))
def test_values_and_gradients(case: Case, entry: Input, dtype: torch.dtype) -> None:
    x = entry.make(dtype)
    dim = entry.dim % x.ndim if x.ndim > 1 else 0
    scale, location = (t.to(torch.promote_types(dtype, torch.float32)) for t in parameters(x.shape[dim]))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    result = computed(x, scale, location, grad, case, dim)
    assert result[0].dtype == dtype
    assert result[0].stride() == torch.empty_like(x).stride()
    assert_close(result, expected(x, scale, location, grad, case, dim), dtype)


@pairwise(
    case=FUSED_CASES,
    size=[0.0, 1e-30, -1e-30, 1e-6, -0.25, 1.0, 3.0, -1e6, 1e30],
    dtype=[torch.float64, torch.float32, torch.bfloat16],
)
def test_any_scale_gives_exact_gradients(case: Case, dtype: torch.dtype, size: float) -> None:
    x = torch.linspace(-6, 6, 96, dtype=torch.float64).reshape(2, 3, 16).to(dtype)
    scale = torch.full((3,), size, dtype=torch.promote_types(dtype, torch.float32))
    location = torch.tensor([0.0, 0.3, -0.7], dtype=scale.dtype)
    grad = torch.linspace(1, 2, 96, dtype=torch.float64).reshape(2, 3, 16).to(dtype)
    wanted = expected(x, scale, location, grad, case, 1)
    assert_close(computed(x, scale, location, grad, case, 1), wanted, dtype, abs(size))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("base", ["relu", "leaky_relu", "elu"])
def test_the_side_of_the_kink_survives_underflow(base: str, dtype: torch.dtype) -> None:
    """A product that rounds to zero must not look like an input below the kink."""
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = torch.tensor([[least], [-least], [0.0], [8 * least], [1.0]], dtype=dtype, requires_grad=True)
    scale = torch.tensor([0.3])
    y = agile(x, scale, torch.zeros(1), base)
    y.sum().backward()
    plain = x.detach().clone().requires_grad_()
    bases.get(base).function(plain, **bases.get(base).resolve({})).sum().backward()
    assert x.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(x.grad.double(), 0.3 * plain.grad.double(), rtol=4e-3, atol=0)
    if base == "relu" and CPU.loaded:
        # Only what recovers f from the output has to write something else than 0.
        assert (y.detach() == 0).flatten().tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_an_output_with_two_sources_has_the_slope_of_its_own(dtype: torch.dtype) -> None:
    """At its threshold softplus falls: above it an input has the output that a smaller one has, and another slope."""
    case = next(case for case in CASES if case.base == "softplus" and case.options)
    edge = case.options["threshold"] / case.options["beta"]
    x = torch.linspace(edge - 0.05, edge + 0.05, 200, dtype=torch.float64).view(-1, 1).to(dtype)
    scale, location = torch.tensor([1.5], dtype=torch.promote_types(dtype, torch.float32)), torch.zeros(1)
    location, grad = location.to(scale.dtype), torch.ones_like(x)
    got, wanted = computed(x, scale, location, grad, case, 1), expected(x, scale, location, grad, case, 1)
    assert_close(got, wanted, dtype)


@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_not_a_number_and_infinity(case: Case) -> None:
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [1e30], [-1e30], [1e-42]])
    scale, location = torch.tensor([-1.5]), torch.tensor([0.25])
    result = agile(x, scale, location, case.base, **case.options)
    # In float64: torch's vectorised erf in float32, which the plain expression calls, makes a NaN of infinity.
    wide = torch.float64 if CPU.loaded else torch.float32
    plain = (scale * case.native((x - location).to(wide))).float()
    torch.testing.assert_close(result, plain, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("shape", [(3, 4, 77), (2, 3, 130, 130), (70, 3), (1, 1), (50, 1000)], ids=str)
@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_start_is_the_plain_function_to_the_bit(case: Case, shape: tuple[int, ...]) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(2))
    channels = shape[1]
    result = agile(x, torch.ones(channels), torch.zeros(channels), case.base, **case.options)
    assert torch.equal(result, case.native(x))


@needs_compiled
@pytest.mark.parametrize("shape", [(2, 3, 333), (50, 3), (1, 70000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_as_torch_rounds(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(6)) * torch.logspace(-3, 3, shape[-1])
    x = x.to(dtype)
    x.view(-1)[:4] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    scale, location = torch.linspace(0.7, 1.3, shape[1]), torch.linspace(-0.1, 0.2, shape[1])
    along = (1, -1, *(1,) * (x.ndim - 2))
    wanted = (scale.view(along) * (x.float() - location.view(along))).to(dtype)
    torch.testing.assert_close(agile(x, scale, location, "identity"), wanted, rtol=0, atol=0, equal_nan=True)


# Results of 16 MiB and more are written past the caches. The first size is what it takes to get there.
LARGE: list[tuple[tuple[int, ...], int, torch.dtype, bool]] = [
    ((0, 3, 600, 601), 1, torch.float32, False),  # runs cut into segments
    ((0, 300, 77), 1, torch.float32, False),  # runs that end within a vector
    ((0, 300, 77), 1, torch.bfloat16, False),
    ((0, 5, 784), 1, torch.float64, False),
    ((0, 5, 784), 1, torch.float16, False),
    ((0, 64), 1, torch.float32, False),  # sums in registers
    ((0, 1024), 1, torch.float32, False),
    ((0, 1024), 1, torch.bfloat16, False),
    ((0, 1001), 1, torch.float32, False),  # rows that begin within a vector
    ((0, 1030), 1, torch.float16, False),
    ((0, 300, 77), 1, torch.float32, True),  # in place, where memory does not begin with a line of the cache
    ((0, 64), 1, torch.float64, True),
]


@pytest.mark.parametrize(("shape", "dim", "dtype", "inplace"), LARGE, ids=str)
def test_results_larger_than_the_caches(shape: tuple[int, ...], dim: int, dtype: torch.dtype, inplace: bool) -> None:
    rest = torch.Size(shape[1:]).numel()
    shape = ((1 << 24) // (rest * dtype.itemsize) + 1, *shape[1:])
    generator = torch.Generator().manual_seed(9)
    arithmetic = torch.promote_types(dtype, torch.float32)
    block = torch.randn(8 * rest + 1, generator=generator, dtype=arithmetic).to(dtype)
    x = block.repeat(shape[0] // 8 + 1)[1 : 1 + shape[0] * rest].view(shape)
    scale = torch.linspace(0.5, 1.5, shape[dim], dtype=arithmetic)
    location = torch.linspace(-0.5, 0.5, shape[dim], dtype=arithmetic)
    along = [-1 if d == dim else 1 for d in range(len(shape))]
    a, z = scale.view(along), x.to(arithmetic) - location.view(along)
    wanted = (a * z.relu()).to(dtype)
    if inplace:
        with torch.no_grad():
            assert torch.equal(agile(x, scale, location, "relu", dim, inplace=True), wanted)
        return
    grad = block.flip(0)[: shape[1] * (rest // shape[1])].view(1, *shape[1:]).expand(shape)
    got = computed(x, scale, location, grad, FUSED_CASES[0], dim)
    assert torch.equal(got[0], wanted)
    passed = grad.to(arithmetic).where(z > 0, torch.zeros((), dtype=arithmetic))
    assert torch.equal(got[1], (a * passed).to(dtype))
    others = [d for d in range(len(shape)) if d != dim]
    sums = [(grad.double() * z.relu()).sum(others), -scale.double() * passed.double().sum(others)]
    for one, other in zip(got[2:], sums, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_a_nan_of_any_bits_stays_one(case: Case) -> None:
    """Also where a sum of its bits, which rounds a number to bfloat16, would carry into the exponent or the sign."""
    patterns = torch.tensor([0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    nans = patterns.view(torch.float32)
    halves = torch.tensor([0x7F81, 0x7FC0, 0x7FFF, -1, -0x7F], dtype=torch.int16).view(torch.bfloat16)
    assert nans.isnan().all()
    assert halves.isnan().all()
    one = torch.linspace(-2, 2, 5 * 40).view(1, 5, 40).bfloat16()
    for x in (one, one.transpose(1, 2)):
        dim = 1 if x is one else 2
        for scale, location in ((nans, torch.full((5,), 0.5)), (torch.full((5,), 1.25), nans)):
            assert agile(x, scale, location, case.base, dim, **case.options).isnan().all()
            leaves = [t.clone().requires_grad_() for t in (x, scale, location)]
            found = torch.autograd.grad(agile(*leaves, case.base, dim, **case.options), leaves, torch.ones_like(x))
            assert scale is not nans or found[0].isnan().all()
        assert (
            agile(
                halves.expand(1, 40, 5).contiguous(),
                torch.full((5,), 1.25),
                torch.zeros(5),
                case.base,
                2,
                **case.options,
            )
            .isnan()
            .all()
        )


# Runs that end within a vector: two parameters meet there. The last shapes are cut into tiles within a row of runs.
RUNS = [(3, 5, 32), (2, 7, 33), (4, 3, 49), (1, 9, 63), (5, 2, 65), (3, 4, 14, 14), (2, 300, 70), (33, 8, 2, 113)]


@pairwise(case=FUSED_CASES, shape=RUNS, dtype=list(CLOSE))
def test_runs_that_end_within_a_vector(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    scale, location = (t.to(torch.promote_types(dtype, torch.float32)) for t in parameters(shape[1]))
    grad = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    assert_close(computed(x, scale, location, grad, case, 1), expected(x, scale, location, grad, case, 1), dtype, 20.0)
    if not case.options:
        own = x.clone()
        agile(own, scale, location, case.base, inplace=True)
        assert torch.equal(own, agile(x, scale, location, case.base))


@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("run", [3, 16, 40, 49, 70])
def test_nothing_crosses_from_one_channel_to_the_next(dtype: torch.dtype, run: int) -> None:
    x = torch.randn(3, 5, run, generator=torch.Generator().manual_seed(8)).to(dtype)
    clean = x.clone()
    x[:, 1], x[:, 3] = torch.inf, torch.nan
    scale, location = (t.to(torch.promote_types(dtype, torch.float32)) for t in parameters(5))
    case, grad = FUSED_CASES[0], torch.ones_like(x)
    for got, want in zip(
        computed(x, scale, location, grad, case, 1), computed(clean, scale, location, grad, case, 1), strict=True
    ):
        axis = 1 if got.ndim == 3 else 0
        kept = torch.tensor([0, 2, 4])
        assert torch.equal(got.index_select(axis, kept), want.index_select(axis, kept))


@needs_compiled
def test_gradients_that_share_memory_do_not_share_numbers() -> None:
    x, grad = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    case = next(case for case in FUSED_CASES if case.base == "silu")
    scale, location = parameters(3, torch.float32)
    _, _, to_scale, to_location = computed(x, scale, location, grad, case, 1)
    wanted = expected(x, scale, location, grad, case, 1)
    to_scale.zero_()
    torch.testing.assert_close(to_location.double(), wanted[3], rtol=1e-5, atol=1e-5)
    leaves = [t.clone().requires_grad_() for t in (scale, location)]
    for _ in range(2):
        agile(x, *leaves, "silu").backward(grad)
    for leaf, one in zip(leaves, wanted[2:], strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad.double(), 2 * one, rtol=1e-5, atol=1e-5)


@needs_compiled
@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_float32_is_right_over_its_range(case: Case) -> None:
    """Our own exp, tanh and logarithm, where they overflow, vanish and lose digits first."""
    ends = torch.tensor([87.3, 87.4, 88.0, 88.4, 88.8, 89.5, 103.9, 104.0, 150.0, 1e4])
    small = torch.logspace(-30, 1, 400)
    x = torch.cat([torch.linspace(-30, 30, 4001), small, -small, ends, -ends]).reshape(1, 1, -1)
    scale, location, grad = torch.tensor([1.0]), torch.tensor([1e-20]), torch.ones_like(x)
    got, wanted = computed(x, scale, location, grad, case, 1), expected(x, scale, location, grad, case, 1)
    for one, other in zip(got[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6)


@needs_compiled
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "last", "layer"])
@pytest.mark.parametrize("base", ["relu", "gelu"])
def test_equal_bits_for_any_number_of_threads(base: str, layout: str) -> None:
    x = torch.randn(8, 24, 60, 61, generator=torch.Generator().manual_seed(3))
    dim, granularity, channels = {"last": (3, "channel", 61), "layer": (1, "layer", 1)}.get(layout, (1, "channel", 24))
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    scale, location = parameters(channels, torch.float32)
    grad = torch.randn_like(x)

    def run() -> list[Tensor]:
        inputs = [t.detach().requires_grad_() for t in (x, scale, location)]
        y = agile(*inputs, base, dim, granularity)
        return [y.detach(), *torch.autograd.grad(y, inputs, grad)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        once = run()
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(run(), once, strict=True))
    finally:
        torch.set_num_threads(before)


@given(data=st.data())
def test_any_shape_and_layout(data: Any) -> None:
    shape = data.draw(
        st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda s: torch.Size(s).numel() < 4000)
    )
    order = data.draw(st.permutations(range(len(shape))))
    case = data.draw(st.sampled_from(FUSED_CASES))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    dim = data.draw(st.integers(0, len(shape) - 1))
    step = data.draw(st.integers(1, 2))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype).permute(order)[::step]
    scale, location = parameters(x.shape[dim], torch.promote_types(dtype, torch.float32))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert_close(computed(x, scale, location, grad, case, dim), expected(x, scale, location, grad, case, dim), dtype)


def test_granularity_element_follows_the_layout() -> None:
    x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(4))
    scale, location = parameters((4, 5, 6), torch.float32)
    grad = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(5))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        inputs = [t.detach().requires_grad_() for t in (x.contiguous(memory_format=memory_format), scale, location)]
        y = agile(*inputs, "silu", granularity="element")
        torch.testing.assert_close(y, scale * torch.nn.functional.silu(x - location))
        results.append(torch.autograd.grad(y, inputs, grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", list(FUSED))
def test_names_go_there_and_back(name: str) -> None:
    base, options = unfused(name, 1.5, 2.5)
    found = fused_name(base, {**bases.get(base).resolve({}), **options})
    assert found is not None
    assert found[0] == name


@needs_compiled
def test_gradients_of_another_size_are_refused() -> None:
    x, scale = torch.randn(2, 3, 4), torch.linspace(0.5, 2, 3)
    operators = torch.ops.agileact
    with pytest.raises(RuntimeError, match="does not match what was saved"):
        operators.agile_backward(x[:1], x, scale, None, "relu")
    for tangent, grad in ((x, x[:1]), (x[:1], x)):
        with pytest.raises(RuntimeError, match="do not match what was saved"):
            operators.agile_double_backward(tangent, None, None, grad, x, scale, None, "relu")


@needs_compiled
def test_parameters_of_another_size_are_refused_before_they_are_read() -> None:
    """A look at the parameters comes first: no terms ended the process, a short location was read past its end."""
    operators, x = torch.ops.agileact, torch.randn(2, 3)
    for operator in (operators.agile, operators.agile_):
        with pytest.raises(RuntimeError, match="at least one term, not 0"):
            operator(x, torch.ones(0), torch.ones(0), "relu", 0.0, 0.0, 1, 1, 0)
        for scale, location in ((torch.full((3,), 2.0), torch.zeros(1)), (torch.ones(1), torch.zeros(3))):
            with pytest.raises(RuntimeError, match="a location with"):
                operator(x, scale, location, "relu")
        with pytest.raises(RuntimeError, match="a parameter with 4 elements for 3"):
            operator(x, torch.ones(4), torch.ones(4), "relu")
