"""Run a model once and write down what it does.

A recorder sees what Python calls in PyTorch (:class:`torch.overrides.TorchFunctionMode`), so it needs no source that
can be traced and follows the control flow that the example takes.
"""

import copy
import functools
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, resolve_name

from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.transforms.trace.activation_tables import MODULES
from agileact.transforms.trace.operations import DROPPING, PASSING, SHAPED_BY
from agileact.transforms.trace.positions import Span, positions
from agileact.transforms.trace.recording import (
    Arguments,
    Call,
    Outcome,
    Place,
    Recording,
    Ref,
    Value,
    Visit,
    arguments,
    cloned,
    mapped,
    tensors,
    words,
)

_OWN = __file__
# Between a call and the code of the user that makes it lie only frames of these files.
_FILES = "nn/modules/module nn/functional overrides _jit_internal _tensor _ops functional utils/_contextlib"
_BETWEEN = tuple(f"/torch/{name}.py" for name in _FILES.split())
# What is asked of a tensor without reading its numbers.
_ABOUT = words(
    "size dim ndim numel nelement shape dtype device layout is_contiguous stride storage_offset element_size "
    "is_floating_point is_complex is_nested is_sparse is_cuda is_cpu is_meta is_quantized is_mkldnn requires_grad "
    "grad_fn is_leaf data_ptr get_device type ndimension len itemsize nbytes names requires_grad_ "
    "untyped_storage is_signed has_names hash repr is_inference"
)


def record(
    model: nn.Module,
    example_inputs: Arguments,
    *,
    leaf: Callable[[nn.Module], bool] = lambda module: False,
    training: bool = False,
    apart: Callable[[nn.Module], bool] = lambda module: False,
    method: str = "",
) -> Recording:
    """Run a model once, or one of its methods, without gradients, and write down what it does.

    Modules that are a ``leaf`` are taken as one call. Those that are ``apart``, which must have no state, are told
    apart by slot where they have several. Nothing of the model is changed: its mode, buffers, the states of the random
    generators and PyTorch's settings are as before. Fused fast paths are off meanwhile: nothing can be seen in them.
    """
    args, kwargs = cloned(arguments(example_inputs))
    with ExitStack() as stack:
        stack.enter_context(untouched(model, training=training))
        stack.enter_context(torch.no_grad())
        recorder = _Recorder(model, leaf, stack.enter_context(_slots_apart(model, apart)))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(recorder.entered())
        for value in tensors((args, kwargs)):
            if value.is_nested:
                raise ArgumentTypeError(
                    "example_inputs holds a nested tensor, and agile activations take dense ones; "
                    "pass x.to_padded_tensor(0.0)"
                )
            recorder.recording.inputs.append(recorder.value(value, "input"))
        with recorder:
            output = entry(model, method)(*args, **kwargs)
        for tensor in tensors(output):
            recorder.newest(tensor).returned = True
        for name, tensor in _kept(model):
            if id(tensor) in recorder.objects and recorder.newest(tensor).kind == "result":
                recorder.newest(tensor).kept = name
        recorder.recording.training = training
        recorder.recording.outcome = outcome_of(model, output)
    return recorder.recording


def entry(model: nn.Module, method: str) -> Callable[..., Any]:
    """Return what a call of an example calls: the model or one of its methods."""
    if not method:
        return model
    found: Callable[..., Any] | None = getattr(model, method, None)
    if not callable(found):
        raise ArgumentError(f"example_inputs names the method {method!r}, which {type(model).__name__} does not have")
    return found


