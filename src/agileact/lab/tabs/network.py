"""The tab "Network": what the activations of a trained network have become, layer by layer."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update

from agileact._common.errors import AgileactError, ArgumentError
from agileact.lab import widgets as look
from agileact.lab.content.source import (
    UPLOAD_BYTES,
    Checkpoint,
    Drawn,
    Source,
    Trials,
    mib,
    open_source,
    open_upload,
    refuse_upload,
    summary,
)
from agileact.lab.input_checks import MOST_TERMS, base_options, whole
from agileact.lab.sessions import Sessions

_PAGE = 8
"""Layers shown at once: charts cost a browser time."""
_LISTED = 64
_BINS = 24
_KEEP, _LET_GO = "Keep beside the next", "Show one alone"


@dataclass(frozen=True)
class Kept:
    """A network that stays on the page while another one is opened: what it is called, its f, its layers by name."""

    title: str
    base: str
    layers: dict[str, Drawn]


def layout() -> html.Div:
    """Return the tab's content."""
    field: Any = {"type": "text", "value": "", "className": "field", "spellCheck": False, "autoComplete": "off"}
    return look.tab_body(
        "Open the weights of a network with agile activations (what torch.save(model.state_dict(), FILE) "
        "writes, or a Trainer's folder), or the store of a study. Each layer shows how far its activations "
        "have left f: look for units that are flipped (a below 0), nearly silent (a near 0), or moved far "
        "from where their inputs are.",
        look.row(
            "controls open",
            look.control(
                "Path of a checkpoint or a store",
                dcc.Input(id="network-path", placeholder="model.pt or runs/paper/store.sqlite", **field),
            ),
            look.row("beside", look.button("network-open", "Open", main=True)),
            look.control(
                "Or a checkpoint from here",
                # assets/lab.js tells of a larger file, which dcc.Upload passes over in silence.
                html.Div(
                    dcc.Upload(
                        "Drop a file, or press to choose one",
                        id="network-upload", className="upload", max_size=UPLOAD_BYTES, style={},
                    ),
                    **look.aria(data_most=str(UPLOAD_BYTES)),
                ),
                hint=f"up to {mib(UPLOAD_BYTES)}; only tensors are read, nothing in it can run",
            ),
        ),
        html.Div(id="network-message"),
        look.row(
            "controls",
            look.control("Trial", look.dropdown("network-trial", [], None), wide=True),
            key="network-for-store", hidden=True,
        ),
        look.row(
            "controls",
            look.base_choice("network", "relu", hint="a state_dict does not say which"),
            look.control(
                "K: terms of each activation",
                look.dropdown("network-terms", list(range(1, MOST_TERMS + 1)), 1),
                hint="1 unless it is a combined agile activation",
            ),
            look.row("control", key="network-options"),
            key="network-for-checkpoint", hidden=True,
        ),
        look.sentence("network-sentence", "Nothing is open yet."),
        look.row(
            "controls",
            look.control(
                "Layers whose name contains",
                dcc.Input(id="network-part", debounce=True, placeholder="all", **field),
                hint="to find one among many, or to draw those of one f together",
            ),
            look.control(
                "Two networks or trials side by side",
                look.button("network-keep", _KEEP),
                hint="then open another one, or choose another trial",
            ),
            key="network-parts", hidden=True,
        ),
        look.row(
            "controls",
            look.control("Page", look.number("network-page", 1, least=1, step=1), hint=f"{_PAGE} layers on each"),
            key="network-pages", hidden=True,
        ),
        look.row("cards", key="network-cards"),
        dcc.Store(id="network-opened"),
        dcc.Store(id="network-too-large"),
    )  # fmt: skip


def _outputs(*names: str) -> list[Output]:
    return [Output(f"network-{name.partition('.')[0]}", name.partition(".")[2]) for name in names]


