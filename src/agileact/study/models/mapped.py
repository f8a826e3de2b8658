"""Several networks of any kind as one, by vmap: for a GPU, which one small network leaves idle."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


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

    @torch.no_grad()
    def set_part(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Give one network the state that :meth:`part` returned."""
        for name, value in self.part(index).items():
            value.copy_(state[name])
