"""The tab "XOR": the paper's Fig. 4 as it comes about, for the plain and the agile network side by side."""

import itertools
from typing import Any

from dash import Dash, Input, State, dcc, html

from agileact.lab import widgets as look
from agileact.lab.content.xor import ARMS, LINE, Surfaces, XorRun
from agileact.lab.input_checks import training
from agileact.lab.tabs.training import register_training
from agileact.paper.xor import POINTS, TARGETS, XorSpec

_SPEEDS = (5, 10, 50)
_OPTIMIZERS = ("adam", "sgd")
_DRAWN = ("as maps", "in 3D, drag to turn")
_CONTROLS = ("base", "optimizer", "lr", "activation-lr", "seed")
_COLORS = {"plain": look.GREY, "agile": look.BLUE}
_LEAST_LOSS = 1e-12
_CUT = "#ff5d73"
"""The colour of the line between the two answers."""
_NAMES = {"plain": "plain: a = 1, b = 0", "agile": "agile: a and b learned"}


def layout() -> html.Div:
    """Return the tab's content."""
    speeds = [{"label": str(speed), "value": speed} for speed in _SPEEDS]
    return look.tab_body(
        "Each of two hidden nodes fits a plane and bends it by the activation, and the output adds both: this "
        "separates four points that no line separates. Both networks start from the same weights. Press Start "
        "and watch the thick line, where the answer changes. Then try tanh, and other seeds: 3 is solved by "
        "one of the two alone, 7 by the other.",
        look.row(
            "controls",
            *look.training_controls("xor", base="sigmoid", optimizers=_OPTIMIZERS, lr=0.05, activation_lr=0.05, seed=6),
            look.control("Epochs in a picture", look.dropdown("xor-speed", speeds, _SPEEDS[1])),
            look.control("Surfaces", look.dropdown("xor-drawn", _DRAWN, _DRAWN[0])),
        ),
        *look.run_controls("xor", toggle="Start", step="Step", reset="Reset"),
        look.chart("xor-losses", "loss of both networks over epochs"),
        look.row(
            "charts two",
            *[
                look.chart(f"xor-{arm}", f"surfaces of the {arm} network over the two inputs", tall="surfaces")
                for arm in ARMS
            ],
        ),
        html.P(
            "White points should be 1, black ones 0; beside each, the output there. Below the output: h, each "
            "node's plane after the activation, and z, the plane itself, with the range that its colours span.",
            className="hint",
        ),
        dcc.Store(id="xor-go"),
        dcc.Store(id="xor-state"),
    )


def register(app: Dash) -> None:
    """Add the tab's callbacks."""

    def steps(page: dict[str, Any]) -> dict[str, int]:
        pace = int(page["speed"]) if page["speed"] in _SPEEDS else _SPEEDS[0]
        return {"xor-go": pace, "xor-step": 1, "xor-drawn": 0}

    def draw(run: XorRun, page: dict[str, Any]) -> list[look.Figure]:
        figure = relief_figure if page["drawn"] == _DRAWN[1] else surfaces_figure
        return [losses_figure(run), *(figure(run.surfaces(arm), arm) for arm in ARMS)]

    register_training(
        app,
        "xor",
        charts=("losses", *ARMS),
        controls=_CONTROLS,
        buttons=("step", "reset"),
        read_spec=read_spec,
        make=XorRun,
        steps=steps,
        take=lambda run, epochs, page: run.advance(epochs),
        draw=draw,
        more={"drawn": Input("xor-drawn", "value"), "speed": State("xor-speed", "value")},
    )


def read_spec(base: Any, optimizer: Any, lr: Any, activation_lr: Any, seed: Any) -> XorSpec:
    """Return how to train, from what the page says."""
    return XorSpec(**training(base, optimizer, lr, activation_lr, seed, optimizers=_OPTIMIZERS), starts=1)