def outcome_of(model: nn.Module, output: Any) -> Outcome:
    """Return what a run that is just over has made, as copies."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers() if not is_lazy(buffer)}
    kept = {name: tensor.detach().clone() for name, tensor in _kept(model)}
    return Outcome([tensor.detach().clone() for tensor in tensors(output)], buffers, kept)


def _kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in plain attributes of modules, but for weights that are computed and kept by the way."""
    for owner, module in model.named_modules():
        for name, value in vars(module).items():
            if value is None or isinstance(value, _PLAIN) or callable(value) or name in _STATE:
                continue
            if any(f"{name}_{kind}" in module._parameters for kind in ("orig", "g")):
                continue
            path = f"{owner}.{name}" if owner else name
            if isinstance(value, Tensor):
                yield path, value
            elif isinstance(value, (tuple, list, dict)) and len(value) <= _MANY:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{path}[{key!r}]", item) for key, item in items if isinstance(item, Tensor))
            elif hasattr(value, "__dict__"):
                yield from ((f"{path}.{key}", item) for key, item in vars(value).items() if isinstance(item, Tensor))


# What nn.Module itself keeps.
_STATE = words("_parameters _buffers _modules")
_PLAIN = (bool, int, float, str, set, frozenset)
_MANY = 1000


@contextmanager
def _slots_apart(
    model: nn.Module, apart: Callable[[nn.Module], bool]
) -> Iterator[dict[int, tuple[nn.Module, nn.Module, str]]]:
    """Let a module that has several slots be another object in each, and yield original, parent and key by ``id``."""
    slots: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for key, child in parent._modules.items():
            if child is not None and child is not model:
                slots.setdefault(id(child), []).append((parent, key))
    found = {}
    singles = []  # an id is of use only while the object lives
    try:
        for places in slots.values():
            original = places[0][0]._modules[places[0][1]]
            if len(places) > 1 and original is not None and apart(original):
                for number, (parent, key) in enumerate(places):
                    single = copy.copy(original) if number else original
                    singles.append(single)
                    parent._modules[key] = single
                    found[id(single)] = original, parent, key
        yield found
    finally:
        for original, parent, key in found.values():
            parent._modules[key] = original


_lock = threading.Lock()
_inside: list[Any] = []
"""Who is in :func:`eagerly`; the stance is one for all threads."""


