"""The tab "Activation": f, a f(g (x - b)), their slopes, and the fold into the weights around them."""

from collections.abc import Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, html, no_update

from agileact._common.errors import AgileactError
from agileact.lab import widgets as look
from agileact.lab.content.curves import REACH, Curves, Form, Reading, curves, reading
from agileact.lab.content.folding import CIRCUITS, Folded, fold_circuit
from agileact.lab.input_checks import MOST_TERMS, base_options, choice, number, whole

_SCALE, _LOCATION, _GAIN = 3.0, 4.0, 4.0
_STARTS = ((1.5, 1.0), (-1.0, 2.0), (0.5, -2.0))
_SUBSCRIPTS = "₁₂₃"


def layout() -> html.Div:
    """Return the tab's content."""
    stretch = look.control(
        "g: gain",
        look.slider("activation-g", -_GAIN, _GAIN, 1.0, 0.05),
        hint="stretches x: a·f(g·(x − b)); for standardised weights",
    )
    sliders = []
    for term, (a, b) in enumerate(_STARTS):
        sign = _SUBSCRIPTS[term] if term else ""
        size = look.control(f"a{sign}: size", look.slider(f"activation-a{term}", -_SCALE, _SCALE, a, 0.05))
        place = look.control(f"b{sign}: position", look.slider(f"activation-b{term}", -_LOCATION, _LOCATION, b, 0.05))
        gain = [html.Div(stretch, id="activation-gain")] if not term else []
        sliders.append(look.row("controls", size, place, *gain, key=f"activation-term{term}", hidden=term > 0))
    terms = [{"label": "1, agile" if k == 1 else f"{k}, combined agile", "value": k} for k in range(1, MOST_TERMS + 1)]
    circuits = [{"label": words, "value": name} for name, words in CIRCUITS.items()]
    return look.tab_body(
        "An agile activation is a·f(x − b): a stretches f and turns it over when it is negative, b moves it "
        "along x. A gain g, which standardised weights need, makes it steeper. Drag a below 0 with ReLU, then with "
        "sigmoid, and watch where the slope is 0: there, nothing in front of the activation learns.",
        look.row(
            "controls",
            look.base_choice("activation", "relu"),
            look.control(
                "K: number of terms",
                look.dropdown("activation-terms", terms, 1),
                hint="a sum of K terms with a size and a position each",
            ),
            look.control("x: where to read", look.slider("activation-at", -REACH, REACH, 2.0, 0.1)),
        ),
        look.row("controls", key="activation-options"),
        *sliders,
        html.Div(id="activation-message"),
        look.row(
            "charts two",
            look.chart("activation-values", "f and its agile form over x"),
            look.chart("activation-slopes", "slope of f and of its agile form over x"),
        ),
        look.sentence("activation-reading"),
        html.H2("The fold into the weights"),
        html.P(
            "After training, a and b can leave: b moves into the bias before the activation, a into the weights "
            "behind it, and a plain network with the same outputs is left. Try max pooling with a negative a, or "
            "BatchNorm behind: the fold says what it must leave, and why.",
            className="intro",
        ),
        look.row(
            "controls",
            look.control(
                "Network around the activation",
                look.dropdown("activation-circuit", circuits, "linear"),
                hint="two nodes: yours, and one with a = 1, b = 0",
                wide=True,
            ),
        ),
        look.sentence("activation-verdict"),
        look.row(
            "charts two",
            look.chart("activation-fold", "outputs of the agile and of the folded network over x"),
            html.Div(id="activation-numbers"),
        ),
    )


def register(app: Dash, alone: Any) -> None:
    """Add the tab's callbacks; ``alone`` is a context in which one request computes at a time."""
    look.register_options(app, "activation")

    @app.callback(
        [Output(f"activation-term{term}", "hidden") for term in range(MOST_TERMS)],
        Output("activation-gain", "hidden"),
        Input("activation-terms", "value"),
    )
    def terms(count: Any) -> list[bool]:
        shown = count if isinstance(count, int) else 1
        return [*(term >= shown for term in range(MOST_TERMS)), shown > 1]

    places = [f"activation-{letter}{term}" for letter in "ab" for term in range(MOST_TERMS)]
    for place in ("activation-at", "activation-g", *places):
        look.pair(app, place)

    @app.callback(
        [Output(f"activation-{name}", "figure") for name in ("values", "slopes", "fold")],
        [Output(f"activation-{name}", "children") for name in ("reading", "numbers", "verdict", "message")],
        inputs={
            "base": Input("activation-base", "value"),
            "count": Input("activation-terms", "value"),
            "at": Input("activation-at", "value"),
            "circuit": Input("activation-circuit", "value"),
            "stretch": Input("activation-g", "value"),
            "pairs": [Input(place, "value") for place in places],
            "values": Input({"tab": "activation", "option": ALL}, "value"),
            "keys": State({"tab": "activation", "option": ALL}, "id"),
        },
    )
    def draw(
        base: Any, count: Any, at: Any, circuit: Any, stretch: Any, pairs: list[Any], values: list[Any], keys: list[Any]
    ) -> tuple[Any, ...]:
        try:
            name, chosen = base_options(base, look.given_options(keys, values))
            k = whole("K", count, 1, MOST_TERMS)
            scales = [number("a", value, -_SCALE, _SCALE) for value in pairs[:k]]
            locations = [number("b", value, -_LOCATION, _LOCATION) for value in pairs[MOST_TERMS:][:k]]
            # A sum of terms has no gain, and a gain of 1 is none.
            g = number("g", stretch, -_GAIN, _GAIN) if k == 1 else 1.0
            given = Form(name, scales, locations, chosen, None if g == 1 else g)
            x = number("x", at, -REACH, REACH)
            where = choice("the network", circuit, CIRCUITS)
            with alone:
                drawn, read, folded = curves(given), reading(given, x), fold_circuit(where, given)
        except AgileactError as error:
            return (*[no_update] * 6, look.message(f"{error}.", bad=True))
        figures = [values_figure(drawn, read, name, x), slopes_figure(drawn, read, name, x), fold_figure(folded)]
        return *figures, reading_sentence(read, x), fold_table(folded), fold_sentence(folded), None


