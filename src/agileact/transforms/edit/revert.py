"""Agile modules know what stood in their place; here it comes back."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact.nn import AgileModule
from agileact.nn.rows import directions, release
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.rewrite import edited_class, edits_of
from agileact.transforms.trace.recording import words
from agileact.transforms.trace.writable import computes, hooked

_ORIGIN = "_agileact_origin"
_FAST = "_agileact_fast_path"
# In a list whose modules take turns: it computes what the call computed before.
_AS_BEFORE = "_agileact_as_before"


@dataclass
class Origin:
    """What stood where an agile module is now."""

    kind: Literal["module", "attribute", "call"]
    original: Any = None  # the module, the function of an attribute, or None for a call of a function
    replaced: bool = False  # the agile module has another base function than the original


def origin_of(module: nn.Module) -> Origin | None:
    """Return what stood where an agile module is, None if it was not made by a conversion."""
    return module.__dict__.get(_ORIGIN)


def set_origin(module: AgileModule, origin: Origin) -> None:
    """Note what stood where an agile module is."""
    module.__dict__[_ORIGIN] = origin


def original_module(module: AgileModule, *, same_function: bool = True) -> nn.Module:
    """Return a plain module that can take the place of an agile module.

    With ``same_function`` it has that base function even if a conversion with ``base=`` put it there.
    """
    origin = origin_of(module)
    if origin is None or not isinstance(origin.original, nn.Module) or (origin.replaced and same_function):
        return plain_module(module)
    return _with_its_own(origin.original.train(module.training))


def slots_of(model: nn.Module, module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return all places of a module in a model: parent and key."""
    return [(parent, key) for parent in model.modules() for key, child in parent._modules.items() if child is module]


def restore_site(model: nn.Module, name: str, residual: nn.Module | None = None) -> None:
    """Put the original back where an agile module is, in all places where the model has that module.

    Where :func:`agileact.convert` put in another function by ``base=``, the plain module of that function
    takes the place, so that with scale 1 and location 0 the outputs stay. Where an agile module was written by
    hand, too.

    Args:
        model: The model; it is changed.
        name: The name of the agile module in it.
        residual: A module that takes the place instead, such as what folding cannot remove. A call that was rewritten
            to call the agile module then calls this one.

    Raises:
        ArgumentError: If there is no agile module of that name, or if it is the model itself, which cannot be
            replaced in place: :func:`original_module` gives what to use instead.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileTanh(8), torch.nn.Linear(8, 2))
        >>> restore_site(model, "1")
        >>> model[1]
        Tanh()
    """
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise ArgumentError(f"the model has no module {name!r}") from None
    if not isinstance(module, AgileModule):
        raise ArgumentError(f"{name!r} is a {type(module).__name__}, not an agile module")
    if module is model:
        raise ArgumentError("the model itself is the agile module: use original_module(model) in its place")
    restore(model, module, residual, same_function=True)
    refresh_fast_paths(model)


def restore(model: nn.Module, module: AgileModule, residual: nn.Module | None, *, same_function: bool) -> None:
    """Do what :func:`restore_site` does, for the module itself."""
    origin = origin_of(module)
    plain = residual
    if plain is None and (
        origin is None or isinstance(origin.original, nn.Module) or (origin.replaced and same_function)
    ):
        plain = original_module(module, same_function=same_function)
        if origin is None:
            plain = with_hooks_of(module, plain)
    for parent, key in slots_of(model, module):
        turns = [owner for owner in model.modules() if _takes_turns(owner, parent)]
        if turns:
            # The others of its list go on, and it with them.
            parent._modules[key] = plain if plain is not None else plain_module(module)
            if residual is None:
                parent._modules[key].__dict__[_AS_BEFORE] = True
            for owner in turns:
                _tidy(owner)
        elif plain is not None:
            parent._modules[key] = plain
        elif origin is not None and origin.kind == "attribute":
            del parent._modules[key]
            parent.__dict__[key] = origin.original
        else:
            parent._modules[key] = None
        _tidy(parent)


def _takes_turns(owner: nn.Module, turns: nn.Module) -> bool:
    return any(edit.turns and owner._modules.get(edit.child) is turns for edit in edits_of(type(owner)))


def _tidy(parent: nn.Module) -> None:
    """Drop the edits of a module's class that change nothing any more."""
    edits = edits_of(type(parent))
    done = set()
    for edit in edits:
        child = parent._modules.get(edit.child)
        as_before = edit.slot and child is parent._modules.get(edit.slot) and not isinstance(child, AgileModule)
        turned = edit.turns and child is not None and all(_AS_BEFORE in one.__dict__ for one in child.children())
        if child is None or as_before or turned:
            done.add(edit)
    for edit in done:
        parent._modules.pop(edit.child, None)
    if done:
        parent.__class__ = edited_class(type(parent), edits - done)


