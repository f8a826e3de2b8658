"""What a task minimises and tells: against formulas written out in numpy, and in a whole trial."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from agileact import ArgumentError, DataError
from agileact.study.data import dataset as data
from agileact.study.data.objective import METRICS, Objective
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training.loop import evaluate
from agileact.study.training.run import run_trial
from agileact.study.training.stacked import stackable

HERE = __name__
RNG = np.random.default_rng(0)


def load(name="digits", validation=200, **options):
    return data.load(DataSpec(name, validation, options=freeze(options)))


def its_own(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(outputs, y)


def doubled(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 2 * cross_entropy(outputs, y)


def no_number(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return outputs


def wrong_share(outputs: torch.Tensor, y: torch.Tensor) -> float:
    return float((outputs.argmax(1) != y).double().mean())


def trial(name="digits", lr=0.01, iterations=20, fc="agile-tanh", **options):
    loaded = load(name, 100, **options)
    spec = DataSpec(name, 100, options=freeze(options))
    task = TaskSpec(spec, ModelSpec("mlp", freeze({"nodes": (16,)})), Budget(iterations, 20, 10, 0, test_curve=False))
    return run_trial(TrialSpec(task, ArmSpec(freeze({"fc": fc}), lr=lr), 0), loaded)


# -- metrics and losses against formulas ---------------------------------------------------------------------


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_their_formulas(classes):
    outputs = RNG.normal(size=(60, classes)).astype(np.float32)
    y = np.arange(60) % 7 % classes
    answers = outputs.argmax(1)

    def score(name):
        told = Objective("classification", classes, metric=name)
        found = told.score([torch.from_numpy(outputs[:25]), torch.from_numpy(outputs[25:])], torch.from_numpy(y))
        assert found is not None
        return found

    assert score("accuracy") == np.mean(answers == y)
    recalls = [np.mean(answers[y == c] == c) for c in range(classes)]
    assert score("balanced accuracy") == pytest.approx(np.mean(recalls))
    f1 = [2 * np.sum((answers == c) & (y == c)) / (np.sum(answers == c) + np.sum(y == c)) for c in range(classes)]
    assert score("macro F1") == pytest.approx(np.mean(f1))

    def area(chance, positive):
        pairs = list(itertools.product(chance[positive], chance[~positive]))
        return np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])

    p = softmax(outputs.astype(np.float64))
    areas = [area(p[:, c], y == c) for c in range(classes)]
    assert score("AUC") == pytest.approx(areas[1] if classes == 2 else np.mean(areas))


def test_r2_is_its_formula():
    y, found = RNG.normal(size=(40, 1)), RNG.normal(size=(40, 1))
    score = Objective("regression", 1, metric="R2").score([torch.from_numpy(found)], torch.from_numpy(y))
    expected = 1 - np.sum((y - found.astype(np.float32)) ** 2) / np.sum((y - y.mean()) ** 2)
    assert score == pytest.approx(expected, rel=1e-6)


def test_outputs_beyond_the_classes_are_no_answers_and_nan_is_told():
    outputs = torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0]])
    assert Objective("classification", 2, metric="balanced accuracy").score([outputs], torch.tensor([1, 0])) == 1.0
    outputs[0, 0] = float("nan")
    found = Objective("classification", 2, metric="AUC").score([outputs], torch.tensor([1, 0]))
    assert found is not None
    assert np.isnan(found)


def test_class_weights_weigh_the_loss_in_training_and_in_evaluation():
    weights = (0.5, 2.0, 1.0)
    z, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    told = Objective("classification", 3, class_weights=weights, metric="accuracy")
    p = softmax(z.double().numpy())
    each, w = -np.log(p[np.arange(50), y.numpy()]), np.asarray(weights)[y.numpy()]
    assert float(told.mean(z, y)) == pytest.approx(np.sum(w * each) / np.sum(w), rel=1e-6)
    # In parts of any size: 500 samples are evaluated at once.
    many, labels = z.repeat(13, 1), y.repeat(13)
    loss, accuracy = evaluate(torch.nn.Flatten(), many, labels, objective=told)
    assert loss == pytest.approx(np.sum(w * each) / np.sum(w), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(p.argmax(1) == y.numpy()))


def test_balanced_weights_make_classes_count_alike():
    loaded = load(class_weights="balanced")
    counts = loaded.train_y.bincount().double()
    assert (torch.tensor(loaded.class_weights).double() * counts).tolist() == pytest.approx(
        [len(loaded.train_y) / 10] * 10
    )


# -- a whole trial -------------------------------------------------------------------------------------------


def test_a_loss_of_the_users_that_is_the_usual_one_gives_the_usual_trial():
    usual, own = trial(), trial(loss=f"{HERE}:its_own")
    assert own.curve.train_loss[1:] == usual.curve.train_loss[1:]
    assert own.curve.validation_accuracy == usual.curve.validation_accuracy
    # A mean of means is another sum of the same numbers.
    assert own.curve.validation_loss == pytest.approx(usual.curve.validation_loss, rel=1e-6)
    assert own.selected_test_loss == pytest.approx(usual.selected_test_loss, rel=1e-6)
    twice = trial(loss=f"{HERE}:doubled")
    assert twice.curve.validation_loss[0] == pytest.approx(2 * usual.curve.validation_loss[0], rel=1e-6)
    assert twice.curve.validation_accuracy[0] == usual.curve.validation_accuracy[0]


def test_a_metric_by_name_or_target_is_what_results_hold():
    usual = trial()
    balanced, wrong = trial(metric="balanced-accuracy"), trial(metric=f"{HERE}:wrong_share")
    assert balanced.curve.validation_loss == usual.curve.validation_loss
    assert balanced.curve.validation_accuracy != usual.curve.validation_accuracy
    assert wrong.curve.validation_accuracy == pytest.approx([1 - one for one in usual.curve.validation_accuracy])
    assert wrong.selected_test_accuracy == pytest.approx(1 - (usual.selected_test_accuracy or 0))
    regression = trial("friedman1", iterations=100, metric="r2")
    assert regression.curve.validation_accuracy[-1] > 0.3
    # The targets have variance 1: R2 is 1 minus the mean squared error, but for the part's own mean and variance.
    assert regression.selected_test_accuracy == pytest.approx(1 - (regression.selected_test_loss or 0), abs=0.1)


def test_weights_change_what_is_learned():
    first = (10.0, *[1.0] * 9)
    assert trial(class_weights=first).curve.train_loss != trial().curve.train_loss


def test_stacks_are_for_the_usual_objective_alone():
    task = TaskSpec(DataSpec("digits", 100), ModelSpec("mlp", freeze({"nodes": (16,)})), Budget(20, 20, 10))
    spec = TrialSpec(task, ArmSpec(freeze({"fc": "relu"})), 0)
    assert stackable(spec)
    for options in ({"metric": "auc"}, {"loss": "m:f"}, {"class_weights": "balanced"}, {"augment": "m:f"}):
        told = dataclasses.replace(task.data, options=freeze(options))
        assert not stackable(dataclasses.replace(spec, task=dataclasses.replace(task, data=told)))


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.randn_like(x)


def unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


def of_another_generator(x: torch.Tensor) -> torch.Tensor:
    return x + float(RNG.normal())


def cropped(x: torch.Tensor) -> torch.Tensor:
    return x[..., 1:]


def test_augmentation_changes_the_training_batches_alone_and_is_repeated():
    usual, first, again = trial(), trial(augment=f"{HERE}:noisy"), trial(augment=f"{HERE}:noisy")
    assert first.curve == again.curve
    assert first.curve.train_loss[1:] != usual.curve.train_loss[1:]
    # The untrained network is evaluated on the samples as they are.
    assert first.curve.train_loss[0] == pytest.approx(usual.curve.train_loss[0], rel=1e-6)
    assert first.curve.validation_loss[0] == pytest.approx(usual.curve.validation_loss[0], rel=1e-6)
    assert trial(augment=f"{HERE}:unchanged").curve.train_loss[1:] == usual.curve.train_loss[1:]
    state = torch.random.get_rng_state()
    load(augment=f"{HERE}:noisy")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("of_another_generator", "gives another batch when it is repeated: it must draw from torch's global generator"),
        ("cropped", r"like the one it gets, torch.float32 \(8, 1, 8, 8\), not torch.float32 \(8, 1, 8, 7\)"),
        ("wrong_kind", "has no function 'wrong_kind'"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_named(name, words):
    with pytest.raises(ArgumentError, match=words):
        load(augment=f"{HERE}:{name}")


# -- identity and errors -------------------------------------------------------------------------------------


def test_other_code_of_a_function_is_other_data(monkeypatch):
    plain = load()
    first = load(loss=f"{HERE}:its_own")
    assert len({plain.fingerprint, first.fingerprint, load(loss=f"{HERE}:doubled").fingerprint}) == 3
    assert load(metric="auc").fingerprint == plain.fingerprint  # which the options tell apart already
    assert load(loss=f"{HERE}:its_own").fingerprint == first.fingerprint


def test_the_summary_says_what_is_told():
    text = load(metric="AUC", class_weights=(1.0, *[2.0] * 9)).summary
    assert text.endswith("samples, class weights 1/2/2/2/2/2/2/2/2/2, metric AUC")
    assert load("friedman1", 100, loss=f"{HERE}:its_own").summary.endswith(f"samples, loss {HERE}:its_own")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digits", {"metric": "acuracy"}, "no metric of a classification is named 'acuracy'; did you mean 'accuracy'"),
        ("digits", {"metric": "R2"}, "no metric of a classification is named 'R2'"),
        ("friedman1", {"metric": "accuracy"}, "no metric of a regression is named 'accuracy'; known: R2"),
        ("digits", {"metric": "no_such_module_here:f"}, "there is no module 'no_such_module_here'"),
        ("digits", {"metric": 3}, "option 'metric' of the data set 'digits' must be text"),
        ("digits", {"loss": "cross_entropy"}, "must be named as package.module:function"),
        ("digits", {"class_weights": (1.0, 2.0)}, '"balanced" or 10 numbers above 0, one for each class'),
        ("digits", {"class_weights": (0.0, *[1.0] * 9)}, "10 numbers above 0"),
        ("digits", {"class_weights": "even"}, "10 numbers above 0"),
        ("friedman1", {"class_weights": "balanced"}, "for a classification, not for a regression"),
        ("digits", {"class_weights": "balanced", "loss": f"{HERE}:its_own"}, "for the cross-entropy, not for"),
        ("digits", {"metrics": "auc"}, "unknown option of the data set 'digits': 'metrics'"),
    ],
)
def test_what_does_not_fit_is_named(name, options, words):
    with pytest.raises(ArgumentError, match=words):
        load(name, 100, **options)


def test_an_auc_needs_every_class():
    with pytest.raises(DataError, match="an AUC needs samples of all 10 classes in each part"):
        load(validation=3, metric="AUC")


def test_functions_that_return_no_number_are_named():
    with pytest.raises(ArgumentError, match=f"the loss '{HERE}:no_number' must return one number"):
        trial(loss=f"{HERE}:no_number")
    with pytest.raises(ArgumentError, match=f"the metric '{HERE}:no_number' must return one number"):
        trial(metric=f"{HERE}:no_number")


def test_every_metric_is_of_a_known_kind():
    assert {kind for kind, _ in METRICS.values()} == {"classification", "regression"}
