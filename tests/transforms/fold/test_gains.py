"""Gains and standardised weights fold away: into rows where f allows it, and lint says what then adds capacity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import agileact as ag
from agileact.nn.rows import directions


def moved(model: nn.Module) -> Any:
    """Return a model whose activations have left their start."""
    with torch.no_grad():
        for index, module in enumerate(model.modules()):
            if isinstance(module, ag.AgileModule):
                for number, parameter in enumerate(module.parameters(recurse=False)):
                    generator = torch.Generator().manual_seed(10 * index + number)
                    parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
                if getattr(module, "gain", None) is not None:
                    module.gain[0] *= -1  # type: ignore[index,operator]
    return model


@pytest.mark.parametrize("base", ["gelu", "sigmoid", "relu", "sine"])
def test_a_gain_goes_into_the_rows_before_it(base):
    torch.manual_seed(0)
    model = moved(nn.Sequential(nn.Linear(4, 8), ag.Agile(base, 8, gain=True), nn.Linear(8, 2)).double())
    x = torch.randn(5, 4, dtype=torch.float64)
    plain, report = ag.fold(model, x)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-11, atol=1e-11)
    assert report.same_architecture
    (site,) = report.sites
    assert (site.name, site.base, site.status) == ("1", base, "folded")
    assert (site.location_into, site.gain_into, site.scale_into) == (("0.bias",), ("0",), ("2",))
    assert not any(type(one).__module__.startswith("agileact") for one in plain.modules())


class Net(nn.Module):
    """Calls of functions, a convolution, and an activation that is used at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lin1, self.lin2, self.lin3 = (
            nn.Conv2d(1, 4, 3),
            nn.Linear(4, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 2),
        )
        self.act = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.gelu(self.conv(x)).mean((2, 3))
        result: torch.Tensor = self.lin3(self.act(self.lin2(self.act(self.lin1(h)))))
        return result


@pytest.mark.parametrize("sharing", ["per_use", "shared"])
def test_a_converted_network_is_itself_again(sharing):
    torch.manual_seed(0)
    net, x = Net().double(), torch.randn(3, 1, 7, 7, dtype=torch.float64)
    agile, _ = ag.convert(net, example_inputs=x, sharing=sharing)
    for module in agile.modules():
        if isinstance(module, ag.Agile):
            module.add_gain()
    moved(agile)
    plain, report = ag.fold(agile, x)
    torch.testing.assert_close(plain(x), agile(x), rtol=1e-11, atol=1e-11)
    assert type(plain) is Net
    assert {site.status for site in report.sites} == {"folded"}
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in net.named_modules()]


def test_a_gain_without_weights_before_it_stays_as_a_multiplication():
    model = moved(nn.Sequential(ag.AgileGELU(4, gain=True), nn.Linear(4, 2)))
    x = torch.randn(5, 4)
    plain, report = ag.fold(model, x)
    torch.testing.assert_close(plain(x), model(x))
    (site,) = report.sites
    assert site.status == "partly folded"
    assert set(site.kept) == {"location", "gain"}
    assert "gain stays" in site.reason
    alone = moved(ag.AgileGELU(4, gain=True))
    plain, _ = ag.fold(alone, x)
    torch.testing.assert_close(plain(x), alone(x))
    assert not any(type(one).__module__.startswith("agileact") for one in plain.modules())


def test_a_hook_still_sees_what_it_saw():
    model = moved(nn.Sequential(nn.Linear(4, 8), ag.AgileGELU(8, gain=True), nn.Linear(8, 2)))
    seen: list[torch.Tensor] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(5, 4)
    plain, _ = ag.fold(model, x)
    seen.clear()
    torch.testing.assert_close(plain(x), model(x))
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1])


