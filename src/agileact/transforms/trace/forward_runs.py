"""Run a model before and after, and compare to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact.transforms.trace.recorder import outcome_of, untouched
from agileact.transforms.trace.recording import Arguments, Outcome, arguments, cloned, tensors


def outcome(model: nn.Module, example_inputs: Arguments, *, training: bool = False) -> Outcome:
    """Run a model, with the same random numbers each time and without fused fast paths; it stays as it was."""
    args, kwargs = cloned(arguments(example_inputs))
    with untouched(model, training=training), torch.no_grad():
        return outcome_of(model, model(*args, **kwargs))


def outputs(model: nn.Module, example_inputs: Arguments) -> list[Tensor]:
    """Return copies of all tensors that a model returns, in evaluation mode."""
    return outcome(model, example_inputs).outputs


def same(one: Tensor, other: Tensor, *, signs: bool = True) -> bool:
    """Return whether two tensors are equal to the bit; any two NaN are equal.

    Args:
        one: A tensor.
        other: Another.
        signs: Whether 0 and -0 are different.

    Example:
        >>> same(torch.tensor([0.0, float("nan")]), torch.tensor([0.0, float("nan")]))
        True
        >>> zeros = torch.tensor([0.0]), torch.tensor([-0.0])
        >>> same(*zeros), same(*zeros, signs=False)
        (False, True)
    """
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if one.is_meta:
        return True  # there are no values
    if not one.dtype.is_floating_point:
        return torch.equal(one, other)
    if not bool(((one == other) | (one.isnan() & other.isnan())).all()):
        return False
    return not signs or bool((torch.signbit(one) == torch.signbit(other)).logical_or(one.isnan()).all())


def _twin(x: Tensor) -> Tensor:
    """Return a copy with the same strides: PyTorch may have other bits for others, as for a part of a chunk."""
    if x.layout is torch.strided and not x.is_contiguous():
        try:
            return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=x.device).copy_(x)
        except RuntimeError:
            pass  # elements that share their place, as those of expand
    return x.clone(memory_format=torch.preserve_format)


def needs_values(model: nn.Module, what: str) -> None:
    """Raise an ArgumentError if a parameter or a buffer of a model is on the meta device, and so has no values."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            raise ArgumentError(
                f"{what} needs values, but {name} is on the meta device: load the weights first, such as by "
                "model.to_empty(device='cpu') and model.load_state_dict(...)"
            )


def watched(
    model: nn.Module, example_inputs: Arguments, functions: Mapping[nn.Module, Callable[[Tensor], Tensor]], signs: bool
) -> tuple[list[Tensor], list[nn.Module], list[nn.Module]]:
    """Run a model and compare what some of its modules make with what they should.

    Args:
        model: The model.
        example_inputs: The example.
        functions: For each module what it should compute.
        signs: As for :func:`same`.

    Returns:
        The model's outputs; the modules that made something else, in order; and those that never ran.
    """
    wrong: dict[int, nn.Module] = {}
    ran: set[int] = set()

    def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if module not in functions:  # a module that shares its hooks with one of them
            return
        ran.add(id(module))
        x = next(tensors((args, kwargs)))
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return  # inside torch.func nothing can be looked at: what the model returns is compared, and that is all
        if not same(functions[module](_twin(x)), output, signs=signs):
            wrong.setdefault(id(module), module)

    # Before the hooks of the user, which may change the output.
    handles = [module.register_forward_hook(compare, prepend=True, with_kwargs=True) for module in functions]
    try:
        result = outputs(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return result, list(wrong.values()), [module for module in functions if id(module) not in ran]
