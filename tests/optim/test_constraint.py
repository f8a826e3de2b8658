"""constrain_scale: in range after every step of every optimizer, in every dtype, whatever else moves the scales."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import agileact as ag

OPTIMIZERS = sorted(
    name
    for name, one in vars(torch.optim).items()
    # Muon is for matrices alone; SparseAdam for sparse gradients alone.
    if isinstance(one, type)
    and issubclass(one, torch.optim.Optimizer)
    and name not in ("Optimizer", "Muon", "SparseAdam")
)


def _network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 5), ag.AgileTanh(5), nn.Linear(5, 4), ag.CombinedAgile("relu", 4), ag.AgileReLU(4)
    )


def _scales(model: nn.Module, detached: bool = True) -> list[torch.Tensor]:
    scales = [module.scale for module in model.modules() if isinstance(module, ag.AgileModule)]
    return [scale.detach() for scale in scales] if detached else list(scales)


def _inside(model: nn.Module, low: float, high: float) -> bool:
    return all(low <= value <= high for scale in _scales(model) for value in scale.double().tolist())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("range", ["positive", (0.7, 1.3)])
def test_in_range_after_every_step_of_every_optimizer(name: str, range: Any):
    model = _network()
    whole = name == "LBFGS"  # takes one group alone
    optimizer = getattr(torch.optim, name)(model.parameters() if whole else ag.param_groups(model, 0.1), lr=0.1)
    ag.constrain_scale(optimizer, model, range)
    low, high = (0.0, math.inf) if range == "positive" else range
    assert _inside(model, low, high)
    x, goal = torch.randn(16, 3), torch.randn(16, 4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = (model(x) - goal).tanh().square().mean()
        for one in _scales(model, detached=False):
            # To both sides, and out of the range.
            loss = loss + (one - 9.0 * (-1.0) ** torch.arange(len(one))).square().sum()
        loss.backward()
        return loss

    moved = False
    for _ in (1, 2, 3, 4, 5, 6):
        before = copy.deepcopy(_scales(model))
        optimizer.step(closure)
        assert _inside(model, low, high)
        assert range != "positive" or all((scale > 0).all() for scale in _scales(model))
        moved |= any(not torch.equal(one, other) for one, other in zip(before, _scales(model), strict=True))
    assert moved


@given(
    low=st.floats(-3, 3, allow_nan=False),
    width=st.floats(0.05, 4),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_exact_in_every_dtype(low: float, width: float, dtype: torch.dtype):
    module = ag.AgileReLU(2, dtype=dtype)
    optimizer = torch.optim.SGD([module.scale], lr=100.0)
    ag.constrain_scale(optimizer, module, (low, low + width))
    assert _inside(module, low, low + width)
    for sign in (1, -1):
        module.scale.grad = torch.tensor([1.0, -1.0], dtype=dtype) * sign
        optimizer.step()
        assert _inside(module, low, low + width)
        # And no further in than one number of the dtype.
        ends = sorted(module.scale.detach().double().tolist())
        assert ends == pytest.approx([low, low + width], rel=2 * torch.finfo(dtype).eps, abs=1e-7)


def test_the_numbers_next_to_a_bound():
    for dtype, low, high in ((torch.float16, 1e-9, 1e6), (torch.bfloat16, -1e-45, 0.1), (torch.float32, -0.1, 1e-50)):
        module = ag.AgileReLU(2, dtype=dtype)
        with torch.no_grad():
            module.scale.copy_(torch.tensor([-9.0, torch.finfo(dtype).max]))
        ag.constrain_scale(torch.optim.SGD(module.parameters()), module, (low, high))
        assert _inside(module, low, high)


def test_inside_the_range_nothing_changes():
    free, bound = _network(), _network()
    with torch.no_grad():
        for model in (free, bound):
            model[3].scale.fill_(1.0)
    optimizers = [torch.optim.AdamW(ag.param_groups(model, 0.01)) for model in (free, bound)]
    ag.constrain_scale(optimizers[1], bound, (0.1, 10.0))
    for _ in range(5):
        for model, optimizer in zip((free, bound), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
            optimizer.step()
    for one, other in zip(free.parameters(), bound.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scale_leaves_the_edge_when_its_gradient_says_so():
    module = ag.AgileReLU(1)
    optimizer = torch.optim.SGD([module.scale], lr=1.0)
    ag.constrain_scale(optimizer, module, (0.5, 2.0))
    for gradient, expected in ((9.0, 0.5), (-0.25, 0.75)):
        module.scale.grad = torch.tensor([gradient])
        optimizer.step()
        assert module.scale.item() == expected


@pytest.mark.parametrize("decay_first", [True, False])
def test_decay_towards_a_start_out_of_range_ends_in_range(decay_first: bool):
    module = ag.AgileReLU(2)
    optimizer = torch.optim.SGD(ag.param_groups(module, 1.0, activation_decay=0.9))
    if decay_first:
        ag.decay_activations(optimizer, module)
    ag.constrain_scale(optimizer, module, (2.0, 5.0))
    if not decay_first:
        ag.decay_activations(optimizer, module)
    for _ in range(3):
        module(torch.ones(1, 2)).sum().mul(0.0).backward()
        optimizer.step()
        assert module.scale.tolist() == [2.0, 2.0]


def test_it_ends_when_removed_and_others_stay():
    model = _network()
    optimizer = torch.optim.SGD(ag.param_groups(model, 10.0))
    first = ag.constrain_scale(optimizer, model, (0.9, 1.1), filter_fn=lambda module, name: name == "1")
    ag.constrain_scale(optimizer, model, "positive", filter_fn=lambda module, name: name == "4")

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    step()
    assert model[1].scale.detach().unique().item() == pytest.approx(0.9)
    assert (model[3].scale < 0).all()  # filtered out: free
    first.remove()
    step()
    assert (model[1].scale < 0).all()
    assert (model[4].scale > 0).all()


def test_the_module_stays_as_it_is_and_states_and_copies_load():
    model = _network()
    keys, kinds = list(model.state_dict()), [type(module.scale) for module in (model[1], model[3])]
    optimizer = torch.optim.AdamW(ag.param_groups(model, 5.0))
    ag.constrain_scale(optimizer, model, (0.5, 1.5))
    assert list(model.state_dict()) == keys
    assert [type(module.scale) for module in (model[1], model[3])] == kinds
    twin, twin_optimizer = copy.deepcopy(model), copy.deepcopy(optimizer)
    other = torch.optim.AdamW(ag.param_groups(twin, 5.0))
    other.load_state_dict(twin_optimizer.state_dict())
    ag.constrain_scale(other, twin, (0.5, 1.5))
    for one, steps in ((model, optimizer), (twin, other)):
        one(torch.ones(2, 3)).sum().backward()
        steps.step()
        assert _inside(one, 0.5, 1.5)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_is_not_kept_alive():
    import gc
    import weakref

    model = _network()
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    ag.constrain_scale(optimizer, model, "positive")
    reference = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("range", "error", "message"),
    [
        ("negative", ag.ArgumentTypeError, "must be 'positive' or a pair"),
        ((1.0,), ag.ArgumentTypeError, "must be 'positive' or a pair"),
        ((0, "1"), ag.ArgumentTypeError, "must be a pair of numbers"),
        ((2.0, 1.0), ag.ArgumentError, "low <= high"),
        ((math.nan, 1.0), ag.ArgumentError, "low <= high"),
        ((math.inf, math.inf), ag.ArgumentError, "low <= high"),
        ((0.1, 0.1), ag.ArgumentError, "holds no number of the scale's dtype, torch.float32"),
    ],
)
def test_bad_ranges(range: Any, error: type[Exception], message: str):
    model = _network()
    with pytest.raises(error, match=message):
        ag.constrain_scale(torch.optim.SGD(model.parameters()), model, range)


def test_bad_models_and_optimizers():
    model = _network()
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ag.ArgumentTypeError, match="optimizer must be"):
        ag.constrain_scale(model, model, "positive")
    with pytest.raises(ag.ArgumentTypeError, match="model must be"):
        ag.constrain_scale(optimizer, optimizer, "positive")  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="no scale of an agile module"):
        ag.constrain_scale(optimizer, copy.deepcopy(model), "positive")
    with pytest.raises(ag.ArgumentError, match="no scale of an agile module"):
        ag.constrain_scale(optimizer, nn.Linear(2, 2), "positive")
    with pytest.raises(ag.ArgumentError, match="no parameters yet"):
        ag.constrain_scale(optimizer, ag.AgileReLU(), "positive")
    with torch.no_grad():
        model[1].scale[0] = math.nan
    with pytest.raises(ag.ArgumentError, match="layer '1' has values that are not finite"):
        ag.constrain_scale(optimizer, model, "positive")
    prune.l1_unstructured(model[4], "scale", amount=1)
    with pytest.raises(ag.ArgumentError, match="layer '4' is parametrised or pruned"):
        ag.constrain_scale(optimizer, model, "positive", filter_fn=lambda module, name: name == "4")