def test_one_that_did_not_run_is_right_all_the_same():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act, self.other = nn.Linear(4, 4), ag.AgileGELU(4), ag.AgileGELU(4, gain=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h: torch.Tensor = self.act(self.layer(x))
            return self.other(h) if x.shape[0] > 9 else h

    model = moved(Sometimes())
    plain, _ = ag.fold(model, torch.randn(3, 4))
    x = torch.randn(12, 4)
    torch.testing.assert_close(plain(x), model(x))


@pytest.mark.parametrize("f", [nn.ReLU, nn.GELU, nn.Sigmoid])
def test_a_standardised_network_folds_whole_after_training(f):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), f(), nn.Conv2d(4, 4, 3, groups=4), f(), nn.Flatten(), nn.Linear(64, 8), f(),
        nn.Linear(8, 3),
    ).double()  # fmt: skip
    x = torch.randn(6, 1, 6, 6, dtype=torch.float64)
    model: Any
    model, _ = ag.convert(net, example_inputs=x, weights="standardized")
    optimizer = torch.optim.AdamW(ag.param_groups(model, 0.01, weight_decay=0.05))
    ag.standardize_weights(optimizer, model)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    plain, report = ag.fold(model, x)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-11, atol=1e-11)
    assert {site.status for site in report.sites} == {"folded"}
    assert [type(one) for one in plain.modules()] == [type(one) for one in net.modules()]
    assert not directions(plain)
    assert report.same_architecture
    net.load_state_dict(plain.state_dict())
    torch.testing.assert_close(net(x), plain(x))
    again = ag.revert(model)
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in net.named_parameters()]
    assert not directions(again)
    assert list(directions(model)) == ["0", "2", "5"]


def test_lint_says_that_scale_and_location_now_add_capacity():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 4)
    model, _ = ag.convert(net, example_inputs=x, weights="standardized")
    first, second = ag.lint(model, x).sites
    assert (first.name, first.base, first.status) == ("1", "gelu", "adds capacity")
    assert (first.scale, first.location, first.gain) == ("adds capacity",) * 3
    assert "the rows of 2.weight are held at mean 0 and length 1" in first.scale_why
    assert "the rows of 0.weight are held at length 1" in first.gain_why
    assert second.gain == ""
    # Behind the last one are free weights, which could do the same.
    assert second.scale != "adds capacity"
    assert second.location == "adds capacity"
    assert "gain g" in str(ag.lint(model, x))


def test_lint_of_a_gain_beside_free_weights():
    model = nn.Sequential(nn.Linear(4, 8), ag.AgileGELU(8, gain=True), nn.Linear(8, 2))
    report = ag.lint(model, torch.randn(5, 4))
    (site,) = report.sites
    assert (site.scale, site.location, site.gain) == ("only reparametrises",) * 3
    assert report.redundant == [site]


def test_an_architecture_is_kept():
    torch.manual_seed(0)
    x = torch.randn(5, 4)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))
    model, _ = ag.convert(net, example_inputs=x, weights="standardized")
    moved(model)
    plain, report = ag.fold(model, x, architecture="keep")
    assert report.same_architecture
    net.load_state_dict(plain.state_dict())
    torch.testing.assert_close(net(x), model(x))
    # Without a bias before it the location has nowhere to go, and stays, where scale and gain fold.
    bare: Any = moved(nn.Sequential(nn.Linear(4, 8, bias=False), ag.AgileGELU(8, gain=True), nn.Linear(8, 2)))
    plain, report = ag.fold(bare, x, architecture="keep")
    torch.testing.assert_close(plain(x), bare(x))
    (site,) = report.sites
    assert (site.name, site.base, site.status, site.kept) == ("1", "gelu", "partly folded", ("location",))
    left: Any = plain[1]  # type: ignore[index]
    assert isinstance(left, ag.AgileGELU)
    assert torch.equal(left.get_parameter("gain"), torch.ones(8))
    assert torch.equal(left.scale, torch.ones(8))
    torch.testing.assert_close(left.location, bare[1].gain * bare[1].location)
