"""What all agile modules share: scale and location, where they lie, and how their number is found."""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import Parameter, UninitializedParameter, is_lazy

from agileact import bases
from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError, ConversionError
from agileact.bases import Facts, Value
from agileact.functional import Granularity, channel_axis, check_input, check_placement

Device = torch.device | str | int | None


class AgileModule(LazyModuleMixin, nn.Module):
    """Base of the modules that have a ``scale`` and a ``location``.

    If the number of parameters is left open, the module is lazy as those of ``torch.nn`` are: the parameters
    are :class:`torch.nn.UninitializedParameter` until the first forward pass or until a state is loaded.
    The class stays the same; afterwards nothing distinguishes the module from one that was never lazy.

    Attributes:
        base: The name of f.
        options: All options of f.
        granularity: What a pair of scale and location belongs to: "channel", "layer" or "element".
        dim: The channel axis.
        terms: The number of terms, 1 if the activation is no sum.
        sample_shape: The shape of one sample, if it was given for granularity "element".
        scale: a, a 1-D parameter: term after term, and within a term channel after channel (or
            element after element, in the order of the sample's axes).
        location: b, in the same form.
        start_scale: Where the scale starts, and decays to; 1 unless :func:`agileact.standardize` says otherwise.
    """

    scale: Parameter
    location: Parameter

    def __init__(
        self,
        base: str,
        num_parameters: int | tuple[int, ...] | None,
        terms: int,
        spread: float,
        granularity: Granularity,
        dim: int,
        device: Device,
        dtype: torch.dtype | None,
        options: Mapping[str, Any],
    ) -> None:
        # The mixin's own initialiser would make every module lazy.
        nn.Module.__init__(self)
        self.base = base
        self.options: dict[str, Value] = bases.get(base).resolve(options)
        check_placement(granularity, dim, dtype)
        checks.integer("terms", terms, least=1)
        if not 0 < abs(checks.number("spread", spread)) < math.inf:
            raise ArgumentError(f"spread must be a number other than 0, or the terms would stay equal, not {spread}")
        self.granularity: Granularity = granularity
        self.dim = dim
        self.terms = terms
        self.spread = float(spread)
        self.start_scale = 1.0
        self.sample_shape = num_parameters if isinstance(num_parameters, tuple) else None
        size = number_of_pairs(num_parameters, granularity)
        if size is None:
            # The stubs of torch have neither these arguments nor their base class.
            lazy: Any = UninitializedParameter
            self.scale = lazy(device=device, dtype=dtype)
            self.location = lazy(device=device, dtype=dtype)
            self._load_hook = self._register_load_state_dict_pre_hook(self._lazy_load_hook)
            self._initialize_hook = self.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)
        else:
            self.scale = Parameter(torch.empty(terms * size, device=device, dtype=dtype))
            self.location = Parameter(torch.empty(terms * size, device=device, dtype=dtype))
            self.reset_parameters()

    @property
    def num_parameters(self) -> int | None:
        """The number of pairs in each term; None while it is open."""
        return None if is_lazy(self.scale) else self.scale.numel() // self.terms

    @property
    def facts(self) -> Facts:
        """What is true of f with these options."""
        return bases.get(self.base).facts(**self.options)

    def initial_values(self) -> dict[str, Tensor]:
        """Return the values at which each parameter starts, as new tensors."""
        # The first term has scale 1 and location 0. The others add nothing yet, at locations spread, -spread, 2 spread
        # and so on: as these are distinct, so are the gradients of the scales, the sums of g f(x - b_j), and the first
        # step already tells the terms apart; their locations move from the second step on.
        later = range(1, self.terms)
        starts = {
            "scale": [self.start_scale, *(0.0 for _ in later)],
            "location": [0.0, *(self.spread * ((term + 1) // 2) * (1 if term % 2 else -1) for term in later)],
        }
        size, where, dtype = self.scale.numel() // self.terms, self.scale.device, self.scale.dtype
        whole = {name: torch.tensor(values, device=where, dtype=dtype) for name, values in starts.items()}
        return {name: values.repeat_interleave(size) for name, values in whole.items()}

    def reset_parameters(self) -> None:
        """Set all parameters to their start, at which the module computes exactly f."""
        if self.has_uninitialized_params():
            return
        with torch.no_grad():
            for name, start in self.initial_values().items():
                getattr(self, name).copy_(start)

    def initialize_parameters(self, x: Tensor) -> None:
        """Make the parameters for an input like ``x``, if their number is still open."""
        if not self.has_uninitialized_params():
            return
        check_input(x)
        if self.granularity == "channel":
            size = x.shape[channel_axis(x, self.dim)]
        else:
            size = math.prod(x.shape[min(1, x.ndim - 1) :]) if x.ndim else 1
        # A first pass in inference mode must not make parameters that can never be trained.
        with torch.inference_mode(False), torch.no_grad():
            for parameter in self.parameters(recurse=False):
                if isinstance(parameter, UninitializedParameter):
                    parameter.materialize((self.terms * size,))
            self.reset_parameters()

    def extra_repr(self) -> str:
        """Return the arguments that differ from their defaults."""
        first, own, last = self._own_arguments()
        size = [] if self.granularity == "layer" else [repr(self.sample_shape or self.num_parameters)]
        defaults = bases.get(self.base).options if self.options else {}
        options = [f"{key}={value!r}" for key, value in self.options.items() if value != defaults[key].default]
        layout = [f"granularity={self.granularity!r}"] * (self.granularity != "channel")
        layout += [f"dim={self.dim}"] * (self.granularity == "channel" and self.dim != 1)
        return ", ".join([*first, *size, *own, *options, *layout, *last])

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        """Return what ``extra_repr`` shows of a class's own arguments: before the size, behind it, and at the end."""
        own = [f"terms={self.terms}"] * (self.terms > 1) + [f"spread={self.spread}"] * (self.spread != 1.0)
        return [repr(self.base)], own, []

    def _traced(self, x: Any) -> Any:
        """Return a call of this module as a whole to a tracer of torch.fx, which gives no tensor; None for a tensor."""
        tracer = None if isinstance(x, Tensor) else getattr(x, "tracer", None)
        return None if tracer is None else tracer.create_proxy("call_module", tracer.path_of_module(self), (x,), {})

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Be called where torch.jit traces, instead of ``forward``."""
        onnx = sys.modules.get("torch.onnx")
        if onnx is not None and onnx.is_in_onnx_export():
            raise ConversionError(
                "torch.onnx.export with dynamo=False cannot write an agile activation; use dynamo=True, or export the "
                "plain model that agileact.fold returns"
            )
        return super()._slow_forward(*args, **kwargs)

    def __prepare_scriptable__(self) -> Any:
        """Tell who scripts the module what works: torch.jit.script reads source, and there is none for a kernel."""
        raise ConversionError(
            f"torch.jit.script cannot compile {type(self).__name__}; use torch.jit.trace or torch.export.export, or "
            "script the plain model that agileact.fold returns"
        )

    def _check_sample(self, x: Tensor) -> None:
        if self.sample_shape is not None:
            check_input(x)
            sample = tuple(x.shape[min(1, x.ndim - 1) :]) if x.ndim else ()
            if sample != self.sample_shape:
                raise ArgumentError(
                    f"a sample must have shape {self.sample_shape}, not {sample}, as x of shape {tuple(x.shape)} has"
                )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.has_uninitialized_params():
            super()._save_to_state_dict(destination, prefix, keep_vars)
        else:
            nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)

    def _replicate_for_data_parallel(self) -> Any:
        if self.has_uninitialized_params():
            return super()._replicate_for_data_parallel()
        return nn.Module._replicate_for_data_parallel(self)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self.has_uninitialized_params():
            # An uninitialised parameter is pickled without its dtype.
            state["_lazy_dtype"] = self.scale.dtype
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype = state.pop("_lazy_dtype", None)
        super().__setstate__(state)
        self.__dict__.setdefault("start_scale", 1.0)  # a pickle of an earlier version has none
        if dtype is not None:
            for parameter in self.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def number_of_pairs(num_parameters: int | tuple[int, ...] | None, granularity: Granularity) -> int | None:
    """Return how many pairs there are of each kind of parameter, or None if that is left open."""
    if granularity == "layer":
        if num_parameters not in (None, 1):
            raise ArgumentError(f"num_parameters must be 1 or None with granularity 'layer', not {num_parameters!r}")
        return 1
    if num_parameters is None:
        return None
    sizes = num_parameters if isinstance(num_parameters, tuple) else (num_parameters,)
    if isinstance(num_parameters, tuple) and granularity != "element":
        raise ArgumentTypeError(
            f"num_parameters must be the number of channels, not the shape {num_parameters}; "
            "a shape is for granularity 'element'"
        )
    return math.prod(checks.integer("num_parameters", size, least=1) for size in sizes)
