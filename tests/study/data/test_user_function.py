"""Data that a function of the user's returns: each part is checked once, loaded twice, and said as it was taken."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler

from agileact import ArgumentError, DataError
from agileact.study.commands.context import Context
from agileact.study.data import dataset as data
from agileact.study.data import on_disk
from agileact.study.results.outcome import Outcome
from agileact.study.running.conduct import identified
from agileact.study.running.planner import final_trials
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import DataSpec, freeze
from tests.study.builders import make_result

HERE = __name__
X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
RETURNED: object = None
NUMBERS: Any = [1, 2, 3]
WORDS: Any = [(X[0], "a")] * 3
DRAWS = np.random.default_rng(0)


def returned() -> object:
    return RETURNED


def drawn() -> object:
    x = DRAWS.normal(size=(40, 8)).astype(np.float32)
    return (x[:30], Y[:30]), (x[30:], Y[30:])


def seeded() -> object:
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    return (x[:30], Y[:30]), (x[30:], Y[30:])


def load(monkeypatch, value, validation=5):
    monkeypatch.setitem(globals(), "RETURNED", value)
    return data.load(DataSpec("custom", validation, options=freeze({"target": f"{HERE}:returned"})))


class Samples(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, x=X, y=Y) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], int(self.y[index])


class Named(Dataset[tuple[dict[str, torch.Tensor], int]]):
    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        return {"left": X[index, :3], "right": X[index, 3:].double()}, int(Y[index])


class Uneven(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __len__(self) -> int:
        return 257

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(index // 256 + 1), torch.tensor(index % 2)


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        samples = Samples(X[:20], Y[:20])
        return (samples[index] for index in range(len(samples)))


# -- each part against its partner ---------------------------------------------------------------------------

FEWER = {"x": (X[:30], Y[:27]), "y": (X[:27], Y[:30])}


@pytest.mark.parametrize("short", FEWER)
@pytest.mark.parametrize(("parts", "place"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_a_part_has_a_target_for_each_input(monkeypatch, short, parts, place):
    given = [(X[:30], Y[:30])] * parts
    given[place] = FEWER[short]
    name = (("training", "test") if parts == 2 else ("training", "validation", "test"))[place]
    counts = r"\(30, 8\) and targets \(27,\)" if short == "x" else r"\(27, 8\) and targets \(30,\)"
    with pytest.raises(DataError, match=f"the {name} part of the data '{HERE}:returned' has inputs {counts}"):
        load(monkeypatch, given)


@pytest.mark.parametrize("part", [(torch.tensor(1.0), Y[:1]), (X[:1], torch.tensor(1))])
def test_a_number_is_no_part(monkeypatch, part):
    with pytest.raises(DataError, match="there must be a target for each input"):
        load(monkeypatch, [part, part])


@pytest.mark.parametrize("value", [None, (X, Y), [(X, Y)], [(X, Y)] * 4, [(X, Y, Y)] * 2, "ab"])
def test_what_is_no_data_says_what_would_be(monkeypatch, value):
    with pytest.raises(DataError, match=r"two or three pairs \(inputs, targets\), Datasets or DataLoaders"):
        load(monkeypatch, value)


# -- the same twice ------------------------------------------------------------------------------------------


def study(target):
    spec = task("digits-mlp").spec
    spec = dataclasses.replace(spec, data=DataSpec("custom", 5, options=freeze({"target": f"{HERE}:{target}"})))
    return Study("s", (arm("relu"), arm("agile-relu")), (Task("mine", spec),), Protocol(seeds=(0,)))


def test_a_loader_that_draws_anew_is_named_before_any_trial():
    with pytest.raises(ArgumentError, match=rf"task 'mine': the data '{HERE}:drawn' are not the same when .*a seed"):
        identified(study("drawn"))


def test_a_loader_of_seeded_numbers_passes():
    found, sets = identified(study("seeded"))
    assert found.tasks[0].spec.data.fingerprint == sets["mine"].fingerprint


def test_a_builder_of_the_users_is_loaded_twice_and_ours_once(monkeypatch):
    counts = itertools.count()
    monkeypatch.setattr(data, "_builders", dict(data._builders))
    whole = data.load(DataSpec("custom", 5, options=freeze({"target": f"{HERE}:seeded"})))
    data.register_data("drawn", lambda *_: dataclasses.replace(whole, fingerprint=str(next(counts))))
    spec = dataclasses.replace(task("digits-mlp").spec, data=DataSpec("drawn", 5))
    own = Study("s", (arm("relu"),), (Task("mine", spec),), Protocol(seeds=(0,)))
    with pytest.raises(ArgumentError, match=r"the data 'drawn' are not the same .* \(fingerprints 0 and 1\)"):
        identified(own)
    seen: list[object] = []
    monkeypatch.setitem(data._builders, "digits", _counted(data._builders["digits"], seen))
    identified(dataclasses.replace(own, tasks=(task("digits-mlp"),)))
    assert len(seen) == 1


def _counted(builder, seen):
    def build(*given):
        seen.append(given)
        return builder(*given)

    build.__module__ = builder.__module__
    return build


def test_a_whole_data_set_has_the_fingerprint_of_its_samples(monkeypatch):
    first = load(monkeypatch, [(X[:30], Y[:30]), (X[30:], Y[30:])])
    made_up = dataclasses.replace(first, fingerprint="mine")
    assert load(monkeypatch, made_up).fingerprint == first.fingerprint
    other = dataclasses.replace(made_up, train_x=made_up.train_x + 1)
    assert load(monkeypatch, other).fingerprint != first.fingerprint


# -- Datasets and DataLoaders --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda part: part,
        lambda part: DataLoader(part, batch_size=7),
        lambda part: DataLoader(part, batch_size=7, shuffle=True, drop_last=True),
        lambda part: DataLoader(part, batch_size=None),
        lambda part: DataLoader(part, batch_sampler=BatchSampler(range(len(part)), 4, drop_last=False)),
    ],
    ids=["dataset", "loader", "shuffled", "unbatched", "batches"],
)
def test_datasets_and_loaders_give_their_samples_in_the_order_of_their_indices(monkeypatch, wrap):
    samples = Samples()
    plain = load(monkeypatch, [(X[:30], Y[:30]), (X[30:], Y[30:])])
    found = load(monkeypatch, [wrap(Subset(samples, range(30))), wrap(Subset(samples, range(30, 40)))])
    assert found.fingerprint == plain.fingerprint


def test_a_loader_of_some_samples_keeps_to_them(monkeypatch):
    chosen = [3, 1, 8, 5, 20, 31, 33]
    loaders = [DataLoader(Samples(), batch_size=2, sampler=SubsetRandomSampler(chosen))] * 2
    found = load(monkeypatch, loaders, validation=2)
    assert torch.equal(found.test_x, X[sorted(chosen)])
    assert torch.equal(found.test_y, Y[sorted(chosen)])


def test_a_stream_is_taken_as_it_comes(monkeypatch):
    found = load(monkeypatch, [Stream(), DataLoader(Stream(), batch_size=3)])
    assert torch.equal(found.test_x, X[:20])


def test_a_collate_function_of_the_users_is_used(monkeypatch):
    def doubled(samples):
        x, y = zip(*samples, strict=True)
        return 2 * torch.stack(x), torch.tensor(y)

    found = load(monkeypatch, [DataLoader(Samples(), collate_fn=doubled)] * 2)
    assert torch.equal(found.test_x, 2 * X)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Samples(X[:0], Y[:0]), "training part of the data .* is empty"),
        (DataLoader(NUMBERS), "must give pairs"),
        (DataLoader(WORDS), "must give pairs"),
    ],
    ids=["empty", "no pairs", "text"],
)
def test_datasets_that_do_not_fit(monkeypatch, part, words):
    with pytest.raises(DataError, match=words):
        load(monkeypatch, [part, part])


@pytest.mark.parametrize(
    "value",
    [
        [Samples(), Samples()],
        [Samples(), Samples(), Samples()],
        [DataLoader(Samples(), batch_size=7), (X, Y)],
        [Named(), Named()],
    ],
    ids=["two", "three", "loader", "several"],
)
def test_samples_that_do_not_fit_into_memory_are_the_same_from_a_file(monkeypatch, value):
    usual = load(monkeypatch, value)
    files = mock.Mock(wraps=tempfile.TemporaryFile)
    monkeypatch.setattr("tempfile.TemporaryFile", files)
    monkeypatch.setattr(on_disk, "most_bytes", lambda: 300)
    monkeypatch.setattr(on_disk, "_PIECE", 100)
    found = load(monkeypatch, value)
    assert files.called
    assert found.fingerprint == usual.fingerprint
    for one, other in ((found, usual), (found.resampled(3), usual.resampled(3))):
        for part in data.PARTS:
            assert torch.equal(getattr(one, part), getattr(other, part))
    found.train_x.zero_()
    assert torch.equal(load(monkeypatch, value).train_x, usual.train_x)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("buffering", [0, 2**20], ids=["as it is written", "at the end"])
def test_a_full_disk_is_said(monkeypatch, capfd, buffering):
    def full():
        return Path("/dev/full").open("wb", buffering=buffering)

    monkeypatch.setattr(on_disk, "most_bytes", lambda: 300)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(DataError, match=r"training part .* do not fit into memory, and not into .* TMPDIR"):
        load(monkeypatch, [Samples(), Samples()])
    gc.collect()
    assert capfd.readouterr().err == ""


def test_samples_of_other_sizes_are_said(monkeypatch):
    with pytest.raises(
        DataError, match=r"training part of the data .* cannot be collected: RuntimeError: stack expects"
    ):
        load(monkeypatch, [Subset(Uneven(), [0, 256])] * 2)
    with pytest.raises(DataError, match=r"its samples are torch.float32 \(1,\) and torch.float32 \(2,\); make them"):
        load(monkeypatch, [Uneven(), Uneven()])


# -- what is said --------------------------------------------------------------------------------------------


def test_the_summary_names_kind_classes_inputs_and_counts(monkeypatch):
    assert load(monkeypatch, [(X[:30], Y[:30]), (X[30:], Y[30:])]).summary == (
        "classification, 3 classes, 8 features, 25/5/10 samples"
    )
    regression = load(monkeypatch, [(X[:, None, None], X[:, 0])] * 3)
    assert regression.summary == "regression, 1 output, inputs 1x1x8, 40/40/40 samples"
    assert regression.largest_share is None
    codes = torch.arange(60).remainder(7).view(12, 5)
    assert load(monkeypatch, [(codes, codes)] * 3).summary == "text, 7 characters, sequences of 5, 12/12/12 samples"
    tokens = load(monkeypatch, [(codes, codes[:, 0] % 2)] * 3)
    assert tokens.summary == "classification, 2 classes, sequences of 5, 12/12/12 samples"


def test_the_largest_share_is_that_of_the_test_part(monkeypatch):
    assert load(monkeypatch, [(X[:30], Y[:30]), (X[30:], torch.tensor([0] * 7 + [1, 2, 2]))]).largest_share == 0.7


def test_an_accuracy_that_only_tells_which_class_is_the_largest_is_said(monkeypatch, tmp_path, capsys):
    found = load(monkeypatch, [(X[:30], Y[:30]), (X[30:], torch.tensor([0] * 7 + [1, 2, 2]))])
    context = Context(
        dataclasses.replace(study("seeded"), protocol=Protocol(tune=False, seeds=(0, 1, 2))), {}, tmp_path
    )
    context.data = {"mine": found}
    made = {}
    for one in context.study.arms:
        for spec in final_trials(context.study.protocol, one, context.study.tasks[0], None):
            lazy = one.name == "relu" and spec.seed != 1
            made[spec] = make_result(spec, selected_test_accuracy=0.7 if lazy else 0.6)
    context.say_one_answer(Outcome(context.study, made.get))
    assert capsys.readouterr().err == (
        "Note: mine, relu: the accuracy of 2 of 3 seeds, 70.00 %, is the share of the largest class: a network that "
        "always answers it.\n"
    )
