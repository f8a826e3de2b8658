"""What the tabs with a training share: one callback that takes steps and draws, and the clock that presses for more."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from agileact._common.errors import AgileactError
from agileact.lab import widgets as look
from agileact.lab.sessions import Sessions, current_run, steps_asked


def register_training(
    app: Dash,
    tab: str,
    *,
    charts: Sequence[str],
    controls: Sequence[str],
    buttons: Sequence[str],
    read_spec: Callable[..., Any],
    make: Callable[[Any], Any],
    steps: Callable[[dict[str, Any]], Mapping[str, int]],
    take: Callable[[Any, int, dict[str, Any]], None],
    draw: Callable[[Any, dict[str, Any]], list[look.Figure]],
    more: Mapping[str, Input | State] | None = None,
    clock: bool = True,
    limit: int = 32,
) -> None:
    """Add the callbacks of a tab with a training.

    A change of the ``controls`` begins anew, as does a button that ``steps``, a table from ids to numbers of steps,
    does not have. ``take`` takes steps with a run, ``draw`` draws it; both get the values of what is in ``more``.
    """
    runs: Sessions[Any] = Sessions(limit)
    others = dict(more or {}) | ({"go": Input(f"{tab}-go", "data")} if clock else {})

    @app.callback(
        [Output(f"{tab}-{name}", "figure") for name in charts],
        Output(f"{tab}-sentence", "children"),
        Output(f"{tab}-message", "children"),
        Output(f"{tab}-state", "data"),
        inputs={
            "asked": [Input(f"{tab}-{name}", "n_clicks") for name in buttons],
            "given": [Input(f"{tab}-{name}", "value") for name in controls],
            "others": others,
            "key": State("session", "data"),
            "state": State(f"{tab}-state", "data"),
        },
    )
    def train(asked: Any, given: list[Any], others: dict[str, Any], key: Any, state: Any) -> tuple[Any, ...]:
        triggers = set(ctx.triggered_prop_ids.values())
        count = steps_asked(triggers, steps(others))
        try:
            spec = read_spec(*given)
            with runs.alone:
                run, lost = current_run(runs, key, spec, make, count, _place(state))
                # The clock asks for what follows the picture it has: a run that was reset meanwhile stays at its start.
                late = triggers == {f"{tab}-go"} and _place(others["go"]) != run.taken
                take(run, 0 if late else count or 0, others)
                figures, sentence = draw(run, others), run.sentence()
                told = {"epoch": run.taken, "ended": run.ended or lost}
        except AgileactError as error:
            bad = look.message(f"{error}.", bad=True)
            return (*[no_update] * (len(charts) + 1), bad, {"ended": True} if clock else no_update)
        gone = look.message("The lab keeps the runs of the last 32 pages; this one starts again.")
        return *figures, sentence, gone if lost else None, told

    if clock:
        # The next picture is asked for when the last one is there: a slow machine draws fewer, and none pile up.
        app.clientside_callback(ClientsideFunction("lab", "arrived"), Input(f"{tab}-state", "data"))
        app.clientside_callback(
            ClientsideFunction("lab", "press"),
            Output(f"{tab}-toggle", "children"),
            Input(f"{tab}-toggle", "n_clicks"),
            Input(f"{tab}-reset", "n_clicks"),
            *[Input(f"{tab}-{name}", "value") for name in controls],
        )


def _place(state: Any) -> Any:
    """Return where the page says that its run is."""
    return state.get("epoch") if isinstance(state, dict) else None
