"""The tab "Depth": plain, agile, standardised and batch-normalised networks of six layers, side by side."""

from __future__ import annotations

import math
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from agileact import bases
from agileact._common.errors import AgileactError
from agileact.lab import widgets as look
from agileact.lab.content.live import ARMS, LAYERS, LiveRun, LiveSpec, learning_rate
from agileact.lab.input_checks import choice, number, whole
from agileact.lab.sessions import Sessions, current_run, steps_asked

_OPTIMIZERS = ("adam", "sgd", "momentum")
_CONTROLS = ("base", "optimizer", "seed")
_COLORS = {"plain": look.GREY, "agile": look.BLUE, "standardised": look.ORANGE, "batch-normalised": look.GREEN}
_DASHES = {"plain": "dash", "agile": "solid", "standardised": "longdash", "batch-normalised": "dot"}
_STEPS = 10
_AVERAGED = 20
"""Losses are means over so many batches: those of single ones hide the course."""
_MARGIN = {"l": 58, "r": 16, "t": 108, "b": 46}
"""Room for four rows of names, as a phone has them; they would run into the title."""


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
                hint="of weights, a and b; it moves a run that goes on",
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
    runs: Sessions[LiveRun] = Sessions(limit=8)
    look.pair(app, "live-lr")

    @app.callback(
        [Output(f"live-{name}", "figure") for name in ("losses", "signals", "numbers")],
        Output("live-sentence", "children"),
        Output("live-message", "children"),
        Output("live-state", "data"),
        inputs={
            "go": Input("live-go", "data"),
            "asked": [Input("live-step", "n_clicks"), Input("live-reset", "n_clicks")],
            "given": [Input(f"live-{name}", "value") for name in _CONTROLS],
            "lr": State("live-lr", "value"),
            "key": State("session", "data"),
            "state": State("live-state", "data"),
        },
    )
    def train(go: Any, asked: Any, given: list[Any], lr: Any, key: Any, state: Any) -> tuple[Any, ...]:
        steps = steps_asked(ctx.triggered_prop_ids.values(), {"live-go": _STEPS, "live-step": 1})
        try:
            spec, rate = read_spec(*given), learning_rate(number("the power of ten", lr, -4, 0))
            with runs.alone():
                run, lost = current_run(runs, key, spec, LiveRun, steps, _step(state))
                # The clock asks for what follows the picture it has: a run that was reset meanwhile stays at its start.
                late = set(ctx.triggered_prop_ids.values()) == {"live-go"} and _step(go) != run.step
                run.advance(0 if late else steps, rate)
                figures = [losses_figure(run), signals_figure(run), numbers_figure(run)]
                sentence, told = run.sentence(), {"epoch": run.step, "ended": run.finished or lost}
        except AgileactError as error:
            return (*[no_update] * 4, look.message(f"{error}.", bad=True), {"ended": True})
        return *figures, sentence, look.put_away(lost), told

    app.clientside_callback(ClientsideFunction("lab", "arrived"), Input("live-state", "data"))
    app.clientside_callback(
        ClientsideFunction("lab", "press"),
        Output("live-toggle", "children"),
        Input("live-toggle", "n_clicks"),
        Input("live-reset", "n_clicks"),
        *[Input(f"live-{name}", "value") for name in _CONTROLS],
    )


def read_spec(base: Any, optimizer: Any, seed: Any) -> LiveSpec:
    """Return what to train, from what the page says."""
    return LiveSpec(
        choice("f", base, bases.names()),
        choice("the optimizer", optimizer, _OPTIMIZERS),
        whole("the seed", seed, 0, 99_999),
    )


def _step(state: Any) -> Any:
    return state.get("epoch") if isinstance(state, dict) else None


def _lines(data: dict[str, tuple[list[int], list[float]]], **more: Any) -> list[dict[str, Any]]:
    return [
        look.line(x, [value if math.isfinite(value) else None for value in y], arm, _COLORS[arm],
                  line={"dash": _DASHES[arm]}, **more)
        for arm, (x, y) in data.items()
    ]  # fmt: skip


def losses_figure(run: LiveRun) -> look.Figure:
    """Return the losses over steps, each a mean over the last batches."""
    every = max(1, run.step // 300)
    shown = [*range(every, run.step + 1, every)]
    data = {}
    for arm in ARMS:
        values = run.losses[arm]
        means = [sum(part) / len(part) for step in shown for part in [values[max(0, step - _AVERAGED) : step]]]
        data[arm] = (shown, means)
    axis = {"range": [0, max(100, run.step * 1.02)]}
    # A line of one point would not be seen.
    lines = _lines(data, mode="lines+markers" if len(shown) == 1 else "lines") if run.step else []
    more = {"xaxis": axis, "yaxis": {"rangemode": "tozero"}, "showlegend": True, "margin": _MARGIN}
    return look.figure(lines, "Loss", "step", "loss, nats", **more)


def signals_figure(run: LiveRun) -> look.Figure:
    """Return how much the outputs of each layer differ from sample to sample, by network."""
    layers = [*range(1, LAYERS + 1)]
    data = {arm: (layers, [max(size, 1e-9) for size in run.signals(arm).sizes]) for arm in ARMS}
    lines = _lines(data, mode="lines+markers", marker={"size": 7})
    yaxis = {"type": "log", "tickformat": ".2~g", "nticks": 6}
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
