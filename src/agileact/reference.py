"""The equations of the paper, shaped like the paper, in plain PyTorch: the oracle, and the fallback of every kernel.

Source: "Performance Improvement Method of Convolutional Neural Network Using Agile Activation Function", KIPS
Transactions on Software and Data Engineering 2020, doi 10.3745/KTSDE.2020.9.7.213. The numbers are the paper's.
Two points were lost in the text that we hold and are a (reading): that ``a`` scales the output of the agile
sigmoid (7), and that training starts at a = 1, b = 0.

There are three layers, and none uses the one below it as its own oracle:

* (3) to (24) one by one, for the sigmoid and the ReLU, with the gradients that the paper derives by hand;
* :func:`forward`, :func:`backward` and :func:`backward_of_backward`, the same for any base function, from f' and f'';
* :func:`agile` and :func:`combined_agile`, a f(x - b) and sums of it as expressions that autograd differentiates.

Tensors are of any floating dtype, the same for all arguments, and so is the result. Nothing is checked here: what does
not fit raises PyTorch's own error. :mod:`agileact.functional` has the checks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact._common.broadcasting import WIDE, collect, spread
from agileact.bases import Base


class Gradients(NamedTuple):
    """What comes back from an agile activation: the gradients of its input, of its scale and of its location.

    Attributes:
        x: Of the shape of the input.
        scale: For a; of the shape of a, or of the input where it is not yet summed.
        location: For b.
    """

    x: Tensor
    scale: Tensor
    location: Tensor


# --- The network around the activation -----------------------------------------------------------------------------


def feature_map(pooled: Tensor, filters: Tensor, bias: Tensor | None = None, padding: int | str = 0) -> Tensor:
    """Equation (3): z = P(k-1) * F(k, q) + bias, for every filter q.

    Args:
        pooled: P(k-1), of shape (N, C, H, W).
        filters: F(k, :), of shape (Q, C, h, w).
        bias: Of shape (Q,).
        padding: As for :func:`torch.nn.functional.conv2d`.

    Returns:
        z, of shape (N, Q, H', W').

    Example:
        >>> feature_map(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3), torch.tensor([0.0, 1.0, 2.0]))[0, :, 0, 0]
        tensor([18., 19., 20.])
    """
    return F.conv2d(pooled, filters, bias, padding=padding)


def linear_estimate(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Equations (4) and (17): the linear estimate of each node, the sum of w x.

    Args:
        x: Of shape (N, I).
        weight: Of shape (M, I), a row for each of the M nodes.
        bias: Of shape (M,).

    Returns:
        One estimate for each node, of shape (N, M).

    Example:
        >>> linear_estimate(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[11.,  2.]])
    """
    return F.linear(x, weight, bias)


