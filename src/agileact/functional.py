"""Agile activations as functions: arguments are checked here, and axes found; the rest is :mod:`agileact.reference`."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Size, Tensor

from agileact import bases, ops
from agileact._common import checks
from agileact._common.broadcasting import WIDE, spread
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.bases import Base, Value

Granularity = Literal["channel", "layer", "element"]
GRANULARITIES: tuple[Granularity, ...] = ("channel", "layer", "element")


def agile(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: str = "relu",
    dim: int = 1,
    granularity: Granularity = "channel",
    *,
    inplace: bool = False,
    gain: Tensor | None = None,
    **options: float | str,
) -> Tensor:
    r"""Apply the agile activation :math:`a f(x - b)`, with the size a and the position b learned by gradient descent.

    Equations (7), (8) and (9) of "Performance Improvement Method of Convolutional Neural Network Using Agile
    Activation Function" (doi 10.3745/KTSDE.2020.9.7.213), and the same for any other f; that a scales the output of the
    sigmoid is a (reading). With scale 1 and location 0 the result is f(x) bit for bit.

    Args:
        x: The input: float64, float32, bfloat16 or float16, of any shape and layout.
        scale: a. Its shape depends on the granularity; a tensor without axes fits each of them.
        location: b, of the same shape.
        base: The name of f, one of ``agileact.bases.names()``.
        dim: The channel axis, for granularity "channel". It is never guessed. If ``x`` has one axis, it is
            one unbatched sample: ``dim=1``, the default, then means that axis.
        granularity: "channel": one pair (a, b) per channel, that is per filter or per node, of shape
            ``(x.shape[dim],)``. "layer": one pair for all, of shape ``()`` or ``(1,)``. "element": one pair for each
            element of a sample, of shape ``x.shape[1:]`` or flat with as many elements (if ``x`` has one axis, of
            its own shape).
        inplace: Whether to write the result over ``x``, with autograd as for PyTorch's own in-place activations: an
            ``x`` that requires a gradient must not be a leaf, nor be needed by what made it. ReLU, LeakyReLU, ELU,
            sigmoid, tanh, Softplus and identity then keep one tensor where they would keep two; the other functions,
            and a scale that is zero, tiny or huge, need the input for their gradients, and keep a copy of it.
        gain: g, of the shape of ``location``, for :math:`a f(g (x - b))`. In float32 and bfloat16 the compiled kernels
            compute it in float32; elsewhere the product g x is rounded to the dtype of ``x``.
        **options: The options of f, such as ``negative_slope=0.1``.

    Returns:
        A tensor of the shape, dtype and layout of ``x``. Half precision is computed in float32 and rounded once,
        except for functions whose own kernel in PyTorch rounds in between: these are evaluated in the input's dtype.
        The parameters may have another floating dtype than ``x`` and get their gradients in it, summed in float32
        or wider and in a fixed order: the same bits on every run and for every number of threads.

    Raises:
        ArgumentError: If a shape, an axis, a name or the value of an option does not fit.
        ArgumentTypeError: If an argument has the wrong type, such as an integer tensor.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.tensor([[-1.0, 0.5, 2.0], [3.0, 0.0, 1.0]])
        >>> scale, location = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, -1.0, 1.0])
        >>> ag.functional.agile(x, scale, location)
        tensor([[0., 3., 3.],
                [3., 2., 0.]])
        >>> ag.functional.agile(x, scale[:2], location[:2], dim=0)
        tensor([[0.0000, 0.5000, 2.0000],
                [8.0000, 2.0000, 4.0000]])
    """
    found = bases.get(base)
    return evaluate(x, scale, location, found, found.resolve(options), dim, granularity, inplace, gain)


def combined_agile(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: str = "relu",
    dim: int = 1,
    granularity: Granularity = "channel",
    **options: float | str,
) -> Tensor:
    r"""Apply a sum of agile activations, :math:`\sum_j a_j f(x - b_j)`.

    The "combined parametric activation function" of the same group (2022, doi 10.3745/KTSDE.2022.11.1.1). The
    arguments are those of :func:`agile`, but ``scale`` and ``location`` have the terms along a leading axis:
    ``(terms, C)`` for granularity "channel", ``(terms,)`` or ``(terms, 1)`` for "layer", ``(terms, *x.shape[1:])`` or
    ``(terms, elements)`` for "element".

    Returns:
        As for :func:`agile`; the terms are added in their order before the one rounding to the input's dtype.

    Raises:
        ArgumentError: As for :func:`agile`, and if there is no axis of terms, or no term.
        ArgumentTypeError: As for :func:`agile`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.tensor([[-1.0, 0.5], [3.0, 2.0]])
        >>> scale, location = torch.tensor([[1.0, 1.0], [-1.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> ag.functional.combined_agile(x, scale, location)
        tensor([[0.0000, 0.5000],
                [1.0000, 4.0000]])
    """
    found = bases.get(base)
    return evaluate_combined(x, scale, location, found, found.resolve(options), dim, granularity)


def agile_max_pool2d(
    x: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    base: str = "relu",
    **options: float | str,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Apply the agile activation and max pooling in one pass, without ever writing the unpooled activation.

    Exact for every scale and every f: what is compared is :math:`a f(x - b)` itself, so that a negative scale, which
    turns maxima into minima, and a function that is not monotone are pooled as two separate steps would.

    Args:
        x: Of shape (N, C, H, W) or (C, H, W), contiguous or channels last.
        scale: a, one for each channel or one for all; None for 1.
        location: b, in the same form; None for 0.
        kernel_size: As for :func:`torch.nn.functional.max_pool2d`, as all arguments up to ``return_indices``.
        stride: None for the kernel's size.
        padding: Zero to half the kernel's size.
        dilation: Steps between the elements of a window.
        ceil_mode: Whether the last window may reach beyond the edge.
        return_indices: Whether to return, with the result, where in its plane each was found.
        base: The name of f.
        **options: The options of f.

    Returns:
        The pooled activation, and its indices if they are wanted: of equals the first, as in PyTorch.

    Raises:
        ArgumentError: If a shape or a size does not fit.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.tensor([[[[1.0, 4.0], [-2.0, 3.0]]]])
        >>> ag.functional.agile_max_pool2d(x, torch.tensor([2.0]), torch.tensor([1.0]), 2)
        tensor([[[[6.]]]])
        >>> ag.functional.agile_max_pool2d(x, torch.tensor([-2.0]), torch.tensor([1.0]), 2, base="identity")
        tensor([[[[6.]]]])
    """
    found = bases.get(base)
    resolved = found.resolve(options)
    check_input(x)
    if x.ndim not in (3, 4):
        raise ArgumentError(f"x must have shape (N, C, H, W) or (C, H, W), not {tuple(x.shape)}")
    kernel, padded, steps = pair("kernel_size", kernel_size), pair("padding", padding, 0), pair("dilation", dilation)
    strides = kernel if stride is None else pair("stride", stride)
    check_padding(padded, kernel)
    channels = x.shape[-3]
    for name, parameter in (("scale", scale), ("location", location)):
        if parameter is None:
            continue
        _check_parameters(x, {name: parameter})
        if parameter.numel() not in (1, channels):
            raise ArgumentError(
                f"{name} must have {channels} elements, one for each channel, or one; "
                f"its shape is {tuple(parameter.shape)}"
            )
    batch = x if x.ndim == 4 else x.unsqueeze(0)
    window = kernel, strides, padded, steps
    size = ops.pooled_size(batch.shape[2:], *window, ceil_mode)
    if min(size) < 1:
        raise ArgumentError(f"kernel_size {kernel} is too large for planes of {tuple(x.shape[-2:])}; nothing is left")
    for axis, n in enumerate(x.shape[-2:]):
        if not windows_have_elements(n, size[axis], kernel[axis], strides[axis], padded[axis], steps[axis]):
            raise ArgumentError(
                f"with dilation {steps} and padding {padded}, some windows lie outside planes of {tuple(x.shape[-2:])}"
            )
    value, indices = ops.agile_max_pool2d(batch, scale, location, found, resolved, window, ceil_mode, return_indices)
    if x.ndim == 3:
        value, indices = value.squeeze(0), None if indices is None else indices.squeeze(0)
    return value if indices is None else (value, indices)


def check_padding(padding: tuple[int, int], kernel: tuple[int, int]) -> None:
    """Raise if a window could be in the padding alone."""
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ArgumentError(f"padding must be at most half of kernel_size, {kernel}; it is {padding}")


def windows_have_elements(n: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Return whether every window along an axis of ``n`` elements has one of them."""
    # Without dilation at least half of a window is inside, as the padding is at most half.
    if dilation == 1 or padding == 0:
        return True
    starts = (o * stride - padding for o in range(out))
    return all(any(0 <= start + i * dilation < n for i in range(kernel)) for start in starts)


def pair(name: str, value: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """Return a size as height and width; raise if it is none."""
    both = value if isinstance(value, tuple) else (value, value)
    if len(both) != 2 or not all(map(checks.is_integer, both)):
        raise ArgumentTypeError(f"{name} must be an integer or a pair of them, not {value!r}")
    if min(both) < least:
        raise ArgumentError(f"{name} must be at least {least}, not {value!r}")
    return both[0], both[1]


def evaluate(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, Value],
    dim: int,
    granularity: str,
    inplace: bool = False,
    gain: Tensor | None = None,
) -> Tensor:
    """Do what :func:`agile` does, for a base function and options that are resolved already."""
    check_input(x)
    parameters = {"scale": scale, "location": location} | ({} if gain is None else {"gain": gain})
    _check_parameters(x, parameters)
    start, stop = find_axes(x, _common_shape(parameters), dim, granularity)
    scale, location, *gains = (_flat(parameter, x, start, stop) for parameter in parameters.values())
    if gains:
        return ops.agile_gain(x, scale, location, gains[0], base, options, start, stop, inplace)
    return ops.agile(x, scale, location, base, options, start, stop, inplace=inplace)


def evaluate_combined(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, Value],
    dim: int,
    granularity: str,
) -> Tensor:
    """Do what :func:`combined_agile` does, for a base function and options that are resolved already."""
    check_input(x)
    parameters = {"scale": scale, "location": location}
    _check_parameters(x, parameters)
    if scale.shape != location.shape:
        raise _different_shapes(parameters)
    if scale.ndim == 0 or scale.shape[0] == 0:
        raise ArgumentError(
            "scale and location must have at least one term along a leading axis, such as shape (terms, channels); "
            f"their shape is {tuple(scale.shape)}"
        )
    terms = scale.shape[0]
    start, stop = find_axes(x, tuple(scale.shape[1:]), dim, granularity)
    return ops.agile(x, scale.reshape(-1), location.reshape(-1), base, options, start, stop, terms)


def check_input(x: Any) -> None:
    """Raise unless ``x`` is a tensor of a dtype that can be activated."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"x must be a tensor, not {type(x).__name__}")
    if x.dtype not in WIDE:
        raise ArgumentTypeError(f"x must be float64, float32, bfloat16 or float16, not {_dtype(x)}; try x.float()")
    if x.layout is not torch.strided or x.is_nested:
        kind, dense = str(x.layout).removeprefix("torch."), "to_dense()"
        if x.is_nested:
            kind, dense = "nested", "to_padded_tensor(0.0)"
        raise ArgumentTypeError(f"x must be a dense tensor, not a {kind} one; try x.{dense}")


def check_granularity(granularity: Any) -> None:
    """Raise unless this is a granularity."""
    if granularity not in GRANULARITIES:
        allowed = ", ".join(repr(one) for one in GRANULARITIES)
        raise ArgumentError(f"granularity must be one of {allowed}, not {granularity!r}")


def check_placement(granularity: Any, dim: Any, dtype: Any) -> None:
    """Raise unless these are the granularity, the channel axis and the dtype of parameters."""
    check_granularity(granularity)
    checks.integer("dim", dim)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentTypeError(f"dtype must be a floating-point dtype, not {dtype!r}")


def find_axes(x: Tensor, size: tuple[int, ...], dim: int, granularity: str) -> tuple[int, int]:
    """Return the axes of ``x`` that a parameter of shape ``size`` belongs to, as first and one behind the last.

    A shape without axes always fits, and belongs to no axis.
    """
    check_granularity(granularity)
    if granularity == "channel":
        axis = channel_axis(x, dim) if size or x.ndim else 0
        if not size:
            return 0, 0
        if size != (x.shape[axis],):
            raise _wrong_channels(x, size, axis)
        return axis, axis + 1
    if granularity == "layer":
        if math.prod(size) != 1:
            raise ArgumentError(
                "with granularity 'layer', scale and location must have one element, of shape () or (1,), "
                f"not shape {size}; for one per channel use granularity 'channel'"
            )
        return 0, 0
    if not size:
        return 0, 0
    start = min(1, x.ndim - 1)
    sample = tuple(x.shape[start:]) if x.ndim else ()
    if x.ndim == 0 or (size != sample and size != (math.prod(sample),)):
        raise ArgumentError(
            f"with granularity 'element', scale and location must have the shape of one sample, {sample} or "
            f"({math.prod(sample)},), for x of shape {tuple(x.shape)}; their shape is {size}"
        )
    return start, x.ndim


def channel_axis(x: Tensor, dim: int) -> int:
    """Return ``dim`` counted from the front; the one axis of an unbatched sample is also axis 1."""
    checks.integer("dim", dim)
    if x.ndim == 1 and dim == 1:
        return 0
    if not -x.ndim <= dim < x.ndim:
        if x.ndim == 0:
            raise ArgumentError("x has no axes, so no channel axis; use granularity 'layer'")
        raise ArgumentError(f"dim must be from {-x.ndim} to {x.ndim - 1} for x of shape {tuple(x.shape)}, not {dim}")
    return dim % x.ndim


def _wrong_channels(x: Tensor, size: tuple[int, ...], axis: int) -> ArgumentError:
    message = (
        f"scale and location have shape {size}, but x of shape {tuple(x.shape)} has {x.shape[axis]} channels "
        f"along axis {axis}, which needs shape ({x.shape[axis]},)"
    )
    if len(size) == 1:
        fitting = [other for other in range(x.ndim) if x.shape[other] == size[0]]
        if fitting:
            message += f"; axis {' or '.join(map(str, fitting))} has {size[0]}: pass dim={fitting[0]} if that is meant"
        elif size == (1,):
            message += "; for one pair for all elements use granularity 'layer'"
    return ArgumentError(message)


def _check_parameters(x: Tensor, parameters: Mapping[str, Any]) -> None:
    for name, parameter in parameters.items():
        if not isinstance(parameter, Tensor):
            raise ArgumentTypeError(f"{name} must be a tensor, not {type(parameter).__name__}")
        if parameter.dtype not in WIDE:
            raise ArgumentTypeError(f"{name} must be float64, float32, bfloat16 or float16, not {_dtype(parameter)}")
        if parameter.device != x.device:
            raise ArgumentError(f"{name} must be on the device of x, {x.device}, not on {parameter.device}")


def _common_shape(parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the shape that the parameters have in common; one without axes takes that of the others."""
    shapes = [parameter.shape for parameter in parameters.values() if parameter.ndim]
    if any(shape != shapes[0] for shape in shapes):  # no set of them: while it is traced their numbers are tensors
        raise _different_shapes(parameters)
    return tuple(shapes[0]) if shapes else ()


def _different_shapes(parameters: Mapping[str, Tensor]) -> ArgumentError:
    *names, last = parameters
    shapes = " and ".join(str(tuple(parameter.shape)) for parameter in parameters.values())
    return ArgumentError(f"{', '.join(names)} and {last} must have the same shape, not {shapes}")


def _flat(parameter: Tensor, x: Tensor, start: int, stop: int) -> Tensor:
    if parameter.ndim == 0 and stop > start:
        size = Size([math.prod(x.shape[start:stop])])
        return spread(parameter.reshape(1), size, 0, 0, parameter.dtype)
    # A view would be a node of its own in backward, and cost more than a small activation does.
    return parameter if parameter.ndim == 1 else parameter.reshape(-1)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
