"""In place: the same numbers and gradients as out of place, and autograd's own refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import agileact as ag
from agileact.ops import CPU
from tests.cases import CASES, IDS, Case, parameters

agile: Any = ag.functional.agile


@pytest.mark.parametrize("size", [1.3, 0.0, 1e-30], ids=["usual", "zero", "tiny"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_same_as_out_of_place(case: Case, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        leaf = torch.randn(3, 4, 5, 6, generator=generator).to(dtype).requires_grad_()
        scale, location = (t.requires_grad_() for t in parameters(4, torch.promote_types(dtype, torch.float32)))
        with torch.no_grad():
            scale.mul_(size)
        grad = torch.randn(3, 4, 5, 6, generator=generator).to(dtype)
        results = []
        for inplace in (False, True):
            x = leaf * 1
            y = agile(x, scale, location, case.base, inplace=inplace, **case.options)
            assert (y is x) is inplace
            results.append((y.detach(), *torch.autograd.grad(y, (leaf, scale, location), grad)))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.t(), lambda x: x[::2, 1::2], lambda x: x[1]])
def test_views_keep_their_base_right(make: Any) -> None:
    scale, location = torch.tensor(1.5), torch.tensor(0.1)
    values = torch.linspace(-2, 2, 24).reshape(4, 6)
    wanted = values.clone()
    part = make(wanted)
    part.copy_(1.5 * torch.relu(part - 0.1))
    leaf = values.clone().requires_grad_()
    base = leaf * 1
    agile(make(base), scale, location, granularity="layer", inplace=True)
    torch.testing.assert_close(base, wanted)
    (gradient,) = torch.autograd.grad(base.sum(), leaf)
    slope = torch.ones_like(values)
    make(slope).copy_(1.5 * (make(values) > 0.1).float())
    torch.testing.assert_close(gradient, slope)


def test_what_autograd_refuses() -> None:
    scale, location = torch.ones(3) * 2, torch.zeros(3)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        agile(torch.zeros(2, 3, requires_grad=True), scale, location, inplace=True)
    leaf = torch.randn(2, 3, requires_grad=True)
    x = leaf.exp()  # whose backward needs its output
    y = agile(x, scale, location, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    if not CPU.loaded:
        return  # the expression keeps tensors of its own
    x = leaf * 1
    y = agile(x, scale, location, "sigmoid", inplace=True)
    x.add_(1)  # what backward would have needed
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.skipif(not CPU.loaded, reason="without the compiled kernels the expression keeps what it likes")
@pytest.mark.parametrize(("base", "kept"), [("relu", 1), ("sigmoid", 1), ("softplus", 1), ("silu", 2), ("gelu", 2)])
def test_keeps_one_tensor_where_the_output_tells_everything(base: str, kept: int) -> None:
    storages: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t
        return t

    leaf = torch.randn(4, 3, 5, requires_grad=True)
    x = leaf * 1
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = agile(x, torch.full((3,), 1.5), torch.full((3,), 0.1), base, inplace=True)
    storages[y.untyped_storage().data_ptr()] = y
    assert len([t for t in storages.values() if t.numel() > 3]) == kept


def test_module_and_modes() -> None:
    module = ag.Agile("relu", 3, inplace=True)
    assert repr(module) == "Agile('relu', 3, inplace=True)"
    with torch.no_grad():
        module.scale.mul_(1.5)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            x = torch.randn(2, 3, 4)
            wanted = 1.5 * torch.relu(x)
            assert module(x) is x
            torch.testing.assert_close(x, wanted)

    def written_over(x: Tensor) -> Tensor:
        y: Tensor = module(x * 1)
        return y

    compiled: Any = torch.compile(written_over, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(compiled(x), 1.5 * torch.relu(x))
    torch.testing.assert_close(torch.vmap(written_over)(x.unsqueeze(1)), 1.5 * torch.relu(x).unsqueeze(1))
    normal = torch.randn(2, 3)
    version = normal._version
    with torch.inference_mode():
        module(normal)
    assert normal._version == version + 1