def gradient_step(value: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """Equations (5), (6), (15), (16), (23) and (24): value - rate * gradient.

    The filters (5) and the weights (6) take it with the learning rate of the weights, a and b of the filters (15), (16)
    and of the nodes (23), (24) with their own. Rounded once, as :class:`torch.optim.SGD` does.

    Args:
        value: What is learned, of any shape.
        gradient: The derivative of the loss by it, of the same shape.
        rate: The learning rate.

    Returns:
        The next value, of the same shape.

    Example:
        >>> gradient_step(torch.tensor([1.0, 2.0]), torch.tensor([2.0, -2.0]), 0.5)
        tensor([0., 3.])
    """
    return torch.add(value, gradient, alpha=-rate)


# --- The agile sigmoid and the agile ReLU ---------------------------------------------------------------------------


def agile_sigmoid(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Equation (7): S(x) = a / (1 + exp(-(x - b))) (reading: a scales the output).

    Args:
        x: Of any shape.
        a: The size, of a shape that broadcasts to that of ``x``.
        b: The position.

    Returns:
        S, of the shape of ``x``.

    Example:
        >>> agile_sigmoid(torch.tensor([1.0, 100.0]), torch.tensor(3.0), torch.tensor(1.0))
        tensor([1.5000, 3.0000])
    """
    return a / (1 + torch.exp(-(x - b)))


def agile_relu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Equation (8): R(x) = a (x - b) where x >= b, else 0; arguments and result as for :func:`agile_sigmoid`.

    Example:
        >>> agile_relu(torch.tensor([0.0, 1.0, 4.0]), torch.tensor(2.0), torch.tensor(1.0))
        tensor([0., 0., 6.])
    """
    return torch.where(x >= b, a * (x - b), torch.zeros_like(x))


def agile_feature_map(z: Tensor, a: Tensor, b: Tensor, base: Base, **options: float | str) -> Tensor:
    """Equation (9): c = a f(z - b), with one pair (a, b) for each filter.

    Args:
        z: The feature maps of Q filters, of shape (N, Q, H, W).
        a: Of shape (Q,).
        b: Of shape (Q,).
        base: f.
        **options: The options of f.

    Returns:
        c, of the shape of ``z``.

    Example:
        >>> from agileact.bases import get
        >>> a, b = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> agile_feature_map(torch.ones(1, 2, 1, 1), a, b, get("relu")).flatten()
        tensor([2., 0.])
    """
    a, b = (parameter.reshape(1, -1, 1, 1) for parameter in (a, b))
    return a * base.function(z - b, **options)


def agile_sigmoid_derivatives(x: Tensor, a: Tensor, b: Tensor) -> Gradients:
    """Equations (10), (11), (12) for a feature map and (18), (19), (20) for a node.

    With s = 1 / (1 + exp(-(x - b))): d/dx = a s (1 - s), d/da = s, d/db = -a s (1 - s), for every element, not
    summed. The arguments are those of :func:`agile_sigmoid`.

    Example:
        >>> agile_sigmoid_derivatives(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([1.0]))
        Gradients(x=tensor([0.5000]), scale=tensor([0.5000]), location=tensor([-0.5000]))
    """
    s = 1 / (1 + torch.exp(-(x - b)))
    slope = a * s * (1 - s)
    return Gradients(slope, s, -slope)


def agile_relu_derivatives(x: Tensor, a: Tensor, b: Tensor) -> Gradients:
    """The same for the agile ReLU, with m = [x >= b]: d/dx = a m, d/da = (x - b) m, d/db = -a m.

    At x = b itself the paper's m is 1, while PyTorch's ReLU has the derivative 0 there. Agileact's modules
    follow PyTorch, so that at a = 1, b = 0 they have the gradients of the ReLU that they replace.

    Example:
        >>> agile_relu_derivatives(torch.tensor([0.0, 4.0]), torch.tensor(2.0), torch.tensor(1.0))
        Gradients(x=tensor([0., 2.]), scale=tensor([-0., 3.]), location=tensor([-0., -2.]))
    """
    m = (x >= b).to(x.dtype)
    slope = a * m
    return Gradients(slope, (x - b) * m, -slope)


def filter_gradients(gradient: Tensor, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor]:
    """Equations (13) and (14): dL/da and dL/db of each filter, summed over the batch and over its feature map.

    Args:
        gradient: dL/dc, of shape (N, Q, H, W).
        da: dc/da of every element.
        db: dc/db of every element.

    Returns:
        Two tensors of shape (Q,).

    Example:
        >>> ones = torch.ones(5, 2, 3, 3)
        >>> filter_gradients(ones, ones, -ones)
        (tensor([45., 45.]), tensor([-45., -45.]))
    """
    return (gradient * da).sum((0, 2, 3)), (gradient * db).sum((0, 2, 3))


def node_gradients(gradient: Tensor, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor]:
    """Equations (21) and (22): dL/da and dL/db of each node, summed over the batch.

    Args:
        gradient: The derivative of L by the node's output, of shape (N, M).
        da: The derivative of the node's output by a.
        db: The derivative of the node's output by b.

    Returns:
        Two tensors of shape (M,).

    Example:
        >>> ones = torch.ones(5, 2)
        >>> node_gradients(ones, ones, -ones)
        (tensor([5., 5.]), tensor([-5., -5.]))
    """
    return (gradient * da).sum(0), (gradient * db).sum(0)


# --- Any base function, derived by hand -----------------------------------------------------------------------------


def forward(
    x: Tensor, scale: Tensor, location: Tensor, base: Base, options: Mapping[str, float | str], start: int, stop: int
) -> Tensor:
    """Return a f(x - b): equation (9) for any base function and any axes.

    Args:
        x: The input, in the dtype of arithmetic.
        scale: a, of shape (size,), where size is the number of elements of the axes ``start`` to ``stop`` of ``x``.
        location: b, in the same form.
        base: f.
        options: All options of f.
        start: The first axis of the parameters.
        stop: The axis behind their last one.

    Returns:
        A tensor of the shape of ``x``.

    Example:
        >>> from agileact.bases import get
        >>> x, a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([2.0, 3.0]), torch.tensor([0.0, 0.5])
        >>> forward(x, a, b, get("relu"), {}, 1, 2)
        tensor([[2.0000, 1.5000]])
    """
    a, b = (spread(parameter, x.shape, start, stop, x.dtype) for parameter in (scale, location))
    return a * base.function(x - b, **options)


def backward(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, float | str],
    start: int,
    stop: int,
) -> Gradients:
    """Return the gradients of :func:`forward`: equations (10) to (14) and (18) to (22) for any base function.

    With z = x - b and g the gradient of the output: g a f'(z) for x, the sum of g f(z) for a,
    and the sum of -g a f'(z) for b.

    Args:
        gradient: The gradient of the output.
        x: As for :func:`forward`, and so on.
        scale: a.
        location: b.
        base: f.
        options: All options of f.
        start: The first axis of the parameters.
        stop: The axis behind their last one.

    Returns:
        The gradient of ``x``, of its shape, and those of a and b, of shape (size,).

    Example:
        >>> from agileact.bases import get
        >>> x, a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]), torch.tensor([0.0])
        >>> backward(torch.ones(2, 1), x, a, b, get("relu"), {}, 1, 2)
        Gradients(x=tensor([[2.],
                [2.]]), scale=tensor([4.]), location=tensor([-4.]))
    """
    a, b = (spread(parameter, x.shape, start, stop, x.dtype) for parameter in (scale, location))
    z = x - b
    to_x = gradient * a * base.derivative(z, **options)
    to_scale = collect(gradient * base.function(z, **options), start, stop, scale.dtype)
    to_location = -collect(to_x, start, stop, location.dtype)
    return Gradients(to_x, to_scale, to_location)


def backward_of_backward(
    cotangents: Gradients,
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, float | str],
    start: int,
    stop: int,
) -> tuple[Tensor, Gradients]:
    """Return the gradients of :func:`backward`, from f''.

    Let u, v and w be the cotangents of the gradients of x, a and b. What is differentiated is the sum over all
    elements of g a f'(z) (u - w) + g f(z) v.

    Args:
        cotangents: u of the shape of x, v and w of the shape of the parameters.
        gradient: g, the gradient of the output.
        x: As for :func:`forward`, and so on.
        scale: a.
        location: b.
        base: f.
        options: All options of f.
        start: The first axis of the parameters.
        stop: The axis behind their last one.

    Returns:
        The gradient of ``gradient``, and those of x, a and b.

    Example:
        >>> from agileact.bases import get
        >>> x, a, b = torch.tensor([[3.0]]), torch.tensor([2.0]), torch.tensor([0.0])
        >>> u = Gradients(torch.ones(1, 1), torch.zeros(1), torch.zeros(1))
        >>> backward_of_backward(u, torch.ones(1, 1), x, a, b, get("relu"), {}, 1, 2)[0]  # of g a, by g
        tensor([[2.]])
    """
    a, b, v, w = (
        spread(parameter, x.shape, start, stop, x.dtype)
        for parameter in (scale, location, cotangents.scale, cotangents.location)
    )
    z, p = x - b, cotangents.x - w
    slope = base.derivative(z, **options)
    to_gradient = a * slope * p + base.function(z, **options) * v
    to_x = gradient * (a * base.second_derivative(z, **options) * p + slope * v)
    to_scale = collect(gradient * slope * p, start, stop, scale.dtype)
    to_location = -collect(to_x, start, stop, location.dtype)
    return to_gradient, Gradients(to_x, to_scale, to_location)