def register(app: Dash, opened: Path | None) -> None:
    """Add the tab's callbacks; ``opened`` is what the page shows from the start."""
    sources: Sessions[Source] = Sessions()
    kept: Sessions[Kept | None] = Sessions()
    look.register_options(app, "network")

    @app.callback(
        _outputs("opened.data", "message.children", "trial.options", "trial.value"),
        _outputs("for-store.hidden", "for-checkpoint.hidden", "page.value"),
        Input("network-open", "n_clicks"),
        Input("network-path", "n_submit"),
        Input("network-upload", "contents"),
        Input("network-too-large", "data"),
        State("network-upload", "filename"),
        State("network-path", "value"),
        State("session", "data"),
        State("network-opened", "data"),
    )
    def load(
        clicks: Any, enters: Any, contents: Any, large: Any, name: Any, path: Any, key: Any, before: Any
    ) -> tuple[Any, ...]:
        count = before + 1 if isinstance(before, int) else 1
        try:
            if ctx.triggered_id == "network-too-large":
                refuse_upload(large)
            with sources.alone:
                source = _asked(str(ctx.triggered_id), contents, name, path, opened)
                if source is None:
                    return (no_update,) * 7
                sources.put(key, source)
        except AgileactError as error:
            return no_update, look.message(f"{error}.", bad=True), *[no_update] * 5
        said = look.message(f"Open: {source.name}.")
        if isinstance(source, Trials):
            trials = [{"label": label, "value": trial} for trial, label in source.labels().items()]
            return count, said, trials, trials[0]["value"], False, True, 1
        return count, said, [], None, True, False, 1

    @app.callback(
        _outputs("cards.children", "sentence.children", "pages.hidden", "parts.hidden", "keep.children"),
        Input("network-opened", "data"),
        [Input(f"network-{name}", "value") for name in ("trial", "base", "terms", "page", "part")],
        Input("network-keep", "n_clicks"),
        Input({"tab": "network", "option": ALL}, "value"),
        State({"tab": "network", "option": ALL}, "id"),
        State("session", "data"),
    )
    def draw(
        count: Any, trial: Any, base: Any, terms: Any, page: Any, part: Any, _: Any, values: Any, keys: Any, key: Any
    ) -> tuple[Any, ...]:
        if not count:
            return (no_update,) * 5
        wanted = part.strip() if isinstance(part, str) else ""
        try:
            with sources.alone:
                source = sources.get(key)
                if source is None:
                    gone = "The lab keeps the networks of the last 32 pages; open this one again."
                    return [], gone, True, True, no_update
                title = Path(source.name).name
                if isinstance(source, Checkpoint):
                    name, chosen = base_options(base, look.given_options(keys, values))
                    options = name, chosen, whole("K", terms, 1, MOST_TERMS)
                    drawn = source.drawn(*options, wanted)
                else:
                    name = "before the training"
                    drawn = source.drawn(str(trial), wanted)
                    title += f", {source.labels().get(str(trial), trial)}"
                if ctx.triggered_id == "network-keep":
                    whole_one = source.drawn(*options) if isinstance(source, Checkpoint) else source.drawn(str(trial))
                    one = Kept(title, name, {drawn.layer.name: drawn for drawn in whole_one})
                    kept.put(key, one if kept.get(key) is None else None)
                beside = kept.get(key)
            # Beside another one each layer has two cards.
            size = _PAGE // 2 if beside else _PAGE
            pages = -(-len(drawn) // size)
            # Of fewer layers there are fewer pages: the one of before may be gone.
            number = min(whole("the page", page, 1, 10**6), pages)
            first = size * (number - 1)
        except AgileactError as error:
            return [], f"{error}.", no_update, False, no_update
        shown = drawn[first : first + size]
        told = f"{Path(source.name).name}: {summary([one.layer for one in drawn])}"
        if pages > 1:
            told += f" Layers {first + 1} to {first + len(shown)} of {len(drawn)} are shown, page {number} of {pages}."
        if beside is None:
            cards = [card(one, name, str(first + i)) for i, one in enumerate(shown)]
            return cards, told, pages == 1, False, _KEEP
        told += f" On the left: {beside.title}."
        pairs = [pair(beside, one, name, title, str(first + i)) for i, one in enumerate(shown)]
        return pairs, told, pages == 1, False, _LET_GO


def _asked(trigger: str, contents: Any, name: Any, path: Any, opened: Path | None) -> Source | None:
    """Return what was asked to be opened; None if nothing was."""
    if trigger == "network-upload":
        return open_upload(contents, name)
    if trigger in ("network-open", "network-path"):
        if not isinstance(path, str) or not path.strip():
            raise ArgumentError("type the path of a checkpoint or a store first")
        return open_source(Path(path.strip()).expanduser())
    return None if opened is None else open_source(opened)


def pair(kept: Kept, drawn: Drawn, base: str, title: str, number: str) -> html.Div:
    """Return the cards of one layer in the network that was kept and in the one that is open."""
    name = drawn.layer.name
    if name in kept.layers:
        left = card(kept.layers[name], kept.base, f"kept-{number}", kept.title)
    else:
        none = html.P("It has no layer of this name.", className="hint")
        left = html.Div([html.H2(name), html.P(kept.title, className="hint"), none], className="card")
    return html.Div([left, card(drawn, base, number, title)], className="pair")


def card(drawn: Drawn, base: str, number: str, title: str = "") -> html.Div:
    """Return what is shown of one layer: its curves, where a and b lie, and which units are flipped."""
    layer = drawn.layer
    parts: list[Any] = [
        html.H2(layer.name),
        *([html.P(title, className="hint")] if title else []),
        look.filled(f"network-curves-{number}", curves_figure(drawn, base), f"activations of {layer.name}"),
    ]
    if layer.scale:
        figure = numbers_figure(drawn)
        parts.append(look.filled(f"network-numbers-{number}", figure, f"a and b of {layer.name}", size="low"))
        parts.append(html.P(_flipped(drawn)))
        shown = min(len(layer.scale), _LISTED)
        lines = ", ".join(
            f"{look.written(a)} / {look.written(b)}"
            for a, b in zip(layer.scale[:shown], layer.location[:shown], strict=True)
        )
        more = f" … and {len(layer.scale) - shown:,} more" if shown < len(layer.scale) else ""
        term = " (term after term)" if layer.terms > 1 else ""
        head = f"a / b of {layer.units:,} units, in their order{term}"
        parts.append(html.Details([html.Summary(head), html.P(lines + more, className="hint")]))
    else:
        parts.append(html.P("Its numbers are not a and b, or too many to be kept.", className="hint"))
    return html.Div(parts, className="card")


def _flipped(drawn: Drawn) -> Any:
    flipped = drawn.layer.flipped
    if not flipped:
        return "No unit is flipped."
    names = ", ".join(str(unit + 1) for unit in flipped[:20])
    more = f" and {len(flipped) - 20} more" if len(flipped) > 20 else ""
    words = "unit is" if len(flipped) == 1 else "units are"
    return html.Span(f"⚠ {len(flipped)} {words} flipped (a < 0): number {names}{more}.", className="flipped")


def curves_figure(drawn: Drawn, base: str) -> look.Figure:
    """Return the learned curves over that of the start; flipped units are dashed and of another colour."""
    data: list[Any] = []
    named = set()
    turned = set(drawn.layer.flipped)
    for unit, values in zip(drawn.units, drawn.after, strict=True):
        flipped = unit in turned
        name = "flipped (a < 0)" if flipped else "learned"
        style = {"width": 1.6, "dash": "dot" if flipped else "solid"}
        color = look.ORANGE if flipped else look.BLUE
        legend = {"legendgroup": name, "showlegend": name not in named}
        hover = f"unit {unit + 1}: %{{y:.3g}}<extra></extra>"
        y = [round(v, 5) for v in values]
        data.append(look.line(drawn.x, y, name, color, line=style, opacity=0.7, hovertemplate=hover, **legend))
        named.add(name)
    for index, values in enumerate(drawn.before):
        grey = {"dash": "dash", "width": 2.2}
        data.append(look.line(drawn.x, values, base, look.GREY, line=grey, showlegend=index == 0, legendgroup="f"))
    units = drawn.layer.units or len(drawn.units)
    shown = f"{len(drawn.units)} of {units:,} units" if len(drawn.units) < units else f"{units:,} units"
    return look.figure(data, shown, "x", "a·f(x − b)", showlegend=True)


def numbers_figure(drawn: Drawn) -> look.Figure:
    """Return histograms of a and of b, side by side."""
    data = []
    axes: look.Figure = {}
    for values, name, color, axis, domain in (
        (drawn.layer.scale, "a: size", look.BLUE, "", [0, 0.43]),
        (drawn.layer.location, "b: position", look.GREEN, "2", [0.57, 1]),
    ):
        low, high = min(values), max(values)
        # One bin for numbers that are all alike, which would else have no width.
        bins = min(_BINS, math.ceil(2 * math.sqrt(len(values)))) if high > low else 1
        width = (high - low) / bins if high > low else 0.1
        start = low if high > low else low - width / 2
        xbins = {"start": start, "end": high + width, "size": width}
        marker = {"color": color}
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "name": name[0]}
        data.append({"type": "histogram", "x": list(values), "marker": marker, "xbins": xbins, **place})
        highest = max(Counter(min(int((value - start) / width), bins - 1) for value in values).values())
        title = {"text": name, "standoff": 6}
        # A step away from the count's 0, which stands at the same corner.
        axes[f"xaxis{axis}"] = {
            "domain": domain, "anchor": f"y{axis}", "title": title, "nticks": 4, "ticklabelstandoff": 4,
        }  # fmt: skip
        # The margin and the gap have room for a label such as "1.5k", not for one of five digits.
        axes[f"yaxis{axis}"] = {
            "anchor": f"x{axis}", "tick0": 0, "dtick": tick_step(highest), "tickformat": "~s", "rangemode": "tozero",
        }  # fmt: skip
    axes["yaxis"]["automargin"] = True
    margin = {"l": 44, "r": 14, "t": 10, "b": 42}
    return look.figure(data, "", "a: size", "units", showlegend=False, margin=margin, bargap=0.06, **axes)


def tick_step(highest: int) -> int:
    """Return the distance between the few labels of a count up to ``highest``: 1, 2 or 5 times a power of ten."""
    least = max(1.0, highest / 4)
    power = 10 ** math.floor(math.log10(least))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= least))
