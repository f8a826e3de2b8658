"""A gain: a f(g (x - b)) against float64 formulas, for every f, layout and dtype; off it changes nothing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import agileact as ag
from tests.tolerances import VALUES


def filled(module: ag.Agile) -> ag.Agile:
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + (0.5 if index != 1 else -0.5))
    return module


def formula(x: torch.Tensor, module: ag.Agile, shape: tuple[int, ...]) -> torch.Tensor:
    assert module.gain is not None
    a, b, g = (one.double().view(shape) for one in (module.scale, module.location, module.gain))
    return a * ag.bases.get(module.base).function(g * (x.double() - b), **module.options)


@pytest.mark.parametrize("base", ag.bases.names())
def test_values_and_gradients_are_those_of_the_formula(base):
    module = filled(ag.Agile(base, 3, gain=True, dtype=torch.float64))
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).view(2, 3, 5).requires_grad_()
    weights = torch.linspace(0.5, 1.5, 30, dtype=torch.float64).view(2, 3, 5)
    inputs = (x, *module.parameters())
    expected = formula(x, module, (3, 1))
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((module(x) * weights).sum(), inputs)
    want = torch.autograd.grad((expected * weights).sum(), inputs)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("base", ["gelu", "sigmoid", "sine"])
def test_second_derivatives(base):
    module = filled(ag.Agile(base, 3, gain=True, dtype=torch.float64))
    parameters = tuple(one.detach().clone().requires_grad_() for one in module.parameters())
    x = torch.linspace(-2, 2, 6, dtype=torch.float64).view(2, 3).requires_grad_()

    def function(x, scale, location, gain):
        return ag.functional.agile(x, scale, location, base, gain=gain)

    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


@pytest.mark.parametrize(
    ("granularity", "dim", "size", "shape"),
    [("channel", 1, 3, (3, 1)), ("channel", -1, 5, (5,)), ("layer", 1, None, ()), ("element", 1, (3, 5), (3, 5))],
)
def test_layouts(granularity, dim, size, shape):
    module = filled(ag.Agile("gelu", size, granularity=granularity, dim=dim, gain=True))
    x = torch.linspace(-3, 3, 30).view(2, 3, 5)
    torch.testing.assert_close(module(x).double(), formula(x, module, shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("base", ["relu", "gelu", "hardshrink"])
def test_at_its_start_it_changes_no_bit(base, dtype):
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    gained, plain = ag.Agile(base, 3, gain=True), ag.Agile(base, 3)
    for module in (gained, plain):
        with torch.no_grad():
            module.scale.fill_(1.5)
            module.location.fill_(0.25)
    assert torch.equal(gained(x), plain(x))
    assert gained(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision(dtype):
    module = filled(ag.AgileSiLU(3, gain=True))
    x = torch.linspace(-3, 3, 30).view(2, 3, 5).to(dtype)
    assert module.gain is not None
    a, b, g = (one.double().view(3, 1) for one in module.parameters())
    rounded = (x.float() * g.float()).to(dtype).double()  # as the docstring says
    z = g * (x.double() - b) if ag.ops.CPU.loaded and dtype != torch.float16 else rounded - (g * b).float().double()
    expected = a * torch.nn.functional.silu(z)
    rtol, atol = VALUES[dtype]
    torch.testing.assert_close(module(x).double(), expected, rtol=rtol, atol=atol)


def test_it_is_off_unless_asked_for_and_leaves_no_trace():
    module = ag.AgileGELU(3)
    assert module.gain is None
    assert list(module.state_dict()) == ["scale", "location"]
    assert repr(module) == "AgileGELU(3)"
    assert module._call is not None  # the way past all checks


def test_it_is_a_parameter_like_the_others(tmp_path):
    module = filled(ag.AgileGELU(3, gain=True))
    x = torch.randn(2, 3)
    assert repr(module) == "AgileGELU(3, gain=True)"
    assert list(module.state_dict()) == ["scale", "location", "gain"]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
    fresh = ag.AgileGELU(3, gain=True)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(x), module(x))
    module.reset_parameters()
    assert torch.equal(module(x), nn.functional.gelu(x))


def test_it_can_be_added_later_also_to_a_lazy_module():
    lazy = ag.AgileTanh(gain=True)
    assert lazy.has_uninitialized_params()
    x = torch.randn(2, 7)
    assert torch.equal(lazy(x), torch.tanh(x))
    assert lazy.gain is not None
    assert lazy.gain.shape == (7,)
    module = ag.AgileTanh(7)
    module(x)
    module.add_gain()
    module.add_gain()
    assert torch.equal(module(x), torch.tanh(x))
    assert [name for name, _ in module.named_parameters()] == ["scale", "location", "gain"]
    later = ag.AgileTanh()
    later.add_gain()
    assert torch.equal(later(x), torch.tanh(x))


def test_a_pickle_of_an_earlier_version_loads():
    module = ag.AgileReLU(3)
    state = module.__getstate__()
    state["_parameters"] = {name: value for name, value in state["_parameters"].items() if name != "gain"}
    del state["start_scale"]
    old = ag.AgileReLU.__new__(ag.AgileReLU)
    old.__setstate__(state)
    x = torch.randn(2, 3)
    assert torch.equal(old(x), torch.relu(x))
    assert old.gain is None
    old.reset_parameters()


@pytest.mark.parametrize(
    ("gain", "error", "message"),
    [
        (torch.ones(2), ag.ArgumentError, r"scale, location and gain must have the same shape, not \(3,\) and \(3,\)"),
        (2.0, ag.ArgumentTypeError, "gain must be a tensor, not float"),
        (torch.ones(3, dtype=torch.int64), ag.ArgumentTypeError, "gain must be float64"),
    ],
)
def test_wrong_gains_are_refused(gain, error, message):
    one = torch.ones(3)
    with pytest.raises(error, match=message):
        ag.functional.agile(torch.ones(2, 3), one, one, gain=gain)


def test_a_gain_without_axes_is_one_for_all():
    x, one = torch.linspace(-2, 2, 6).view(2, 3), torch.ones(3)
    y = ag.functional.agile(x, one, 0 * one, "tanh", gain=torch.tensor(2.0))
    torch.testing.assert_close(y, torch.tanh(2 * x))


def test_it_exports():
    model = nn.Sequential(nn.Linear(4, 3), filled(ag.AgileGELU(3, gain=True)))
    x = torch.randn(2, 4)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what PyTorch's exporter has deprecated
def test_it_goes_to_onnx_beside_a_base_of_each_kind(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    layers = [filled(ag.Agile(base, 4, gain=True)) for base in ("gelu", "relu", "sigmoid", "tanh")]
    model = nn.Sequential(nn.Conv2d(2, 4, 3), *layers).eval()
    x = torch.randn(2, 2, 5, 5)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), model(x), rtol=1e-4, atol=1e-5)


def test_whoever_looks_at_an_activation_sees_its_gain():
    from agileact.integrations.tensorboard import shape
    from agileact.monitor.activity import Activity

    module = ag.AgileSigmoid(2, gain=True)
    with torch.no_grad():
        module.gain[1] = 50.0  # type: ignore[index]
    x = torch.linspace(-2, 2, 9)
    _, learned = shape(module, x)
    torch.testing.assert_close(learned, torch.stack([torch.sigmoid(x), torch.sigmoid(50 * x)]))
    seen = Activity(module, samples=1000, saturation=0.05)
    seen.watch()
    module(torch.linspace(1, 2, 50)[:, None].expand(50, 2))
    found = seen.result(window=1)
    assert found is not None
    dead, saturated, _ = found
    assert saturated == 0.5  # the second unit, far out on its flank, and not the first
    assert dead == 0.5


def test_it_compiles_in_one_graph_and_under_torch_func():
    module = filled(ag.AgileGELU(3, gain=True))
    x = torch.randn(2, 3, 4)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))
    parameters: dict[str, torch.Tensor] = dict(module.named_parameters())
    one = torch.func.vmap(lambda row: torch.func.functional_call(module, parameters, (row[None],))[0])
    torch.testing.assert_close(one(x), module(x))
    tangent = torch.func.jvp(module, (x,), (torch.ones_like(x),))[1]
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(tangent, torch.autograd.grad(module(leaf).sum(), leaf)[0])
