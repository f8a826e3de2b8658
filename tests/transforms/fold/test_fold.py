"""Folding as a whole: what is shared, seen or strange, arguments, checks, and what is kept."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import agileact as ag
from agileact.transforms.edit.revert import copied
from tests.transforms.folding import BARS, DOUBLE, IMAGE, assert_close, checked, drawn, run, sequence, statuses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_shared_activation_folds_if_every_use_can():
    act = ag.AgileReLU(6)
    model = sequence(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 2))
    plain, report = checked(model, torch.randn(4, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded"]
    assert report.sites[0].location_into == ("0.bias", "2.bias")
    assert plain[1] is plain[3]
    last = sequence(nn.Linear(6, 6), act, nn.Linear(6, 6), act)
    plain, report = checked(last, torch.randn(4, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded"]  # into the weights before each of its uses
    assert report.sites[0].scale_into == ("0", "2")
    assert plain[1] is plain[3]
    end = sequence(nn.Linear(6, 6), shared := ag.AgileGELU(6), nn.Linear(6, 6), shared)
    plain, report = checked(end, torch.randn(4, 6, dtype=DOUBLE))
    assert report.sites[0].kept == ("scale",)
    assert plain[1] is plain[3]


def test_shared_weights_are_refused():
    fc = nn.Linear(6, 6)
    model = sequence(fc, ag.AgileGELU(6), fc, ag.AgileTanh(6), nn.Linear(6, 2))
    _, report = checked(model, torch.randn(4, 6, dtype=DOUBLE))
    assert report.sites[0].status == "refused"
    assert "0.weight is shared" in report.sites[0].reason
    assert "0.bias is shared" in report.sites[0].reason
    assert report.sites[1].kept == ("location",)


def test_tied_weights_are_refused_even_if_only_one_is_used():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.act = ag.AgileTanh(6)
            self.head = nn.Linear(6, 6)
            self.other = nn.Linear(6, 6)
            self.other.weight = self.head.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.act(self.first(x)))
            return y

    plain, report = checked(drawn(Tied().double()), torch.randn(4, 6, dtype=DOUBLE))
    assert "shared" in report.sites[0].reason
    assert plain.other.weight is plain.head.weight


def test_parametrised_and_pruned_weights_are_refused():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2))
    nn.utils.parametrizations.weight_norm(model[2])
    prune.l1_unstructured(model[4], "weight", amount=0.3)
    x = torch.randn(4, 6, dtype=DOUBLE)
    before = run_pruned(model, x)
    plain, report = ag.fold(model, x)
    assert [site.kept for site in report.sites] == [("scale",), ("scale",)]
    assert all("parametrised, pruned or quantised" in site.reason for site in report.sites)
    assert report.sites[1].location_into == ("2.bias",)
    torch.testing.assert_close(run_pruned(plain, x), before, rtol=1e-12, atol=1e-13)


def run_pruned(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = model(x)
    return y


def test_hooks_are_kept_and_see_what_they_saw():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileReLU(6), nn.Linear(6, 2))
    seen: list[Tensor] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output))
    model[2].register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = ag.fold(model, x)
    assert "a hook sees" in report.sites[0].reason
    assert "hook" in report.sites[1].reason
    seen.clear()
    model(x)
    plain(x)
    assert len(seen) == 4
    torch.testing.assert_close(seen[2:], seen[:2], rtol=1e-12, atol=1e-13)


def test_a_hook_that_changes_the_output_goes_on_doing_so():
    model = drawn(nn.Sequential(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3)).double())
    model[1].register_forward_hook(lambda module, args, output: 2 * output)
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = ag.fold(model, x)
    assert statuses(report) == ["refused"]
    # What stays is a traced module, of which PyTorch makes copies without hooks.
    for one in (plain, copy.deepcopy(plain), copied(plain)):
        torch.testing.assert_close(one(x), model(x), rtol=1e-12, atol=1e-13)


def test_a_hook_of_a_container_sees_what_it_saw():
    inner = nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6))
    model = sequence(inner, nn.Linear(6, 6))
    seen: list[Tensor] = []
    inner.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = ag.fold(model, x)
    assert "a hook of 0 sees it" in report.sites[0].reason
    seen.clear()
    model(x)
    plain(x)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-12, atol=1e-13)


def test_matrix_products_and_parameters_that_are_signals():
    class Manual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 8))
            self.bias = nn.Parameter(torch.randn(8))
            self.act = ag.AgileReLU(8, dim=-1)
            self.place = nn.Parameter(torch.randn(5, 8))
            self.out = ag.AgileReLU(8, dim=-1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(self.act(x @ self.weight + self.bias) + self.place)
            return y

    _, report = checked(drawn(Manual().double()), torch.randn(4, 5, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded", "folded"]
    assert report.sites[0].location_into == ("bias",)


def test_attention_keeps_its_numbers():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=ag.AgileGELU(16, dim=-1), batch_first=True)
    _, report = checked(drawn(layer.double()), torch.randn(2, 5, 8, dtype=DOUBLE))
    assert statuses(report) == ["folded"]
    assert report.sites[0].location_into == ("linear1.bias",)
    assert report.sites[0].scale_into == ("linear2",)


def test_channels_padded_with_zeros_take_any_gauge():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.act = ag.AgileReLU(4)
            self.wide = nn.Conv2d(4, 8, 3, padding=1)
            self.out = ag.AgileReLU(8)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv(x))
            y: Tensor = self.head(self.out(self.wide(x) + F.pad(x, (0, 0, 0, 0, 2, 2))))
            return y

    _, report = checked(drawn(Shortcut().double()), IMAGE)
    assert statuses(report) == ["folded", "folded"]


def test_the_model_may_be_an_activation_itself():
    model = drawn(ag.AgileGELU(4).double())
    _, report = checked(model, IMAGE)
    assert report.sites[0].name == ""
    assert report.sites[0].status == "refused"
    assert "(the model itself)" in str(report)
    untouched, report = ag.fold(ag.AgileGELU(4), IMAGE.float())
    assert isinstance(untouched, nn.GELU)
    assert report.same_architecture


def test_at_the_start_nothing_is_changed():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), ag.AgileReLU(8), nn.Conv2d(8, 4, 1), ag.AgileSigmoid(4)).double()
    plain, report = checked(model, IMAGE)
    assert report.same_architecture
    assert report.relative == 0.0
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_without_activations_or_example():
    model = nn.Linear(3, 2)
    plain, report = ag.fold(model)
    assert plain is not model
    assert report.sites == []
    with pytest.raises(ag.ArgumentError, match="fold needs example_inputs"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)))
    with pytest.raises(ag.ArgumentTypeError, match="tensor, a tuple"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)), 3)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="tensor, a tuple"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)), [3])
    with pytest.raises(ag.ArgumentError, match="empty list"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)), [])
    with pytest.raises(ag.ArgumentError, match="architecture must be"):
        ag.fold(model, architecture="same")  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="training must be True or False"):
        ag.fold(model, training=1)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match=r"must be a torch\.nn\.Module"):
        ag.fold(3)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="tolerance must be a number"):
        ag.fold(model, tolerance="small")  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="at least 0"):
        ag.fold(model, tolerance=-1.0)


class Secretive(nn.Module):
    """A model that reads its own bias where no recording sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.act = ag.AgileTanh(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.fc(x)))
        with torch._C.DisableTorchFunction():
            seen = self.fc.bias.exp().sum() if self.training else torch.zeros(())
        return y + seen


