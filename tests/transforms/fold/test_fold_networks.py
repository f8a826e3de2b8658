"""Whole networks: of known shapes, and random ones."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import assert_close, checked, drawn, run, statuses
from tests.transforms.networks import NETWORKS

IMAGE = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_network_folds_whole(name: str, dtype: torch.dtype):
    model = drawn(NETWORKS[name]()).to(dtype)
    plain, report = checked(model, IMAGE.to(dtype))
    assert set(statuses(report)) == {"folded"}, str(report)
    assert report.same_architecture
    assert set(plain.state_dict()) == {
        key for key in model.state_dict() if not key.endswith((".scale", ".location")) or "layer_scale" in key
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_negative_scales_is_exact(name: str):
    _, report = checked(drawn(NETWORKS[name](), negative=True).double(), IMAGE)
    assert any(site.status == "folded" for site in report.sites)
    assert all(site.reason for site in report.refused)


class Random(nn.Module):
    """A chain of random layers; some of what it makes is added or put beside what comes later."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.plan: list[tuple[str, int]] = []
        channels = [4]
        for _ in range(draw(st.integers(1, 6))):
            kind = draw(st.sampled_from(["conv", "bn", "act", "act", "pool", "shuffle", "add", "cat", "gate", "scale"]))
            current = channels[-1]
            layer: nn.Module = nn.Identity()
            other = 0
            if kind == "conv":
                bias = draw(st.booleans())
                layer = draw(
                    st.sampled_from(
                        [
                            nn.Conv2d(current, 4, 3, padding=1, bias=bias),
                            nn.Conv2d(current, 8, 1, groups=2, bias=bias),
                            nn.Conv2d(current, current, 3, padding=1, groups=current, bias=bias),
                            nn.ConvTranspose2d(current, 4, 3, padding=1, groups=2, bias=bias),
                        ]
                    )
                )
                current = int(layer.out_channels)  # type: ignore[arg-type]
            elif kind == "bn":
                layer = draw(st.sampled_from([nn.BatchNorm2d(current), nn.GroupNorm(2, current)]))
            elif kind == "act":
                base = draw(st.sampled_from(["relu", "gelu", "leaky_relu", "sigmoid", "identity", "tanh"]))
                layer = ag.Agile(base, current)
            elif kind == "pool":
                layer = draw(st.sampled_from([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Dropout(0.2)]))
            elif kind == "shuffle":
                layer = nn.ChannelShuffle(2)
            elif kind in ("add", "cat", "gate"):
                other = draw(st.integers(0, len(channels) - 1))
                if kind == "cat":
                    current += channels[other]
                elif channels[other] != current:
                    kind = "none"
            self.layers.append(layer)
            self.plan.append((kind, other))
            channels.append(current)
        self.head = nn.Conv2d(channels[-1], 2, 1) if draw(st.booleans()) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for layer, (kind, other) in zip(self.layers, self.plan, strict=True):
            if kind == "add":
                x = x + made[other]
            elif kind == "cat":
                x = torch.cat([made[other], x], 1)
            elif kind == "gate":
                x = x * made[other]
            elif kind == "scale":
                x = 0.5 * x
            else:
                x = layer(x)
            made.append(x)
        y: Tensor = self.head(x)
        return y


@settings(max_examples=100)
@given(st.data())
def test_random_networks(data: st.DataObject):
    torch.manual_seed(data.draw(st.integers(0, 100)))
    model = drawn(Random(data.draw), data.draw(st.integers(0, 100)), negative=data.draw(st.booleans())).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    plain, report = ag.fold(model, x)
    assert not any(type(module).__module__.startswith("agileact") for module in plain.modules())
    assert_close(run(plain, x), run(model, x), 1e-12)
    assert_close(run(plain, x, training=True), run(model, x, training=True), 1e-9)
    for site in report.sites:
        assert (site.status == "folded") == (not site.kept) == (not site.reason)
    # Another input than the example.
    assert_close(run(plain, 3 * x.flip(0) + 1), run(model, 3 * x.flip(0) + 1), 1e-12)


def test_a_hundred_layers_fold_in_five_seconds_of_processor_time():
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(100):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), ag.AgileReLU(8)]
    model = drawn(nn.Sequential(*layers))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads count as processor time
    try:
        begin = time.process_time()
        _, report = ag.fold(model, torch.randn(2, 8, 8, 8))
        seconds = time.process_time() - begin
    finally:
        torch.set_num_threads(threads)
    assert seconds <= 5.0
    assert len(report.folded) == 100