def revert(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Give a model back the structure it had before :func:`agileact.convert`.

    The modules, the functions in attributes and the source of methods are those from before, and so are the names in
    the state: a layer whose bias :func:`agileact.standardize` took has one of zeros. What scale and location have
    learned is gone: :func:`agileact.fold` is what keeps the outputs. An agile module that was written by hand becomes
    the plain module of its base function.

    Args:
        model: A model with agile modules anywhere inside, or an agile module.
        inplace: Whether to change ``model`` itself rather than a copy.

    Returns:
        The model without agile modules. If ``model`` is itself an agile module it is another object, even in place.

    Raises:
        ArgumentTypeError: If ``model`` is no module.
        ConversionError: If an agile module of the user's own function cannot be written as plain operations.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
        >>> agile, report = ag.convert(model, example_inputs=torch.zeros(1, 4))
        >>> agile[1], ag.revert(agile)[1]
        (AgileReLU(8, dim=-1), ReLU())
    """
    checks.model(model)
    if not inplace:
        model = copied(model)
    if isinstance(model, AgileModule):
        return original_module(model, same_function=False)
    for module in [module for module in model.modules() if isinstance(module, AgileModule)]:
        restore(model, module, None, same_function=False)
    for layer in directions(model).values():
        release(layer)
    refresh_fast_paths(model)
    return model


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model that does what the model does."""
    # Pruned modules keep their weight as a result with a history, which deepcopy refuses, as it does some sparse ones.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in (*vars(module).values(), *vars(module).get("_buffers", {}).values())
        if isinstance(value, Tensor) and (not value.is_leaf or value.layout not in (torch.strided, torch.sparse_coo))
    }
    for value in (each for module in model.modules() for each in vars(module).values()):
        if isinstance(value, torch.jit.ScriptFunction):
            memo[id(value)] = value  # which has no copy, and needs none
    result = copy.deepcopy(model, memo)
    # A copy of nn.TransformerDecoderLayer brings F.relu along, which then hides an activation that is a module.
    for old, new in zip(model.modules(), result.modules(), strict=True):
        for key, _ in new._modules.items():  # those of a scripted module are no dict
            if key in new.__dict__ and key not in old.__dict__:
                del new.__dict__[key]
        if isinstance(old, fx.GraphModule):  # whose copies are without hooks, and without what these may ask for
            new.__dict__.update({name: copy.copy(old.__dict__[name]) for name in _HOOKS if name in old.__dict__})
            for name in old.__dict__.keys() - new.__dict__.keys():
                new.__dict__[name] = copy.deepcopy(old.__dict__[name], memo)
    return result


_HOOKS = words(
    "_forward_hooks _forward_hooks_with_kwargs _forward_hooks_always_called _forward_pre_hooks "
    "_forward_pre_hooks_with_kwargs _backward_hooks _backward_pre_hooks _is_full_backward_hook"
)


def share_hooks(old: nn.Module, new: nn.Module) -> None:
    """Let a module have the very hooks of another, so that handles which the user holds keep their meaning."""
    for name in _HOOKS:
        if name in old.__dict__:
            new.__dict__[name] = old.__dict__[name]
    _with_its_own(new)


def _with_its_own(module: nn.Module) -> nn.Module:
    """Drop the hooks that compute a parameter which a module has not, such as a scale that was pruned."""
    hooks = module._forward_pre_hooks
    foreign = [
        key
        for key, hook in hooks.items()
        if (name := computes(hook)) and not (hasattr(module, f"{name}_orig") or hasattr(module, f"{name}_g"))
    ]
    if foreign:  # in a copy: the others go on sharing theirs
        module._forward_pre_hooks = OrderedDict((key, hook) for key, hook in hooks.items() if key not in foreign)
    return module


def without_hooks(module: nn.Module) -> nn.Module:
    """Return a shallow copy that has no hooks: those of the module run where an agile module around it does."""
    single = copy.copy(module)
    for name in _HOOKS:
        if isinstance(single.__dict__.get(name), dict):
            single.__dict__[name] = type(single.__dict__[name])()
    return single


def with_hooks_of(old: nn.Module, new: nn.Module) -> nn.Module:
    """Return a module with the very hooks of another: the new one, or what holds it if its copies would lose them."""
    holder = nn.Sequential(new).train(new.training) if isinstance(new, fx.GraphModule) and hooked(old) else new
    share_hooks(old, holder)
    return holder


def refresh_fast_paths(model: nn.Module) -> None:
    """Switch off the fused paths of PyTorch's transformer layers that would pass agile modules by, or on again."""
    for encoder in model.modules():
        if not isinstance(encoder, (nn.TransformerEncoderLayer, nn.TransformerEncoder)):
            continue
        name = "activation_relu_or_gelu" if isinstance(encoder, nn.TransformerEncoderLayer) else "use_nested_tensor"
        layers = [one for one in encoder.modules() if isinstance(one, nn.TransformerEncoderLayer)]
        changed = any(_changed(layer) for layer in layers)
        if changed and _FAST not in encoder.__dict__:
            encoder.__dict__[_FAST] = getattr(encoder, name, 0)
            setattr(encoder, name, 0)
        elif not changed and _FAST in encoder.__dict__:
            setattr(encoder, name, encoder.__dict__.pop(_FAST))


def _changed(layer: nn.TransformerEncoderLayer) -> bool:
    activation = layer._modules.get("activation")
    kinds = (AgileModule, fx.GraphModule, nn.Sequential)
    return bool(edits_of(type(layer))) or isinstance(activation, kinds)
