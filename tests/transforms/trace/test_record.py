from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.trace.recorder import eagerly, record
from agileact.transforms.trace.recording import Recording, Ref, cloned, tensors
from tests.transforms.converting import Block


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.act = nn.ReLU()

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.act(self.layer(x)))


def names(recording: Recording) -> list[str]:
    return [call.name for call in recording.calls]


def test_calls_values_owners_and_places():
    net = _Net()
    recording = record(net, torch.randn(2, 3))
    assert names(recording) == ["linear", "relu", "tanh"]
    linear, relu, tanh = recording.calls
    assert (linear.owner, relu.owner, tanh.owner) == ("layer", "act", "")
    assert (linear.caller, relu.caller, tanh.caller) == ("layer", "act", "")
    assert tanh.place is not None
    assert tanh.place.code is _Net.inner.__code__
    assert tanh.args == (Ref(relu.outputs[0].index),)
    assert tanh.outputs[0].returned
    assert relu.outputs[0].users == [tanh]
    assert [value.kind for value in linear.inputs] == ["input", "parameter", "parameter"]
    assert [value.name for value in linear.inputs[1:]] == ["layer.weight", "layer.bias"]
    assert linear.inputs[1].device == torch.device("cpu")


def test_leaves_are_single_calls_and_visits_tell_the_rest():
    net = _Net()
    recording = record(net, torch.randn(2, 3), leaf=lambda module: isinstance(module, nn.ReLU))
    assert names(recording) == ["linear", "module", "tanh"]
    assert recording.calls[1].function is net.act
    assert recording.calls[1].place is not None
    assert [(visit.name, visit.start, visit.stop) for visit in recording.visits] == [("layer", 0, 1), ("", 0, 3)]
    assert [len(visit.inputs) for visit in recording.visits] == [1, 1]
    assert recording.runs == {"": 1, "layer": 1, "act": 1}


def test_nothing_is_changed():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU(inplace=True))
    net[1].train()
    x = torch.randn(4, 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state, copy = torch.random.get_rng_state(), x.clone()
    record(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, copy)
    assert all("forward" not in module.__dict__ and module.training for module in net.modules())


def test_an_error_in_the_model_leaves_it_as_it_was():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(RuntimeError):
        record(net, torch.randn(2, 5))
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_in_place_calls():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 1
            y = F.relu(x, inplace=True)
            z = x * y
            z.add_(1)
            return z.sigmoid_()

    recording = record(Net(), torch.randn(3))
    assert names(recording) == ["add", "relu", "mul", "add", "sigmoid"]
    assert [call.inplace for call in recording.calls] == [False, True, False, True, True]
    assert [call.reread for call in recording.calls] == [False, True, False, True, False]


def test_comprehensions_belong_to_their_method():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

        def forward(self, x: Tensor) -> Tensor:
            return sum((F.relu(layer(x)) for layer in self.layers), torch.zeros(()))

    recording = record(Net(), torch.randn(2, 3))
    relu = [call for call in recording.calls if call.name == "relu"]
    assert [call.caller for call in relu] == ["", ""]
    assert relu[0].place == relu[1].place
    assert relu[0].place is not None
    assert relu[0].place.code is Net.forward.__code__


def test_shared_modules_are_told_apart_by_where_they_are_reached():
    block = Block()
    net = nn.Sequential(block, nn.Sequential(block))
    recording = record(net, torch.randn(1, 4, 3, 3), leaf=lambda module: isinstance(module, nn.ReLU))
    assert [call.slot for call in recording.calls if call.name == "module"] == [
        "0.relu",
        "0.relu",
        "1.0.relu",
        "1.0.relu",
    ]


def test_a_call_can_be_repeated_with_other_tensors():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.flip(1), x], dim=0)

    recording = record(Net(), torch.randn(2, 3))
    flip, cat = recording.calls
    labels = torch.arange(6).view(2, 3)
    flipped = flip.again({recording.inputs[0].index: labels})
    result = cat.again({recording.inputs[0].index: labels, flip.outputs[0].index: flipped})
    assert result.tolist() == [[2, 1, 0], [5, 4, 3], [0, 1, 2], [3, 4, 5]]


def test_python_that_sees_numbers_taints_them():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            return y * float(y.sum())

    recording = record(Net(), torch.randn(3))
    assert [value.tainted for call in recording.calls if call.name == "sum" for value in call.outputs] == [True]


def test_tensors_and_copies_of_nested_arguments():
    x = torch.randn(2)
    nested = {"a": [x, (x, 3)], "b": None, "c": slice(0, 2)}
    assert [tensor is x for tensor in tensors(nested)] == [True, True]
    copied = cloned(nested)
    one, other = tensors(copied)
    assert one is other is not x
    assert copied["b"] is None


def test_objects_that_know_each_other():
    """As nodes of a graph do: each is entered once, or the ways through them would never end."""

    class Node:
        def __init__(self, number: int) -> None:
            self.x = torch.full((2,), float(number))
            self.neighbours: list[Node] = []

    nodes = [Node(number) for number in range(40)]
    for node in nodes:
        node.neighbours = nodes
    assert [int(tensor[0]) for tensor in tensors(nodes[0])] == list(range(40))


def test_an_example_must_be_one():
    with pytest.raises(ag.ArgumentTypeError, match="tensor, a tuple"):
        record(nn.ReLU(), 3)  # type: ignore[arg-type]


def test_compiled_code_runs_again_in_whichever_order_threads_leave():
    from torch._dynamo import eval_frame

    first, second = eagerly(), eagerly()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert eval_frame._stance.stance == "default"
