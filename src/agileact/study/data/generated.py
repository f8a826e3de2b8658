"""Data that a formula makes, the same numbers on every machine, and small tables that come with scikit-learn."""

from pathlib import Path

import numpy as np

from agileact._common.errors import ArgumentError
from agileact._common.optional import require
from agileact.study.data.dataset import DataSet, generator, register_data
from agileact.study.data.download import Progress
from agileact.study.data.preparation import Array, options, standardised
from agileact.study.spec.trial import DataSpec

_LENGTH = 40
_TEMPLATE = 12
_PADDING = (36, 60)
_SHIFT = 48
_SCALE = 0.4
_SHEAR = 0.75
_NOISE, _SMOOTH_NOISE = 0.02, 0.25
_SMOOTHING = 2.0

# Where a pen is, from left to right, at twelve moments of writing each digit; it starts and ends in the middle.
_DIGITS = (
    (0, 1.0, 1.6, 1.9, 2.0, 2.0, 2.0, 2.0, 1.9, 1.6, 1.0, 0),
    (0, -2.0, -1.6, -1.2, -0.8, -0.4, 0, 0.4, 0.8, 1.2, 0.6, 0),
    (0, 1.0, 1.5, 1.4, 0.8, 0.2, -0.5, -1.1, -1.5, -0.5, 0.8, 0),
    (0, 1.2, 1.6, 1.2, 0.4, 0, 0.4, 1.2, 1.6, 1.2, 0.6, 0),
    (0, -0.7, -1.4, -2.1, -2.6, -1.3, 0, 0.9, 0.3, 0.3, 0.1, 0),
    (0, -1.8, -1.8, -1.8, -0.9, 0.6, 1.4, 1.6, 1.2, 0.2, -0.8, 0),
    (0, -0.9, -1.6, -2.0, -2.1, -2.0, -1.5, -0.4, 0.5, 0.4, -0.5, 0),
    (0, 1.9, 1.9, 1.5, 1.1, 0.7, 0.3, -0.1, -0.5, -0.9, -0.5, 0),
    (0, -1.0, -1.5, -0.8, 0.8, 1.5, 0.8, -0.8, -1.5, -1.0, 0.5, 0),
    (0, -1.1, -1.6, -1.2, -0.2, 0.4, 0.3, 0.2, 0.1, -0.3, -0.8, 0),
)


def mnist1d(samples: int, seed: int) -> tuple[Array, Array]:
    """Return signals of MNIST-1D, shape (samples, 40), and their labels, equally many of each.

    Source: S. Greydanus, D. Kobak, *Scaling Down Deep Learning with MNIST-1D*, arXiv 2011.14439: each digit is a
    template of 12 points, padded at its end by 36 to 60 zeros, stretched to 72 points; then scaled by 0.8 to 1.2,
    shifted around by up to 48 points, given smooth noise where it is zero and white noise everywhere, sheared, and
    sampled at 40 points. The construction and its settings are the authors'. The templates are drawn anew and the
    random numbers are others, so losses and accuracies are not to be compared with published ones.
    """
    if samples < 10 or samples % 10:
        raise ArgumentError(f"samples of mnist1d must be a positive multiple of 10, not {samples}")
    smooth = require("scipy.ndimage", "study").gaussian_filter1d
    random = generator(seed)
    templates = np.array(_DIGITS, dtype=np.float64)
    templates -= templates.mean(axis=1, keepdims=True)
    templates /= templates.std(axis=1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6
    longest = _TEMPLATE + _PADDING[1]
    x = np.empty((samples, _LENGTH))
    y = np.repeat(np.arange(10), samples // 10)
    for row, label in enumerate(y):
        # A hair above zero marks the digit's own zeros off from the padding, where the smooth noise goes.
        padding = np.zeros(_PADDING[0] + int(random.random() * (_PADDING[1] - _PADDING[0] + 1)))
        signal = _sampled(np.concatenate([templates[label] + 1e-8, padding]), longest)
        signal *= 1 + _SCALE * (random.random() - 0.5)
        signal = np.roll(signal, int(random.random() * _SHIFT))
        noise = smooth(_SMOOTH_NOISE * _normal(random, longest), _SMOOTHING)
        signal = np.where(signal != 0, signal, noise) + _NOISE * _normal(random, longest)
        signal -= _SHEAR * (random.random() - 0.5) * np.linspace(-0.5, 0.5, longest)
        x[row] = _sampled(signal, _LENGTH)
    order = random.random(samples).argsort(kind="stable")
    return x[order], y[order]


def _normal(random: np.random.Generator, count: int) -> Array:
    """Return standard normal numbers by the formula of Box and Muller, from uniform ones whose stream is fixed."""
    one, other = 1 - random.random(count), random.random(count)
    return np.asarray(np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * other))


def _sampled(signal: Array, count: int) -> Array:
    return np.asarray(np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(signal)), signal))


