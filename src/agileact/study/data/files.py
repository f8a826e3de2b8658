"""Data from files of the user's: images in an IDX folder, an .npz archive or CIFAR's format, and a text."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from agileact._common.errors import ArgumentError, DataError
from agileact.study.data.dataset import DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.idx import open_regular, read_idx
from agileact.study.data.preparation import Array, assembled, image_data, locate, mixed_order, options, place_in_class
from agileact.study.spec.trial import DataSpec

_CIFAR_SIDE = 32
_CIFAR_PIXELS = 3 * _CIFAR_SIDE * _CIFAR_SIDE


def build_idx(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``idx``: the four files of MNIST, Fashion-MNIST, KMNIST or EMNIST from a folder.

    The option ``folder`` names it (below the data folder). Its files end in ``train-images-idx3-ubyte``,
    ``train-labels-idx1-ubyte``, and the same for ``t10k`` or ``test``, with or without ``.gz``; what stands before, as
    in EMNIST's ``emnist-letters-``, is told by the option ``prefix``. Labels that do not start at 0 are shifted down.
    """
    given = options(spec, {"folder": None, "prefix": "", "train": 0, "test": 0})
    folder = locate(spec, given["folder"], data_dir)
    parts = []
    for names in (("train",), ("t10k", "test")):
        images, labels = (
            _idx_file(spec, folder, [f"{given['prefix']}{name}-{what}" for name in names])
            for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        x, y = read_idx(images, dimensions=3), read_idx(labels, dimensions=1)
        if x.dtype != np.uint8 or y.dtype != np.uint8:
            raise DataError(f"{folder}: {images.name} and {labels.name} must hold bytes, not {x.dtype} and {y.dtype}")
        if len(x) != len(y):
            raise DataError(f"{folder}: {images.name} holds {len(x):,} images, {labels.name} {len(y):,} labels")
        if x.size == 0:
            raise DataError(f"{images}: holds no pixels")
        parts.append((x, y.astype(np.int64)))
    return _images(spec, parts, given, f"the IDX files in {folder.name}/{given['prefix']}")


def _idx_file(spec: DataSpec, folder: Path, stems: list[str]) -> Path:
    for stem in stems:
        for name in (stem, stem + ".gz", stem.replace("-idx", ".idx")):
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"{spec.name}: no file {' or '.join(stems)} (or .gz) in {folder}")


