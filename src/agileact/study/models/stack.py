"""Several networks as one: the same layers, a network a seed, in one call for all; by stacked layers, or by vmap."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils.parametrize import is_parametrized

from agileact._common.errors import ArgumentError
from agileact.baselines import ParametricActivation
from agileact.nn import Agile, AgileModule
from agileact.nn.rows import directions, held, hold, lay_out
from agileact.study.spec.activation_names import PlainActivation, activation
from agileact.study.spec.user_targets import UserActivation

Layout = dict[str, tuple[nn.Parameter, tuple[int, int, int]]]
"""Parameters of a stack by their names in one network, each with the sizes of a view: (before, networks, behind)."""


class StackedLinear(nn.Module):
    """S linear layers of one shape, y_s = x_s W_s + c_s: (S, N, inputs), or (1, N, inputs) for all, to (S, N, ...).

    Rows that are directions stay so: along the axis of the inputs.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]))
        # One vector, as every bias is, so that decay leaves out what it leaves out of one layer.
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases)) if biases else None
        if kind := held(layers[0]):
            hold(self, kind)
            lay_out(self, (1,))

    def forward(self, x: Tensor) -> Tensor:
        """Return y for every network."""
        count = len(self.weight)
        x = x.expand(count, -1, -1)
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias.view(count, 1, -1), x, self.weight)

    def part(self, index: int) -> dict[str, Tensor]:
        """Return the parameters of one layer."""
        weight = {"weight": self.weight[index].t()}
        return weight if self.bias is None else {**weight, "bias": self.bias.view(len(self.weight), -1)[index]}

    def layout(self) -> Layout:
        """Return the parameters of all layers, each with the sizes of a view of them."""
        return {name: (value, (1, len(self.weight), -1)) for name, value in self.named_parameters()}

    def set_part(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Give one layer other parameters."""
        for name, value in self.part(index).items():
            value.copy_(state[name])


class StackedChannels(nn.Module):
    """S modules that work channel by channel, as one module over S times as many channels."""

    def __init__(self, module: nn.Module, parts: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.module = module
        self.stacked, self.channels = len(parts), channels
        states = [part.state_dict() for part in parts]
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if value.ndim == 0:  # a count of batches, the same for all
                    value.copy_(states[0][name])
                    continue
                value.copy_(torch.stack([state[name].view(-1, channels) for state in states], dim=1).flatten())
        for (_, own), (_, given) in zip(module.named_parameters(), parts[0].named_parameters(), strict=True):
            own.requires_grad_(given.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output for (S, N, channels)."""
        stacked, samples, channels = x.shape
        beside = x.transpose(0, 1).reshape(samples, stacked * channels)
        result: Tensor = self.module(beside).view(samples, stacked, channels).transpose(0, 1)
        return result

    def part(self, index: int) -> dict[str, Tensor]:
        """Return the parameters and buffers of one module."""
        return {
            name: value if value.ndim == 0 else self._view(value)[:, index].flatten()
            for name, value in self.module.state_dict(keep_vars=True).items()
        }

    def layout(self) -> Layout:
        """Return the parameters of all modules, each with the sizes of a view of them."""
        return {name: (value, (-1, self.stacked, self.channels)) for name, value in self.module.named_parameters()}

    def set_part(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Give one module other parameters and buffers."""
        for name, value in self.module.state_dict().items():
            if value.ndim > 0:
                self._view(value)[:, index] = state[name].view(-1, self.channels)

    def _view(self, value: Tensor) -> Tensor:
        """Return a tensor by coefficient, network and channel."""
        return value.view(-1, self.stacked, self.channels)


class StackedNetwork(nn.Module):
    """Networks of one arm, each a chain of linear layers, activations and normalisations, as one.

    Each computes what it computes alone, up to the order in which matrix products sum: last bits depend on the stack.
    Shapes: (S, N, ...) to (S, N, outputs); an input of (1, N, ...) is for all of them. Values are copied; ``texts`` are
    the activations' names, as an arm writes them, by module. An ArgumentError names what cannot be stacked.
    """

    def __init__(self, networks: Sequence[nn.Module], texts: dict[str, str]) -> None:
        super().__init__()
        self.stacked = len(networks)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = 0
        for name, first in networks[0].named_children():
            parts = [network.get_submodule(name) for network in networks]
            if isinstance(first, nn.Flatten) and not layers:
                continue
            if isinstance(first, nn.Linear):
                width = first.out_features
            if type(first) is nn.Linear:
                layers[name] = StackedLinear(parts)  # type: ignore[arg-type]
            elif isinstance(first, PlainActivation):
                layers[name] = first
            elif isinstance(first, (AgileModule, ParametricActivation)):
                together = activation(texts[name], self.stacked * width)
                if isinstance(together, Agile) and first._parameters.get("gain") is not None:
                    together.add_gain()
                layers[name] = StackedChannels(together, parts, width)
            elif isinstance(first, (UserActivation, nn.LayerNorm)) or is_parametrized(first):
                layers[name] = MappedNetwork(parts)
            elif isinstance(first, nn.BatchNorm1d):
                norm = nn.BatchNorm1d(self.stacked * width, first.eps, first.momentum)
                layers[name] = StackedChannels(norm, parts, width)
            else:
                raise ArgumentError(f"{name!r}, a {type(first).__name__}, cannot be stacked")
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all networks."""
        x = x.flatten(2)
        for layer in self.layers.values():
            x = layer(x)
        return x

    def part(self, index: int) -> dict[str, Tensor]:
        """Return the state of one network, under the names that it has there."""
        return {
            f"{name}.{key}": value
            for name, layer in self.layers.items()
            if isinstance(layer, _WITH_STATE)
            for key, value in layer.part(index).items()
        }

    def layout(self) -> Layout:
        """Return the parameters of all networks, each with the sizes of a view of them."""
        return {
            f"{name}.{key}": found
            for name, layer in self.layers.items()
            if isinstance(layer, _WITH_STATE)
            for key, found in layer.layout().items()
        }

    @torch.no_grad()
    def set_part(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Give one network the state that :meth:`part` returned."""
        for name, layer in self.layers.items():
            if isinstance(layer, _WITH_STATE):
                layer.set_part(index, {key: state[f"{name}.{key}"] for key in layer.part(index)})


class MappedNetwork(nn.Module):
    """Networks of one arm as one, :math:`y_s = F(x_s; w_s)`, each operation once for all of them.

    Shapes: (S, N, ...) to (S, N, ...); an input of (1, N, ...) is for all of them. The networks' values are copied.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stacked = len(networks)
        # It holds the stacked numbers in the modules of one network, where parameter groups find out what they are, and
        # is never called itself.
        self.numbers = copy.deepcopy(networks[0])
        # Kept out of the list of submodules: its own numbers are no parameters of the stack.
        self._one = [copy.deepcopy(networks[0])]
        self._shapes = {name: value.shape for name, value in networks[0].state_dict().items()}
        states = [network.state_dict() for network in networks]
        for name, parameter in self.numbers.named_parameters():
            # A vector stays one, so that decay leaves out what it leaves out of one network.
            parts = [state[name] for state in states]
            together = torch.cat(parts) if parameter.ndim == 1 else torch.stack(parts)
            parameter.data = together.clone(memory_format=torch.contiguous_format)
        for name, _ in list(self.numbers.named_buffers()):
            owner, _, leaf = name.rpartition(".")
            module = self.numbers.get_submodule(owner)
            if name in self._shapes:
                module.register_buffer(leaf, torch.stack([state[name] for state in states]))
        for layer in directions(self.numbers).values():
            lay_out(layer, tuple(range(2, layer.get_parameter("weight").ndim)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all networks."""
        one = self._one[0].train(self.training)

        def call(state: dict[str, Tensor], x: Tensor) -> Tensor:
            output: Tensor = functional_call(one, state, (x,))
            return output

        shared = len(x) == 1 and self.stacked > 1
        over = (0, None if shared else 0)
        # Buffers, such as running means, are written in place: into the stack.
        output: Tensor = vmap(call, over, randomness="different")(self._state(), x[0] if shared else x)
        return output

    def _state(self) -> dict[str, Tensor]:
        values = {**dict(self.numbers.named_parameters()), **dict(self.numbers.named_buffers())}
        return {name: value.view(self.stacked, *self._shapes[name]) for name, value in values.items()}

    def part(self, index: int) -> dict[str, Tensor]:
        """Return the state of one network, under the names that it has there."""
        return {name: value[index] for name, value in self._state().items()}

    def layout(self) -> Layout:
        """Return the parameters of all networks, each with the sizes of a view of them."""
        return {name: (value, (1, self.stacked, -1)) for name, value in self.numbers.named_parameters()}

    @torch.no_grad()
    def set_part(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Give one network the state that :meth:`part` returned."""
        for name, value in self.part(index).items():
            value.copy_(state[name])


_WITH_STATE = (StackedLinear, StackedChannels, MappedNetwork)
"""Layers of a stack that hold numbers of each network."""

_TRIED = 3
"""Networks, and channels of each, on which an activation of the user's is tried."""


@functools.lru_cache(maxsize=256)
def same_in_a_stack(text: str, code: str = "") -> bool:
    """Return whether a user's activation computes in a stack what it computes alone, found out on random numbers.

    It does not if it draws random numbers, or if vmap cannot see a state that it keeps or a choice that it makes.

    Args:
        text: Its name, as an arm writes it.
        code: The fingerprint of the user's code.

    Example:
        >>> same_in_a_stack("torch:tanh"), same_in_a_stack("torch.nn:PReLU"), same_in_a_stack("torch.nn:Dropout")
        (True, True, False)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [activation(text, _TRIED) for _ in range(_TRIED)]
        together = MappedNetwork(parts)
        x = torch.randn(_TRIED, 4, _TRIED)
        drawn = torch.get_rng_state()
        try:
            alone = [_trained_and_evaluated(part, one) for part, one in zip(parts, x, strict=True)]
            if not torch.equal(drawn, torch.get_rng_state()):
                return False
            stacked = _trained_and_evaluated(together, x)
        except Exception:  # whatever it raises, it runs alone, where the user sees it
            return False
    # Numbers come network by network, from both.
    pairs = [(torch.stack(ours).flatten(), theirs.flatten()) for *ours, theirs in zip(*alone, stacked, strict=True)]
    return all(torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True) for ours, theirs in pairs)


def _trained_and_evaluated(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return outputs while training, gradients of input and parameters, and outputs in evaluation after that."""
    x = x.clone().requires_grad_()
    output = module.train()(x)
    wanted = [x, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    found = torch.autograd.grad((output * output.detach().cos()).sum(), wanted, allow_unused=True)
    grads = [torch.zeros_like(one) if grad is None else grad for one, grad in zip(wanted, found, strict=True)]
    with torch.no_grad():
        return [output.detach(), *grads, module.eval()(x)]
