"""Figures 5 and 9: the loss along single training steps, as measured (doi 10.3745/KTSDE.2020.9.7.213).

The paper draws them as sketches; these are measurements of the same three moments. A step has two halves: the weights
move, equations (5) and (6), then size and position, (15), (16), (23), (24). The trial measured the loss of the same
batch before the step, between the halves and after it. Figure 5: networks whose activations have nothing to learn.
Figure 9: networks with agile layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agileact._common.optional import require
from agileact.paper.figures.run import Combination, NothingToDrawError, Run, is_agile
from agileact.paper.figures.style import ACTIVATION, INK, LEGEND_ABOVE, MUTED, WEIGHTS, new_figure
from agileact.study.spec.result import TrialResult
from agileact.study.statistics.paired import mean_interval

_SHOWN_STEPS = 8
_BINS = 24
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """The probed steps of one trial: the loss before each, and the change by each half in per cent of that before it.

    The activation's changes are zeros in a plain network.
    """

    iteration: Values
    before: Values
    weights: Values
    activation: Values

    @classmethod
    def of(cls, trial: TrialResult) -> "Steps":
        """Return the probed steps of a trial, without those whose loss was 0 or not finite."""
        probe = trial.probe
        table = np.asarray(
            [probe.iteration, probe.before, probe.after_weights, probe.after_activations], dtype=np.float64
        )
        iteration, before, between, after = table[:, np.isfinite(table).all(0) & (table[1:3] > 0).all(0)]
        return cls(iteration, before, 100 * (between / before - 1), 100 * (after / between - 1))


@dataclass(frozen=True)
class StepShare:
    """One combination's row: the share of probed steps in which each half lowered the loss.

    Shares are means over seeds, with 95 % intervals; changes are medians of the relative change of the loss, in per
    cent. What belongs to the activation's half is None for a plain network. ``interval`` says how intervals were made:
    ``"Wilson, over steps"`` for a single seed, which is too narrow as the steps of one run are not independent; with
    more seeds ``"Student, over seeds"``, widened where Wilson's is wider (a few seeds may agree by chance, and
    Student's interval then has no width).
    """

    combination: str
    seeds: int
    steps: int
    weights_share: float
    weights_interval: tuple[float, float]
    activation_share: float | None
    activation_interval: tuple[float, float] | None
    interval: str
    weights_change: float
    activation_change: float | None


@dataclass(frozen=True)
class _Half:
    """A half of a step, named as its changes are in :class:`Steps`, and how it is drawn in every panel."""

    name: str
    words: str
    color: str
    dashes: Any
    marker: str
    shift: float


_WEIGHTS = _Half("weights", "the weights' step", WEIGHTS, "-", "o", -0.16)
_ACTIVATION = _Half("activation", "the activation's step", ACTIVATION, (0, (4, 1.6)), "^", 0.16)


def _halves(agile: bool) -> tuple[_Half, ...]:
    return (_WEIGHTS, _ACTIVATION) if agile else (replace(_WEIGHTS, shift=0.0),)


def activation_step_share(results: Iterable[TrialResult]) -> list[StepShare]:
    """Return a row for each combination whose finished trials probed single steps.

    A half that left the loss exactly as it was did not lower it.
    """
    run = Run.of(results, dataset="")
    return [row for combination in run.groups if (row := step_share(run, combination)) is not None]


def probed(run: Run, combination: Combination) -> list[Steps]:
    """Return the probed steps of a combination, one entry for each seed that has any."""
    return [steps for steps in map(Steps.of, run.groups[combination]) if len(steps.iteration)]


def step_share(run: Run, combination: Combination) -> StepShare | None:
    """Return the row of one combination, or None if its trials probed no steps."""
    seeds = probed(run, combination)
    if not seeds:
        return None
    numbers: dict[str, Any] = {}
    for half in _halves(agile=True):
        changes = [getattr(steps, half.name) for steps in seeds]
        known = half is _WEIGHTS or is_agile(run.groups[combination])
        share, interval = _share(changes) if known else (None, None)
        change = float(np.median(np.concatenate(changes))) if known else None
        numbers |= {f"{half.name}_share": share, f"{half.name}_interval": interval, f"{half.name}_change": change}
    return StepShare(
        combination=combination.full_label,
        seeds=len(seeds),
        steps=sum(len(steps.iteration) for steps in seeds),
        interval="Student, over seeds" if len(seeds) > 1 else "Wilson, over steps",
        **numbers,
    )


def _share(changes: list[Values]) -> tuple[float, tuple[float, float]]:
    shares = [float((values < 0).mean()) for values in changes]
    lower = np.concatenate(changes) < 0
    wilson = require("scipy.stats", "paper").binomtest(int(lower.sum()), len(lower)).proportion_ci(method="wilson")
    low, high = float(wilson.low), float(wilson.high)
    student = mean_interval(shares)
    if student.low is not None and student.high is not None:
        low, high = max(0.0, min(low, student.low)), min(1.0, max(high, student.high))
    return student.mean, (low, high)


def figure_5(run: Run) -> Any:
    """Draw what the weights' step does to the loss in networks without agile layers."""
    return _draw(run, agile=False)


