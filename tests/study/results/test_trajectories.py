"""Bands over runs of different lengths."""

from __future__ import annotations

import pytest

from agileact.study.results.trajectories import loss_band, trace_bands
from agileact.study.spec.result import Curve, DirectionTrace, LayerTrace
from tests.study.builders import make_result, make_spec


def test_a_run_that_stopped_early_stays_where_it_was():
    short, long = [4.0, 2.0], [4.0, 3.0, 1.0]
    results = [
        make_result(
            make_spec(seed),
            curve=Curve(list(range(0, 10 * len(losses), 10)), losses, losses),
            layers={"fc": LayerTrace(losses, losses, losses, losses)},
        )
        for seed, losses in enumerate((short, long))
    ]
    band = loss_band(results, "validation")
    assert band is not None
    assert band.iterations == (0, 10, 20)
    assert band.mean == (4.0, 2.5, 1.5)
    assert (band.low, band.high) == ((4.0, 2.0, 1.0), (4.0, 3.0, 2.0))
    layers = trace_bands(results, "layers")["fc"]
    assert layers.iterations == (0, 10, 20)
    assert layers.ends["scale_max"] == (4.0, 2.5, 1.5)


def test_turns_begin_with_the_first_step_and_leave_diverged_runs_out():
    traces = [DirectionTrace([0.1, 0.2], [0.3, 0.4]), DirectionTrace([0.3], [0.5]), DirectionTrace([9.0], [9.0])]
    results = [
        make_result(
            make_spec(seed),
            status="diverged" if seed == 2 else "finished",
            curve=Curve(list(range(0, 10 * len(trace.turn_max) + 1, 10))),
            directions={"fc1": trace},
        )
        for seed, trace in enumerate(traces)
    ]
    band = trace_bands(results, "directions")["fc1"]
    assert (band.iterations, band.runs) == ((10, 20), 2)
    assert band.ends["turn_median"] == pytest.approx((0.2, 0.25))
    assert band.ends["turn_max"] == pytest.approx((0.4, 0.45))
    for some in (results[2:], [make_result(make_spec())]):
        assert trace_bands(some, "directions") == {}
