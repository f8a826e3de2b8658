"""What a task minimises, tells beside the loss, and does to a batch: by its kind of data, or as its user says."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from agileact._common import checks
from agileact._common.errors import ArgumentError, DataError
from agileact._common.names import hint
from agileact._common.optional import require
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import DataSpec
from agileact.study.spec.user_targets import find

OPTIONS = ("loss", "class_weights", "metric", "augment")
"""The options of every data set that say it; the rest are the builder's."""


def _auc(y: Any, outputs: Tensor) -> float:
    chances = outputs.double().softmax(1).numpy()
    score = require("sklearn.metrics", "study").roc_auc_score
    if chances.shape[1] == 2:
        return float(score(y, chances[:, 1]))
    return float(score(y, chances, multi_class="ovr", labels=range(chances.shape[1])))


def _of_answers(name: str, **more: Any) -> Callable[[Any, Tensor], float]:
    return lambda y, outputs: float(getattr(require("sklearn.metrics", "study"), name)(y, outputs.argmax(1), **more))


METRICS: dict[str, tuple[str, Callable[[Any, Tensor], float]]] = {
    "accuracy": ("classification", lambda y, outputs: float((outputs.argmax(1) == y).double().mean())),
    "balanced accuracy": ("classification", _of_answers("balanced_accuracy_score")),
    "macro F1": ("classification", _of_answers("f1_score", average="macro")),
    "AUC": ("classification", _auc),
    "R2": ("regression", lambda y, outputs: float(require("sklearn.metrics", "study").r2_score(y, outputs))),
}
"""By name: for which kind of data (text is classified, too), and the function of targets and outputs."""


_LOW = ("error", "loss", "distance", "deviance", "perplexity", "mse", "rmse", "mae")


def metric_name(text: str) -> str:
    """Return a metric's own name: people write AUC or auc, balanced-accuracy or balanced_accuracy."""
    plain = text.lower().replace("_", " ").replace("-", " ")
    return {known.lower(): known for known in METRICS}.get(plain, text)


def metric_of(data: DataSpec) -> str:
    """Return the name of the metric that trials on some data are told by."""
    return metric_name(str(dict(data.options).get("metric", "accuracy")))


def lower_is_better(task: Task) -> bool:
    """Return which way of a task's metric is good: as the task says, else as its name does.

    Of a name that ends as scikit-learn's errors and losses do, low values are good: ``my.module:absolute_error``.
    """
    return task.better == "lower" if task.better else metric_of(task.spec.data).lower().endswith(_LOW)