def build_mnist1d(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``mnist1d``: 4,000 signals to train and validate on and 1,000 to test on (options samples, test, seed).

    Signals have the shape (40,) and are centred and scaled by the training part's mean and deviation over all points.
    """
    given = options(spec, {"samples": 5000, "test": 1000, "seed": 42})
    what = f"signals made as MNIST-1D's are (arXiv 2011.14439), generated with seed {given['seed']}"
    x, y = mnist1d(given["samples"], given["seed"])
    return standardised(spec, x, y, test=given["test"], what=what, classes=10, columns="all")


def friedman1(samples: int, noise: float, seed: int) -> tuple[Array, Array]:
    r"""Return Friedman's first regression: ten uniform inputs, of which five matter, and normal noise.

    .. math:: y = 10 \sin(\pi x_1 x_2) + 20 (x_3 - 1/2)^2 + 10 x_4 + 5 x_5 + \text{noise}

    Source: J. H. Friedman, *Multivariate Adaptive Regression Splines*, The Annals of Statistics 19 (1991), doi
    10.1214/aos/1176347963; ``sklearn.datasets.make_friedman1`` has the same formula with other random numbers.
    """
    random = generator(seed)
    x = random.random((samples, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, y + noise * _normal(random, samples)


def build_friedman1(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``friedman1``: a regression (options samples, test, noise, seed), inputs and targets standardised."""
    given = options(spec, {"samples": 1500, "test": 500, "noise": 1.0, "seed": 0})
    if given["samples"] < 3 or given["noise"] < 0:
        raise ArgumentError(f"friedman1 needs at least 3 samples and a noise of at least 0, not {given}")
    x, y = friedman1(given["samples"], float(given["noise"]), given["seed"])
    what = f"samples of Friedman's first regression, generated with seed {given['seed']} and noise {given['noise']:g}"
    return standardised(spec, x, y[:, None], test=given["test"], what=f"{what}, standardised", classes=1)


register_data("friedman1", build_friedman1)
register_data("mnist1d", build_mnist1d)


def build_digits(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``digits``: scikit-learn's 1,797 digits of 8x8 pixels, 360 of them to test on (option test).

    Source: ``sklearn.datasets.load_digits``, the test part of E. Alpaydin and C. Kaynak, *Optical Recognition of
    Handwritten Digits* (UCI). Pixels are divided by 16; images have the shape (1, 8, 8).
    """
    given = options(spec, {"test": 360})
    loaded = require("sklearn.datasets", "study").load_digits()
    x, what = loaded.images[:, None] / 16.0, "digits of scikit-learn's 1,797"
    return standardised(spec, x, loaded.target, test=given["test"], what=what, classes=10, columns="none")


def build_diabetes(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``diabetes``: scikit-learn's regression with 442 samples, 111 of them to test on (option test).

    Source: ``sklearn.datasets.load_diabetes``; B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, *Least Angle
    Regression*, The Annals of Statistics 32 (2004). The raw columns are taken, and standardised by the
    training part alone, as is the target: the mean squared error is a share of its variance.
    """
    given = options(spec, {"test": 111})
    loaded = require("sklearn.datasets", "study").load_diabetes(scaled=False)
    what = "samples of scikit-learn's diabetes data, standardised by the training part"
    return standardised(spec, loaded.data, loaded.target[:, None], test=given["test"], what=what, classes=1)


register_data("diabetes", build_diabetes)
register_data("digits", build_digits)
