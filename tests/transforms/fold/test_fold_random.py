"""Random networks folded: no other number, no traceback, in evaluation and in training, with any scales."""

from __future__ import annotations

import copy
import os
import random
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import agileact as ag
from tests.transforms.folding import outputs
from tests.transforms.random_models import PARTS, Drawn, Part, Setting, networks, set_pairs

# AGILEACT_FUZZ=2000 for a long run.
EXAMPLES = int(os.environ.get("AGILEACT_FUZZ", "100"))
BAR = {torch.float64: 1e-9, torch.float32: 1e-3}


class Contracted(Part):
    """A product with a parameter, turned, cast or contracted; maps go through as rows."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.choice = setting.made(), setting.choice
        self.weight = nn.Parameter(torch.randn(setting.channels, setting.channels + 1))
        self.bias = nn.Parameter(torch.randn(setting.channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x)).movedim(1, -1)
        w = self.weight
        if self.choice == 0:
            h = h @ w.T
        elif self.choice == 1:
            h = F.linear(h, w.to(h.dtype), self.bias)
        elif self.choice == 2:
            h = torch.einsum("...i,oi->...o", h, w)
        elif self.choice == 3:
            h = torch.einsum("bi,oi->bo", h.flatten(0, -2), w).view(*h.shape[:-1], -1)
        elif self.choice == 4:
            h = torch.addmm(self.bias, h.flatten(0, -2), w.t()).view(*h.shape[:-1], -1)
        elif self.choice == 5:
            h = torch.cat([F.linear(h, part) for part in w.split(1)], -1)
        else:
            h = torch.matmul(h, w.mT) + self.bias.view(-1)
        return h.movedim(-1, 1)  # type: ignore[no-any-return]


class WeightNormed(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act = setting.made()
        norm = weight_norm if setting.choice % 2 else spectral_norm
        norm(self.first if setting.choice % 4 < 2 else self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(x)))  # type: ignore[no-any-return]


class Dropped(Part):
    """Dropout, stochastic depth, or noise in training."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.choice = setting.made(), setting.choice % 4

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        if self.choice == 0:
            h = F.dropout(h, 0.5, self.training)
        elif self.training and self.choice == 1:
            h = h * torch.empty(len(h), *[1] * (h.ndim - 1), dtype=h.dtype).bernoulli_(0.8)
        elif self.training and self.choice == 2:
            h = h + torch.randn_like(h)
        elif self.training:
            h = h.detach() if random.random() < 0.5 else 2 * h
        return self.second(h)  # type: ignore[no-any-return]


class Gated(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gate, self.act, self.sigmoid = copy.deepcopy(self.first), setting.made(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(x)) * self.sigmoid(self.gate(x)))  # type: ignore[no-any-return]


class Cut(Part):
    """Halves, padding, picked rows, and a signal that is kept in an attribute."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.choice = setting.made(), setting.choice % 4
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        if self.choice == 0:
            one, other = h[:, :1], h[:, 1:]
            h = torch.cat([other, one], 1)
        elif self.choice == 1:
            h = F.pad(h[:, 1:], (*(0,) * (2 * h.ndim - 4), 1, 0))
        elif self.choice == 2:
            h = h[torch.arange(len(h)).flip(0)]
        else:
            self.last = h
        return self.second(h)  # type: ignore[no-any-return]


ALL = (*PARTS, Contracted, WeightNormed, Dropped, Gated, Cut)


def agile(drawn: Drawn) -> tuple[nn.Module, Tensor]:
    """Convert a network, draw its pairs, and give its norms statistics of their own."""
    x = drawn.example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = ag.convert(drawn.model, example_inputs=x)
    set_pairs(model, drawn.seed)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn_like(x) + 0.5)
    return model.eval(), x


def made(model: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    model.train(training)
    torch.manual_seed(0)
    random.seed(0)
    with torch.no_grad():
        return outputs(model(x))


def assert_same(plain: nn.Module, model: nn.Module, x: Tensor, training: bool, bar: float) -> None:
    ours, theirs = made(plain, x, training), made(model, x, training)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        # A normalisation enlarges rounding: by the size of what goes in, not of what comes out.
        assert float((one - other).abs().max()) <= bar * max(1.0, float(other.abs().max())), (one, other)


def check(drawn: Drawn, options: dict[str, Any]) -> None:
    model, x = agile(drawn)
    plain, report = ag.fold(model, x, **options)
    agile_left = [name for name, module in plain.named_modules() if isinstance(module, ag.AgileModule)]
    if options["architecture"] == "extend":
        assert not agile_left
    else:
        assert set(agile_left) <= {site.name for site in report.refused}
        assert not any(site.created for site in report.sites)
    for site in report.refused:
        assert site.reason
    bar = BAR[x.dtype]
    for example in (x, torch.randn_like(x)):
        assert_same(plain, model, example, False, bar)
        if options["training"]:
            assert_same(plain, model, example, True, bar)
    if report.sites:
        assert {site.name for site in ag.lint(model, x).sites} <= {site.name for site in report.sites}


OPTIONS = st.fixed_dictionaries({"architecture": st.sampled_from(["extend", "keep"]), "training": st.booleans()})


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks(ALL, most=2), OPTIONS)
def test_random_networks_fold(drawn: Drawn, options: dict[str, Any]):
    check(drawn, options)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(ALL), OPTIONS)
def test_many_random_networks_fold(drawn: Drawn, options: dict[str, Any]):
    check(drawn, options)
