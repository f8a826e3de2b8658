"""Small tables that come with scikit-learn: handwritten digits and a regression."""

from __future__ import annotations

from pathlib import Path

from agileact._common.optional import require
from agileact.study.data.dataset import DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.preparation import options, standardised
from agileact.study.spec.trial import DataSpec


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
