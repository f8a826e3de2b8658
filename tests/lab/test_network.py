"""Checkpoints and stores: what is read, what is drawn of it, and what is refused with which words."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import agileact as ag
from agileact.lab.content.source import (
    Checkpoint,
    Layer,
    Trials,
    draw,
    open_source,
    open_upload,
    read_checkpoint,
    summary,
)
from agileact.lab.tabs.network import card, curves_figure, numbers_figure
from agileact.study.data import dataset as data
from agileact.study.running.store import Store
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec
from agileact.study.training.run import run_trial


def model():
    relu = ag.AgileReLU(4)
    with torch.no_grad():
        relu.scale.copy_(torch.tensor([1.0, -0.5, 2.0, 0.25]))
        relu.location.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    return nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.Flatten(), nn.Linear(4, 3), ag.AgileSigmoid(3))


class Payload:
    """What a hostile file would carry: unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "store.sqlite"
    digits = data.load(DataSpec("digits", 200))
    with Store(path) as opened:
        for name in ("agile-sigmoid", "relu", "combined-relu:terms=3", "prelu"):
            task = TaskSpec(
                DataSpec("digits", 200), ModelSpec("mlp", (("nodes", (40,)),)), Budget(5, 50, 5, test_curve=False)
            )
            opened.put(run_trial(TrialSpec(task, ArmSpec((("fc", name),)), seed=0), digits))
    return path


def test_a_checkpoint_gives_its_layers_in_order(tmp_path):
    torch.save(model().state_dict(), tmp_path / "가중치.pt")
    source = open_source(tmp_path / "가중치.pt")
    assert isinstance(source, Checkpoint)
    first, second = source.layers
    assert first == Layer("1", (1.0, -0.5, 2.0, 0.25), (0.0, 1.0, -1.0, 0.5))
    assert first.flipped == (1,)
    assert second.name == "4"
    assert not second.flipped


@pytest.mark.parametrize("keys", [("state_dict",), ("run", "model")], ids=".".join)
def test_a_state_is_found_where_trainers_keep_it(tmp_path, keys):
    kept = model().state_dict()
    for key in reversed(keys):
        kept = {"epoch": 3, key: kept}
    torch.save(kept, tmp_path / "last.ckpt")
    assert len(read_checkpoint(tmp_path / "last.ckpt", "last.ckpt")) == 2


def test_a_pickled_module_is_refused_and_nothing_in_it_runs(tmp_path):
    torch.save({"state": Payload(tmp_path / "ran")}, tmp_path / "hostile.pt")
    torch.save(ag.AgileReLU(3), tmp_path / "module.pt")
    for name in ("hostile.pt", "module.pt"):
        with pytest.raises(ag.DataError, match=r"would run code from the file, so it is refused.*state_dict\(\)"):
            open_source(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a file that torch.save wrote, nor a safetensors file, or it is damaged"),
        (b"print('hello')\n", "not a file that torch.save wrote, nor a safetensors file, or it is damaged"),
        (b"PK\x03\x04 and then nothing", "not a file that torch.save wrote, nor a safetensors file, or it is damaged"),
        (b"SQLite format 3\x00 and then nothing", "cannot be read as a store of trials"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ag.AgileactError, match=words):
        open_source(tmp_path / "file")


def test_a_checkpoint_that_was_cut_short_is_refused(tmp_path):
    torch.save(model().state_dict(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-700])
    with pytest.raises(ag.DataError, match="damaged"):
        open_source(tmp_path / "cut.pt")


def test_places_without_a_file_are_named(tmp_path):
    with pytest.raises(ag.DataError, match="there is no file"):
        open_source(tmp_path / "missing.pt")
    with pytest.raises(ag.DataError, match=r"there is no store\.sqlite, model\.safetensors or pytorch_model\.bin in"):
        open_source(tmp_path)
    with pytest.raises(ag.DataError, match=r"cannot be read|there is no file"):
        open_source(Path("a\x00b"))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (nn.Linear(2, 2).state_dict(), "2 tensors, but no agile activation"),
        ({"a.scale": torch.ones(3), "a.location": torch.zeros(2)}, "no agile activation"),
        ({"a.scale": torch.ones(2, 2), "a.location": torch.zeros(2, 2)}, "no agile activation"),
        ({"a.scale": torch.tensor([float("nan")]), "a.location": torch.zeros(1)}, "not finite"),
        ([1, 2, 3], "no state_dict"),
    ],
)
def test_a_state_without_agile_activations_says_what_it_lacks(tmp_path, state, words):
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ag.DataError, match=words):
        open_source(tmp_path / "state.pt")


def test_an_upload_is_a_data_url(tmp_path):
    torch.save(model().state_dict(), tmp_path / "model.pt")
    text = base64.b64encode((tmp_path / "model.pt").read_bytes()).decode()
    assert len(open_upload(f"data:application/octet-stream;base64,{text}", "model.pt").layers) == 2
    for contents in (None, "", 3, "data:;base64,!!!", f"data:;base64,{text[:-3]}"):
        with pytest.raises(ag.DataError, match=r"arrive whole|damaged"):
            open_upload(contents, "model.pt")


