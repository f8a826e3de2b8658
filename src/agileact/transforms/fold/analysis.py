"""What fold and lint begin with: run a model, note what it demands, say where scales and locations can go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Activation, Constraints, is_agile
from agileact.transforms.fold.locations import Target, move_locations
from agileact.transforms.fold.rules import constraints
from agileact.transforms.fold.solve import Solution, solve
from agileact.transforms.trace.recorder import record
from agileact.transforms.trace.recording import Arguments, Recording


@dataclass
class Analysis:
    """What a model did on an example, and what that demands."""

    model: nn.Module
    recording: Recording
    found: Constraints

    @property
    def sites(self) -> dict[str, Activation]:
        """The agile modules that ran, by name, in the order of their first call."""
        return self.found.sites

    def scales(self, scales: Mapping[str, Numbers]) -> Solution:
        """Return gauges that fold as many of these scales as can be."""
        return solve(self.found, scales)

    def locations(self, locations: Mapping[str, Tensor]) -> tuple[dict[str, list[Target]], dict[str, str]]:
        """Return the biases that take up the location of each site, and why others stay."""
        return move_locations(self.model, self.recording, self.found.sites, locations)


def analysed(model: nn.Module, example_inputs: Arguments) -> Analysis:
    """Run a model and return what it demands; the model stays as it was."""
    recording = record(model, example_inputs, leaf=is_agile)
    return Analysis(model, recording, constraints(model, recording))