def test_what_is_still_open_is_made_once():
    model = nn.Sequential(nn.LazyLinear(6), ag.AgileTanh(), nn.LazyLinear(2))
    plain: Any
    plain, report = ag.fold(model, torch.randn(4, 6))
    assert statuses(report) == ["folded"]
    assert plain[0].weight.shape == (6, 6)
    assert isinstance(model[0].weight, nn.UninitializedParameter)


def test_a_wrong_model_is_not_returned():
    with pytest.raises(ag.FoldError, match=r"in training mode the output differs.*not by rounding"):
        ag.fold(drawn(Secretive().double()), torch.randn(4, 6, dtype=DOUBLE))
    _, report = ag.fold(drawn(Secretive().double()), torch.randn(4, 6, dtype=DOUBLE), training=False)
    assert report.training is None
    assert "folded for evaluation alone" in str(report)


def test_tolerance_is_the_users():
    model = drawn(nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2)))
    with pytest.raises(ag.FoldError, match=r"it is rounding: .*allow more"):
        ag.fold(model, torch.randn(4, 6), tolerance=0.0)
    _, report = ag.fold(model, torch.randn(4, 6), tolerance=1e-5)
    assert 0 < report.relative < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarser_dtypes(dtype: torch.dtype):
    model = drawn(nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileReLU(6))).to(dtype)
    plain, report = ag.fold(model, torch.randn(4, 6, dtype=dtype))
    assert statuses(report) == ["folded", "folded"]
    assert plain(torch.randn(4, 6, dtype=dtype)).dtype == dtype