# --- Any base function, for autograd --------------------------------------------------------------------------------


def agile(
    x: Tensor, scale: Tensor, location: Tensor, base: Base, options: Mapping[str, float | str], start: int, stop: int
) -> Tensor:
    """Return a f(x - b), in the input's dtype, by operations that autograd, torch.func and torch.compile differentiate.

    The arithmetic is that of the "wide" dtype: float32 for half precision, else the input's. All arguments are
    as for :func:`forward`, but ``x`` may have half precision, and the parameters any floating dtype.

    Example:
        >>> from agileact.bases import get
        >>> x, a, b = torch.ones(1, 2, dtype=torch.bfloat16), torch.tensor([2.0, 3.0]), torch.tensor([0.0, 0.5])
        >>> agile(x, a, b, get("relu"), {}, 1, 2)
        tensor([[2.0000, 1.5000]], dtype=torch.bfloat16)
    """
    wide = WIDE[x.dtype]
    return _term(x, x.to(wide), scale, location, base, options, start, stop).to(x.dtype)


def combined_agile(
    x: Tensor, scale: Tensor, location: Tensor, base: Base, options: Mapping[str, float | str], start: int, stop: int
) -> Tensor:
    """Return the sum over j of a_j f(x - b_j), rounded to the input's dtype once; see :func:`agile`.

    ``scale`` and ``location`` have the shape (terms, size). The terms are added in their order.

    Example:
        >>> from agileact.bases import get
        >>> scale, location = torch.tensor([[2.0], [10.0]]), torch.tensor([[0.0], [0.5]])
        >>> combined_agile(torch.tensor([[1.0]]), scale, location, get("relu"), {}, 1, 2)
        tensor([[7.]])
    """
    x_wide = x.to(WIDE[x.dtype])
    total = _term(x, x_wide, scale[0], location[0], base, options, start, stop)
    for term in range(1, scale.shape[0]):
        total = total + _term(x, x_wide, scale[term], location[term], base, options, start, stop)
    return total.to(x.dtype)


def _term(
    x: Tensor,
    x_wide: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, float | str],
    start: int,
    stop: int,
) -> Tensor:
    wide = x_wide.dtype
    # x + (-b) has the bits of x - b, and its gradient for b needs no pass over the whole tensor to change the sign.
    z = x_wide + spread(-location, x.shape, start, stop, wide)
    f = base.function(z.to(x.dtype) if base.rounds_inside else z, **options).to(wide)
    return spread(scale, x.shape, start, stop, wide) * f
