"""Bands over runs of different lengths."""

from __future__ import annotations

from agileact.study.results.trajectories import layer_bands, loss_band
from agileact.study.spec.result import Curve, LayerTrace
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
    layers = layer_bands(results)["fc"]
    assert layers.iterations == (0, 10, 20)
    assert layers.scale_max == (4.0, 2.5, 1.5)
