"""What all tabs share: controls with labels, charts with one look, numbers as they are written."""

from collections.abc import Sequence
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from agileact import bases
from agileact._common.errors import AgileactError
from agileact.lab.input_checks import MOST_OPTION, base_options

BLUE, ORANGE, GREEN, GREY = "#2f7fd1", "#d9661f", "#1f9d6b", "#858b94"
"""Colours that can be told apart on a light and on a dark page."""

WEIGHTS, ACTIVATIONS = BLUE, ORANGE

Figure = dict[str, Any]


def aria(**given: str) -> Any:
    """Return attributes whose names have hyphens, as Dash takes them; its types know none of these."""
    return {name.replace("_", "-"): value for name, value in given.items()}


def control(label: str, component: Any, *, hint: str = "", wide: bool = False) -> html.Div:
    """Return a component under its label; assets/lab.js hands the label on to the parts inside."""
    inner = component.children if getattr(component, "className", "") == "stepped" else component
    key = getattr(inner, "id", None)
    # The id of an option is a dict, which is not what stands in the page; a slider with its number has none.
    target: Any = {"htmlFor": key} if isinstance(key, str) else {}
    children = [html.Label(label, className="label", **target), component]
    if hint:
        children.append(html.Div(hint, className="hint"))
    return html.Div(children, className="control wide" if wide else "control", **aria(data_label=label))


def slider(key: str, least: float, most: float, value: float, step: float) -> html.Div:
    """Return a slider and, with the id ``key``, a number beside it: for the mouse, the arrow keys, and for typing.

    The number is what counts; :func:`pair` keeps the slider at it. A number that does not fit stays as it was typed,
    for the server to refuse.
    """
    drawn = dcc.Slider(
        id=slider_key(key),
        min=least,
        max=most,
        step=step,
        value=value,
        marks={end: written(end, 6) for end in (least, most)},
        updatemode="drag",
        included=False,
        # Its own field would show the nearest number that fits, and report nothing.
        allow_direct_input=False,
    )
    field = stepped(number(key, value), step, least, most)
    return html.Div([html.Div(drawn, className="track"), field], className="slider")


def slider_key(key: str) -> str:
    """Return the id of the slider beside the number ``key``."""
    return f"{key}-slider"


def pair(app: Dash, key: str) -> None:
    """Let a slider and the number beside it follow each other, in the browser."""
    app.clientside_callback(
        ClientsideFunction("lab", "pair"),
        Output(slider_key(key), "value"),
        Output(key, "value"),
        Input(slider_key(key), "value"),
        Input(key, "value"),
        State(slider_key(key), "min"),
        State(slider_key(key), "max"),
        prevent_initial_call=True,
    )


def number(key: Any, value: float, *, least: float | None = None, most: float | None = None, step: Any = "any") -> Any:
    """Return a field for a number."""
    limits: Any = {name: limit for name, limit in (("min", least), ("max", most)) if limit is not None}
    return dcc.Input(id=key, type="number", value=value, step=step, debounce=True, className="field", **limits)


def stepped(field: Any, by: float | str, least: float, most: float) -> html.Div:
    """Return a field for a number with what one step of it is, for assets/lab.js: a distance, or "rate".

    The steps of a rate are 1, 2 and 5 times the powers of ten.
    """
    return html.Div(field, className="stepped", **aria(data_by=str(by), data_least=str(least), data_most=str(most)))


def rate(key: str, value: float, most: float) -> html.Div:
    """Return a field for a learning rate, from 0 to ``most``."""
    return stepped(number(key, value, least=0, most=most), "rate", 0, most)


def dropdown(key: Any, options: Sequence[Any], value: Any) -> dcc.Dropdown:
    """Return a choice among names, or among dicts of label and value."""
    return dcc.Dropdown(
        id=key, options=list(options), value=value, clearable=False, searchable=len(options) > 8, className="choice"
    )


def button(key: str, text: str, *, main: bool = False) -> html.Button:
    """Return a button."""
    return html.Button(text, id=key, n_clicks=0, type="button", className="button main" if main else "button")


def chart(key: str, label: str, *, tall: str = "") -> html.Div:
    """Return an empty chart; ``label`` is what a screen reader says."""
    graph = dcc.Graph(
        id=key,
        figure={"data": [], "layout": {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}},
        responsive=True,
        config={"displayModeBar": False, "scrollZoom": False},
        className=f"chart {tall}".strip(),
    )
    return html.Div(graph, role="img", className="chart-frame", **aria(aria_label=label))


def filled(key: str, drawn: Figure, label: str, *, size: str = "small") -> html.Div:
    """Return a chart that is drawn already."""
    frame = chart(key, label, tall=size)
    frame.children.figure = drawn
    return frame


