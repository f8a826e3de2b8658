"""Agile and the classes of its bases: construction, values, representation, state, copies."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import agileact as ag
from tests.cases import CASES, IDS, Case
from tests.tolerances import assert_values

CLASSES = {
    "relu": ag.AgileReLU,
    "relu6": ag.AgileReLU6,
    "leaky_relu": ag.AgileLeakyReLU,
    "hardtanh": ag.AgileHardtanh,
    "hardsigmoid": ag.AgileHardsigmoid,
    "hardswish": ag.AgileHardswish,
    "softshrink": ag.AgileSoftshrink,
    "hardshrink": ag.AgileHardshrink,
    "threshold": ag.AgileThreshold,
    "identity": ag.AgileIdentity,
    "elu": ag.AgileELU,
    "celu": ag.AgileCELU,
    "selu": ag.AgileSELU,
    "softplus": ag.AgileSoftplus,
    "sigmoid": ag.AgileSigmoid,
    "log_sigmoid": ag.AgileLogSigmoid,
    "tanh": ag.AgileTanh,
    "tanhshrink": ag.AgileTanhshrink,
    "softsign": ag.AgileSoftsign,
    "silu": ag.AgileSiLU,
    "mish": ag.AgileMish,
    "gelu": ag.AgileGELU,
    "sine": ag.AgileSine,
}


def _moved(module: Any) -> Any:
    """Move scale and location away from their start."""
    with torch.no_grad():
        module.scale.copy_(torch.linspace(-1.5, 2.0, module.scale.numel()))
        module.location.copy_(torch.linspace(0.75, -1.0, module.location.numel()))
    return module


@pytest.mark.parametrize("case", CASES, ids=IDS)
class TestEveryClass:
    def test_starts_as_f(self, case: Case):
        x = 3 * torch.randn(5, 3, 4)
        for module in (CLASSES[case.base](3, **case.options), ag.Agile(case.base, 3, **case.options)):
            assert torch.equal(module(x), case.native(x))

    def test_is_the_general_module_with_that_base(self, case: Case):
        own, general = _moved(CLASSES[case.base](3, **case.options)), _moved(ag.Agile(case.base, 3, **case.options))
        x = 3 * torch.randn(5, 3, 4)
        assert torch.equal(own(x), general(x))
        assert own.options == general.options
        scale, location = general.scale.detach().view(3, 1), general.location.detach().view(3, 1)
        assert_values(own(x).detach(), scale * case.formula(x.double() - location.double()))

    def test_names_its_options_as_torch_does(self, case: Case):
        parameters = inspect.signature(CLASSES[case.base]).parameters
        options = ag.bases.get(case.base).options
        common = ["num_parameters", *options, "granularity", "dim", "device", "dtype", "gain"]
        assert [name for name in parameters if name != "inplace"] == common
        assert {name: parameters[name].default for name in options} == {n: o.default for n, o in options.items()}
        for name in parameters.keys() & {"granularity", "dim", "device", "dtype", "inplace", "gain"}:
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY

    def test_repr_builds_the_same_module(self, case: Case):
        for module in (CLASSES[case.base](3, **case.options), ag.Agile(case.base, 3, **case.options)):
            again = eval(repr(module), vars(ag).copy())  # the text is our own
            assert type(again) is type(module)
            assert again.options == module.options
            assert repr(again) == repr(module)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (ag.AgileReLU(16), "AgileReLU(16)"),
        (ag.AgileLeakyReLU(16, 0.2), "AgileLeakyReLU(16, negative_slope=0.2)"),
        (ag.AgileLeakyReLU(16, 0.01), "AgileLeakyReLU(16)"),
        (ag.AgileGELU(4, "tanh", dim=-1), "AgileGELU(4, approximate='tanh', dim=-1)"),
        (ag.AgileTanh(granularity="layer"), "AgileTanh(granularity='layer')"),
        (ag.AgileTanh((3, 4), granularity="element"), "AgileTanh((3, 4), granularity='element')"),
        (ag.AgileTanh(12, granularity="element"), "AgileTanh(12, granularity='element')"),
        (ag.AgileTanh(), "AgileTanh(None)"),
        (ag.Agile("elu", 3, alpha=2), "Agile('elu', 3, alpha=2.0)"),
    ],
)
def test_repr(module, text):
    assert repr(module) == text


@pytest.mark.parametrize(
    ("granularity", "size", "shape"),
    [
        ("channel", 3, (5, 3, 4)),
        ("layer", None, (5, 3, 4)),
        ("layer", 1, (5,)),
        ("element", 12, (5, 3, 4)),
        ("element", (3, 4), (5, 3, 4)),
    ],
)
def test_parameters_are_flat_and_start_at_one_and_zero(granularity, size, shape):
    module = ag.Agile("tanh", size, granularity=granularity)
    count = {"channel": 3, "layer": 1, "element": 12}[granularity]
    assert module.num_parameters == count
    assert [name for name, _ in module.named_parameters()] == ["scale", "location"]
    assert torch.equal(module.scale, torch.ones(count))
    assert torch.equal(module.location, torch.zeros(count))
    x = torch.randn(shape)
    assert torch.equal(module(x), torch.tanh(x))
    _moved(module).reset_parameters()
    assert torch.equal(module(x), torch.tanh(x))


def test_no_random_number_is_drawn():
    state = torch.random.get_rng_state()
    ag.AgileReLU(16)
    ag.CombinedAgile("relu", 16, terms=4)
    ag.AgileReLU()(torch.zeros(2, 3))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtype_of_the_parameters_is_free(dtype):
    module = ag.AgileSigmoid(3, dtype=dtype)
    assert module.scale.dtype == module.location.dtype == dtype
    x = torch.randn(4, 3)
    assert torch.equal(module(x), torch.sigmoid(x))
    assert module.to(torch.float32).scale.dtype == torch.float32


def test_made_on_a_device():
    module = ag.AgileSigmoid(3, device="meta")
    assert module.scale.device.type == "meta"
    assert module(torch.zeros(2, 3, device="meta")).shape == (2, 3)
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    assert torch.equal(module.scale, torch.ones(3))


@pytest.mark.parametrize(
    "make", [lambda: ag.AgileELU(3, 0.7), lambda: ag.CombinedAgile("gelu", 3, 3, approximate="tanh")]
)
class TestState:
    def test_state_dict_round_trip(self, make):
        source, target = _moved(make()), make()
        state = source.state_dict()
        assert list(state) == ["scale", "location"]
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        assert str(target.load_state_dict(torch.load(buffer))) == "<All keys matched successfully>"
        x = torch.randn(4, 3)
        assert torch.equal(source(x), target(x))

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
    def test_copies_compute_the_same_and_share_nothing(self, make, duplicate):
        module = _moved(make())
        other = duplicate(module)
        x = torch.randn(4, 3)
        assert torch.equal(module(x), other(x))
        assert repr(module) == repr(other)
        with torch.no_grad():
            other.scale.zero_()
        assert not torch.equal(module(x), other(x))

    def test_whole_models_are_saved(self, make):
        model = nn.Sequential(nn.Linear(3, 3), _moved(make()))
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        x = torch.randn(4, 3)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("relu", 0), {}, "num_parameters must be at least 1, not 0"),
        (("relu", -3), {}, "at least 1"),
        (("relu", 3.0), {}, "num_parameters must be an integer, not 3.0 of type float"),
        (("relu", True), {}, "must be an integer"),
        (("relu", (3, 4)), {}, "a shape is for granularity 'element'"),
        (("relu", (3, 0)), {"granularity": "element"}, "at least 1"),
        (("relu", 3), {"granularity": "layer"}, "num_parameters must be 1 or None with granularity 'layer', not 3"),
        (("relu", 3), {"granularity": "filter"}, "granularity must be one of"),
        (("relu", 3), {"dim": "channel"}, "dim must be an integer"),
        (("relu", 3), {"dtype": torch.int32}, "dtype must be a floating-point dtype, not torch.int32"),
        (("rellu", 3), {}, "did you mean 'relu'"),
        (("relu", 3), {"alpha": 1.0}, "no option 'alpha'"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(arguments, options, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        ag.Agile(*arguments, **options)


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (ag.AgileReLU(3), torch.zeros(2, 4), "4 channels along axis 1"),
        (ag.AgileReLU(3), torch.zeros(2, 4, 3), "pass dim=2"),
        (ag.AgileReLU(3), torch.zeros(2, 3, dtype=torch.int64), "not int64"),
        (ag.AgileReLU(3, dim=3), torch.zeros(2, 3), "dim must be from -2 to 1"),
        (ag.AgileReLU((3, 4), granularity="element"), torch.zeros(2, 4, 3), r"must have shape \(3, 4\), not \(4, 3\)"),
        (ag.AgileReLU(12, granularity="element"), torch.zeros(2, 4, 4), "one sample"),
        (ag.AgileReLU(3), [1.0], "x must be a tensor, not list"),
        (ag.AgileReLU((3,), granularity="element"), [1.0], "x must be a tensor, not list"),
        (ag.AgileReLU(), [1.0], "x must be a tensor, not list"),
        (ag.AgileReLU(), torch.tensor(1.0), "x has no axes"),
        (ag.CombinedAgile("relu", 3), torch.zeros(2, 4), "4 channels along axis 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(module, x, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        module(x)


@pytest.mark.usefixtures("_clean_registry")
def test_a_user_function_and_its_module_survive_a_round_trip():
    ag.register_base("tripled", lambda x: 3 * x)
    module = pickle.loads(pickle.dumps(ag.Agile("tripled", 2)))
    assert module(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]


def test_training_lowers_the_loss_and_moves_scale_and_location():
    torch.manual_seed(0)
    x = torch.randn(256, 2)
    y = torch.stack([2 * torch.sigmoid(x[:, 0] - 1), -0.5 * torch.sigmoid(x[:, 1] + 0.5)], 1)
    module = ag.AgileSigmoid(2)
    optimizer = torch.optim.Adam(ag.param_groups(module, lr=0.05))
    for _ in range(600):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(x), y)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-5
    torch.testing.assert_close(module.scale.detach(), torch.tensor([2.0, -0.5]), rtol=0, atol=0.02)
    torch.testing.assert_close(module.location.detach(), torch.tensor([1.0, -0.5]), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["scale", "location"])
def test_parametrised_and_pruned_parameters_are_followed(name):
    class Doubled(torch.nn.Module):
        def forward(self, value):
            return 2 * value + 1

    x = torch.randn(4, 3)
    module = ag.AgileSigmoid(3)
    parametrize.register_parametrization(module, name, Doubled())
    scale, location = (3.0, 0.0) if name == "scale" else (1.0, 1.0)
    torch.testing.assert_close(module(x), scale / (1 + torch.exp(-(x - location))))
    pruned = ag.AgileSigmoid(3)
    prune.custom_from_mask(pruned, name, torch.tensor([0.0, 1.0, 1.0]))
    expected = torch.sigmoid(x)
    if name == "scale":
        expected[:, 0] = 0
    torch.testing.assert_close(pruned(x), expected)


@pytest.mark.parametrize("name", [name for name in ag.nn.__all__ if hasattr(nn, name.removeprefix("Agile"))])
def test_in_place_exactly_where_torch_offers_it(name: str):
    plain, kind = getattr(nn, name.removeprefix("Agile")), getattr(ag, name)
    offered = "inplace" in inspect.signature(plain).parameters
    assert ("inplace" in inspect.signature(kind).parameters) == offered
    if not offered:
        return
    more = {"threshold": 0.5, "value": -1.0} if name == "AgileThreshold" else {}
    module, twin = kind(3, inplace=True, **more), kind(3, **more)
    x = torch.randn(4, 3, requires_grad=True)
    given = x.clone()
    y, wanted = module(given), twin(x)
    assert y is given or y.data_ptr() == given.data_ptr()
    assert torch.equal(y, wanted)
    gradients = torch.autograd.grad(y.square().sum(), [x, module.scale, module.location])
    for found, other in zip(
        gradients, torch.autograd.grad(wanted.square().sum(), [x, twin.scale, twin.location]), strict=True
    ):
        torch.testing.assert_close(found, other)
    assert "inplace=True" in repr(module)
