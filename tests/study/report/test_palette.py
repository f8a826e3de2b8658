"""The colours of arms can be told apart, with any colour vision, and from the ground."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest

VISIONS = {
    "normal": np.eye(3),
    # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
LOOKS = ("light", "dark")


def colours(look: str) -> dict[str, np.ndarray]:
    """The palette's colours as linear RGB."""
    css = resources.files("agileact.study.report").joinpath("assets", "report.css").read_text(encoding="utf-8")
    rule = re.findall(r":root[^{]*\{([^}]*)\}", css)[LOOKS.index(look)]
    found = {}
    for name, value in re.findall(r"--([\w-]+): #(\w{6})", rule):
        encoded = np.array([int(value[place : place + 2], 16) / 255 for place in (0, 2, 4)])
        found[name] = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return found


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB."""
    share = TO_XYZ @ np.clip(linear, 0, 1) / WHITE
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """The ratio of WCAG."""
    low, high = sorted(float(TO_XYZ[1] @ colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("look", LOOKS)
def test_any_two_arms_differ_clearly(look, vision):
    arms = [lab(VISIONS[vision] @ colours(look)[f"c{number}"]) for number in range(8)]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(arms, 2)) > 20


@pytest.mark.parametrize("look", LOOKS)
def test_lines_and_words_stand_out_from_the_ground(look):
    found = colours(look)
    assert min(contrast(found[f"c{number}"], found["ground"]) for number in range(8)) >= 3
    # The words of the verdict's badges, and all other text.
    for name in ("c2", "c3", "c4", "text", "muted", "accent"):
        assert contrast(found[name], found["ground"]) >= 4.5, name
