"""Run a model before and after, and compare to the last bit."""

from itertools import chain

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError, ConversionError
from agileact.transforms.trace.recorder import entry, outcome_of, untouched
from agileact.transforms.trace.recording import Arguments, Outcome, Recording, arguments, cloned


def outcome(model: nn.Module, example_inputs: Arguments, *, training: bool = False, method: str = "") -> Outcome:
    """Run a model, with the same random numbers each time and without fused fast paths; it stays as it was."""
    args, kwargs = cloned(arguments(example_inputs))
    with untouched(model, training=training), torch.no_grad():
        return outcome_of(model, entry(model, method)(*args, **kwargs))


def outputs(model: nn.Module, example_inputs: Arguments) -> list[Tensor]:
    """Return copies of all tensors that a model returns, in evaluation mode."""
    return outcome(model, example_inputs).outputs


def same(one: Tensor, other: Tensor, *, signs: bool = True) -> bool:
    """Return whether two tensors are equal to the bit, where any two NaN are; without ``signs`` 0 equals -0."""
    if one.is_nested or other.is_nested:
        return one.is_nested and other.is_nested and all(map(same, one.unbind(), other.unbind()))
    if one.layout is not torch.strided and one.layout is other.layout:
        one, other = one.to_dense(), other.to_dense()
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if one.is_meta:
        return True  # there are no values
    if not one.dtype.is_floating_point:
        return torch.equal(one, other)
    if not bool(((one == other) | (one.isnan() & other.isnan())).all()):
        return False
    return not signs or bool((torch.signbit(one) == torch.signbit(other)).logical_or(one.isnan()).all())


def refuse_closures(recording: Recording, original: nn.Module, what: str) -> None:
    """Raise a ConversionError if the recorded copy of a model ran modules of the model that it is a copy of."""
    for name, module in original.named_modules():
        if id(module) in recording.strangers:
            raise ConversionError(
                f"{what} works on a copy, and the copy runs {name or 'the model'} of the model itself: something not "
                "copied holds on to it, such as a lambda in an attribute; make it a method"
            )


def needs_values(model: nn.Module, what: str) -> None:
    """Raise an ArgumentError if a parameter or a buffer of a model is on the meta device, and so has no values."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            raise ArgumentError(
                f"{what} needs values, but {name} is on the meta device: load the weights first, such as by "
                "model.to_empty(device='cpu') and model.load_state_dict(...)"
            )