def figure_9(run: Run) -> Any:
    """Draw what the weights' half and the activation's half of a step do to the loss in agile networks."""
    return _draw(run, agile=True)


def _draw(run: Run, *, agile: bool) -> Any:
    kind = "agile" if agile else "plain"
    networks = run.where(lambda _, trials: is_agile(trials) == agile)
    if not networks.groups:
        raise NothingToDrawError(f"no {kind} networks in these results")
    shares = {c: row for c in networks.groups if (row := step_share(networks, c)) is not None}
    if not shares:
        raise NothingToDrawError(f"the {kind} networks' trials probed no steps")
    networks = networks.where(lambda combination, _: combination in shares)
    convolutional = networks.convolutional
    featured = (convolutional if convolutional.groups else networks).ranked[0]
    how = (
        "Student's interval over seeds, or Wilson's over steps where that is wider"
        if next(iter(shares.values())).interval.startswith("Student")
        else "Wilson's interval over steps, which takes the steps of one run as independent and so is too narrow"
    )
    lower = 0.75 + 0.3 * len(shares)
    figure = new_figure(
        11.0,
        4.7 + lower,
        "Figure 9. One training step in two halves: weights, then size and position of the activations"
        if agile
        else "Figure 5. One training step of networks whose activations learn nothing: the weights move",
        f"{networks.source} Loss: of the same training batch, before the step"
        f"{', between the halves, after it' if agile else ' and after it'}. Upper row: "
        f"{featured.full_label}, the {kind} combination with the lowest test loss"
        f"{' (left: the first seed)' if len(networks.groups[featured]) > 1 else ''}. "
        "Lower left: line from lower to upper quartile over all probed steps, mark at the median"
        f"{'; axis linear around 0, logarithmic beyond' if agile else ''}. Share: 95 % {how}.",
    )
    upper_grid, lower_grid = figure.add_gridspec(2, 1, height_ratios=(3.2, lower))
    grid = upper_grid.subgridspec(1, 2, width_ratios=(1, 1.15))
    stairs, course = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    _staircase(stairs, probed(networks, featured)[0], agile=agile)
    _over_training(course, probed(networks, featured), networks.step, agile=agile)
    stairs.legend(**LEGEND_ABOVE, ncols=3, columnspacing=1.2, handlelength=1.8, alignment="left",
                  title=f"{featured.full_label}: a few steps")  # fmt: skip
    course.legend(**LEGEND_ABOVE, ncols=2, alignment="left",
                  title=f"{featured.full_label}: median, and band between the quartiles")  # fmt: skip
    grid = lower_grid.subgridspec(1, 2, width_ratios=(1.5, 1))
    changes = figure.add_subplot(grid[0])
    _by_combination(changes, networks, agile=agile)
    _shares(figure.add_subplot(grid[1], sharey=changes), list(shares.values()), agile=agile)
    return figure


