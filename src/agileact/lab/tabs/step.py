"""The tab "One step": the loss of a batch before a step, after the weights moved, after a and b moved."""

import math
from typing import Any

from dash import Dash, dcc, html

from agileact.lab import widgets as look
from agileact.lab.content.step import FORMS, NETWORKS, OPTIMIZERS, Moment, StepRun, StepSpec
from agileact.lab.input_checks import choice, training, whole
from agileact.lab.tabs.training import register_training

_CONTROLS = ("base", "form", "network", "optimizer", "lr", "activation-lr", "batch", "seed")
_FORM_WORDS = {"plain": "plain: f(x)", "agile": "agile: a·f(x − b)", "combined": "combined agile, K = 2"}
_SHOWN = 300


def layout() -> html.Div:
    """Return the tab's content."""
    base, optimizer, lr, activation_lr, seed = look.training_controls(
        "step", base="sigmoid", optimizers=OPTIMIZERS, lr=0.02, activation_lr=0.1, seed=0
    )
    forms = [{"label": _FORM_WORDS[form], "value": form} for form in FORMS]
    networks = [{"label": words, "value": name} for name, (words, _, _) in NETWORKS.items()]
    return look.tab_body(
        "A training step moves the weights and, in an agile network, also a and b of its activations. Here "
        "the loss of the step's own batch is measured at three moments: before, when the weights have moved, "
        "and when a and b have moved as well. Take steps with both forms, then raise the learning rates until "
        "one half of the step undoes the other.",
        look.row(
            "controls",
            base,
            look.control("Form", look.dropdown("step-form", forms, "agile")),
            look.control("Network on 8×8 digits", look.dropdown("step-network", networks, "mlp")),
            optimizer,
            lr,
            activation_lr,
            look.control("Samples in a batch", look.number("step-batch", 32, least=1, most=512, step=1)),
            seed,
        ),
        *look.run_controls("step", one="Step", ten="10 steps", reset="Reset"),
        look.row(
            "charts two",
            look.chart("step-last", "loss at the three moments of the last step"),
            look.chart("step-shares", "change of the loss by each half, over steps"),
        ),
        look.chart("step-losses", "loss before each step, over steps"),
        dcc.Store(id="step-state"),
    )


def register(app: Dash) -> None:
    """Add the tab's callbacks."""

    def take(run: StepRun, steps: int, page: object) -> None:
        for _ in range(steps):
            if not run.ended:
                run.step()

    def draw(run: StepRun, page: object) -> list[look.Figure]:
        moments, plain = list(run.moments), run.spec.form == "plain"
        return [last_figure(moments, plain=plain), shares_figure(moments, plain=plain), losses_figure(moments)]

    register_training(
        app,
        "step",
        charts=("last", "shares", "losses"),
        controls=_CONTROLS,
        buttons=("one", "ten", "reset"),
        read_spec=read_spec,
        make=StepRun,
        steps=lambda page: {"step-one": 1, "step-ten": 10},
        take=take,
        draw=draw,
        clock=False,
    )


def read_spec(
    base: Any, form: Any, network: Any, optimizer: Any, lr: Any, activation_lr: Any, batch: Any, seed: Any
) -> StepSpec:
    """Return what to train, from what the page says."""
    return StepSpec(
        form=choice("the form", form, FORMS),
        network=choice("the network", network, NETWORKS),
        batch=whole("the batch", batch, 1, 512),
        **training(base, optimizer, lr, activation_lr, seed, optimizers=OPTIMIZERS),
    )


