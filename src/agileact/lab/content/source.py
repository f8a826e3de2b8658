"""The learned activations of a network: opened from a checkpoint or the store of a study, and their curves."""

import base64
import binascii
import contextlib
import json
import math
import pickle
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from agileact import bases
from agileact._common.errors import AgileactError, ArgumentError, DataError, StoreError
from agileact._common.optional import require
from agileact.lab.content.curves import agile_curves
from agileact.study.running.naming import trial_names
from agileact.study.running.store import Store
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.record import read_record
from agileact.study.spec.result import Shape
from agileact.study.spec.trial import ArmSpec, TrialSpec

KEPT_CHANNELS = 32
"""A trial keeps the curves of so many channels of a layer; see :mod:`agileact.study.training.shapes`."""

UPLOAD_BYTES = 64 * 2**20
"""The largest file that the page sends; one that is opened by its path may have any size."""

_SQLITE = b"SQLite format 3\x00"
_INDEX = ".index.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_FILES = ("store.sqlite", *(name + end for name in _WEIGHTS for end in ("", _INDEX)))
"""What is looked for in a folder, in this order."""
_ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".sqlite")
_NAMED = 3
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
            f"{layer.name} has {len(layer.scale)} pairs, which {terms} terms cannot share evenly; show layers with "
            "another K separately, by their names"
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


@dataclass(frozen=True)
class Checkpoint:
    """The agile activations of a ``state_dict``; which f they are of, it does not say."""

    name: str
    layers: tuple[Layer, ...]

    def drawn(self, base: str, options: Mapping[str, Any], terms: int, part: str = "") -> list[Drawn]:
        """Return the curves of every layer whose name contains ``part``."""
        names = _containing(part, [layer.name for layer in self.layers])
        return [draw(replace(layer, terms=terms), base, options) for layer in self.layers if layer.name in names]


@dataclass(frozen=True)
class Trials:
    """The trials of a store that can have learned shapes."""

    name: str
    path: Path
    specs: tuple[TrialSpec, ...]

    def labels(self) -> dict[str, str]:
        """Return what to call each trial, by its key."""
        study = None
        # The record only gives names; the trials can be shown without it.
        with contextlib.suppress(StoreError, OSError):
            study = read_record(self.path.parent)[0]
        return trial_names(self.specs, study)

    def drawn(self, key: str, part: str = "") -> list[Drawn]:
        """Return the curves of every learned activation of one trial whose name contains ``part``."""
        spec = next((spec for spec in self.specs if spec.key == key), None)
        if spec is None:
            raise ArgumentError("choose one of the trials in the list")
        with Store(self.path, read_only=True) as store:
            result = store.get(spec)
        if result is None or not result.shapes:
            raise DataError(
                f"{self.labels()[key]} has no learned shapes: only final trials of newer stores have them. "
                "Choose another trial, or run this one again into a new store"
            )
        found = []
        for name in _containing(part, list(result.shapes)):
            shape = result.shapes[name]
            layer = Layer(name, tuple(shape.scale), tuple(shape.location), _terms(spec.arm, shape))
            found.append(Drawn(layer, list(shape.x), shape.before, shape.after, _units(layer, len(shape.after))))
        return found


Source = Checkpoint | Trials


def _containing(part: str, names: list[str]) -> list[str]:
    found = [name for name in names if part in name]
    if not found:
        raise ArgumentError(f"no layer has {part!r} in its name; the first is {names[0]}, the last {names[-1]}")
    return found


