"""Image files made here, in the formats of the real ones; what is wrong with a file is said of that file."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import numpy as np
import pytest

from agileact import ArgumentError, DataError
from agileact.study.data import dataset as data
from agileact.study.spec.trial import DataSpec, freeze

RNG = np.random.default_rng(0)


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def some(count, shape=(5, 4), classes=3):
    return RNG.integers(0, 256, size=(count, *shape), dtype=np.uint8), (np.arange(count) % classes).astype(np.uint8)


def load(name, data_dir, /, validation=6, **options: Any):
    return data.load(DataSpec(name, validation, options=freeze(options)), data_dir=data_dir)


@pytest.fixture
def idx_folder(tmp_path):
    folder = tmp_path / "fashion {x}"
    folder.mkdir()
    for part, count in (("train", 30), ("t10k", 12)):
        images, labels = some(count)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels + 1))
    return folder


def test_an_idx_folder_with_labels_from_one(idx_folder):
    loaded = load("idx", idx_folder.parent, folder="fashion {x}")
    assert (tuple(loaded.train_x.shape), tuple(loaded.test_x.shape)) == ((24, 1, 5, 4), (12, 1, 5, 4))
    assert loaded.classes == 3
    assert loaded.train_y.min() == 0
    assert "24 training, 6 validation and 12 test images of the IDX files in fashion {x}/" in loaded.description
    again = load("idx", None, folder=str(idx_folder))
    assert again.fingerprint == loaded.fingerprint


def test_a_part_of_the_samples_is_equal_by_class(idx_folder):
    loaded = load("idx", idx_folder.parent, folder="fashion {x}", train=15, test=6)
    assert loaded.test_y.bincount().tolist() == [2, 2, 2]
    assert (len(loaded.train_y), len(loaded.validation_y)) == (9, 6)
    with pytest.raises(ArgumentError, match=r"option 'test' .* must be 0 \(all\) to 12, not 13"):
        load("idx", idx_folder.parent, folder="fashion {x}", test=13)


def test_idx_files_that_are_missing_or_do_not_match(idx_folder):
    with pytest.raises(DataError, match="no file emnist-train-images-idx3-ubyte"):
        load("idx", idx_folder, folder=".", prefix="emnist-")
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match="holds 12 images, t10k-labels-idx1-ubyte 11 labels"):
        load("idx", idx_folder, folder=".")


def npz(path, **changes: Any):
    (x, y), (test_x, test_y) = some(30), some(12)
    arrays: dict[str, Any] = {"x_train": x, "y_train": y, "x_test": test_x, "y_test": test_y, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_an_npz_archive(tmp_path):
    npz(tmp_path / "a.npz")
    loaded = load("npz", tmp_path, file="a.npz")
    assert tuple(loaded.train_x.shape) == (24, 1, 5, 4)
    colour, labels = some(30, (4, 4, 3))
    test = some(12, (4, 4, 3))
    npz(tmp_path / "b.npz", x_train=colour, y_train=labels[:, None], x_test=test[0], y_test=test[1])
    loaded = load("npz", tmp_path, file="b.npz")
    assert tuple(loaded.train_x.shape) == (24, 3, 4, 4)
    # Each image is one of the file's, channels first, divided by 255.
    known = {(image.transpose(2, 0, 1) / np.float32(255)).astype(np.float32).tobytes() for image in colour}
    assert all(image.numpy().tobytes() in known for image in loaded.train_x)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"y_test": None}, "holds no array 'y_test', only x_train, y_train, x_test"),
        ({"x_train": np.zeros((30, 5, 4))}, r"images must be uint8 .* not float64 \(30, 5, 4\)"),
        ({"x_train": np.zeros((30, 5, 4, 2), np.uint8)}, "with 1 or 3 channels"),
        ({"y_train": np.zeros(30)}, "labels must be whole numbers"),
        ({"y_train": np.zeros(29, int)}, "train has 30 images and 29 labels"),
        ({"y_train": np.full(30, -1)}, "must not be negative, -1 occurs"),
        ({"x_train": np.array([{}] * 30, dtype=object)}, "cannot be read as an .npz archive of plain arrays"),
    ],
)
def test_npz_archives_that_do_not_fit(tmp_path, changes, part):
    npz(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=part):
        load("npz", tmp_path, file="a.npz")


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz archive"):
        load("npz", tmp_path, file="a.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DataError, match="holds one array"):
        load("npz", tmp_path, file="b.npy")
    with pytest.raises(DataError, match=r"there is no .*missing\.npz"):
        load("npz", tmp_path, file="missing.npz")
    with pytest.raises(ArgumentError, match=r"'file'.* must be of type str, not 3"):
        load("npz", tmp_path, file=3)


def cifar(folder, count=20, fine=False):
    records = []
    images = RNG.integers(0, 256, size=(count, 3, 32, 32), dtype=np.uint8)
    for index, image in enumerate(images):
        labels = bytes([19, index % 5]) if fine else bytes([index % 5])
        records.append(labels + image.tobytes())
    for name in ("train.bin", "test.bin") if fine else ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (folder / name).write_bytes(b"".join(records))
    return images


@pytest.mark.parametrize("fine", [False, True])
def test_cifar_in_its_binary_format(tmp_path, fine):
    images = cifar(tmp_path, fine=fine)
    loaded = load("cifar", tmp_path, folder=".", validation=5)
    assert tuple(loaded.train_x.shape) == (15 if fine else 35, 3, 32, 32)
    assert loaded.classes == 5
    expected = (images[3] / np.float32(255)).astype(np.float32)
    found = [i for i, image in enumerate(loaded.test_x) if np.array_equal(image.numpy(), expected)]
    assert found == [3]
    assert loaded.test_y[3] == 3


def test_cifar_files_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match=r"holds neither data_batch_1\.bin"):
        load("cifar", tmp_path, folder=".")
    cifar(tmp_path)
    with (tmp_path / "test_batch.bin").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="61,461 bytes are not a whole number of records of 3,073"):
        load("cifar", tmp_path, folder=".")
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match="label 10, expected 0 to 9"):
        load("cifar", tmp_path, folder=".")


@pytest.mark.parametrize(
    ("name", "option"), [("idx", "folder"), ("npz", "file"), ("cifar", "folder"), ("text", "file")]
)
def test_where_the_data_is_must_be_told_and_be_there(tmp_path, name, option):
    with pytest.raises(ArgumentError, match=f"the data set '{name}' needs the option '{option}'"):
        load(name, tmp_path)
    with pytest.raises(DataError, match=f"{name}: there is no .*nowhere"):
        load(name, tmp_path, **{option: "nowhere"})
