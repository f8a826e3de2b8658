"""Networks of several inputs: the same numbers as with the inputs apart, by position and by name, in a whole study."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from agileact import Agile, ArgumentError, DataError
from agileact.study.data import dataset as data
from agileact.study.models import build
from agileact.study.running.conduct import identified, unidentified
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import DataSpec, ModelSpec, TrialSpec, freeze
from agileact.study.training.dry_run import check_arms
from agileact.study.training.run import run_trial

HERE = __name__
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(40, 1, 4, 4, generator=GENERATOR)
WORDS = torch.randint(9, (40, 3), generator=GENERATOR)
NUMBERS = torch.randn(40, generator=GENERATOR)
Y = WORDS[:, 0] % 2
RETURNED: object = None


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words, self.act = nn.Conv2d(1, 3, 3), nn.Embedding(9, 4), nn.ReLU()
        self.out = nn.Linear(3 + 4 + 1, 2)

    def forward(self, image: Tensor, words: Tensor, number: Tensor) -> Tensor:
        assert words.dtype == torch.int64
        parts = [self.act(self.conv(image)).mean((2, 3)), self.words(words).mean(1), number[:, None]]
        return self.out(torch.cat(parts, 1))  # type: ignore[no-any-return]


def network() -> nn.Module:
    return Network()


def by_name(part: slice = slice(None)) -> tuple[dict[str, object], Tensor]:
    return {"number": NUMBERS[part].double().numpy(), "image": IMAGES[part], "words": WORDS[part]}, Y[part]


def named() -> object:
    return [by_name(part) for part in (slice(20), slice(20, 30), slice(30, 40))]


def by_position() -> object:
    return [((IMAGES[part], WORDS[part], NUMBERS[part]), Y[part]) for part in (slice(30), slice(30, 40))]


class Samples(Dataset[object]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> object:
        return {"number": NUMBERS[index], "image": IMAGES[index], "words": WORDS[index]}, int(Y[index])


def loaders() -> object:
    return [DataLoader(Samples(), batch_size=7, shuffle=True)] * 2


def returned() -> object:
    return RETURNED


def study(target, model="network"):
    spec = task("digits-mlp").spec
    spec = dataclasses.replace(
        spec,
        data=DataSpec("custom", 5, options=freeze({"target": f"{HERE}:{target}"})),
        model=ModelSpec("custom", freeze({"target": f"{HERE}:{model}"})),
        budget=dataclasses.replace(spec.budget, iterations=30, batch_size=10, evaluate_every=10),
    )
    return Study("s", (arm("original"), arm("agile-relu")), (Task("mine", spec),), Protocol(tune=False, seeds=(0,)))


@pytest.mark.parametrize("target", ["named", "by_position", "loaders"])
def test_the_network_gets_its_inputs_as_they_were(target):
    found, sets = identified(study(target))
    check_arms(found, sets)
    (only,) = found.tasks
    for one in found.arms:
        model = build(only.spec.model, one.spec, input_shape=(20,), classes=2, seed=0)
        twin = Network()
        twin.load_state_dict({key: value for key, value in model.state_dict().items() if "act" not in key})
        with torch.no_grad():
            expected = twin(IMAGES[30:], WORDS[30:], NUMBERS[30:])
            torch.testing.assert_close(model(sets["mine"].test_x[-10:]), expected, rtol=0, atol=0)
        assert isinstance(model.get_submodule("act"), Agile if one.name == "agile-relu" else nn.ReLU)


@pytest.mark.parametrize("target", ["named", "by_position"])
def test_trials_learn_and_are_repeated(target):
    found, sets = identified(study(target))
    spec = TrialSpec(found.tasks[0].spec, dataclasses.replace(found.arms[1].spec, lr=0.05), 0)
    first, again = run_trial(spec, sets["mine"]), run_trial(spec, sets["mine"])
    assert first.curve == again.curve
    assert first.curve.train_loss[-1] < 0.7 * first.curve.train_loss[0]


def test_a_recorded_study_goes_back_to_what_was_asked_for():
    asked = study("named")
    found, sets = identified(asked)
    assert unidentified(found) == asked
    assert identified(unidentified(found))[0] == found
    assert sets["mine"].summary == (
        "classification, 2 classes, inputs number 1 and image 1x4x4 and words 3, 20/10/10 samples"
    )


def test_the_layout_is_part_of_the_fingerprint(monkeypatch):
    def load(value):
        monkeypatch.setitem(globals(), "RETURNED", value)
        return data.load(DataSpec("custom", 5, options=freeze({"target": f"{HERE}:returned"})))

    ones = torch.ones(8, 2)
    y = torch.arange(8) % 2
    first = load([({"a": ones, "b": ones}, y)] * 3)
    other = load([({"a": ones, "c": ones}, y)] * 3)
    assert torch.equal(first.train_x, other.train_x)
    assert first.fingerprint != other.fingerprint


def test_a_network_of_ours_takes_one_input():
    own = study("named")
    spec = dataclasses.replace(own.tasks[0].spec, model=task("digits-mlp").spec.model)
    with pytest.raises(ArgumentError, match="task 'mine': the data has several inputs, and the model 'mlp' takes one"):
        identified(dataclasses.replace(own, tasks=(Task("mine", spec),)))


def of_one_input() -> nn.Module:
    return nn.Linear(20, 2)


def test_a_network_of_other_inputs_is_named_before_any_trial():
    found, sets = identified(study("named", "of_one_input"))
    with pytest.raises(ArgumentError, match=r"does not take the inputs number float32 \(\), image float32 \(1, 4, 4\)"):
        check_arms(found, sets)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([by_name(slice(20)), ((IMAGES[:9], WORDS[:9]), Y[:9])], "are a dict and a tuple, by part"),
        ([({"a": IMAGES}, Y), ({"b": IMAGES}, Y)], r"different inputs: a torch.float32 \(1, 4, 4\), and b torch"),
        ([({"a": IMAGES}, Y), ({"a": WORDS}, Y)], "different inputs"),
        ([({"a": IMAGES, "b": WORDS[:39]}, Y)] * 2, r"inputs \(39, 3\) and targets \(40,\)"),
        ([({"a": IMAGES, "b": "text"}, Y)] * 2, "tensors or arrays, not a str"),
        ([((IMAGES, WORDS * 2**22), Y)] * 2, "whole numbers of 16,777,216 or more"),
        ([((WORDS, WORDS), WORDS)] * 2, "several inputs, and targets .* as text has"),
    ],
)
def test_inputs_that_do_not_fit_are_named(monkeypatch, value, words):
    monkeypatch.setitem(globals(), "RETURNED", value)
    with pytest.raises(DataError, match=words):
        data.load(DataSpec("custom", 5, options=freeze({"target": f"{HERE}:returned"})))


def test_numpy_arrays_of_float64_are_taken_as_float32(monkeypatch):
    monkeypatch.setitem(globals(), "RETURNED", [((np.ones((8, 2)), np.arange(8)), np.arange(8) % 2)] * 2)
    found = data.load(DataSpec("custom", 2, options=freeze({"target": f"{HERE}:returned"})))
    assert found.train_x.dtype == torch.float32
    assert [one[1] for one in found.inputs] == ["float32", "int64"]
