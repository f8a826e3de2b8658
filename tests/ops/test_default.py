"""The kernels in plain PyTorch, which serve devices without their own, against autograd of the formulas.

Where the compiled library is loaded, no call on the CPU reaches them: so they are called by name.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact import bases
from agileact.ops import default as _default
from agileact.ops import pool as _pool
from agileact.ops.fused import FUSED, fused_name
from tests.cases import CASES, Case, pairwise

DOUBLE = torch.float64
FUSED_CASES = [case for case in CASES if case.base in FUSED]


def call_of(case: Case) -> tuple[str, float, float]:
    call = fused_name(case.base, bases.get(case.base).resolve(case.options))
    assert call is not None
    return call


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def total(x: Tensor, scale: Tensor | None, location: Tensor | None, case: Case, terms: int, dim: int) -> Tensor:
    """The sum of a_j f(x - b_j), with one pair for each element of the axis ``dim`` in each term."""
    shape = (terms, *(x.shape[axis] if axis == dim else 1 for axis in range(x.ndim)))
    a = torch.ones(shape, dtype=x.dtype) if scale is None else scale.view(shape)
    b = torch.zeros(shape, dtype=x.dtype) if location is None else location.view(shape)
    return sum((a[j] * case.formula(x - b[j]) for j in range(terms)), torch.zeros_like(x))


@pairwise(case=FUSED_CASES, parameters=["both", "location", "scale"], terms=[1, 3])
def test_value_gradients_and_their_gradients(case: Case, parameters: str, terms: int) -> None:
    present = (parameters != "location", parameters != "scale")
    dim = 2
    inputs: list[Any] = [3 * random(2, 5, 4), random(terms * 4, seed=1), random(terms * 4, seed=2)]
    inputs = [inputs[0], *(one if there else None for one, there in zip(inputs[1:], present, strict=True))]
    x: Any
    x, scale, location = (None if one is None else one.requires_grad_() for one in inputs)
    live = [one for one in (x, scale, location) if one is not None]
    grad = random(2, 5, 4, seed=3).requires_grad_()
    call = (scale, location, *call_of(case), dim, 1, terms)

    value = total(x, scale, location, case, terms, dim)
    first = torch.autograd.grad(value, live, grad, create_graph=True)
    tangents = [torch.randn_like(one) for one in first]
    second = torch.autograd.grad(
        sum((u * v).sum() for u, v in zip(first, tangents, strict=True)),  # type: ignore[arg-type]
        [grad, *live],
        materialize_grads=True,
    )

    with torch.no_grad():
        torch.testing.assert_close(_default.agile(x, *call), value)
        made = _default.agile_backward(grad, x, *call)
        given = dict(zip(("x", *(n for n, p in zip("ab", present, strict=True) if p)), tangents, strict=True))
        made_again = _default.agile_double_backward(given["x"], given.get("a"), given.get("b"), grad, x, *call)
    absent = [one for one, there in zip((made[1], made[2]), present, strict=True) if not there]
    assert all(one.numel() == 0 for one in absent)
    for got, wanted in ((made, first), (made_again, second)):
        for one, other in zip([each for each in got if each.numel()], wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


WINDOWS: dict[str, dict[str, Any]] = {
    "usual": {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil": False},
    "overlapping": {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 1), "dilation": (1, 1), "ceil": False},
    "dilated": {"kernel": (2, 3), "stride": (2, 1), "padding": (0, 1), "dilation": (2, 1), "ceil": True},
}


@pairwise(
    base=["relu", "leaky_relu", "silu"],
    window=list(WINDOWS),
    size=["channel", "all", "none"],
    layout=["contiguous", "channels_last"],
)
def test_pooling_and_its_gradients(base: str, window: str, size: str, layout: str) -> None:
    case = next(case for case in FUSED_CASES if case.base == base)
    x = random(2, 3, 7, 8)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    scale: Tensor | None = None
    location: Tensor | None = None
    if size != "none":
        # A negative scale turns the largest input into the smallest output.
        count = 3 if size == "channel" else 1
        scale = torch.tensor([-0.7, 1.5, 0.4][:count], dtype=DOUBLE, requires_grad=True)
        location = random(count, seed=1).requires_grad_()
    live = [one for one in (x, scale, location) if one is not None]
    a: Any = 1.0 if scale is None else scale.view(-1, 1, 1)
    b: Any = 0.0 if location is None else location.view(-1, 1, 1)
    kernel, stride, padding, dilation, ceil = WINDOWS[window].values()
    places = (kernel, stride, padding, dilation)
    wanted, where = F.max_pool2d(a * case.formula(x - b), *places, ceil, return_indices=True)
    grad = random(*wanted.shape, seed=2)
    gradients = torch.autograd.grad(wanted, live, grad)

    with torch.no_grad():
        call = (*call_of(case), *places)
        out = (wanted.shape[2], wanted.shape[3])
        value, picked, found = _pool.forward(x, scale, location, *call, out)
        made = _pool.backward(grad, picked, found, scale, location, *call, (7, 8))
    torch.testing.assert_close(value, wanted)
    if base == "silu":  # a ReLU has many zeros, of which any is the largest
        assert torch.equal(_pool.indices_of(found, 8, *places), where)
    assert made[0].is_contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )
    for one, other in zip([each for each in made if each.numel()], gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
