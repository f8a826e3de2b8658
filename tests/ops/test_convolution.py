"""Convolution and 2x2 max pooling in one pass: against PyTorch's two, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agileact import ops
from agileact.ops import convolution
from agileact.ops.convolution import conv_max_pool2d

pytestmark = pytest.mark.skipif(not ops.CPU.loaded, reason="needs the compiled kernels")

# Samples, channels, filters, height, width, kernel, padding: the paper's layers, odd sizes, what no register fits.
CASES = (
    (3, 1, 16, 28, 28, (3, 3), (1, 1)),
    (2, 16, 8, 14, 14, (3, 3), (1, 1)),
    (2, 8, 4, 7, 7, (3, 3), (1, 1)),
    (2, 8, 11, 9, 12, (5, 3), (0, 2)),
    (1, 3, 5, 10, 7, (3, 2), (2, 0)),
    (2, 1, 1, 5, 5, (1, 1), (0, 0)),
    (1, 24, 13, 6, 8, (3, 3), (1, 1)),
    (0, 8, 4, 6, 6, (3, 3), (1, 1)),
)


def tensors(case: Any, layout: torch.memory_format = torch.channels_last) -> tuple[Tensor, Tensor, Tensor]:
    samples, channels, filters, height, width, kernel, _ = case
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(samples, channels, height, width, generator=generator)
    weight = torch.randn(filters, channels, *kernel, generator=generator)
    bias = torch.randn(filters, generator=generator)
    x, weight = (t.contiguous(memory_format=layout) for t in (x, weight))
    return x.requires_grad_(channels % 8 == 0), weight.requires_grad_(), bias.requires_grad_()


def both(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    return F.max_pool2d(F.conv2d(x, weight, bias, padding=padding), 2)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_two_steps(case: Any, layout: torch.memory_format):
    given = tensors(case, layout)
    found = conv_max_pool2d(*given, case[-1])
    wide = [t.detach().double().requires_grad_(t.requires_grad) for t in given]
    expected = both(wide[0], wide[1], wide[2], case[-1])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(conv_max_pool2d(*given, case[-1]), found)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    grad[grad > 1] = 0  # as behind a ReLU
    ours = torch.autograd.grad(found, [t for t in given if t.requires_grad], grad)
    theirs = torch.autograd.grad(expected, [t for t in wide if t.requires_grad], grad.double())
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-4, atol=1e-5 * max(1.0, len(grad)))


def test_the_same_bits_again_and_for_every_number_of_threads():
    case = CASES[1]
    given = tensors(case)

    def run(threads: int) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            y = conv_max_pool2d(*given, case[-1])
            return [y, *torch.autograd.grad(y.square().sum(), given)]
        finally:
            torch.set_num_threads(before)

    assert all(torch.equal(own, other) for own, other in zip(run(1), run(2), strict=True))


def test_the_first_of_equals_and_a_number_that_is_none():
    x = torch.zeros(1, 8, 4, 4)
    x[0, 0, 1, 2] = float("nan")
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.zeros(2, 8, 1, 1)
    weight[:, 0] = 1
    weight.requires_grad_()
    y = conv_max_pool2d(x, weight, None, (0, 0))
    assert y[0, :, 0, 1].isnan().all()
    assert not y[0, :, 0, 0].isnan().any()
    (to_x,) = torch.autograd.grad(y[:, :, 0, 0].sum(), x)
    assert to_x[0, 0].nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_plain_pytorch_says_the_same(case: Any):
    given = [t.detach() for t in tensors(case)]
    forward = torch.ops.agileact.conv_max_pool2d
    backward = torch.ops.agileact.conv_max_pool2d_backward
    wants = case[1] % 8 == 0

    (y, places), (y2, places2) = forward(*given, case[-1]), convolution._forward(given[0], given[1], given[2], case[-1])
    torch.testing.assert_close(y, y2, rtol=1e-4, atol=1e-5)
    assert torch.equal(places, places2)
    grad = torch.ones_like(y)
    ours = backward(grad, given[0], given[1], places, case[-1], wants)
    theirs = convolution._backward(grad, given[0], given[1], places, case[-1], wants)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES[1:3], ids=str)
def test_its_shapes_are_known_before_it_runs(case: Any):
    given = [t.detach() for t in tensors(case)]
    y, places = torch.ops.agileact.conv_max_pool2d(*given, case[-1])
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.agileact.conv_max_pool2d.default, (*given, case[-1]), test_utils=tests)
    call = (torch.ones_like(y), given[0], given[1], places, case[-1], True)
    torch.library.opcheck(torch.ops.agileact.conv_max_pool2d_backward.default, call, test_utils=tests)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (torch.zeros(1, 8, 4, 4).double(), torch.zeros(2, 8, 3, 3).double(), None, "float32"),
        (torch.zeros(8, 4, 4), torch.zeros(2, 8, 3, 3), None, "images"),
        (torch.zeros(1, 8, 4, 4), torch.zeros(2, 4, 3, 3), None, "images"),
        (torch.zeros(1, 8, 2, 2), torch.zeros(2, 8, 3, 3), None, "leaves nothing"),
        (torch.zeros(1, 8, 4, 4), torch.zeros(2, 8, 3, 3), torch.zeros(3), "bias of 2"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, weight: Tensor, bias: Tensor | None, message: str):
    with pytest.raises(RuntimeError, match=message):
        conv_max_pool2d(x, weight, bias, (0, 0))


def test_images_of_three_channels_have_no_gradient():
    x, weight = torch.zeros(1, 3, 4, 4, requires_grad=True), torch.zeros(2, 3, 3, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="eights"):
        conv_max_pool2d(x, weight, None, (0, 0)).sum().backward()


def test_a_gradient_of_another_size_is_refused():
    x, weight, _ = tensors(CASES[1])
    y, places = torch.ops.agileact.conv_max_pool2d(x.detach(), weight.detach(), None, (1, 1))
    for grad, where in ((y[:1], places), (y[:1], places[:1])):
        with pytest.raises(RuntimeError, match="wants a gradient of what it returned"):
            torch.ops.agileact.conv_max_pool2d_backward(grad, x.detach(), weight.detach(), where, (1, 1), False)
