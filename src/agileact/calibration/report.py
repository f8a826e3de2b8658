"""What calibration did to each layer, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agileact._common.terminal import format_table
from agileact.transforms.report import Site


@dataclass(frozen=True)
class CalibratedSite(Site):
    """An agile module in the report of a calibration; its status is "calibrated" or "kept".

    The size of a signal is its standard deviation from sample to sample, as a root mean square over the layer.

    Attributes:
        calls: How often each batch passes it; more than 1 if it is shared.
        before: The size of the signal in front of it and behind it, as the model was; None if nothing passes it.
        after: The same as the model is now.
        factor: What the scales were multiplied by: a mean over the layer.
        shift: What was added to the locations: the root mean square over the layer.
    """

    calls: int = 1
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None
    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class CalibrationReport:
    """What :func:`agileact.calibrate` did, layer by layer; prints as a table.

    Attributes:
        sites: All agile modules, in the order in which they run; at the end those that do not.
        samples: The number of samples that it was told by.
        arrived_before: The size of the signal behind the last layer over that in front of the first, before.
        arrived_after: The same, as the model is now.
        note: What was found, in a sentence.
    """

    sites: Sequence[CalibratedSite]
    samples: int
    arrived_before: float
    arrived_after: float
    note: str

    @property
    def calibrated(self) -> list[CalibratedSite]:
        """The layers whose scale or location was changed."""
        return [site for site in self.sites if site.status == "calibrated"]

    @property
    def kept(self) -> list[CalibratedSite]:
        """The layers that are as they were, each with its reason."""
        return [site for site in self.sites if site.status != "calibrated"]

    def __str__(self) -> str:
        gone = (None, None)
        rows = [
            (
                site.name or "(the model itself)",
                site.base,
                *("-" if size is None else f"{size:.2g}" for size in (*(site.before or gone), *(site.after or gone))),
                f"{site.factor:.3g}",
                f"{site.shift:.2g}",
                site.status,
                site.reason,
            )
            for site in self.sites
        ]
        header = ("name", "base", "in", "out", "in now", "out now", "scale x", "location +", "status", "reason")
        return f"{self.note}\n{format_table(header, rows)}"
