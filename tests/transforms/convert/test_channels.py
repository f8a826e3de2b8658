from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.convert.channels import ChannelFinder
from agileact.transforms.trace.recorder import record


class _Net(nn.Module):
    """A first layer, something that moves its channels about, and an activation."""

    def __init__(self, first: nn.Module, then: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.then(self.first(x)))


def channels(first: nn.Module, then: Callable[..., Tensor], *shape: int) -> tuple[int | None, int]:
    recording = record(_Net(first, then), torch.randn(shape))
    call = next(call for call in recording.calls if call.name == "relu")
    found = ChannelFinder().find(call.inputs[0])
    return found.axis, found.count


CONV = nn.Conv2d(3, 6, 1)


@pytest.mark.parametrize(
    ("first", "then", "shape", "axis", "count"),
    [
        (nn.Identity(), lambda y: y, (2, 3, 4, 5), 1, 3),  # no layer made them: by convention
        (nn.Identity(), lambda y: y, (3,), 0, 3),
        (CONV, lambda y: y, (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: y, (3, 4, 5), 0, 6),
        (nn.Conv1d(3, 6, 1), lambda y: y, (2, 3, 4), 1, 6),
        (nn.Conv3d(3, 6, 1), lambda y: y, (2, 3, 4, 4, 4), 1, 6),
        (nn.ConvTranspose2d(3, 6, 2), lambda y: y, (2, 3, 4, 4), 1, 6),
        (nn.Linear(3, 6), lambda y: y, (2, 3), 1, 6),
        (nn.Linear(3, 6), lambda y: y, (2, 7, 3), 2, 6),
        (nn.Linear(3, 6), lambda y: y, (3,), 0, 6),
        (nn.BatchNorm2d(3), lambda y: y, (2, 3, 4, 4), 1, 3),
        (nn.LayerNorm(3), lambda y: y, (2, 4, 3), 2, 3),
        (nn.Sequential(CONV, nn.LayerNorm([4, 5])), lambda y: y, (2, 3, 4, 5), 1, 6),
        (nn.GroupNorm(1, 3), lambda y: y, (2, 3, 4, 4), 1, 3),
        (CONV, lambda y: y.permute(0, 2, 3, 1), (2, 3, 4, 5), 3, 6),
        (CONV, lambda y: y.flatten(2).transpose(1, 2), (2, 3, 4, 5), 2, 6),
        (CONV, lambda y: y.flatten(1), (2, 3, 4, 5), 1, 120),
        (CONV, lambda y: y.mean((2, 3)), (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: y.amax(3).amax(2, keepdim=True), (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: F.max_pool2d(F.avg_pool2d(y, 2), 2), (2, 3, 8, 8), 1, 6),
        (CONV, lambda y: F.adaptive_avg_pool2d(y, 1), (2, 3, 8, 8), 1, 6),
        (CONV, lambda y: F.interpolate(y, scale_factor=2), (2, 3, 8, 8), 1, 6),
        (CONV, lambda y: F.pad(y, (1, 1)), (2, 3, 8, 8), 1, 6),
        (CONV, lambda y: torch.cat([y, y * 2, y.flip(1)], 1), (2, 3, 4, 5), 1, 18),
        (CONV, lambda y: torch.cat([torch.zeros(2, 1, 4, 5), y], 1), (2, 3, 4, 5), 1, 7),
        (CONV, lambda y: y.chunk(2, 1)[1], (2, 3, 4, 5), 1, 3),
        (CONV, lambda y: y.view(2, 2, 3, 4, 5).transpose(1, 2).reshape(2, 6, 4, 5), (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: F.channel_shuffle(y, 2), (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: F.dropout(y) + y.new_ones(4, 5), (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: y.clamp(-1, 1).exp() / 2, (2, 3, 4, 5), 1, 6),
        (CONV, lambda y: y[:, :4].squeeze(), (1, 3, 4, 5), 0, 4),
        (nn.Conv2d(3, 8, 1), lambda y: F.pixel_shuffle(y, 2), (2, 3, 4, 5), 1, 2),
        (nn.Conv2d(3, 1, 1), lambda y: y * 2, (2, 3, 4, 5), 1, 1),
        (nn.Embedding(5, 6), lambda y: y, (0, 3), 2, 6),
    ],
)
def test_channels_are_followed(first: nn.Module, then: Any, shape: tuple[int, ...], axis: int, count: int):
    if isinstance(first, nn.Embedding):
        recording = record(_Net(first, then), torch.zeros(2, 3, dtype=torch.long))
        found = ChannelFinder().find(next(call for call in recording.calls if call.name == "relu").inputs[0])
        assert (found.axis, found.count) == (axis, count)
    else:
        assert channels(first, then, *shape) == (axis, count)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (lambda y: y.view(2, 2, 3, 4, 5), "along axes 1 and 2"),
        (lambda y: y.sort(1)[0], "cannot be told"),
        (lambda y: y.mean(1), "cannot be told"),
        (lambda y: y[:, 0], "no axis"),
    ],
)
def test_channels_that_cannot_be_told(then: Callable[[Tensor], Tensor], reason: str):
    model = _Net(CONV, then)
    x = torch.randn(2, 3, 4, 5)
    _, report = ag.convert(model, example_inputs=x)
    assert re.search(reason, report.skipped[0].reason)
    agile, report = ag.convert(model, example_inputs=x, granularity="layer")
    assert len(report.converted) == 1
    assert torch.equal(agile(x), model(x))


class _Numbered(nn.Module):
    """Every channel of its first layer is another constant: the result itself then says where the channels are."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 1)
        nn.init.zeros_(self.first.weight)
        with torch.no_grad():
            self.first.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))  # type: ignore[union-attr]
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for step, axis in self.steps:
            axis %= y.ndim
            if step == "swap":
                y = y.transpose(axis, 0)
            elif step == "flatten" and y.ndim > 2:
                y = y.flatten(min(axis, y.ndim - 2), min(axis, y.ndim - 2) + 1)
            elif step == "chunk" and y.shape[axis] > 3:
                y = y.chunk(2, axis)[1]
            elif step == "cat":
                y = torch.cat([y, y], axis)
            elif step == "flip":
                y = y.flip(axis)
            elif step == "roll":
                y = torch.roll(y, 1, axis)
            elif step == "new":
                y = y.unsqueeze(axis).expand(*y.shape[:axis], 2, *y.shape[axis:])
            elif step == "mean":
                y = y.mean(axis, keepdim=True) if y.shape[axis] != 4 else y
            elif step == "exp":
                y = y.clamp(0, 9).exp().log1p()
        return torch.relu(y)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["swap", "flatten", "chunk", "cat", "flip", "roll", "new", "mean", "exp"]),
            st.integers(0, 3),
        ),
        max_size=6,
    )
)
def test_the_numbers_themselves_say_where_the_channels_are(steps: list[tuple[str, int]]):
    model = _Numbered(steps)
    x = torch.randn(2, 1, 3, 5)
    recording = record(model, x)
    found = ChannelFinder().find(recording.calls[-1].inputs[0])
    y = model(x)
    varying = [axis for axis in range(y.ndim) if not torch.equal(y, y.narrow(axis, 0, 1).expand_as(y))]
    if found.axis is not None:
        assert varying in ([found.axis], [])
        assert found.count == y.shape[found.axis]
    elif len(varying) == 1:
        # It may be lost where channels of one kind became one axis and were then reduced, never told wrong.
        assert any(step == "mean" for step, _ in steps)


ROWS = torch.tensor([0, 2, 1, 1, 0])


def _messages(h: Tensor) -> Tensor:
    """What a graph network does: rows picked, weighted, and added up where they go."""
    return torch.zeros(3, h.shape[1]).index_add_(0, ROWS, h.index_select(0, ROWS.flip(0)) * torch.ones(5, 1))


@pytest.mark.parametrize(
    ("then", "axis", "count"),
    [
        (lambda h: h.index_select(0, ROWS), 1, 6),
        (lambda h: h[ROWS], 1, 6),
        (lambda h: torch.gather(h, 0, ROWS[:, None].expand(-1, 6)), 1, 6),
        (lambda h: torch.zeros_like(h).index_add(0, ROWS[:3], h), 1, 6),
        (lambda h: h.new_zeros(4, 6).scatter_add_(0, ROWS[:3, None].expand(-1, 6), h), 1, 6),
        (lambda h: torch.zeros(4, 6).scatter_reduce(0, ROWS[:3, None].expand(-1, 6), h, "amax"), 1, 6),
        (_messages, 1, 6),
        (lambda h: torch.einsum("vw,wc->vc", torch.ones(4, 3), h), 1, 6),
        (lambda h: torch.einsum("vw,wc->cv", torch.ones(4, 3), h), 0, 6),
        (lambda h: torch.sparse.mm(torch.eye(3).to_sparse(), h), 1, 6),
        (lambda h: torch.eye(3).to_sparse() @ h, 1, 6),
        (lambda h: h.t()[:, ROWS], 0, 6),
    ],
)
def test_channels_of_rows_that_are_picked_and_added_up(then: Callable[[Tensor], Tensor], axis: int, count: int):
    assert channels(nn.Linear(4, 6), then, 3, 4) == (axis, count)


@pytest.mark.parametrize(
    "then",
    [
        lambda h: h[:, ROWS],
        lambda h: h.index_select(1, ROWS),
        lambda h: torch.zeros(3, 5).scatter_add_(1, ROWS.expand(3, 5), h[:, :5]),
    ],
)
def test_channels_that_are_picked_are_no_channels_any_more(then: Callable[[Tensor], Tensor]):
    _, report = ag.convert(_Net(nn.Linear(4, 6), then), example_inputs=torch.randn(3, 4))
    assert "give it by dim=" in report.skipped[0].reason


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight)


def test_channels_of_experts():
    assert channels(_Experts(), lambda y: y, 3, 5, 4) == (2, 6)


def test_a_batch_norm_over_flattened_tokens():
    """As in LeViT: (B, N, C) becomes (B * N, C) and comes back."""

    class LinearNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return self.norm(x.flatten(0, 1)).reshape_as(x)  # type: ignore[no-any-return]

    assert channels(LinearNorm(), lambda y: y, 2, 5, 4) == (2, 6)
    assert channels(LinearNorm(), lambda y: y.view(2, 5, 6).permute(0, 2, 1), 2, 5, 4) == (1, 6)


def test_heads_of_attention():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (one.view(2, 5, 2, 4).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v)
            return F.silu(y.transpose(1, 2).reshape(2, 5, 8))

    _, report = ag.convert(Net(), example_inputs=torch.randn(2, 5, 8))
    assert [(site.channels, site.dim) for site in report.converted] == [(8, -1)]


def test_a_long_chain_needs_no_deep_stack():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for _ in range(3000):
                x = x + 1
            return torch.relu(x)

    _, report = ag.convert(Net(), example_inputs=torch.randn(2, 3))
    assert report.converted[0].channels == 4
