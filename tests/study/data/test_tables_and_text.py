from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agileact import ArgumentError, DataError
from agileact.study.data import dataset as data
from agileact.study.data.generated import friedman1, mnist1d
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training.run import run_trial


def load(name, validation=100, folder=None, **options):
    return data.load(DataSpec(name, validation, options=freeze(options)), data_dir=folder)


@pytest.mark.parametrize("name", ["diabetes", "friedman1"])
def test_regressions_are_standardised_by_the_training_part_alone(name):
    loaded = load(name, 60)
    assert loaded.kind == "regression"
    for values in (loaded.train_x, loaded.train_y):
        torch.testing.assert_close(values.double().mean(0), torch.zeros(values.shape[1]).double(), atol=1e-6, rtol=0)
        deviation = values.double().std(0, correction=0)
        torch.testing.assert_close(deviation, torch.ones(values.shape[1]).double(), atol=1e-6, rtol=0)
    assert float(loaded.test_x.mean(0).abs().max()) > 1e-3
    parts = [{tuple(row) for row in getattr(loaded, f"{part}_x").tolist()} for part in ("train", "validation", "test")]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


@pytest.mark.parametrize(("name", "shape", "classes"), [("digits", (1, 8, 8), 10), ("mnist1d", (40,), 10)])
def test_classifications(name, shape, classes):
    loaded = load(name)
    assert tuple(loaded.train_x.shape[1:]) == shape
    assert loaded.classes == classes
    assert set(loaded.test_y.tolist()) == set(range(10))
    assert load(name).fingerprint == loaded.fingerprint
    with pytest.raises(ArgumentError, match="did you mean 'test'"):
        load(name, tests=3)
    with pytest.raises(ArgumentError, match="can be set aside for validation, not 100,000"):
        load(name, 100_000)


def test_mnist1d_is_a_function_of_its_seed():
    x, y = mnist1d(100, 1)
    assert np.array_equal(mnist1d(100, 1)[0], x)
    assert not np.array_equal(mnist1d(100, 2)[0], x)
    assert np.bincount(y).tolist() == [10] * 10
    # The numbers themselves: another stream or another order of draws is another data set.
    assert x.sum() == pytest.approx(10.44092717618831, abs=1e-9)
    with pytest.raises(ArgumentError, match="multiple of 10, not 15"):
        mnist1d(15, 0)


def test_friedman_follows_its_formula():
    x, y = friedman1(50, 0.0, 3)
    for row, value in zip(x, y, strict=True):
        known = 10 * math.sin(math.pi * row[0] * row[1]) + 20 * (row[2] - 0.5) ** 2 + 10 * row[3] + 5 * row[4]
        assert value == pytest.approx(known)
    noisy = friedman1(4000, 2.0, 3)[1] - friedman1(4000, 0.0, 3)[1]
    assert noisy.std() == pytest.approx(2.0, rel=0.05)
    assert abs(noisy.mean()) < 0.1


TEXT = "the quick brown fox jumps over the lazy dog. " * 40 + "ÄÖ" * 60


def test_text_is_cut_in_order_with_the_next_character_as_target(tmp_path):
    (tmp_path / "a {1}.txt").write_text(TEXT, encoding="utf-8")
    loaded = load("text", 5, tmp_path, file="a {1}.txt", length=20, test=6)
    assert loaded.kind == "text"
    assert torch.equal(loaded.train_x[0, 1:], loaded.train_y[0, :-1])
    assert torch.equal(loaded.train_x[1:, 0], loaded.train_y[:-1, -1])
    assert len(loaded.test_x) == 6
    # The last characters occur in the test part alone: they are the one class that training does not know.
    alphabet = len(set(TEXT[: 20 * len(loaded.train_x) + 1]))
    assert loaded.classes == alphabet + 1
    assert loaded.test_y.max() == alphabet
    assert loaded.train_y.max() < alphabet
    assert "from a {1}.txt" in loaded.description
    codes = {c: i for i, c in enumerate(sorted(set(TEXT[: 20 * len(loaded.train_x) + 1])))}
    assert loaded.train_x[2].tolist() == [codes[c] for c in TEXT[40:60]]


def test_text_that_does_not_fit(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="not UTF-8 text: byte 2 is 0xff"):
        load("text", 1, tmp_path, file="a.txt")
    (tmp_path / "a.txt").write_text("too short")
    with pytest.raises(ArgumentError, match="9 characters, 0 pieces of 64: too few"):
        load("text", 1, tmp_path, file="a.txt")
    with pytest.raises(ArgumentError, match="length of at least 1"):
        load("text", 1, tmp_path, file="a.txt", length=0)


def trial(loaded, model, activation, iterations=30, lr=0.01, role="fc", **options):
    task = TaskSpec(
        DataSpec(loaded.name, 10), ModelSpec(model, freeze(options)), Budget(iterations, 20, 10, 5, test_curve=False)
    )
    return run_trial(TrialSpec(task, ArmSpec(freeze({role: activation}), lr=lr), 0), loaded)


def test_a_regression_trial_learns_and_has_no_accuracy():
    result = trial(load("friedman1"), "mlp", "agile-tanh", iterations=100, nodes=(16,))
    curve = result.curve
    assert curve.validation_loss[0] > 0.9
    assert min(curve.validation_loss) < 0.5
    assert curve.validation_accuracy == []
    assert result.selected_test_accuracy is None
    assert result.selected_test_loss is not None
    assert 0 < result.selected_test_loss < 0.6


def test_a_character_model_learns_the_text(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT[:1800])
    loaded = load("text", 5, tmp_path, file="a.txt", length=16)
    result = trial(loaded, "char-transformer", "agile-gelu", iterations=60, width=16, depth=1)
    assert result.curve.validation_loss[0] == pytest.approx(math.log(loaded.classes), rel=0.05)
    assert result.curve.validation_loss[-1] < 0.8 * result.curve.validation_loss[0]
    assert len(result.layers) == 1
    assert result.selected_test_accuracy is not None
