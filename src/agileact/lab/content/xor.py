"""XOR trained live: the plain and the agile network from one start, some epochs at a time."""

from dataclasses import dataclass

import torch

from agileact.paper.xor import POINTS, XorNetwork, XorSpec, XorTraining

ARMS = ("plain", "agile")
MOST_EPOCHS = 5000
"""Where a run ends by itself."""

_DIVERGED = 1e6
"""A loss from which on a run is called diverged: the answers are 0 and 1."""
_GRID = 33
LINE = torch.linspace(-0.5, 1.5, _GRID, dtype=torch.float64)
"""The coordinates at which surfaces are computed, along each input."""


@dataclass(frozen=True)
class Surfaces:
    """One network's surfaces over the square, rows along the second input."""

    planes: tuple[list[list[float]], ...]
    bent: tuple[list[list[float]], ...]
    output: list[list[float]]
    at_points: tuple[float, ...]
    network: XorNetwork


class XorRun:
    """Both networks' training from the same start, and their losses so far."""

    def __init__(self, spec: XorSpec) -> None:
        self.spec = spec
        self._training = {arm: XorTraining(spec, arm) for arm in ARMS}
        self.losses: dict[str, list[float]] = {arm: [self._loss(arm)] for arm in ARMS}

    @property
    def taken(self) -> int:
        """Epochs done."""
        return self._training["plain"].epoch

    @property
    def settled(self) -> bool:
        """Whether both networks have solved it, and long enough ago to see that it stays so."""
        solved = [self.solved_since(arm) for arm in ARMS]
        return all(epoch is not None and self.taken - epoch >= 100 for epoch in solved)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to see."""
        return self.taken >= MOST_EPOCHS or self.settled

    def advance(self, epochs: int) -> None:
        """Take up to ``epochs`` epochs with each network."""
        for _ in range(min(epochs, MOST_EPOCHS - self.taken)):
            for arm, training in self._training.items():
                training.step()
                self.losses[arm].append(self._loss(arm))

    def solved_since(self, arm: str) -> int | None:
        """Return the epoch since which the network has solved all four points, or None."""
        since = int(self._training[arm].since[0])
        return since if since >= 0 else None

    def surfaces(self, arm: str) -> Surfaces:
        """Return the network's surfaces as they are now."""
        network = self._training[arm].network(0)
        rows, columns = torch.meshgrid(LINE, LINE, indexing="ij")
        grid = torch.stack([columns.flatten(), rows.flatten()], dim=1)
        planes, bent = (values.T.reshape(2, _GRID, _GRID) for values in (network.planes(grid), network.bent(grid)))
        at_points = network.output(torch.tensor(POINTS, dtype=torch.float64))
        return Surfaces(
            planes=(planes[0].tolist(), planes[1].tolist()),
            bent=(bent[0].tolist(), bent[1].tolist()),
            output=network.output(grid).reshape(_GRID, _GRID).tolist(),
            at_points=tuple(at_points.tolist()),
            network=network,
        )

    def sentence(self) -> str:
        """Say how far both networks are."""
        parts = [f"Epoch {self.taken:,}."]
        for arm in ARMS:
            loss, since = self.losses[arm][-1], self.solved_since(arm)
            if not loss < _DIVERGED:
                parts.append(f"{arm.capitalize()}: diverged; try a smaller learning rate.")
            elif since is not None:
                parts.append(f"{arm.capitalize()}: solved after {since:,} epochs, loss {loss:.3g}.")
            else:
                parts.append(f"{arm.capitalize()}: not solved, loss {loss:.3g}.")
        if self.taken >= MOST_EPOCHS:
            parts.append(f"The run ends here, after {MOST_EPOCHS:,} epochs.")
        return " ".join(parts)

    def _loss(self, arm: str) -> float:
        return float(self._training[arm].losses.detach()[0])
