"""Another split into training and validation samples: what a replicate of a study trains and is tuned on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from agileact.study.data import dataset as data
from agileact.study.spec.trial import DataSpec, freeze

HERE = "tests.study.networks_of_a_user"


def test_another_split_moves_samples_between_training_and_validation_alone():
    spec = DataSpec("digits", 200)
    whole, other, again = (data.load(dataclasses.replace(spec, split=n)) for n in (0, 3, 3))
    assert whole.fingerprint == other.fingerprint
    for part in ("train", "validation", "test"):
        mine, theirs = getattr(whole, f"{part}_y"), getattr(other, f"{part}_y")
        assert torch.equal(mine.bincount(), theirs.bincount()), part
        assert torch.equal(getattr(other, f"{part}_x"), getattr(again, f"{part}_x"))
    assert torch.equal(whole.test_x, other.test_x)
    assert not torch.equal(whole.validation_x, other.validation_x)
    pooled = [
        sorted(map(tuple, torch.cat([one.train_x, one.validation_x]).flatten(1).tolist())) for one in (whole, other)
    ]
    assert pooled[0] == pooled[1]
    # Inputs keep their targets.
    label = {tuple(x): y for x, y in zip(whole.train_x.flatten(1).tolist(), whole.train_y.tolist(), strict=True)}
    moved = zip(other.validation_x.flatten(1).tolist(), other.validation_y.tolist(), strict=True)
    assert all(label.get(tuple(x), y) == y for x, y in moved)
    assert "split 3" in other.description


@pytest.mark.parametrize("name", ["regression", "text"])
def test_parts_that_the_user_divided_and_text_stay(name):
    found = data.load(DataSpec("custom", 30, options=freeze({"target": f"{HERE}:{name}"})))
    assert found.resampled(2) is found


def test_a_regression_is_mixed_whole():
    whole, other = (data.load(DataSpec("diabetes", 66, split=n)) for n in (0, 1))
    assert whole.validation_y.shape == other.validation_y.shape
    assert not torch.equal(whole.validation_y, other.validation_y)
