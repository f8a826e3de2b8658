"""What counts as rounding, and what is an error: each quantity by its own size."""

# ruff: noqa: NPY002 - the legacy generator is what models draw from

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.fold.verify import compared, largest
from agileact.transforms.trace.recording import Outcome
from tests.transforms.folding import DOUBLE, drawn, statuses


class CentredStatistics(nn.Module):
    """A batch normalisation of what is 0 on average but for rounding, and a head that only training has."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2)
        self.norm = nn.BatchNorm1d(2)
        self.wrong = wrong

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.act(self.fc(x))
        y = self.head(h)
        centred = self.norm(y - y.mean(0, keepdim=True))
        if not self.training:
            return (centred,)
        with torch._C.DisableTorchFunction():  # which no recording sees
            unseen = self.wrong * self.fc.bias.sum()
        return centred, y.sum(1) + unseen


def test_a_statistic_that_rounding_decides_excuses_no_output():
    x = torch.randn(16, 6)
    with pytest.raises(ag.FoldError, match=r"in training mode output 1 differs by .*, and not by rounding"):
        ag.fold(drawn(CentredStatistics(1.0)), x)


def test_a_running_mean_of_0_is_measured_by_the_deviation_beside_it():
    x = torch.randn(16, 6)
    _, report = ag.fold(drawn(CentredStatistics(0.0)), x)
    assert statuses(report) == ["folded"]
    assert not report.note
    assert report.training is not None
    assert report.training < 1e-5


def outcome(mean: float, variance: float, output: float = 1.0) -> Outcome:
    buffers = {"norm.running_mean": torch.tensor([mean]), "norm.running_var": torch.tensor([variance])}
    return Outcome([torch.tensor([output])], buffers)


@pytest.mark.parametrize(
    ("actual", "relative"),
    [
        (outcome(1e-9, 4.0), 5e-10),
        (outcome(0.2, 4.0), 0.1),
        (outcome(0.0, 5.0), 0.25),
        (outcome(0.0, 4.0, 1.5), 0.5),
    ],
)
def test_each_quantity_by_its_own_size(actual: Outcome, relative: float):
    found = compared(outcome(0.0, 4.0), actual, buffers=True)
    assert largest(found).relative == pytest.approx(relative)
    assert sum(gap.relative > 0 for gap in found.values()) == 1


def test_what_is_missing_or_of_another_shape_is_no_match():
    one = outcome(0.0, 1.0)
    assert largest(compared(one, Outcome([], one.buffers), buffers=True)).relative == math.inf
    assert largest(compared(one, Outcome(one.outputs, {}), buffers=True)).relative == math.inf
    assert largest(compared(one, Outcome(one.outputs, {}), buffers=False)).relative == 0.0


class Spectrum(nn.Module):
    """Complex outputs, and a sparse buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 4)
        self.register_buffer("places", torch.eye(4).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(self.head(self.act(self.fc(x))))
        return spectrum


def test_complex_outputs_and_sparse_buffers_are_compared():
    model = drawn(Spectrum())
    _, report = ag.fold(model, torch.randn(4, 6))
    assert statuses(report) == ["folded"]
    assert 0 < report.relative < 1e-5
    one, other = torch.tensor([1 + 1j]), torch.tensor([1 + 0.5j])
    assert largest(compared(Outcome([one]), Outcome([other]), buffers=False)).relative == pytest.approx(0.5)


class Drawing(nn.Module):
    """A network that asks Python's and numpy's generators what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.act(self.fc(x))
        if random.random() < 0.5:
            h = h * float(np.random.uniform(0.5, 2.0))
        y: Tensor = self.head(h)
        return y * random.choice([1.0, 3.0])


def test_python_and_numpy_draw_the_same_numbers_for_both_models():
    model = drawn(Drawing().double())
    for seed in range(12):
        random.seed(seed)
        np.random.seed(seed)
        states = random.getstate(), np.random.get_state()
        _, report = ag.fold(model, torch.randn(4, 6, dtype=DOUBLE))
        assert statuses(report) == ["folded"]
        assert random.getstate() == states[0]
        assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), states[1], strict=True))