def losses_figure(run: XorRun) -> look.Figure:
    """Return the loss of both networks over epochs, and where each was solved."""
    data: list[Any] = []
    every = max(1, run.taken // 600)
    for arm in ARMS:
        # A logarithmic axis has no place for 0.
        known = [max(value, _LEAST_LOSS) for value in run.losses[arm]]
        shown = [*range(0, len(known) - 1, every), len(known) - 1]
        dash = {"dash": "dash" if arm == "plain" else "solid"}
        mode = "lines+markers" if len(shown) == 1 else "lines"
        data.append(look.line(shown, [known[i] for i in shown], arm, _COLORS[arm], line=dash, mode=mode))
        since = run.solved_since(arm)
        if since is not None:
            mark = {"color": _COLORS[arm], "size": 11, "symbol": "star" if arm == "agile" else "diamond"}
            name = f"{arm}: solved"
            data.append(look.line([since], [known[since]], name, _COLORS[arm], mode="markers", marker=mark))
    heights = [value for one in data for value in one["y"]]
    # Within a decade two digits would name neighbouring ticks alike.
    ticks = ".1~e" if max(heights) > 10 * min(heights) else ".3~g"
    return look.figure(
        data,
        "Loss on the four points",
        "epoch",
        "mean squared error",
        yaxis={"type": "log", "tickformat": ticks, "nticks": 6, "automargin": True},
        xaxis={"rangemode": "tozero", "range": [0, max(20, run.taken * 1.02)]},
    )


def surfaces_figure(surfaces: Surfaces, arm: str) -> look.Figure:
    """Return one network's output over the square, and below it the surfaces of its hidden nodes."""
    network, w = surfaces.network, look.written
    bar = {"thickness": 10, "len": 0.46, "y": 0.98, "yanchor": "top", "x": 1.0}
    hover = "x₁ %{x}, x₂ %{y}: y = %{z:.3f}<extra></extra>"
    heights = [_height(value) for value in surfaces.at_points]
    data = [
        _over_inputs("heatmap", surfaces.output, zmin=-0.25, zmax=1.25, colorbar=bar, hovertemplate=hover),
        {
            **_over_inputs("contour", surfaces.output, showscale=False, hoverinfo="skip"),
            "contours": {"coloring": "none", "start": network.threshold, "end": network.threshold, "size": 1},
            "line": {"width": 4, "color": _CUT},
        },
        {
            **_points("scatter", 13, ["#000000" if target else "#ffffff" for target in TARGETS]),
            **{"mode": "markers+text", "text": heights, "textposition": "top center", "textfont": {"size": 13}},
            "hoverinfo": "skip",
        },
    ]
    axes: dict[str, Any] = {}
    small = {"tickvals": [0, 1], "zeroline": False, "showgrid": False}
    titles = [_title(f"y = {_sum(network.v, network.d)}", 0.0, 1.0)]
    panels = [("h", surfaces.bent, 0.24), ("z", surfaces.planes, 0.0)]
    for index, ((symbol, values, bottom), node) in enumerate(itertools.product(panels, (0, 1)), 2):
        rows, name, left = values[node], f"{symbol}{'₁₂'[node]}", 0.54 * node
        hover = f"{name} = %{{z:.3f}}<extra></extra>"
        place = {"xaxis": f"x{index}", "yaxis": f"y{index}"}
        data.append(_over_inputs("heatmap", rows, showscale=False, hovertemplate=hover, **place))
        axes[f"xaxis{index}"] = {**small, "domain": [left, left + 0.4], "anchor": f"y{index}"}
        axes[f"yaxis{index}"] = {**small, "domain": [bottom, bottom + 0.145], "anchor": f"x{index}"}
        words = f"{name}: {w(min(map(min, rows)), 2)} to {w(max(map(max, rows)), 2)}"
        if symbol == "h":
            words = f"a = {w(network.a[node], 2)}, b = {w(network.b[node], 2)}<br>{words}"
        titles.append(_title(words, left, bottom + 0.148))
    wide = {"tickvals": [-0.5, 0, 0.5, 1, 1.5], "zeroline": False, "showgrid": False}
    return look.figure(
        data,
        _NAMES[arm],
        "",
        "x₂",
        xaxis={**wide, "domain": [0, 0.94], "title": {"text": "x₁", "standoff": 2}},
        yaxis={**wide, "domain": [0.52, 0.97]},
        annotations=titles,
        showlegend=False,
        margin={"l": 58, "r": 52, "t": 44, "b": 26},
        **axes,
    )


def _over_inputs(kind: str, rows: list[list[float]], **more: Any) -> dict[str, Any]:
    """Return a surface over the square of the inputs."""
    line = [round(value, 3) for value in LINE.tolist()]
    values = [[round(value, 4) for value in row] for row in rows]
    return {"type": kind, "x": line, "y": line, "z": values, "colorscale": "Cividis", **more}


def _points(kind: str, size: int, edge: Any) -> dict[str, Any]:
    """Return the four points: white ones should be 1, black ones 0."""
    inside = ["#ffffff" if target else "#000000" for target in TARGETS]
    x, y = zip(*POINTS, strict=True)
    marker = {"size": size, "color": inside, "line": {"width": 2, "color": edge}}
    return {"type": kind, "mode": "markers", "x": [*x], "y": [*y], "marker": marker, "showlegend": False}


def relief_figure(surfaces: Surfaces, arm: str) -> look.Figure:
    """Return one network's surfaces in three dimensions: its output, and each node's plane z under its bent h."""
    network = surfaces.network

    def surface(rows: list[list[float]], scene: str, name: str, **more: Any) -> dict[str, Any]:
        hover = f"{name}: %{{z:.3f}}<extra></extra>"
        return _over_inputs("surface", rows, scene=scene, showscale=False, hovertemplate=hover, **more)

    level = {"start": network.threshold, "end": network.threshold, "size": 1}
    cut = {"z": {"show": True, **level, "color": _CUT, "width": 6}}
    discs = {"scene": "scene", "z": [*surfaces.at_points], "hovertemplate": "y: %{z:.3f}<extra></extra>"}
    data = [
        surface(surfaces.output, "scene", "y", cmin=-0.25, cmax=1.25, contours=cut),
        {**_points("scatter3d", 5, _CUT), **discs},
    ]
    axis = {"nticks": 4, "title": {"text": ""}}
    grey = [[0, look.GREY], [1, look.GREY]]
    camera = {"eye": {"x": -1.5, "y": -1.7, "z": 1.1}}
    scenes: dict[str, Any] = {}
    titles = [_title(f"y = {_sum(network.v, network.d)}", 0.0, 1.0)]
    for index, (x, y) in enumerate((([0, 1], [0.42, 1]), ([0, 0.48], [0, 0.36]), ([0.52, 1], [0, 0.36])), 1):
        view = {"domain": {"x": x, "y": y}, "aspectmode": "cube", "uirevision": "same", "camera": camera}
        scenes[f"scene{index if index > 1 else ''}"] = {**view, "xaxis": axis, "yaxis": axis, "zaxis": axis}
    for node, sign in enumerate("₁₂"):
        scene = f"scene{node + 2}"
        data.append(surface(surfaces.planes[node], scene, f"z{sign}", opacity=0.4, colorscale=grey))
        data.append(surface(surfaces.bent[node], scene, f"h{sign}"))
        words = f"h{sign} over z{sign}: a = {look.written(network.a[node], 2)}, b = {look.written(network.b[node], 2)}"
        titles.append(_title(words, 0.52 * node, 0.37))
    margin = {"l": 8, "r": 8, "t": 44, "b": 8}
    drawn = look.figure(data, _NAMES[arm], "", "", annotations=titles, showlegend=False, margin=margin, **scenes)
    # Turning is what it is for.
    return {**drawn, "layout": {**drawn["layout"], "dragmode": "turntable"}}


def _height(value: float) -> str:
    """Return an output as it stands beside its point: never "−0.00", and short while a run diverges."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−") if abs(value) < 100 else "…"


def _title(text: str, x: float, y: float) -> dict[str, Any]:
    frame = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "align": "left"}
    return {"text": text, "x": x, "y": y - 0.028 * (y == 1.0), "font": {"size": 11.5}, "showarrow": False, **frame}


def _sum(v: tuple[float, ...], d: float) -> str:
    def signed(value: float) -> str:
        # A run that diverges has numbers of more digits than there is room for.
        size = f"{abs(value):.2f}" if abs(value) < 1000 else look.written(abs(value), 2)
        return f"{'−' if value < 0 else '+'} {size}"

    return f"{look.written(v[0], 3)} h₁ {signed(v[1])} h₂ {signed(d)}"
