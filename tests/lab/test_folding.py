"""The small networks folded for real: against their formula written out, and refused where they must be."""

from __future__ import annotations

import numpy as np
import pytest

from agileact import bases
from agileact.lab.content.curves import Form
from agileact.lab.content.folding import CIRCUITS, fold_circuit
from agileact.lab.tabs.activation import fold_figure, fold_sentence, fold_table

W, C, V, D = np.array([1.2, -0.8]), np.array([0.3, 0.5]), np.array([0.9, -1.1]), 0.2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numbers(folded):
    return {one.name: one for one in folded.numbers}


def test_b_goes_into_the_bias_before_and_a_into_the_weights_behind():
    a, b = -1.5, 0.75
    folded = fold_circuit("linear", Form("sigmoid", [a], [b], {}))
    assert folded.site.status == "folded"
    assert not folded.site.kept
    found = numbers(folded)
    assert found["before.bias"].after == pytest.approx((C[0] - b, C[1]), abs=1e-15)
    assert found["behind.weight"].after == pytest.approx((V[0] * a, V[1]), abs=1e-15)
    assert found["activation.scale"].after is None
    assert [one.name for one in folded.numbers if one.changed] == [
        "before.bias", "activation.scale", "activation.location", "behind.weight",
    ]  # fmt: skip
    x = np.asarray(folded.x)[:, None]
    z = x * W + C
    expected = (np.array([a, 1.0]) * sigmoid(z - np.array([b, 0.0]))) @ V + D
    np.testing.assert_allclose(np.asarray(folded.agile), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(np.asarray(folded.plain), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("base", ["relu", "sigmoid", "gelu"])
def test_both_networks_compute_the_same_whatever_folds(circuit, base):
    folded = fold_circuit(circuit, Form(base, [-1.5], [1.0], bases.get(base).resolve({})))
    assert folded.difference <= 1e-12
    assert bool(folded.site.reason) == (folded.site.status != "folded")
    assert len(folded.x) == len(folded.agile) == len(folded.plain)
    assert max(folded.agile) > min(folded.agile)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_gain_goes_into_the_weights_before(circuit):
    folded = fold_circuit(circuit, Form("gelu", [1.5], [1.0], bases.get("gelu").resolve({}), -0.7))
    assert folded.difference <= 1e-12
    assert "gain" not in folded.site.kept
    into = "normalisation" if circuit == "norm-before" else "before"
    assert f"g into {into}" in fold_sentence(folded)
    (before,) = [one for one in folded.numbers if one.name == f"{into}.weight"]
    assert before.after is not None
    assert before.before is not None
    assert before.after[0] == pytest.approx(-0.7 * before.before[0])
    assert before.after[1] == before.before[1]


@pytest.mark.parametrize(
    ("circuit", "scales", "status", "reason", "left"),
    [
        ("pooling", [1.5], "folded", "", ()),
        ("pooling", [-1.5], "partly folded", "max pooling", ("scale",)),
        ("norm-before", [-1.5], "folded", "", ()),
        ("norm-behind", [1.5], "partly folded", "batch_norm", ("scale",)),
        ("softmax", [1.5], "partly folded", "softmax", ("scale",)),
        ("linear", [1.5, 0.5], "refused", "a sum of 2 terms", ("location", "scale")),
    ],
)
def test_what_cannot_be_folded_says_why(circuit, scales, status, reason, left):
    folded = fold_circuit(circuit, Form("sigmoid", scales, [0.5, 1.0][: len(scales)], {}))
    assert folded.site.status == status
    assert reason in folded.site.reason
    assert tuple(folded.site.kept) == left
    sentence = fold_sentence(folded)
    assert sentence.startswith(status.capitalize())
    assert folded.site.reason in sentence
    assert ("must stay" in sentence) == bool(left)


def test_the_table_marks_what_changed_and_the_figure_has_both_outputs():
    folded = fold_circuit("linear", Form("relu", [2.0], [1.0], {}))
    table = str(fold_table(folded).to_plotly_json())
    assert "gone" in table
    assert table.count("'marked'") == 4
    assert [curve["y"] for curve in fold_figure(folded)["data"]] == [folded.agile, folded.plain]


def test_a_gain_of_0_is_not_one_of_1():
    folded = fold_circuit("linear", Form("sigmoid", [1.5], [1.0], {}, 0.0))
    (gain,) = [one.before for one in folded.numbers if one.name == "activation.gain"]
    assert gain == (0.0, 1.0)
    assert folded.difference < 1e-12