def test_curves_are_the_formula():
    layer = Layer("fc", (1.5, -2.0), (0.5, -1.0))
    drawn = draw(layer, "tanh", {})
    x = np.asarray(drawn.x)
    np.testing.assert_allclose(np.asarray(drawn.after[1]), -2.0 * np.tanh(x + 1.0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.asarray(drawn.before), np.tanh(x)[None], rtol=1e-12, atol=1e-14)
    combined = draw(Layer("fc", (1.0, 2.0, 0.5, -1.0), (0.0, 1.0, 2.0, 3.0), terms=2), "tanh", {})
    expected = 2.0 * np.tanh(x_of(combined) - 1.0) - np.tanh(x_of(combined) - 3.0)
    np.testing.assert_allclose(np.asarray(combined.after[1]), expected, rtol=1e-12, atol=1e-13)


def x_of(drawn):
    return np.asarray(drawn.x)


def test_a_wide_layer_is_thinned_out_evenly_and_says_so():
    layer = Layer("fc", tuple(1.0 - 0.01 * i for i in range(200)), (0.0,) * 200)
    drawn = draw(layer, "relu", {})
    assert len(drawn.units) == len(drawn.after) == 32
    assert drawn.units[:3] == (0, 6, 12)
    assert curves_figure(drawn, "relu")["layout"]["title"]["text"] == "32 of 200 units"
    assert layer.flipped == tuple(range(101, 200))


def test_numbers_that_terms_cannot_share_are_refused():
    with pytest.raises(ag.ArgumentError, match="fc has 3 pairs, which 2 terms cannot share evenly"):
        draw(Layer("fc", (1.0,) * 3, (0.0,) * 3, terms=2), "relu", {})


def test_layers_are_chosen_by_their_name(store):
    checkpoint = Checkpoint("it", (Layer("conv.act", (1.0,) * 3, (0.0,) * 3), Layer("fc.act", (2.0,) * 4, (0.0,) * 4)))
    (only,) = checkpoint.drawn("tanh", {}, 2, "fc")
    assert (only.layer.name, only.layer.units) == ("fc.act", 2)
    assert [one.layer.name for one in checkpoint.drawn("relu", {}, 1, "act")] == ["conv.act", "fc.act"]
    source = open_source(store)
    assert isinstance(source, Trials)
    key = next(iter(source.labels()))
    (layer,) = source.drawn(key)
    assert source.drawn(key, layer.layer.name) == [layer]
    for ask in (lambda: checkpoint.drawn("relu", {}, 1, "x"), lambda: source.drawn(key, "x y")):
        with pytest.raises(ag.ArgumentError, match=r"no layer has 'x.*' in its name; the first is "):
            ask()


def test_flipped_units_stand_out():
    drawn = draw(Layer("fc", (1.0, -1.0, 2.0), (0.0, 0.0, 0.0)), "relu", {})
    curves = curves_figure(drawn, "relu")["data"]
    assert [(one["name"], one["line"]["dash"]) for one in curves] == [
        ("learned", "solid"), ("flipped (a < 0)", "dot"), ("learned", "solid"), ("relu", "dash"),
    ]  # fmt: skip
    shown = str(card(drawn, "relu", "0").to_plotly_json())
    assert "1 unit is flipped (a < 0): number 2." in shown
    histograms = numbers_figure(drawn)["data"]
    assert [one["x"] for one in histograms] == [[1.0, -1.0, 2.0], [0.0, 0.0, 0.0]]
    assert all(one["xbins"]["size"] > 0 for one in histograms)


def test_the_summary_counts():
    layers = [Layer("a", (1.0, -2.0), (0.0, 0.5)), Layer("b", (-1.0,), (3.0,))]
    assert summary(layers) == ("2 layers, 3 pairs of a and b; a from −2 to 1, b from 0 to 3; 2 units flipped (a < 0).")
    assert summary([Layer("p", (), ())]) == "1 layer with learned activations that have no a and b."


def test_a_store_lists_the_trials_that_learned_something(store):
    source = open_source(store.parent)
    assert isinstance(source, Trials)
    labels = list(source.labels().values())
    assert [label.partition(";")[0] for label in labels] == [
        "fc: agile-sigmoid", "fc: combined-relu:terms=3", "fc: prelu",
    ]  # fmt: skip
    assert all(label.endswith("seed 0") for label in labels)


def test_a_trial_shows_its_layers_before_and_after(store):
    source = open_source(store)
    assert isinstance(source, Trials)
    agile, combined, prelu = (source.drawn(key)[0] for key in source.labels())
    assert agile.layer.units == 40
    assert agile.layer.terms == 1
    assert len(agile.after) == 32
    assert agile.units[0] == 0
    assert agile.units[-1] == 39
    np.testing.assert_allclose(agile.before[0], 1 / (1 + np.exp(-np.asarray(agile.x))), atol=5e-4)
    unit = agile.units[7]
    a, b = agile.layer.scale[unit], agile.layer.location[unit]
    np.testing.assert_allclose(agile.after[7], a / (1 + np.exp(-(np.asarray(agile.x) - b))), atol=2e-3)
    assert (combined.layer.terms, combined.layer.units) == (3, 40)
    assert prelu.layer.scale == ()
    assert "not a and b" in str(card(prelu, "before the training", "0").to_plotly_json())


def test_a_trial_that_is_not_in_the_list_is_refused(store):
    source = open_source(store)
    assert isinstance(source, Trials)
    with pytest.raises(ag.ArgumentError, match="choose one of the trials"):
        source.drawn("0" * 16)


def test_a_store_of_plain_trials_says_so(tmp_path):
    with Store(tmp_path / "store.sqlite"):
        pass
    with pytest.raises(ag.DataError, match="holds no final trial with a learned activation"):
        open_source(tmp_path / "store.sqlite")