def form(read: Reading) -> str:
    """Return the formula that is drawn."""
    return "a·f(x − b)" if read.by_gain is None else "a·f(g·(x − b))"


def values_figure(drawn: Curves, read: Reading, base: str, at: float) -> look.Figure:
    """Return f and its agile form, with the tangent at ``at``."""
    reach = 1.2
    tangent = [read.value - reach * read.slope, read.value + reach * read.slope]
    finite = [value for value in drawn.agile + drawn.plain if value is not None]
    low, high = max(min(finite), -8.0), min(max(finite), 8.0)
    pad = 0.08 * (high - low) or 1.0
    return look.figure(
        [
            look.line(drawn.x, drawn.plain, f"{base}: f(x)", look.GREY, line={"dash": "dash", "width": 2}),
            look.line(drawn.x, drawn.agile, f"agile: {form(read)}", look.BLUE),
            look.line([at - reach, at + reach], tangent, "tangent", look.ORANGE, line={"width": 1.8}),
            _mark(at, read.value),
        ],
        f"{base} and its agile form",
        "x",
        "value",
        yaxis={"range": [low - pad, high + pad]},
    )


def slopes_figure(drawn: Curves, read: Reading, base: str, at: float) -> look.Figure:
    """Return f' and the slope of the agile form."""
    return look.figure(
        [
            look.line(drawn.x, drawn.plain_slope, "f′(x)", look.GREY, line={"dash": "dash", "width": 2}),
            look.line(drawn.x, drawn.agile_slope, "slope of the agile form", look.BLUE),
            _mark(at, read.slope),
        ],
        "Slopes: what a gradient is multiplied by",
        "x",
        "slope",
    )


def _mark(x: float, y: float) -> dict[str, Any]:
    marker = {"color": look.ORANGE, "size": 9}
    return {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "marker": marker, "showlegend": False}


def reading_sentence(read: Reading, at: float) -> str:
    """Say what happens at one x."""
    w = look.written
    by: list[str] = []
    for letter, values in (("a", read.by_scale), ("b", read.by_location)):
        several = len(values) > 1
        for term, value in enumerate(values):
            by.append(f"by {letter}{_SUBSCRIPTS[term] if several else ''} {'is ' * (not by)}{w(value)}")
    if read.by_gain is not None:
        by.append(f"by g {w(read.by_gain)}")
    return (
        f"At x = {w(at)}: f is {w(read.plain)} with slope {w(read.plain_slope)}; the agile form is {w(read.value)} "
        f"with slope {w(read.slope)}. Its derivative {', '.join(by)}."
    )


def fold_figure(folded: Folded) -> look.Figure:
    """Return the outputs of both networks, one drawn on the other."""
    return look.figure(
        [
            look.line(folded.x, folded.agile, "agile network", look.BLUE, line={"width": 6}, opacity=0.55),
            look.line(folded.x, folded.plain, "folded network", look.ORANGE, line={"width": 2, "dash": "dash"}),
        ],
        "Outputs of both networks",
        "x",
        "output",
    )


def fold_table(folded: Folded) -> Any:
    """Return the numbers before and after."""
    rows = [
        (one.meaning, _numbers(one.before), _numbers(one.after), "changed" if one.changed else "")
        for one in folded.numbers
    ]
    header = ("numbers", "agile network", "folded network", "fold")
    changed = [index for index, one in enumerate(folded.numbers) if one.changed]
    return look.table(header, rows, "Weights before and after the fold", marked=changed)


def _numbers(values: Sequence[float] | None) -> str:
    return "gone" if values is None else ",  ".join(look.written(value) for value in values)


def fold_sentence(folded: Folded) -> str:
    """Say what was folded, what was not, and why."""
    site = folded.site
    parts = [
        f"{letter} went into {', '.join(into)}"
        for letter, into in (("b", site.location_into), ("a", site.scale_into), ("g", site.gain_into))
        if into
    ]
    went = f" {', '.join([*parts[:1], *(part.replace(' went', '') for part in parts[1:])])}." if parts else ""
    if site.status == "folded":
        head = f"Folded: nothing is left of {'a, b and g' if site.gain_into else 'a and b'}."
    else:
        left = {"scale": "a", "location": "b", "gain": "g"}
        kept = " and ".join(sorted(left[name] for name in site.kept))
        head = f"{site.status.capitalize()}: {kept} must stay. The report says: “{site.reason}”."
    return f"{head}{went} Greatest difference between the two outputs: {look.written(folded.difference, 1)}."