@contextmanager
def eagerly() -> Iterator[None]:
    """Let what torch.compile made run as it was written: nothing can be seen in compiled code."""
    # What was never imported has compiled nothing, and takes a second to import.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _lock:
        # The first to come sets the stance and the last to go puts it back, in whichever order threads leave.
        _inside.append(_inside[0] if _inside else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            stance = _inside.pop()
            if not _inside:
                stance.__exit__(None, None, None)


@contextmanager
def untouched(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Run what is inside in one mode, as it was written, and put everything back as it was."""
    mha = torch.backends.mha.get_fastpath_enabled()
    with eagerly(), preserved(model):
        try:
            if training:
                model.train()  # which may keep parts in evaluation mode
            else:
                for module in model.modules():
                    module.training = False
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(mha)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and random states back at the end, so that what runs next draws the same numbers."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a model may draw from
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    if buffer.layout is not torch.strided or not torch.equal(buffer, before):
                        buffer.copy_(before)
                    if module._buffers[name] is not buffer and not isinstance(module, torch.jit.ScriptModule):
                        module._buffers[name] = buffer


@contextmanager
def as_before_training(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass in training mode moves on: parameters (a momentum encoder), attributes (a count)."""
    before = [(one, one.detach().clone()) for one in model.parameters() if not is_lazy(one)]
    plain = [(one, {key: value for key, value in vars(one).items() if key[0] != "_"}) for one in model.modules()]
    try:
        yield
    finally:
        for module, attributes in plain:
            for key in [key for key in vars(module) if key[0] != "_" and key not in attributes]:
                del module.__dict__[key]
            module.__dict__.update(attributes)
        with torch.no_grad():
            for parameter, value in before:
                if not parameter.is_meta and not torch.equal(parameter, value):
                    parameter.copy_(value)


class _Recorder(TorchFunctionMode):
    def __init__(
        self, model: nn.Module, leaf: Callable[[nn.Module], bool], apart: dict[int, tuple[nn.Module, nn.Module, str]]
    ) -> None:
        super().__init__()
        self.model = model
        self.leaf = leaf
        self.apart = apart
        self.recording = Recording()
        self.modules: dict[int, nn.Module] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self.recording.names.setdefault(id(module), []).append(name)
            self.modules[id(module)] = module
        self.stack: list[str] = [""]
        self.paused = 0
        # Which value a tensor object is, with the object itself: an id is of use only while the object lives.
        self.objects: dict[int, tuple[Tensor, Value]] = {}
        # When the memory of a tensor was last written to by an in-place call, and by which.
        self.written: dict[int, tuple[int, Call]] = {}
        self.born: dict[int, int] = {}
        self.frames: dict[int, tuple[FrameType, int]] = {}
        for kind, entries in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
            for name, tensor in entries:
                if not is_lazy(tensor):
                    self.value(tensor, kind, name)

    def value(self, tensor: Tensor, kind: str = "constant", name: str = "") -> Value:
        """Return the value that a tensor object is, and make one if it is new."""
        known = self.objects.get(id(tensor))
        if known is not None:
            return known[1]
        if not name and kind == "constant":
            kind, name = self._late(tensor)
        shape = torch.Size() if tensor.is_nested else tensor.shape
        value = Value(len(self.recording.values), kind, shape, tensor.dtype, name, device=tensor.device)
        value.dense = tensor.layout is torch.strided and not tensor.is_nested
        # What torch.func makes of it when it leaves, nobody calls for.
        value.tainted = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        self.recording.values.append(value)
        self.objects[id(tensor)] = (tensor, value)
        self.born[value.index] = len(self.recording.calls)
        return value

    def newest(self, tensor: Tensor) -> Value:
        """Return what a tensor object is when it is read: by its old name, what was last written into it."""
        value = self.value(tensor)
        while value.overwritten is not None and value.overwritten.outputs:
            value.overwritten.reread = True
            value = value.overwritten.outputs[0]
        return value

    def _late(self, tensor: Tensor) -> tuple[str, str]:
        # A lazy module makes its parameters only in the run.
        if isinstance(tensor, nn.Parameter):
            for name, parameter in self.model.named_parameters():
                if parameter is tensor:
                    return "parameter", name
        return "constant", ""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let every module of the model tell when it is entered and left, and every other one that it runs."""
        wrapped: list[tuple[nn.Module, Any]] = []
        handle = nn.modules.module.register_module_forward_pre_hook(self._met)
        warnings.filterwarnings("ignore", message="Using `torch.compile")  # for the hook
        try:
            for module in self.modules.values():
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                wrapped.append((module, module.__dict__.get("forward")))
                module.__dict__["forward"] = self._wrapped(module, module.forward)
            yield
        finally:
            handle.remove()
            for module, before in wrapped:
                if before is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = before

    def _met(self, module: nn.Module, args: Any) -> None:
        if id(module) not in self.modules and not self.paused:
            self.recording.strangers[id(module)] = module

    def _wrapped(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        names = self.recording.names[id(module)]

        def entered(*args: Any, **kwargs: Any) -> Any:
            if self.paused:
                return forward(*args, **kwargs)
            name = self._slot(names)
            self.recording.runs[names[0]] = self.recording.runs.get(names[0], 0) + 1
            if self.leaf(module):
                frame = _calling_frame(sys._getframe(1))
                self.paused += 1
                try:
                    result = forward(*args, **kwargs)
                finally:
                    self.paused -= 1
                call, out = self._write("module", module, args, kwargs, result, frame)
                call.slot = name
                return out
            original, *slot = self.apart.get(id(module), (module,))
            where = self._where(_calling_frame(sys._getframe(1)))
            self.stack.append(name)
            start = len(self.recording.calls)
            try:
                result = forward(*args, **kwargs)
            finally:
                self.stack.pop()
            taken, made = ([self.value(tensor) for tensor in tensors(some)] for some in ((args, kwargs), result))
            stop = len(self.recording.calls)
            self.recording.visits.append(Visit(name, original, taken, made, start, stop, *where, tuple(slot)))
            return result

        return entered

    def _slot(self, names: list[str]) -> str:
        """Return the name under which a module was reached: that below the module that is running, if it is one."""
        if len(names) == 1:
            return names[0]
        prefix = f"{self.stack[-1]}." if self.stack[-1] else ""
        below = [name for name in names if name.startswith(prefix)]
        return below[0] if below else names[0]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.paused or not any(True for _ in tensors((args, kwargs, result))):
            return result
        name, inplace = _plain_name(func)
        if name in _ABOUT:
            return result
        _, out = self._write(name, func, args, kwargs, result, _calling_frame(sys._getframe(1)), inplace)
        return out

    def _write(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        frame: FrameType | None,
        inplace: bool = False,
    ) -> tuple[Call, Any]:
        recording = self.recording
        taken: list[Value] = []

        def taking(tensor: Tensor) -> Ref:
            value = self.newest(tensor)
            self._check_memory(tensor, value)
            taken.append(value)
            return Ref(value.index)

        plain_args, plain_kwargs = mapped(args, taking), mapped(kwargs, taking)
        call = Call(len(recording.calls), name, func, plain_args, plain_kwargs, taken, owner=self.stack[-1])
        recording.calls.append(call)
        for value in taken:
            value.users.append(call)
        call.stranger, frame = self._past_stranger(frame)
        call.caller, call.place, call.frame = self._where(frame)
        call.step_of = "" if call.caller is not None else _autograd_function(frame)
        given = {id(tensor): tensor for tensor in tensors((args, kwargs))}
        made = list(tensors(result))
        returns_it = name in _RETURNS_ITS_ARGUMENT and not getattr(func, "inplace", False)
        overwritten = [] if returns_it else [tensor for tensor in made if id(tensor) in given]
        if "out" in kwargs:
            overwritten += list(tensors(kwargs["out"]))
        if inplace or name == "setitem":
            overwritten += list(tensors(args[:1]))
        call.inplace = bool(overwritten)
        for tensor in {id(t): t for t in overwritten}.values():
            if (memory := _memory(tensor)) is not None:
                self.written[memory] = (call.index + 1, call)
        if call.inplace and isinstance(result, Tensor) and args and result is args[0]:
            taken[0].overwritten = call
        if isinstance(result, Tensor) and id(result) in given:
            # A new object for what came back tells whoever uses it from whoever still uses the old name.
            self.paused += 1
            result = result.view_as(result)
            self.paused -= 1
            made = [result]
        if not made and isinstance(result, (bool, int, float, list)):
            # Python has seen the numbers: what it did with them is not in the recording.
            for value in taken:
                value.tainted = True
        for tensor in made:
            if id(tensor) in given:
                value = self.value(tensor)
            else:
                value = self.value(tensor, "result")
                value.maker = call
            call.outputs.append(value)
        return call, result

    def _check_memory(self, tensor: Tensor, value: Value) -> None:
        """Note if the memory of a tensor was overwritten since the value was made."""
        memory = _memory(tensor)
        if memory is None or memory not in self.written:
            return
        time, writer = self.written[memory]
        if self.born[value.index] < time:
            writer.reread = True
            value.tainted = True
            for output in writer.outputs:
                output.tainted = True

    def _past_stranger(self, frame: FrameType | None) -> tuple[nn.Module | None, FrameType | None]:
        """Return the module that makes a call, if it is not in the model; and past an activation the frame before."""
        module = None if frame is None else _self_of(_method_of(frame))
        if frame is None or module is None or id(module) in self.modules:
            return None, frame
        passes = type(module) in MODULES and frame.f_code.co_name == "forward"
        return module, _calling_frame(frame.f_back) if passes else frame

    def _where(self, frame: FrameType | None) -> tuple[str | None, Place | None, int]:
        """Return the name of the module whose method makes a call, the place in it, and which run of it that is."""
        if frame is None:
            return None, None, 0
        method = _method_of(frame)
        code = method.f_code
        module, caller = _self_of(method), None
        if module is not None and id(module) in self.modules:
            names = self.recording.names[id(module)]
            caller = next((name for name in reversed(self.stack) if name in names), names[0])
        _, number = self.frames.setdefault(id(method), (method, len(self.frames) + 1))
        return caller, _place(frame, code), number


# These may give back what they got, unchanged; that is not writing to it.
_RETURNS_ITS_ARGUMENT = (PASSING | DROPPING | SHAPED_BY) - words("alias clone") | words(
    "alpha_dropout feature_alpha_dropout expand reshape flatten squeeze view broadcast_tensors atleast_1d "
    "atleast_2d atleast_3d pad resolve_conj resolve_neg module unflatten interpolate"
)


def _memory(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None


def _plain_name(func: Callable[..., Any]) -> tuple[str, bool]:
    """Return the plain name of a function of PyTorch, as "add" of ``__iadd__``, and whether it is one in place."""
    full = resolve_name(func) or getattr(func, "__name__", type(func).__name__)
    parts = full.split(".")
    if parts[-1] in ("__get__", "__set__"):
        return parts[-2], parts[-1] == "__set__"
    name = parts[-1]
    if isinstance(func, torch._ops.OpOverload):
        name = parts[-2]
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        if name in _IN_PLACE:
            return name[1:], True
        return _REFLECTED.get(name, name), False
    if name.endswith("_"):
        return name.rstrip("_"), True
    return _SYNONYMS.get(name, name), False


_IN_PLACE = words("iadd isub imul itruediv idiv ifloordiv imod ipow iand ior ixor ilshift irshift imatmul")
_REFLECTED = {"radd": "add", "rmul": "mul", "truediv": "div", "rtruediv": "rdiv"}
_SYNONYMS = {
    "multiply": "mul",
    "true_divide": "div",
    "divide": "div",
    "subtract": "sub",
    "concat": "cat",
    "concatenate": "cat",
    "swish": "silu",
}


def _calling_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and _between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _self_of(frame: FrameType) -> nn.Module | None:
    """Return the module that a method runs for."""
    module = frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
    return module if isinstance(module, nn.Module) else None


def _autograd_function(frame: FrameType | None) -> str:
    """Return the name of the autograd.Function whose ``forward`` led to a frame; empty if none did."""
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module):
            break
        if isinstance(first, torch.autograd.function.FunctionCtx):
            return type(first).__name__.removesuffix("Backward")
        frame = frame.f_back
    return ""


def calling_place(frame: FrameType | None) -> Place | None:
    """Return the place of the user's call that has led to a frame; its code is that in which the call is written."""
    frame = _calling_frame(frame)
    return None if frame is None else _place(frame, frame.f_code)


@functools.cache
def _between(filename: str) -> bool:
    return filename == _OWN or filename.replace("\\", "/").endswith(_BETWEEN)


def _method_of(frame: FrameType) -> FrameType:
    """Return the frame of the method in which a comprehension, a lambda or an inner function stands and runs."""
    while frame.f_back is not None and frame.f_code in frame.f_back.f_code.co_consts:
        frame = frame.f_back
    return frame


def _place(frame: FrameType, code: CodeType) -> Place:
    known = _positions(frame.f_code) if hasattr(frame.f_code, "co_positions") else positions(frame.f_code)
    line, end_line, column, end_column = known[frame.f_lasti // 2] if known else (None, None, None, None)
    return Place(code, frame.f_lineno if line is None else line, end_line, column, end_column)


@functools.lru_cache(maxsize=1024)
def _positions(code: Any) -> list[Span]:
    return list(code.co_positions())
