"""The learned activations of a network: from a checkpoint, or from a store of trials."""

from __future__ import annotations

import contextlib
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agileact import bases
from agileact._common.errors import ArgumentError, DataError
from agileact._common.optional import require
from agileact.lab.content.curves import agile_curves

_POINTS = 121
_LEAST_REACH, _MOST_REACH = 3.0, 20.0
MOST_CURVES = 32
"""How many curves of a layer are drawn; more are thinned out evenly, and the page says so."""
_MOST_BYTES = 512 * 2**20
"""The largest file that is read into memory; others are mapped."""
_DEPTH = 4
"""How deep in a checkpoint's dicts a state is looked for."""


@dataclass(frozen=True)
class Layer:
    """What one activation has learned: all a and all b, term after term."""

    name: str
    scale: tuple[float, ...]
    location: tuple[float, ...]
    terms: int = 1

    @property
    def units(self) -> int:
        """The number of units: filters or nodes."""
        return len(self.scale) // self.terms

    @property
    def flipped(self) -> tuple[int, ...]:
        """The units whose scale is negative (of several terms, each), by number."""
        return tuple(unit for unit in range(self.units) if all(value < 0 for value in self.scale[unit :: self.units]))


@dataclass(frozen=True)
class Drawn:
    """The curves of one layer: those at the start, one if all units are alike, and the learned ones of ``units``."""

    layer: Layer
    x: list[float]
    before: list[list[float]]
    after: list[list[float]]
    units: tuple[int, ...]


def read_checkpoint(path: Path, name: str) -> list[Layer]:
    """Return the agile activations of a ``state_dict`` that ``torch.save`` wrote, or of a safetensors file.

    Only tensors and plain containers are read (``weights_only=True``): nothing in the file can run. No more than the
    numbers of the activations comes into memory, however large the file is.
    """
    return layers_of(read_state(path, name), name)


def read_state(path: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; of a safetensors file, only scales and locations have values."""
    if not path.is_file():
        raise DataError(f"there is no file {name}")
    safetensors = require("safetensors", "lab")
    with contextlib.suppress(safetensors.SafetensorError), safetensors.safe_open(path, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        wanted = {key for key, shape in shapes.items() if len(shape) == 1 and key.endswith(("scale", "location"))}
        return {
            key: file.get_tensor(key) if key in wanted else torch.empty(shape, device="meta")
            for key, shape in shapes.items()
        }
    try:
        state = _state(_load(path, name))
    except pickle.UnpicklingError as error:
        # What the reader for tensors met and refused has a name; what is no pickle at all has none.
        if any(words in str(error).lower() for words in ("unsupported global", "unsupported class")):
            raise DataError(
                f"{name} holds more than tensors, such as a whole pickled module. Loading that would run code from "
                "the file, so it is refused; save the weights alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise _no_checkpoint(name) from None
    except DataError:
        raise
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise _no_checkpoint(name) from None
    if not state:
        raise DataError(f"{name} holds no state_dict: no tensors by name were found in it")
    return state


def _load(path: Path, name: str) -> Any:
    # torch.load takes a name that ends in .safetensors for what it is not.
    if zipfile.is_zipfile(path) and path.suffix != ".safetensors":
        return torch.load(path, "cpu", weights_only=True, mmap=True)
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{name} has {path.stat().st_size / 2**20:,.0f} MiB in the old format of torch.save, of which the lab "
            f"reads up to {_MOST_BYTES // 2**20} MiB; save it again with a newer PyTorch"
        )
    with path.open("rb") as stream:
        return torch.load(stream, "cpu", weights_only=True)


def layers_of(state: Mapping[str, Tensor], name: str) -> list[Layer]:
    """Return the agile activations of a ``state_dict``, in its order."""
    layers: list[Layer] = []
    for key, scale in state.items():
        prefix, dot, last = key.rpartition(".")
        location = state.get(f"{prefix}{dot}location")
        if last != "scale" or location is None or scale.dim() != 1 or scale.shape != location.shape:
            continue
        if not scale.is_floating_point() or not location.is_floating_point() or not scale.numel():
            continue
        a, b = (tuple(value.detach().to("cpu", torch.float64).tolist()) for value in (scale, location))
        if not all(map(math.isfinite, a + b)):
            raise DataError(f"{prefix or 'the activation'} has a scale or location that is not finite: it diverged")
        layers.append(Layer(prefix or "(the model itself)", a, b))
    if not layers:
        raise DataError(
            f"{name} holds {len(state):,} tensors, but no agile activation: none is called NAME.scale beside a "
            "NAME.location of the same size. agileact.convert makes a model's activations agile"
        )
    return layers


def _no_checkpoint(name: str) -> DataError:
    return DataError(f"{name} is not a file that torch.save wrote, nor a safetensors file, or it is damaged")


def _state(loaded: Any, depth: int = _DEPTH) -> dict[str, Tensor]:
    """Return the largest dict of tensors by name, wherever a checkpoint keeps it."""
    if not isinstance(loaded, Mapping) or depth == 0:
        return {}
    own = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    inner = [_state(value, depth - 1) for value in loaded.values()]
    return max([own, *inner], key=len)


def draw(layer: Layer, base: str, options: Mapping[str, Any]) -> Drawn:
    """Return the curves a f(x - b) of a layer's units."""
    terms = layer.terms
    if len(layer.scale) % terms:
        raise ArgumentError(
            f"{layer.name} has {len(layer.scale)} pairs, which {terms} terms cannot share evenly; show layers of "
            "another K apart, by their names"
        )
    a, b = (torch.tensor(v, dtype=torch.float64).view(terms, -1) for v in (layer.scale, layer.location))
    count = a.shape[1]
    shown = min(count, MOST_CURVES)
    units = tuple(index * count // shown for index in range(shown))
    reach = min(max(_LEAST_REACH, float(b.abs().max()) + _LEAST_REACH), _MOST_REACH)
    x = torch.linspace(-reach, reach, _POINTS, dtype=torch.float64)
    y = agile_curves(x, a[:, list(units)], b[:, list(units)], base, options)
    return Drawn(layer, x.tolist(), [bases.get(base).function(x, **options).tolist()], y.T.tolist(), units)


def summary(layers: Sequence[Layer]) -> str:
    """Say how many activations, units and flipped units there are."""
    a = [value for layer in layers for value in layer.scale]
    b = [value for layer in layers for value in layer.location]
    flipped = sum(len(layer.flipped) for layer in layers)
    count = f"{len(layers)} layer{'s' * (len(layers) != 1)}"
    if not a:
        return f"{count} with learned activations that have no a and b."
    said = (
        f"{count}, {len(a):,} pairs of a and b; a from {min(a):.3g} to "
        f"{max(a):.3g}, b from {min(b):.3g} to {max(b):.3g}; {flipped or 'no'} unit{'s' * (flipped != 1)} "
        "flipped (a < 0)."
    )
    return said.replace("-", "−")