def test_an_activation_that_does_not_run_becomes_plain_operations():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.never = ag.AgileTanh(6)
            self.start = ag.AgileReLU(6)
            self.open = ag.AgileReLU()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y

    model = drawn_but(Unused().double())
    plain: Any
    plain, report = ag.fold(model, torch.randn(4, 6, dtype=DOUBLE))
    status = {site.name: site.status for site in report.sites}
    assert status == {"never": "refused", "start": "folded", "open": "folded"}
    for shape in ((2, 6), (2, 6, 3), (2, 6, 3, 3)):
        x = torch.randn(shape, dtype=DOUBLE)
        torch.testing.assert_close(plain.never(x), model.never(x), rtol=1e-12, atol=1e-13)


def drawn_but(model: Any) -> Any:
    with torch.no_grad():
        model.never.scale.uniform_(-1.5, 1.5)
        model.never.location.normal_()
    return model


def test_flags_and_sharing_are_kept():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2))
    model[0].weight.requires_grad_(False)
    model[2].eval()
    plain: Any
    plain, _ = ag.fold(model, torch.randn(4, 6, dtype=DOUBLE))
    assert not plain[0].weight.requires_grad
    assert plain[0].bias.requires_grad
    assert [module.training for module in plain] == [True, True, False]


def test_training_goes_on():
    pooled = ag.AgileMaxPool2d(8, 2)
    model = sequence(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), ag.AgileReLU(8), pooled, nn.Conv2d(8, 2, 1))
    plain, _ = checked(model, IMAGE)
    plain.train()
    optimizer = torch.optim.SGD(plain.parameters(), 0.01)
    losses = []
    for _ in range(5):
        loss = plain(IMAGE).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_stays_can_be_pickled_and_trained():
    model = sequence(nn.Linear(6, 6), nn.ReLU(), ag.AgileGELU(6), nn.Softmax(-1))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = checked(model, x)
    assert statuses(report) == ["refused"]
    loaded = pickle.loads(pickle.dumps(plain))
    assert torch.equal(loaded(x), plain(x))
    plain(x).sum().backward()
    assert plain[2].scale.grad is not None


def test_arguments_by_name_and_outputs_of_any_kind():
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.act = ag.AgileTanh(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor, *, factor: Tensor) -> dict[str, Any]:
            x = self.act(self.fc(x))
            return OrderedDict(logits=self.head(x), parts=[self.head(x * factor)])

    model = drawn(Several().double())
    x = {"x": torch.randn(4, 6, dtype=DOUBLE), "factor": torch.randn(4, 1, dtype=DOUBLE)}
    plain, report = checked(model, x)
    assert "shared" in report.sites[0].reason
    assert len(run(plain, x)) == 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.layer(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["whole", "part", "in place"])
def test_what_was_compiled_folds_as_what_was_not(how: str):
    """In compiled code nothing can be seen: it runs as it was written, and what is returned is compiled again."""
    x = torch.randn(4, 6)
    inner = drawn(Net())
    plain, _ = ag.fold(inner, x)
    model: Any = inner
    if how == "in place":
        inner.compile(backend="eager")
    else:
        model = torch.compile(inner, backend="eager")
    if how == "part":
        model = nn.Sequential(model)
    model(x)
    folded, report = ag.fold(model, x)
    assert statuses(report) == ["folded"]
    assert_close(run(folded, x), run(plain, x), BARS[torch.float32])
    assert [site.status for site in ag.lint(model, x).sites] == ["redundant"]


class Counted(Net):
    """A network that counts how often any copy of it runs."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.runs += 1
        return super().forward(x)


def test_the_model_runs_four_times():
    """Recorded and compared, in evaluation and in training; lint compares nothing."""
    model = drawn(Counted())
    Counted.runs = 0
    ag.fold(model, torch.randn(4, 6))
    assert Counted.runs <= 4
    Counted.runs = 0
    ag.lint(model, torch.randn(4, 6))
    assert Counted.runs == 2