def _staircase(axis: Any, steps: Steps, *, agile: bool) -> None:
    """Draw a few consecutive probed steps, from a quarter of the training on."""
    first = min(len(steps.iteration) // 4, max(0, len(steps.iteration) - _SHOWN_STEPS))
    chosen = slice(first, first + _SHOWN_STEPS)
    weights = steps.weights[chosen]
    # Both halves relative to the loss before the step, so that the stairs add up.
    after = 100 * ((1 + weights / 100) * (1 + steps.activation[chosen] / 100) - 1)
    place = np.arange(len(weights), dtype=float)
    width = 0.27 if agile else 0.4
    words: tuple[str | None, ...] = ("before", "weights moved", "then a and b")
    for x, low, end in zip(place - width * (1.5 if agile else 1.0), weights, after, strict=True):
        axis.plot([x, x + width, x + width], [0, 0, low], color=MUTED, linewidth=1.1, label=words[0])
        axis.plot([x + width, x + 2 * width], [low, low], color=WEIGHTS, linewidth=3, label=words[1])
        if agile:
            axis.plot([x + 2 * width] * 2, [low, end], color=MUTED, linewidth=1.1)
            axis.plot([x + 2 * width, x + 3 * width], [end, end], color=ACTIVATION, linewidth=3,
                      linestyle=(0, (1.2, 0.5)), label=words[2])  # fmt: skip
        words = (None, None, None)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xticks(
        place, [f"{i:.0f}\n{b:.3g}" for i, b in zip(steps.iteration[chosen], steps.before[chosen], strict=True)]
    )
    axis.grid(axis="x", visible=False)
    axis.set(xlabel="iteration, and below it the loss before the step (nats)", ylabel="change since before the step, %")
    axis.tick_params(axis="x", labelsize=7.5)


def _over_training(axis: Any, seeds: list[Steps], unit: str, *, agile: bool) -> None:
    """Draw median and quartiles of the changes over training, all seeds together, in bins of iterations."""
    iteration = np.concatenate([steps.iteration for steps in seeds])
    edges = np.linspace(iteration.min(), iteration.max(), min(_BINS, max(1, len(seeds[0].iteration) // 6)) + 1)
    bins = np.clip(np.digitize(iteration, edges) - 1, 0, len(edges) - 2)
    filled = np.unique(bins)
    centres = np.asarray([iteration[bins == b].mean() for b in filled])
    for half in _halves(agile):
        values = np.concatenate([getattr(steps, half.name) for steps in seeds])
        low, middle, high = np.asarray([np.percentile(values[bins == b], (25, 50, 75)) for b in filled]).T
        axis.fill_between(centres, low, high, color=half.color, alpha=0.2, linewidth=0)
        axis.plot(centres, middle, color=half.color, linestyle=half.dashes, marker=half.marker, markersize=3.5,
                  label=f"by {half.words}")  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set(xlabel=unit, ylabel="relative change of the loss, %", xlim=(0, None))


def _mark(axis: Any, half: _Half, place: int, ends: list[float], middle: float, **more: Any) -> None:
    """Draw a mark and the line that belongs to it, in the row ``place``."""
    row = place + half.shift
    axis.plot(ends, [row] * 2, color=half.color, linewidth=2.2, solid_capstyle="butt", alpha=0.55)
    axis.plot(middle, row, half.marker, color=half.color, markersize=6, markeredgecolor="white", **more)


def _by_combination(axis: Any, run: Run, *, agile: bool) -> None:
    """Draw for each combination the quartiles of the change by each half, over all probed steps."""
    medians, edges = [], [0.0]
    for place, combination in enumerate(run.groups):
        for half in _halves(agile):
            values = np.concatenate([getattr(steps, half.name) for steps in probed(run, combination)])
            low, middle, high = np.percentile(values, (25, 50, 75))
            medians.append(abs(middle))
            edges += [low, high]
            _mark(axis, half, place, [low, high], middle, label=None if place else half.words)
    axis.axvline(0, color=INK, linewidth=0.8)
    if agile:
        # Linear up to a power of ten below the smallest median, so that small and large changes both show.
        smallest = min((value for value in medians if value > 0), default=1.0)
        threshold = max(float(10.0 ** np.floor(np.log10(smallest))), 1e-3)
        axis.set_xscale("symlog", linthresh=threshold, linscale=0.6)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlim(min(1.4 * min(edges), -threshold), max(1.4 * max(edges), threshold))
    axis.set_yticks(range(len(run.groups)), [combination.full_label for combination in run.groups])
    axis.set_ylim(len(run.groups) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("relative change of the loss in one step, %")
    axis.legend(**LEGEND_ABOVE, ncols=2, handlelength=1.0)


def _shares(axis: Any, rows: list[StepShare], *, agile: bool) -> None:
    """Draw the share of steps in which a half lowered the loss; that of the last half is written beside its mark."""
    last = _halves(agile)[-1]
    for place, row in enumerate(rows):
        for half in _halves(agile):
            share, low, high = (
                100 * value for value in (getattr(row, f"{half.name}_share"), *getattr(row, f"{half.name}_interval"))
            )
            _mark(axis, half, place, [low, high], share, clip_on=False)
        axis.annotate(f"{share:.0f} % [{low:.0f}, {high:.0f}]", (1.04, place + last.shift), fontsize=8,
                      xycoords=("axes fraction", "data"), color=last.color, va="center")  # fmt: skip
    axis.axvline(50, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axis.set(xlim=(0, 100), xlabel="share of steps that lowered the loss, %")
    axis.tick_params(labelleft=False)
    axis.grid(axis="y", visible=False)
    axis.set_title(f"written: share of {last.words}", fontsize=8, color=MUTED)