def row(kind: str, *parts: Any, key: str = "", hidden: bool = False) -> html.Div:
    """Return parts beside each other: "controls", "charts two", "buttons"."""
    identity: Any = {"id": key} if key else {}
    return html.Div(list(parts), className=kind, hidden=hidden, **identity)


def tab_body(intro: str, *parts: Any) -> html.Div:
    """Return the content of a tab."""
    return html.Div([html.P(intro, className="intro"), *parts], className="tab-body")


def sentence(key: str, text: str = "") -> html.P:
    """Return the place of a sentence that a screen reader reads when it changes."""
    return html.P(text, id=key, className="sentence", role="status")


def run_controls(tab: str, **buttons: str) -> tuple[html.Div, html.Div, html.P]:
    """Return a run's row of buttons, of which the first is the main one, and the places of a message and a sentence."""
    drawn = [button(f"{tab}-{key}", text, main=not place) for place, (key, text) in enumerate(buttons.items())]
    return row("buttons", *drawn), html.Div(id=f"{tab}-message"), sentence(f"{tab}-sentence")


def base_choice(tab: str, chosen: str, hint: str = "") -> html.Div:
    """Return the choice of f."""
    return control("f: base function", dropdown(f"{tab}-base", bases.names(), chosen), hint=hint)


def training_controls(
    tab: str, *, base: str, optimizers: Sequence[str], lr: float, activation_lr: float, seed: int
) -> list[html.Div]:
    """Return what every training can choose, in the order of :func:`agileact.lab.input_checks.training`."""
    return [
        base_choice(tab, base),
        control("Optimizer", dropdown(f"{tab}-optimizer", optimizers, "adam")),
        control("Learning rate of the weights", rate(f"{tab}-lr", lr, 10)),
        control("Learning rate of a and b", rate(f"{tab}-activation-lr", activation_lr, 10)),
        control("Seed", number(f"{tab}-seed", seed, least=0, most=99999, step=1)),
    ]


def register_options(app: Dash, tab: str) -> None:
    """Show the options of the f that is chosen on a tab."""

    @app.callback(Output(f"{tab}-options", "children"), Input(f"{tab}-base", "value"))
    def options(base: Any) -> Any:
        try:
            name, defaults = base_options(base, {})
        except AgileactError:
            return []
        return [option_control(tab, name, key, value) for key, value in defaults.items()]


def given_options(keys: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    """Return the options of f by name, from the parts of :func:`option_control` on the page."""
    return {key["option"]: value for key, value in zip(keys, values, strict=True)}


def option_control(tab: str, base: str, key: str, value: Any) -> html.Div:
    """Return the control of one option of a base function."""
    option = bases.get(base).options[key]
    place = {"tab": tab, "option": key}
    name = f"{base}: {key}"
    if option.choices:
        return control(name, dropdown(place, option.choices, value))
    return control(name, stepped(number(place, value), 0.1, -MOST_OPTION, MOST_OPTION))


def figure(data: list[Any], title: str, x: str, y: str, **layout: Any) -> Figure:
    """Return a figure: title, axes with names, a legend above the data, no ground of its own."""
    given = {"xaxis": {}, "yaxis": {}, **layout}
    return {
        "data": data,
        "layout": {
            "title": {"text": title, "x": 0.01, "xanchor": "left", "y": 0.98, "yanchor": "top", "font": {"size": 15}},
            "margin": {"l": 58, "r": 16, "t": 66, "b": 46},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "xanchor": "left"},
            "hovermode": "closest",
            "uirevision": "same",
            # Zooming by a finger would keep a phone from scrolling.
            "dragmode": False,
            **given,
            "xaxis": {"title": {"text": x, "standoff": 6}, "zeroline": True, **given["xaxis"]},
            "yaxis": {"title": {"text": y, "standoff": 4}, "zeroline": True, **given["yaxis"]},
        },
    }


def line(x: Sequence[Any], y: Sequence[Any], name: str, color: str, **more: Any) -> dict[str, Any]:
    """Return a line."""
    style = {"color": color, "width": 2.4, **more.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": style, **more}


def written(value: float, digits: int = 3) -> str:
    """Return a number as text, with a real minus sign, which 0 never has."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−")


def message(text: str, *, bad: bool = False) -> html.P:
    """Return a sentence about what happened."""
    return html.P(text, className="message bad" if bad else "message", role="alert" if bad else "status")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str, *, marked: Sequence[int] = ()) -> Any:
    """Return a table; the rows whose numbers are in ``marked`` stand out."""
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in header]))
    lines = [html.Tr([*map(html.Td, row)], className="marked" * (index in marked)) for index, row in enumerate(rows)]
    body = html.Tbody(lines)
    return html.Div(
        html.Table([html.Caption(caption), head, body]), className="table-frame", tabIndex="0", role="region",
        **aria(aria_label=caption),
    )  # fmt: skip