@dataclass(frozen=True)
class Objective:
    """The loss of a task, its metric, and how it changes the samples that it trains on.

    ``loss`` takes the place of the kind's loss, ``metric`` is a name of :data:`METRICS` or "" for none: both may be
    the user's, ``package.module:function`` of outputs and targets. ``augment``: a function of the user's, of the
    inputs of a training batch; it returns as many, and draws from torch's global generator. Evaluation sees the
    samples as they are.
    """

    kind: str
    classes: int = 0
    loss: str = ""
    class_weights: tuple[float, ...] = ()
    metric: str = ""
    augment: str = ""

    def augmented(self, x: Tensor) -> Tensor:
        """Return the inputs of a training batch, changed."""
        if not self.augment:
            return x
        changed = _function(self.augment, "augmentation")(x)
        if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (x.shape, x.dtype):
            was = f"a {type(changed).__name__}"
            if isinstance(changed, Tensor):
                was = f"{changed.dtype} {tuple(changed.shape)}"
            raise ArgumentError(
                f"the augmentation {self.augment!r} must return a batch like the one it gets, {x.dtype} "
                f"{tuple(x.shape)}, not {was}"
            )
        return changed

    def smoothed(self, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the training loss with this share of each target spread over all classes, as a cross-entropy can."""
        if smoothing and (self.loss or self.kind == "regression"):
            what = f"the loss is {self.loss!r}" if self.loss else "the data is a regression"
            raise ArgumentError(f"label_smoothing is for classes, and {what}")
        return functools.partial(self.mean, smoothing=smoothing)

    def mean(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the training loss, a mean over a batch."""
        if self.loss:
            value = _function(self.loss, "loss")(outputs, y)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
                raise ArgumentError(f"the loss {self.loss!r} must return one number as a tensor, a mean over the batch")
            return value.reshape(())
        if self.kind == "regression":
            return _squared_error(outputs, y)
        if self.kind == "text":
            outputs, y = outputs.flatten(0, 1), y.flatten()
        return cross_entropy(outputs, y, weight=self._weights(outputs), label_smoothing=smoothing)

    def total(self, outputs: Tensor, y: Tensor) -> tuple[float, float]:
        """Return the sum of the losses of a batch, and of what it is divided by."""
        if self.loss:
            return float(self.mean(outputs, y)) * len(y), len(y)
        if self.kind == "regression":
            return float(_squared_error(outputs, y, reduction="sum")), y.numel()
        if self.kind == "text":
            outputs, y = outputs.flatten(0, 1), y.flatten()
        weights = self._weights(outputs)
        divisor = float(y.numel()) if weights is None else float(weights[y].sum())
        return float(cross_entropy(outputs, y, weight=weights, reduction="sum")), divisor

    def score(self, outputs: Sequence[Tensor], y: Tensor) -> float | None:
        """Return the metric of all outputs, in the order of the targets; NaN if an output is not finite."""
        if not self.metric:
            return None
        joined = torch.cat(list(outputs)).float().cpu()
        y = y.cpu()
        if self.kind == "text":
            joined, y = joined.flatten(0, 1), y.flatten()
        if not bool(joined.isfinite().all()):
            return float("nan")
        if self.metric in METRICS:
            # More outputs than classes are none of the answers that count.
            shown = joined if self.metric in ("accuracy", "R2") else joined[:, : self.classes or None]
            return METRICS[self.metric][1](y, shown)
        value = _function(self.metric, "metric")(joined, y)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = float(value)
        if not checks.is_number(value):
            raise ArgumentError(f"the metric {self.metric!r} must return one number, not {value!r}")
        return float(value)

    def _weights(self, outputs: Tensor) -> Tensor | None:
        if not self.class_weights:
            return None
        rest = [1.0] * (outputs.shape[1] - len(self.class_weights))
        return torch.tensor([*self.class_weights, *rest], dtype=outputs.dtype, device=outputs.device)

    @property
    def source_hash(self) -> str:
        """A hash of the code of the user's functions, so that results of another code never mix; "" for none."""
        functions = [_function(name, "function") for name in (self.loss, self.metric, self.augment) if ":" in name]
        return hashlib.sha256("\0".join(map(_source, functions)).encode()).hexdigest() if functions else ""


def objective(
    name: str, kind: str, classes: int, train: tuple[Tensor, Tensor], held: Sequence[Tensor], given: Mapping[str, Any]
) -> Objective:
    """Return what the options say, checked; ``held``: targets of the other parts, on which the metric must be there."""
    usual = {"loss": "", "metric": "" if kind == "regression" else "accuracy", "augment": ""}
    loss, metric, augment = ({**usual, **given}[option] for option in usual)
    for option, value in (("loss", loss), ("metric", metric), ("augment", augment)):
        if not isinstance(value, str):
            raise ArgumentError(f"option {option!r} of the data set {name!r} must be text, not {value!r}")
    if loss:
        find(loss, "loss")
    if ":" in metric:
        find(metric, "metric")
    elif metric:
        metric = metric_name(metric)
        fitting = [known for known, (of, _) in METRICS.items() if (of == "regression") == (kind == "regression")]
        if metric not in fitting:
            ways = "; or a function of outputs and targets, as package.module:function"
            raise ArgumentError(f"no metric of a {kind} is named {metric!r}{hint(metric, fitting)}{ways}")
    weights = _class_weights(name, kind, classes, train[1], given.get("class_weights", ()))
    if weights and loss:
        raise ArgumentError(
            f"class_weights of the data set {name!r} are for the cross-entropy, not for the loss {loss!r}"
        )
    if metric == "AUC" and min(len(y.unique()) for y in (train[1], *held)) < classes:
        raise DataError(f"{name}: an AUC needs samples of all {classes} classes in each part")
    found = Objective(kind, classes, loss, weights, metric, augment)
    if augment:
        _check_augmentation(found, train[0])
    return found


def _check_augmentation(found: Objective, x: Tensor) -> None:
    """Change a few samples twice from one state of torch's generator: a trial must be the same when it is repeated."""
    changed = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            changed.append(found.augmented(x[:8].clone()))
    if not torch.equal(*changed):
        raise ArgumentError(
            f"the augmentation {found.augment!r} gives another batch when it is repeated: it must draw from torch's "
            "global generator, which each trial seeds, and from no other"
        )


def _class_weights(name: str, kind: str, classes: int, train_y: Tensor, given: Any) -> tuple[float, ...]:
    if given == ():
        return ()
    if kind != "classification":
        raise ArgumentError(f"class_weights of the data set {name!r} are for a classification, not for a {kind}")
    if given == "balanced":
        counts = train_y.bincount(minlength=classes).double()
        # Each class weighs as much as the others together; one without a sample has nothing to weigh.
        return tuple((len(train_y) / (classes * counts.clamp(min=1))).tolist())
    fits = (
        isinstance(given, tuple) and len(given) == classes and all(checks.is_number(one) and one > 0 for one in given)
    )
    if not fits:
        raise ArgumentError(
            f'class_weights of the data set {name!r} must be "balanced" or {classes} numbers above 0, one for each '
            f"class, not {given!r}"
        )
    return tuple(map(float, given))


@functools.cache
def _function(target: str, what: str) -> Callable[..., Any]:
    return find(target, what)


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # built in, or made by another function
        return f"{function.__module__}:{getattr(function, '__qualname__', function)}"


def _squared_error(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    if output.shape != y.shape:
        # What torch would spread over the other, with a wrong number and a warning.
        raise ArgumentError(
            f"the model returned outputs of shape {tuple(output.shape)} for targets {tuple(y.shape)} of a regression"
        )
    return mse_loss(output, y, reduction=reduction)