def build_npz(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``npz``: images from an archive of numpy's with the arrays x_train, y_train, x_test and y_test.

    The option ``file`` names it (below the data folder). Images are uint8, (N, height, width) or (N, height, width,
    channels) with 1 or 3 channels; labels are whole numbers, (N,) or (N, 1).
    """
    given = options(spec, {"file": None, "train": 0, "test": 0})
    path = locate(spec, given["file"], data_dir)
    arrays: dict[str, Array] = {}
    try:
        # Without pickles: a file of data must not be able to run code.
        with open_regular(path) as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: holds one array, an .npz archive was expected")
            for name in ("x_train", "y_train", "x_test", "y_test"):
                if name not in archive.files:
                    raise DataError(f"{path}: holds no array {name!r}, only {', '.join(archive.files) or 'nothing'}")
                arrays[name] = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npz archive of plain arrays: {error}") from error
    parts = [(_pixels(path, arrays[f"x_{part}"]), _whole(path, arrays[f"y_{part}"])) for part in ("train", "test")]
    for part, (x, y) in zip(("train", "test"), parts, strict=True):
        if len(x) != len(y):
            raise DataError(f"{path}: {part} has {len(x):,} images and {len(y):,} labels")
    return _images(spec, parts, given, path.name)


def _pixels(path: Path, x: Array) -> Array:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)) or x.size == 0:
        raise DataError(
            f"{path}: images must be uint8 (N, height, width) or (N, height, width, channels) with 1 or 3 channels, "
            f"not {x.dtype} {x.shape}"
        )
    return x if x.ndim == 3 else np.ascontiguousarray(np.moveaxis(x, 3, 1))


def _whole(path: Path, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be whole numbers (N,), not {y.dtype} {y.shape}")
    return y.astype(np.int64)


def build_cifar(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``cifar``: 32x32 colour images in the binary format of CIFAR-10 or CIFAR-100 from a folder.

    The option ``folder`` names it (below the data folder). CIFAR-10 has ``data_batch_1.bin`` to ``data_batch_5.bin``
    and ``test_batch.bin``: for each image a byte with the label and 3,072 bytes of red, green and blue, row by row.
    CIFAR-100 has ``train.bin`` and ``test.bin`` with a coarse and a fine label in front, of which the fine one is used.

    Source: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009), and the data's page.
    """
    given = options(spec, {"folder": None, "train": 0, "test": 0})
    folder = locate(spec, given["folder"], data_dir)
    ten = sorted(folder.glob("data_batch_*.bin"))
    if ten and (folder / "test_batch.bin").is_file():
        train = [_cifar_file(path, 1, 10) for path in ten]
        test = _cifar_file(folder / "test_batch.bin", 1, 10)
    elif (folder / "train.bin").is_file() and (folder / "test.bin").is_file():
        train = [_cifar_file(folder / "train.bin", 2, 100)]
        test = _cifar_file(folder / "test.bin", 2, 100)
    else:
        raise DataError(
            f"{folder}: holds neither data_batch_1.bin ... and test_batch.bin (CIFAR-10) nor train.bin and test.bin "
            "(CIFAR-100), in the binary version"
        )
    x, y = (np.concatenate([part[index] for part in train]) for index in (0, 1))
    return _images(spec, [(x, y), test], given, f"the CIFAR files in {folder.name}")


def _cifar_file(path: Path, labels: int, classes: int) -> tuple[Array, Array]:
    try:
        with open_regular(path) as stream:
            content = np.frombuffer(stream.read(), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    record = labels + _CIFAR_PIXELS
    if content.size == 0 or content.size % record:
        raise DataError(f"{path}: {content.size:,} bytes are not a whole number of records of {record:,} bytes")
    records = content.reshape(-1, record)
    y = records[:, labels - 1].astype(np.int64)
    if y.max() >= classes:
        raise DataError(f"{path}: holds the label {y.max()}, expected 0 to {classes - 1}; is it another CIFAR?")
    return records[:, labels:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE), y


def _images(spec: DataSpec, parts: list[tuple[Array, Array]], given: dict[str, object], where: str) -> DataSet:
    """Build the data set from training and test images, each cut to a number of samples, equally by class."""
    least = min(int(y.min()) for _, y in parts)
    if least < 0:
        raise DataError(f"{spec.name}: labels must not be negative, {least} occurs")
    cut = []
    for part, (images, labels) in zip(("train", "test"), parts, strict=True):
        count = given[part]
        assert isinstance(count, int)
        if not 0 <= count <= len(labels):
            raise ArgumentError(
                f"option {part!r} of the data set {spec.name!r} must be 0 (all) to {len(labels):,}, not {count:,}"
            )
        order = mixed_order(images, part) if count else np.arange(len(labels))
        if count:
            # Dealt out class by class: classes are as equal as they can be.
            order = order[np.argsort(place_in_class(labels[order]), kind="stable")[:count]]
        cut.append((images[order], labels[order] - least))
    description = f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test images of {where}"
    return image_data(spec, cut[0], cut[1], description)


register_data("cifar", build_cifar)
register_data("idx", build_idx)
register_data("npz", build_npz)


def pieces(codes: Array, length: int) -> tuple[Array, Array]:
    """Cut a sequence into pieces that do not overlap, and the same pieces one place further on."""
    count = max(0, (len(codes) - 1) // length)
    return codes[: count * length].reshape(count, length), codes[1 : count * length + 1].reshape(count, length)


def build_text(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``text``: predict the next character of a text file (UTF-8).

    The option ``file`` names it (below the data folder); ``length`` is that of the pieces (64). The text is cut in
    order: the last tenth of the pieces (option ``test``: how many) is for testing, the ``validation`` pieces before
    it for validation, so that no tested character was trained on. Characters that the training part does not have
    are one class of their own, "unknown"; the alphabet is known from the training part alone.
    """
    given = options(spec, {"file": None, "length": 64, "test": 0})
    length = given["length"]
    if length < 1 or given["test"] < 0:
        raise ArgumentError(f"text needs a length of at least 1 and a test part of at least 0, not {given}")
    path = locate(spec, given["file"], data_dir)
    try:
        with open_regular(path) as stream:
            text = stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: byte {error.start:,} is {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    x, y = pieces(points, length)
    test = given["test"] or max(1, len(x) // 10)
    train = len(x) - test - spec.validation
    if train < 1:
        raise ArgumentError(
            f"{path} has {len(points):,} characters, {len(x):,} pieces of {length}: too few for {spec.validation:,} to "
            f"validate and {test:,} to test on"
        )
    # What follows the training part is in its last target already.
    alphabet = np.unique(points[: train * length + 1])
    unknown = len(alphabet)
    tensors: list[torch.Tensor] = []
    for part in (slice(0, train), slice(train, train + spec.validation), slice(train + spec.validation, None)):
        for values in (x[part], y[part]):
            codes = np.searchsorted(alphabet, values).clip(max=unknown - 1)
            codes = np.where(alphabet[codes] == values, codes, unknown)
            tensors.append(torch.from_numpy(codes.astype(np.int64)))
    description = (
        f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test pieces of {length} characters "
        f"from {path.name}, in order, {unknown} different ones"
    )
    return assembled(spec, tensors, description, unknown + 1, "text")


register_data("text", build_text)