def last_figure(moments: list[Moment], *, plain: bool) -> look.Figure:
    """Return the last step as stairs: three levels, and between them what each half changed."""
    title = f"Step {len(moments):,}: three moments of the loss" if moments else "Three moments of the loss"
    names = ["before", "weights<br>moved", "a and b<br>moved"]
    if not moments or not math.isfinite(sum((moments[-1].before, moments[-1].after_activations))):
        return look.figure([], title, "", "loss of the batch, nats", xaxis={"range": [-0.5, 2.5], "tickvals": []})
    last = moments[-1]
    levels = [last.before, last.after_weights, last.after_activations]
    shown = 2 if plain else 3
    data: list[Any] = []
    halves = (("by the weights", look.WEIGHTS), ("by a and b", look.ACTIVATIONS))
    for place, (by, color) in enumerate(halves[: shown - 1], 1):
        change = {"x": [place], "base": [levels[place - 1]], "y": [levels[place] - levels[place - 1]], "width": 0.62}
        hover = f"{names[place].replace('<br>', ' ')}: {levels[place]:.5g}<extra></extra>"
        data.append({"type": "bar", **change, "marker": {"color": color}, "name": by, "hovertemplate": hover})
    for place, level in enumerate(levels[:shown]):
        # Beside the bar, not on it; a mark that nobody sees keeps the number away from the line.
        below = place and level < levels[place - 1]
        text = {"text": ["", f"{level:.4g}", ""], "textposition": "bottom center" if below else "top center"}
        more: Any = {"mode": "lines+markers+text", "marker": {"size": 8, "opacity": 0}, "hoverinfo": "skip"}
        x = [place - 0.42, place, place + 0.42]
        data.append(look.line(x, [level] * 3, "", look.GREY, line={"width": 3}, showlegend=False, **text, **more))
    bare = {"tickangle": 0, "zeroline": False, "showgrid": False}
    span = max(levels) - min(levels) or 0.01 * abs(levels[0]) or 1e-6
    return look.figure(
        data,
        title,
        "",
        "loss of the batch, nats",
        xaxis={**bare, "tickvals": [*range(shown)], "ticktext": names[:shown], "range": [-0.55, shown - 0.45]},
        # The bars are differences, so the axis need not start at 0.
        yaxis={"range": [min(levels) - 0.25 * span, max(levels) + 0.25 * span], "zeroline": False},
        barmode="overlay",
    )


def shares_figure(moments: list[Moment], *, plain: bool) -> look.Figure:
    """Return the change of the loss by each half over the last steps."""
    first = max(0, len(moments) - _SHOWN)
    steps = list(range(first + 1, len(moments) + 1))
    data = [_course(steps, [m.by_weights for m in moments[first:]], "by the weights", look.WEIGHTS, "circle")]
    if not plain:
        changes = [m.by_activations for m in moments[first:]]
        data.append(_course(steps, changes, "by a and b", look.ACTIVATIONS, "triangle-up"))
    return look.figure(
        data if moments else [],
        "What each half did to the loss",
        "step",
        "change of the batch's loss, %",
        xaxis=_steps_axis(len(moments)),
        showlegend=True,
    )


def losses_figure(moments: list[Moment]) -> look.Figure:
    """Return the loss of each batch before its step and after it."""
    first = max(0, len(moments) - _SHOWN)
    steps = list(range(first + 1, len(moments) + 1))
    more: Any = {"mode": "lines+markers", "marker": {"size": 4}}
    before, after = ([getattr(m, name) for m in moments[first:]] for name in ("before", "after_activations"))
    data = [
        look.line(steps, before, "before the step", look.GREY, **more),
        look.line(steps, after, "after it", look.GREEN, line={"dash": "dash"}, **more),
    ]
    title, axis = "Loss of each step's batch", _steps_axis(len(moments))
    shown = data if moments else []
    return look.figure(shown, title, "step", "loss, nats", xaxis=axis, yaxis={"rangemode": "tozero"}, showlegend=True)


def _course(steps: list[int], changes: list[float], name: str, color: str, symbol: str) -> dict[str, Any]:
    values = [100 * change if math.isfinite(change) else None for change in changes]
    mark = {"size": 6, "symbol": symbol}
    return look.line(steps, values, name, color, mode="lines+markers", marker=mark, line={"width": 1.2})


def _steps_axis(count: int) -> dict[str, Any]:
    first = max(0, count - _SHOWN)
    axis: dict[str, Any] = {"range": [first + 0.5, max(count, first + 10) + 0.5], "zeroline": False}
    return axis if count > 15 else {**axis, "dtick": 1}
