"""The tab "Depth": plain, agile, standardised and batch-normalised networks of six layers, side by side."""

import math
from typing import Any

from dash import Dash, State, dcc, html

from agileact import bases
from agileact.lab import widgets as look
from agileact.lab.content.live import ARMS, LAYERS, LiveRun, LiveSpec, learning_rate
from agileact.lab.input_checks import choice, number, whole
from agileact.lab.tabs.training import register_training

_OPTIMIZERS = ("adam", "sgd", "momentum")
_CONTROLS = ("base", "optimizer", "seed")
_COLORS = {"plain": look.GREY, "agile": look.BLUE, "standardised": look.ORANGE, "batch-normalised": look.GREEN}
_DASHES = {"plain": "dash", "agile": "solid", "standardised": "longdash", "batch-normalised": "dot"}
_STEPS = 10
_AVERAGED = 20
"""Losses are means over so many batches: those of single ones hide the course."""
_MARGIN = {"l": 78, "r": 16, "t": 84, "b": 46}
"""Room for two rows of names, as a phone has them, and for small numbers: they would run into the titles."""


def layout() -> html.Div:
    """Return the tab's content."""
    return look.tab_body(
        "Four networks of six layers learn 8×8 digits, from the same weights and on the same batches: plain, agile, "
        "agile with standardised weights, and plain with batch normalisation. The size of the signal is how much a "
        "layer's outputs differ from digit to digit. With sigmoid it fades from layer to layer at the start, except "
        "with standardised weights. Press Start, and move the learning rate while they learn.",
        look.row(
            "controls",
            look.base_choice("live", "sigmoid"),
            look.control("Optimizer", look.dropdown("live-optimizer", _OPTIMIZERS, "adam")),
            look.control("Seed", look.number("live-seed", 0, least=0, most=99999, step=1)),
            look.control(
                "Power of ten of the learning rate",
                look.slider("live-lr", -4, 0, -2, 0.1),
                hint="of weights, a and b; also during a run",
            ),
        ),
        *look.run_controls("live", toggle="Start", step="Step", reset="Reset"),
        look.chart("live-losses", "loss of the four networks over steps"),
        look.row(
            "charts two",
            look.chart("live-signals", "size of the signal behind each layer of the four networks"),
            look.chart("live-numbers", "ranges of a and b of each layer of the agile network"),
        ),
        dcc.Store(id="live-go"),
        dcc.Store(id="live-state"),
    )


def register(app: Dash) -> None:
    """Add the tab's callbacks."""
    look.pair(app, "live-lr")
    register_training(
        app,
        "live",
        charts=("losses", "signals", "numbers"),
        controls=_CONTROLS,
        buttons=("step", "reset"),
        read_spec=read_spec,
        make=LiveRun,
        steps=lambda page: {"live-go": _STEPS, "live-step": 1},
        take=lambda run, steps, page: run.advance(steps, learning_rate(number("the power of ten", page["lr"], -4, 0))),
        draw=lambda run, page: [losses_figure(run), signals_figure(run), numbers_figure(run)],
        more={"lr": State("live-lr", "value")},
        limit=8,
    )


def read_spec(base: Any, optimizer: Any, seed: Any) -> LiveSpec:
    """Return what to train, from what the page says."""
    return LiveSpec(
        choice("f", base, bases.names()),
        choice("the optimizer", optimizer, _OPTIMIZERS),
        whole("the seed", seed, 0, 99_999),
    )


def _lines(data: dict[str, tuple[list[int], list[float]]], **more: Any) -> list[dict[str, Any]]:
    return [
        # A short name: on a phone two of them fit beside each other.
        look.line(x, [value if math.isfinite(value) else None for value in y],
                  arm.replace("batch-normalised", "batch norm"), _COLORS[arm], line={"dash": _DASHES[arm]}, **more)
        for arm, (x, y) in data.items()
    ]  # fmt: skip


def losses_figure(run: LiveRun) -> look.Figure:
    """Return the losses over steps, each a mean over the last batches."""
    every = max(1, run.taken // 300)
    shown = [*range(every, run.taken + 1, every)]
    data = {}
    for arm in ARMS:
        values = run.losses[arm]
        means = [sum(part) / len(part) for step in shown for part in [values[max(0, step - _AVERAGED) : step]]]
        data[arm] = (shown, means)
    axis = {"range": [0, max(100, run.taken * 1.02)]}
    # A line of one point would not be seen.
    lines = _lines(data, mode="lines+markers" if len(shown) == 1 else "lines") if run.taken else []
    more = {"xaxis": axis, "yaxis": {"rangemode": "tozero"}, "showlegend": True, "margin": _MARGIN}
    return look.figure(lines, "Loss", "step", "loss, nats", **more)


def signals_figure(run: LiveRun) -> look.Figure:
    """Return how much the outputs of each layer differ from sample to sample, by network."""
    layers = [*range(1, LAYERS + 1)]
    data = {arm: (layers, [max(size, 1e-9) for size in run.signals(arm).sizes]) for arm in ARMS}
    lines = _lines(data, mode="lines+markers", marker={"size": 7})
    sizes = [size for _, of_arm in data.values() for size in of_arm if math.isfinite(size)]
    # By itself Plotly names all digits of an axis of less than two decades, too many for this height.
    few = {"dtick": "D2"} if sizes and max(sizes) < 100 * min(sizes) else {"nticks": 6}
    yaxis = {"type": "log", "tickformat": ".2~g", **few}
    title = "Size of the signal, by layer"
    more = {"yaxis": yaxis, "xaxis": {"dtick": 1}, "showlegend": True, "margin": _MARGIN}
    return look.figure(lines, title, "layer", "deviation over digits", **more)


def numbers_figure(run: LiveRun) -> look.Figure:
    """Return the ranges of a and b of the agile network, by layer."""
    found = run.signals("agile")
    data = []
    for values, name, color, shift in ((found.scale, "a", look.BLUE, -0.12), (found.location, "b", look.ORANGE, 0.12)):
        for layer, (low, high) in enumerate(values, 1):
            x = [layer + shift] * 2
            data.append(
                look.line(x, [low, high], name, color, line={"width": 7}, showlegend=layer == 1, legendgroup=name,
                          hovertemplate=f"{name} of layer {layer}: %{{y:.3g}}<extra></extra>")
            )  # fmt: skip
    title = "From the smallest to the largest a and b"
    return look.figure(data, title, "layer", "a, b", xaxis={"dtick": 1, "range": [0.5, LAYERS + 0.5]}, showlegend=True)
