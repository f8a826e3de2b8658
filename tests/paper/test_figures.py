"""Figures: whole, legible, from the results alone, the same every time."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from agileact import AgileactError
from agileact._common.errors import MissingExtraError
from agileact.paper.figures import activation_step_share, draw_all, draw_xor
from agileact.paper.figures.draw import FIGURES, render
from agileact.paper.figures.run import Combination, NothingToDrawError, Run
from agileact.paper.figures.style import Palette, rc, settle
from agileact.paper.xor import XorSpec, run_xor
from agileact.study.spec.result import Probe
from tests.packages import Package, matplotlib
from tests.paper import synthetic

backend_agg = Package("matplotlib.backends.backend_agg")
NAMES = [f"figure-{number:02d}.{form}" for number in FIGURES for form in ("png", "svg")]


@pytest.fixture(scope="module")
def xor():
    return run_xor(XorSpec(starts=8, epochs=400, lr=0.1))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, xor):
    folder = tmp_path_factory.mktemp("figures")
    messages: list[str] = []
    paths = draw_all(synthetic.run(2), folder, dataset="made-up", xor=xor, notify=messages.append)
    assert messages == []
    return paths


SCENARIOS = {
    "the twelve, three seeds": lambda: synthetic.run(3),
    "one combination": lambda: synthetic.run(1, conv=("relu",), fc=("agile-sigmoid",)),
    "more names": lambda: synthetic.run(
        2,
        conv=("relu", "agile-gelu", "mish", "agile-leaky_relu:negative_slope=0.2", "softplus"),
        fc=("agile-silu", "relu", "elu", "gelu", "tanh"),
    ),
    "three measurements": lambda: synthetic.run(1, iterations=60, every=30),
}


@pytest.mark.slow
def test_every_file_is_there_and_whole(drawn):
    assert [path.name for path in drawn] == NAMES
    assert sorted(path.name for path in drawn[0].parent.iterdir()) == sorted(NAMES)
    for path in drawn:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data[:8] == b"\x89PNG\r\n\x1a\n"
            assert len(data) > 10_000
        else:
            root = ElementTree.fromstring(data)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 20
            assert f"Figure {int(path.stem[-2:])}." in data.decode()


def texts_of(figure):
    """Return all text that is drawn, with its box."""
    renderer = figure.canvas.get_renderer()
    found = list(figure.texts)  # the title is one of them
    for axis in figure.axes:
        if not axis.get_visible():
            continue
        found += [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        for one in (axis.xaxis, axis.yaxis):
            low, high = sorted(one.get_view_interval())
            for tick in (*one.get_major_ticks(), *one.get_minor_ticks()):
                if tick.get_visible() and low <= tick.get_loc() <= high:
                    found += [label for label in (tick.label1, tick.label2) if label.get_visible()]
        legend = axis.get_legend()
        if legend is not None:
            found += [legend.get_title(), *legend.get_texts()]
    return [
        (text, text.get_window_extent(renderer)) for text in found if text.get_visible() and text.get_text().strip()
    ]


# Figures 2, 4 and 6 do not depend on the trials.
LAYOUTS = [(n, s) for n in FIGURES for s in SCENARIOS if n not in (2, 4, 6) or s == "the twelve, three seeds"]


@pytest.mark.parametrize(("number", "scenario"), LAYOUTS)
def test_layout(number, scenario, xor):
    run = Run.of(SCENARIOS[scenario](), "made-up", xor)
    with rc():
        figure = FIGURES[number](run)
        backend_agg.FigureCanvasAgg(figure)
        settle(figure)
        figure.draw_without_rendering()
    canvas = figure.bbox
    texts = texts_of(figure)
    for text, box in texts:
        inside = box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= canvas.x1 + 0.5 and box.y1 <= canvas.y1 + 0.5
        assert inside, f"cut: {text.get_text()!r} at {box} in {canvas}"
    for (one, first), (other, second) in itertools.combinations(texts, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width < 1 or height < 1.5, f"{one.get_text()!r} and {other.get_text()!r} overlap"

    caption = figure.texts[1].get_text().replace("\n", " ")
    assert "data set" in caption.lower()
    assert "seed" in caption
    visible = [axis for axis in figure.axes if axis.get_visible()]
    legends = [axis.get_legend() for axis in visible if axis.get_legend() is not None]
    assert legends or number == 4
    for axis in visible:
        if axis.get_label() == "<colorbar>":
            continue
        assert axis.get_xlabel() or not any(label.get_visible() for label in axis.get_xticklabels()) or number == 12
        curves = [line for line in axis.lines if len(line.get_xdata()) and np.isfinite(line.get_ydata()).any()]
        assert curves or axis.collections
        for legend in legends:
            box = legend.get_window_extent()
            width = min(box.x1, axis.bbox.x1) - max(box.x0, axis.bbox.x0)
            height = min(box.y1, axis.bbox.y1) - max(box.y0, axis.bbox.y0)
            assert width < 1 or height < 1, "a legend covers data"


def axes_of(number, results, xor=None):
    with rc():
        return FIGURES[number](Run.of(results, "made-up", xor)).axes


def test_figure_12_draws_each_combination_once_in_colour():
    panels = axes_of(12, synthetic.run(2))
    assert len(panels) == 4
    labels = [text.get_text() for axis in panels for text in axis.get_legend().get_texts()]
    assert labels == ["ReLU", "agile ReLU", "agile sigmoid"] * 4
    assert [len(axis.lines) for axis in panels] == [12] * 4


def test_figure_12_draws_the_mean_over_seeds():
    results = synthetic.run(3, conv=("relu",), fc=("relu",), mlp=())
    (axis,) = axes_of(12, results)
    expected = np.mean([result.curve.test_loss for result in results], axis=0)
    np.testing.assert_allclose(axis.lines[0].get_ydata(), expected)


def test_figure_13_shows_the_five_of_lowest_mean_test_loss():
    results = synthetic.run(3)
    means: dict[str, list[float]] = {}
    for result in results:
        if result.spec.task.model.name == "cnn":
            assert result.best_test_loss is not None
            means.setdefault(Combination.of(result).label, []).append(result.best_test_loss)
    best = sorted(means, key=lambda label: float(np.mean(means[label])))[:5]
    shown = [text.get_text() for text in axes_of(13, results)[0].get_legend().get_texts()]
    assert [text[3:].rpartition(" (")[0] for text in shown] == best
    assert shown[0].endswith(f"({np.mean(means[best[0]]):.4f})")


def test_figure_11_compares_the_fully_connected_networks_alone():
    left, right = axes_of(11, synthetic.run(3))
    assert [line.get_label() for line in left.lines] == ["sigmoid", "agile sigmoid"]
    assert len(right.collections) == 2


def test_figure_14_has_a_row_for_each_layer_of_the_best_agile_combination():
    axes = axes_of(14, synthetic.run(2, conv=("agile-relu",), fc=("agile-sigmoid",)))
    titles = [axis.get_ylabel().partition("\n")[0] for axis in axes[::3]]
    assert titles == ["layer conv1", "layer conv2", "layer conv3", "layer hidden1"]


def test_the_rectangles_of_figure_14_span_the_ranges_of_a_and_b():
    results = synthetic.run(2, conv=("agile-relu",), fc=("agile-sigmoid",), mlp=())
    axis = axes_of(14, results)[0]
    drawn = {patch.get_label(): patch for patch in axis.patches}
    assert list(drawn) == ["200", "600", "1600", "4000"]
    for iteration, patch in drawn.items():
        at = results[0].curve.iteration.index(int(iteration))
        ends = [
            np.mean([getattr(result.layers["conv1"], name)[at] for result in results])
            for name in ("scale_min", "location_min", "scale_max", "location_max")
        ]
        assert np.allclose(patch.get_bbox().extents, ends)


def test_figure_14_shows_the_start_once():
    axis = axes_of(14, synthetic.run(1, iterations=60, every=30, conv=("agile-relu",), mlp=()))[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0", "30", "60"]


@pytest.mark.slow
def test_what_is_missing_is_left_out_with_a_message_and_its_old_files_go(tmp_path):
    (tmp_path / "figure-11.png").write_bytes(b"of an earlier run")
    messages: list[str] = []
    results = [
        *synthetic.run(1, conv=("relu",), fc=("relu",), mlp=(), test_curve=False, probe_every=0),
        synthetic.result(0, "agile-relu", "relu", status="diverged"),
        synthetic.result(0, None, "sigmoid", status="diverged"),
    ]
    paths = draw_all(results, tmp_path / "new", dataset="made-up", notify=messages.append)
    assert {path.stem for path in paths} == {"figure-02", "figure-06"}
    assert messages == [
        "figure 4: left out, XOR was not run",
        "figure 5: left out, the plain networks' trials probed no steps",
        "figure 9: left out, no agile networks in these results",
        "figure 11: left out, no fully connected trials in these results",
        "figure 12: left out, these results hold no test loss over iterations",
        "figure 13: left out, these results hold no test loss over iterations",
        "figure 14: left out, no combination in these results has agile layers",
    ]
    before = dict(matplotlib.rcParams)
    draw_all([], tmp_path, dataset="made-up")
    assert dict(matplotlib.rcParams) == before
    assert not (tmp_path / "figure-11.png").exists()


def test_figure_4_alone(tmp_path, xor):
    assert [path.name for path in draw_xor(xor, tmp_path)] == ["figure-04.png", "figure-04.svg"]


def test_the_lines_of_figure_4_lie_on_the_edges_of_its_bands(xor):
    figure = FIGURES[4](Run.of([], "made-up", xor))
    maps = [axis for axis in figure.axes if axis.name != "3d"]
    surfaces = [[one for one in axis.collections if hasattr(one, "levels")] for axis in maps]
    drawn = [sets for sets in surfaces if sets]
    assert len(drawn) == 5
    assert sum(axis.name == "3d" for axis in figure.axes) == 5
    for bands, lines, *_ in drawn:
        assert set(lines.levels) <= set(bands.levels)
        # Else a plane would look bent.
        assert np.allclose(np.diff(lines.levels), lines.levels[1] - lines.levels[0])


def test_xor_that_was_never_solved_is_left_out(xor):
    unsolved = replace(xor, agile=replace(xor.agile, network=None))
    with pytest.raises(NothingToDrawError, match="none of the 8 starts of agile sigmoid solved XOR"):
        FIGURES[4](Run.of([], "made-up", unsolved))


def test_diverged_trials_are_counted_in_the_caption():
    run = Run.of([*synthetic.run(1), synthetic.result(1, "relu", "relu", status="diverged")], "made-up")
    assert run.source == "Data set made-up, 1 seed. 1 trial that diverged is left out."
    unequal = Run.of([*synthetic.run(1), synthetic.result(1, "relu", "relu")], "made-up")
    assert unequal.source == "Data set made-up, 1 to 2 seeds, not all trials finished."


def test_two_runs_at_once_are_refused(tmp_path):
    with pytest.raises(AgileactError, match="two results for 'ReLU → ReLU' with seed 0"):
        draw_all([synthetic.result(0, "relu", "relu")] * 2, tmp_path, dataset="made-up")


def rendered(number, results):
    with rc():
        figure = FIGURES[number](Run.of(results, "made-up"))
        settle(figure)
        return render(figure, "svg"), render(figure, "png")


@pytest.mark.parametrize("number", [9, 12])
def test_the_same_results_in_any_order_give_the_same_files(number):
    results = synthetic.run(2, conv=("relu", "agile-relu"), fc=("relu",), mlp=("sigmoid",), iterations=1000)
    shuffled = list(results)
    random.Random(1).shuffle(shuffled)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):  # a user's settings stay out
        first = rendered(number, results)
    assert first == rendered(number, shuffled)


def test_importing_needs_no_matplotlib():
    code = "import sys, agileact.paper.figures; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    monkeypatch.delitem(sys.modules, "matplotlib.style")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"agileact\[paper\]"):
        draw_all([], tmp_path, dataset="made-up")


def grey(color):
    return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]


def test_the_twelve_stay_apart_without_colour():
    pairs = list(itertools.product(synthetic.CONV, synthetic.FC))
    palette = Palette([])
    looks = {pair: palette.look(Combination(*pair)) for pair in pairs}
    assert len({(look.linestyle, look.marker) for look in looks.values()}) == 12
    assert len({look.color for look in looks.values()}) == 12
    for conv in synthetic.CONV:
        light, middle, dark = (grey(looks[conv, fc].color) for fc in synthetic.FC)
        assert light > middle + 0.08
        assert middle > dark + 0.08
        assert light < 0.75
    assert Palette([Combination("zeta", "eta")]).look(Combination("relu", "relu")) == looks["relu", "relu"]


def test_step_share_counts_what_was_measured():
    probe = Probe([1, 2, 3, 4], [1.0, 1.0, 1.0, 2.0], [0.9, 0.8, 1.1, 1.0], [0.8, 0.8, 1.0, 1.1])
    seed_0 = replace(synthetic.result(0, "relu", "agile-relu"), probe=probe)
    (row,) = activation_step_share([seed_0])
    assert row.combination == "ReLU → agile ReLU"
    assert row.weights_share == 0.75
    assert row.activation_share == 0.5  # the second step left the loss as it was
    assert row.interval == "Wilson, over steps"
    assert row.steps == 4
    assert row.weights_change == pytest.approx(-15.0)
    assert row.activation_change == pytest.approx(100 * (1 / 1.1 - 1) / 2)

    seed_1 = replace(synthetic.result(1, "relu", "agile-relu"), probe=replace(probe, after_activations=[0.5] * 4))
    (row,) = activation_step_share([seed_0, seed_1])
    assert row.activation_share == 0.75
    assert row.interval == "Student, over seeds"
    assert row.activation_interval == (0.0, 1.0)

    same = replace(synthetic.result(1, "relu", "agile-relu"), probe=probe)
    (row,) = activation_step_share([seed_0, same])
    # Equal shares: Student's interval has no width, and Wilson's of 4 in 8 stays, by its formula.
    z, share = 1.959963984540054, 0.5
    half = z * (share * (1 - share) / 8 + z**2 / (4 * 8**2)) ** 0.5 / (1 + z**2 / 8)
    assert row.activation_interval == pytest.approx((share - half, share + half), abs=1e-12)

    plain = replace(synthetic.result(0, "relu", "relu"), probe=replace(probe, after_activations=probe.after_weights))
    (row,) = activation_step_share([plain])
    assert row.activation_share is None
    assert row.activation_change is None