def open_source(path: Path) -> Source:
    """Return what a path leads to: a checkpoint, a store of trials, or a folder with either."""
    try:
        found = _in_folder(path) if path.is_dir() else path
        if not found.is_file():
            raise DataError(f"there is no file {path}")
        with found.open("rb") as stream:
            start = stream.read(len(_SQLITE))
        if start == _SQLITE:
            return _open_store(found)
        if found.name.endswith(_INDEX):
            state: dict[str, Tensor] = {}
            for part in _parts(found):
                state |= read_state(found.with_name(part), str(found.with_name(part)))
            return Checkpoint(str(path), tuple(layers_of(state, str(path))))
        return Checkpoint(str(path), tuple(read_checkpoint(found, str(path))))
    except AgileactError:
        raise
    except (OSError, ValueError) as error:
        # A path with a NUL, one that is too long, a folder without permission.
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _in_folder(folder: Path) -> Path:
    """Return what there is to open in a folder: of a study, or one that the transformers Trainer saved."""
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    inside = [
        one.name
        for one in sorted(folder.iterdir())
        if one.suffix in _ENDINGS or any((one / name).is_file() for name in _FILES)
    ]
    hint = f"; open one of those in it: {', '.join(inside[:_NAMED])}" if inside else ""
    raise DataError(f"there is no store.sqlite, model.safetensors or pytorch_model.bin in {folder}{hint}")


def _parts(index: Path) -> list[str]:
    """Return the names of the files, beside it, over which an index says that a state is spread."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{index} does not say where the tensors are; it is damaged") from None
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{index} names files that are not beside it")
    return names


def open_upload(contents: Any, name: Any) -> Checkpoint:
    """Return the checkpoint that the page sent, as a data URL."""
    called = _called(name)
    if not isinstance(contents, str) or ";base64," not in contents:
        raise DataError(f"{called} did not arrive whole; try again, or give its path")
    try:
        data = base64.b64decode(contents.partition(";base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{called} did not arrive whole; try again, or give its path") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "upload")
        path.write_bytes(data)
        return Checkpoint(called, tuple(read_checkpoint(path, called)))


def refuse_upload(told: Any) -> NoReturn:
    """Say that a file was too large to be sent; ``told`` is its name and size, but the page may say anything."""
    given = told if isinstance(told, dict) else {}
    size = given.get("size")
    has = "is too large:"
    if isinstance(size, (int, float)) and UPLOAD_BYTES < size < math.inf:
        has = f"has {mib(size)}, and"
    raise DataError(
        f"{_called(given.get('name'))} {has} the page sends up to {mib(UPLOAD_BYTES)}; open it by its path instead"
    )


def _called(name: Any) -> str:
    return name if isinstance(name, str) and name else "the file"


def mib(size: float) -> str:
    """Return a number of bytes in MiB, rounded up: a file too large by one byte must not read as one that fits."""
    return f"{math.ceil(size / 2**20 * 10) / 10:,.10g} MiB"


def _open_store(path: Path) -> Trials:
    with Store(path, read_only=True) as store:
        final = [spec for spec in store.specs() if spec.task.budget.use_test]
    specs = [spec for spec in final if any(parse_activation(str(name)).trainable for _, name in spec.arm.activations)]
    if not specs:
        raise DataError(
            f"{path} holds no final trial with a learned activation (agile, combined or a baseline such as prelu)"
        )
    return Trials(str(path), path, tuple(specs))


def _terms(arm: ArmSpec, shape: Shape) -> int:
    """Return the number of terms of a layer's activation, which is one of those of the arm."""
    parsed = [parse_activation(str(name)) for _, name in arm.activations]
    counts = sorted({int(one.options.get("terms", 2)) if one.kind == "combined" else 1 for one in parsed})
    rows, numbers = len(shape.after), len(shape.scale)
    fitting = [terms for terms in counts if numbers % terms == 0 and rows in (1, numbers // terms, KEPT_CHANNELS)]
    return fitting[0] if fitting else 1


def _units(layer: Layer, rows: int) -> tuple[int, ...]:
    """Return the number of each row's unit: rows are evenly spread over a layer that has more units."""
    if layer.units <= rows:
        return tuple(range(rows))
    return tuple(torch.linspace(0, layer.units - 1, rows).round().long().tolist())
