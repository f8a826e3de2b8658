"""standardize_weights: rows are directions after every step, of every optimizer and in every dtype."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import agileact as ag
from agileact.nn.rows import Projection, directions, held

OPTIMIZERS = sorted(
    name
    for name, one in vars(torch.optim).items()
    # Muon is for matrices alone; SparseAdam for sparse gradients alone.
    if isinstance(one, type)
    and issubclass(one, torch.optim.Optimizer)
    and name not in ("Optimizer", "Muon", "SparseAdam")
)


def network(dtype: torch.dtype = torch.float32, centre: Any = "all") -> Any:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv1d(2, 4, 3),
        ag.AgileReLU(4),
        nn.ConvTranspose1d(4, 6, 3, groups=2),
        ag.AgileGELU(6),
        nn.Flatten(),
        nn.Linear(48, 5),
        ag.AgileTanh(5),
        nn.Linear(5, 3),
    )
    model, _ = ag.standardize(model, torch.randn(2, 2, 8), centre=centre)
    return model.to(dtype)


def off(model: Any) -> float:
    """Return how far rows are from mean 0 and length 1 at most."""
    found = [0.0]
    for index in (0, 2, 5):
        weight = model[index].weight.detach().double()
        if index == 2:  # (in, out / groups, kernel), two groups
            rows = [weight[group * 2 : group * 2 + 2, place].flatten() for group in range(2) for place in range(3)]
        else:
            rows = list(weight.flatten(1))
        found += [max(abs(float(row.norm()) - 1), abs(float(row.mean()))) for row in rows]
    return max(found)


def loss_of(model: nn.Module, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    x = torch.randn(16, 2, 8, generator=generator).to(dtype)
    goal = torch.randn(16, 3, generator=generator).to(dtype)
    result: torch.Tensor = (model(x) - goal).square().mean()
    return result


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_are_directions_after_every_step_of_every_optimizer(name: str):
    model = network()
    whole = name == "LBFGS"  # takes one group alone
    optimizer = getattr(torch.optim, name)(model.parameters() if whole else ag.param_groups(model, 0.01), lr=0.01)
    ag.standardize_weights(optimizer, model)
    for step in range(3):

        def closure(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        before = model[5].weight.detach().clone()
        optimizer.step(closure)
        assert off(model) < 1e-6
        assert not torch.equal(model[5].weight, before)


@pytest.mark.parametrize("centre", ["all", "none"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_step_is_the_formula_in_float64(dtype: torch.dtype, centre: str):
    model = network(dtype, centre)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.5))
    ag.standardize_weights(optimizer, model)
    loss_of(model).backward()
    weight, gradient = (one.detach().double() for one in (model[5].weight, model[5].weight.grad))
    stepped = (weight - 0.5 * gradient).to(dtype).double()
    moved = stepped - stepped.mean(1, keepdim=True) if centre == "all" else stepped
    optimizer.step()
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        model[5].weight.detach().double(), moved / moved.norm(dim=1, keepdim=True), rtol=8 * eps, atol=8 * eps
    )
    if centre == "all":
        assert off(model) < 16 * eps


def test_a_model_whose_function_was_kept_is_not_centred():
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 4), ag.AgileReLU(4), nn.Linear(4, 3))
    model, _ = ag.standardize(model, torch.randn(2, 6), keep_function=True)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.5))
    ag.standardize_weights(optimizer, model)
    model(torch.randn(8, 6)).square().mean().backward()
    stepped = model[0].weight.detach().double() - 0.5 * model[0].weight.grad.double()
    optimizer.step()
    expected = stepped / stepped.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model[0].weight.detach().double(), expected, rtol=1e-6, atol=1e-6)
    assert model[0].weight.mean(1).abs().max() > 1e-3


@pytest.mark.parametrize("centre", ["all", "none"])
def test_the_projection_allocates_nothing(centre: str):
    model = network(centre=centre)
    projection = Projection(directions(model))
    layers: list[Any] = list(directions(model).values())
    places = [layer.weight.data_ptr() for layer in layers]
    projection.project()  # makes its room
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as seen:
        projection.project()
        kept = torch.ones(3)
    allocated = {event.key: event.self_cpu_memory_usage for event in seen.key_averages()}
    assert allocated.pop("aten::empty") == kept.nbytes  # so the profiler does count
    assert not any(allocated.values()), allocated
    assert places == [layer.weight.data_ptr() for layer in layers]


def test_all_weights_are_projected_at_once_and_until_the_handle_is_removed():
    model = network()
    with torch.no_grad():
        model[5].weight.mul_(2).add_(1)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    handle = ag.standardize_weights(optimizer, model)
    assert off(model) < 1e-6
    handle.remove()
    train(model, optimizer, 1)
    assert off(model) > 1e-6


def test_groups_keep_decay_from_directions():
    model = network()
    groups = {group["name"]: group for group in ag.param_groups(model, 0.1, direction_lr=0.02, weight_decay=0.3)}
    assert list(groups) == ["weights", "direction", "scale", "location", "gain"]
    assert groups["weights"]["params"] == [model[7].weight, model[7].bias]
    assert groups["direction"]["params"] == [model[0].weight, model[2].weight, model[5].weight]
    assert groups["gain"]["params"] == [model[3].gain, model[6].gain]
    assert [group["weight_decay"] for group in groups.values()] == [0.3, 0.0, 0.0, 0.0, 0.0]
    assert [group["lr"] for group in groups.values()] == [0.1, 0.02, 0.1, 0.1, 0.1]
    own = ag.param_groups(model, 0.1, groups=[{"params": model.parameters(), "lr": 0.7}], weight_decay=0.3)
    assert [(group.get("name"), group["lr"]) for group in own] == [
        (None, 0.7),
        ("direction", 0.7),
        ("scale", 0.7),
        ("location", 0.7),
        ("gain", 0.7),
    ]


@pytest.mark.parametrize("reverse", [False, True])
def test_it_composes_with_decay_ranges_and_schedules(reverse: bool):
    model = network()
    optimizer = torch.optim.AdamW(ag.param_groups(model, 0.05, weight_decay=0.1, activation_decay=0.5))
    start = model[3].scale.detach().clone()
    added = [
        lambda: ag.standardize_weights(optimizer, model),
        lambda: ag.constrain_scale(optimizer, model, (0.5, 5.0)),
        lambda: ag.decay_activations(optimizer, model),
    ]
    for one in reversed(added) if reverse else added:
        one()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    for step in range(5):
        train(model, optimizer, 1, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        schedule.step()
        assert off(model) < 1e-6
    # The decay is towards the start, which is not 1 here, and of the gain towards 1.
    with torch.no_grad():
        model[3].scale.fill_(3.0)
        model[3].gain.fill_(2.0)
    other = torch.optim.SGD(ag.param_groups(model, 0.5, activation_decay=0.2))
    ag.decay_activations(other, model)
    other.zero_grad()
    model[3](torch.zeros(1, 6)).mul(0).sum().backward()
    other.step()
    torch.testing.assert_close(model[3].scale.detach(), 3 - 0.1 * (3 - start))
    torch.testing.assert_close(model[3].gain.detach(), torch.full((6,), 1.9))


def test_a_step_that_a_scaler_skips_changes_nothing():
    model = network()
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    ag.standardize_weights(optimizer, model)
    scaler = torch.amp.GradScaler("cpu")
    before = copy.deepcopy(model.state_dict())
    scaler.scale(loss_of(model) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    optimizer.zero_grad()
    scaler.scale(loss_of(model)).backward()
    scaler.step(optimizer)
    assert not torch.equal(before["0.weight"], model[0].weight)
    assert off(model) < 1e-6


@pytest.mark.parametrize("centre", ["hidden", "all", "start", "none"])
def test_a_run_that_is_resumed_has_the_same_bits(centre: str):
    def begun(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(ag.param_groups(model, 0.01))
        return optimizer

    model = network(centre=centre)
    optimizer = begun(model)
    ag.standardize_weights(optimizer, model)
    train(model, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, 3, 3)
    file.seek(0)
    saved = torch.load(file)
    other = network()  # its own choice is another; that of the state counts
    other.load_state_dict(saved["model"])
    assert [held(layer) for layer in directions(other).values()] == [
        held(layer) for layer in directions(model).values()
    ]
    resumed = begun(other)
    resumed.load_state_dict(saved["optimizer"])
    ag.standardize_weights(resumed, other)
    train(other, resumed, 3, 3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_average_of_weights_computes_with_shorter_rows():
    model = network()
    average = AveragedModel(model)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.5))
    ag.standardize_weights(optimizer, model)
    for step in range(4):
        train(model, optimizer, 1, step)
        average.update_parameters(model)
    assert off(model) < 1e-6
    averaged: Any = average.module
    lengths = averaged[5].weight.norm(dim=1)
    assert bool((lengths < 1).all())
    assert lengths.min() > 0.5


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda model: None, ag.ArgumentError, "optimizer has no weight of a layer that agileact.standardize"),
        (
            lambda model: parametrize.register_parametrization(model[0], "weight", nn.Identity()),
            ag.ArgumentError,
            "layer '0' cannot be kept standardised: its weight is parametrised, pruned or computed",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(prepare, error, message):
    model = network()
    other = network()
    prepare(model)
    with pytest.raises(error, match=message):
        ag.standardize_weights(torch.optim.SGD(ag.param_groups(other, 0.1)), model)


def test_other_types_are_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ag.ArgumentTypeError, match=r"model must be a torch\.nn\.Module"):
        ag.standardize_weights(optimizer, 3)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        ag.standardize_weights(model, model)
    with pytest.raises(ag.ArgumentError, match="direction_lr must be at least 0"):
        ag.param_groups(model, 0.1, direction_lr=-1.0)


@pytest.mark.parametrize(
    ("centre", "kinds"),
    [("hidden", ["length", "centred", "centred"]), ("all", ["centred"] * 3), ("none", ["length"] * 3)],
)
def test_copies_pickles_and_states_keep_what_is_held(centre: str, kinds: list[str]):
    model = network(centre=centre)
    stated = network()
    stated.load_state_dict(torch.load(_saved(model.state_dict())))
    for other in (model, copy.deepcopy(model), torch.load(_saved(model), weights_only=False), stated):
        assert {name: held(layer) for name, layer in directions(other).items()} == dict(
            zip(("0", "2", "5"), kinds, strict=True)
        )
        again = network(centre="none")
        again.load_state_dict(other.state_dict())  # a copy says it as the model did
        assert [held(layer) for layer in directions(again).values()] == kinds


def test_a_state_that_says_nothing_leaves_the_choice_to_the_model():
    tensors = dict(network(centre="none").state_dict())  # as safetensors keeps it
    model = network()
    model.load_state_dict(tensors)
    assert {held(layer) for layer in directions(model).values()} == {"centred"}
    ag.standardize_weights(torch.optim.SGD(model.parameters(), 0.1), model)
    assert off(model) < 1e-6


def test_a_model_pickled_before_states_said_it_stays_centred():
    model = network()
    for layer in directions(model).values():
        for hook in vars(layer).pop("_agileact_row_hooks"):
            hook.remove()
    old = torch.load(_saved(model), weights_only=False)
    optimizer = torch.optim.SGD(ag.param_groups(old, 0.1))
    ag.standardize_weights(optimizer, old)
    train(old, optimizer, 2)
    assert off(old) < 1e-6
    plain, _ = ag.fold(old, torch.randn(2, 2, 8))
    assert not directions(plain)


def test_a_choice_that_is_loaded_later_counts_from_then_on():
    model, other = network(), network(centre="none")
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    ag.standardize_weights(optimizer, model)
    model.load_state_dict(other.state_dict())
    train(model, optimizer, 1)
    assert float(model[5].weight.detach().mean(1).abs().max()) > 1e-3
    torch.testing.assert_close(model[5].weight.norm(dim=1), torch.ones(5))


def test_a_model_that_is_free_again_says_nothing_in_its_state():
    plain, _ = ag.fold(network(), torch.randn(2, 2, 8))
    state: Any = plain.state_dict()
    assert not any("_agileact_rows" in entry for entry in state._metadata.values())
    assert not any(vars(layer)["_state_dict_hooks"] for layer in plain.modules())


def _saved(model: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file
