"""Trials that differ in their seed alone, trained as one network: the small ones are mostly overhead of many calls."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from agileact.study.data.dataset import DataSet
from agileact.study.data.objective import OPTIONS
from agileact.study.models.stack import MappedNetwork, StackedNetwork, same_in_a_stack
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import ArmSpec, TaskSpec, TrialSpec
from agileact.study.spec.user_targets import target_of
from agileact.study.training.loop import (
    Evaluation,
    Measured,
    agile_modules,
    batches,
    calibration_sample,
    saved_bytes,
    short,
)
from agileact.study.training.run import check_device, run_trial
from agileact.study.training.setup import build_network, build_optimizer, build_scheduler
from agileact.study.training.shapes import sampled, shapes
from agileact.study.training.threads import one_thread

_MODELS = {"cpu": ("mlp", "deep-mlp"), "cuda": ("mlp", "deep-mlp", "cnn", "resnet")}
"""On the CPU convolutions are not worth it: what they cost is arithmetic. A GPU has room beside them."""

MOST = 10
"""More in one stack are no faster: what is in work no longer fits into the cache."""

_SECONDS_BETWEEN_REPORTS = 0.5


def stackable(spec: TrialSpec) -> bool:
    """Return whether trials of this kind run in stacks.

    A stack cannot probe single steps, take folded updates, give biases a rate of their own or clip each network's
    gradient. Nor can it constrain rows of weights, normalise by layer or end one network's training. It is for full
    precision, one process, and the loss and metric that the kind of data has by itself. An activation of the user's
    must compute in it what it computes alone.
    """
    budget = spec.task.budget
    return (
        spec.task.model.name in _MODELS[budget.device]
        and (budget.precision, budget.processes) == ("fp32", 1)
        and budget.probe_every == 0
        and not {name for name, _ in spec.task.data.options}.intersection(OPTIONS)
        and spec.arm.updates == "own"
        and spec.arm.bias_lr_multiplier == 1.0
        and spec.arm.clip_norm is None
        and spec.arm.weights == "free"
        and spec.arm.normalisation != "layer"
        and budget.patience == 0
        and all(same_in_a_stack(str(name), spec.arm.code) for _, name in spec.arm.activations if target_of(str(name)))
    )


def alone_for_its_activation(task: TaskSpec, arm: ArmSpec) -> bool:
    """Return whether trials run one by one because of an activation of the user's, and would run in stacks without.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> arms = arm("torch.nn:PReLU").spec, arm("torch.nn:RReLU").spec
        >>> [alone_for_its_activation(task("paper-mlp").spec, one) for one in arms]
        [False, True]
    """
    without = dataclasses.replace(arm, activations=(("*", "relu"),), code="")
    return stackable(TrialSpec(task, without, 0)) and not stackable(TrialSpec(task, arm, 0))


def stacks(specs: Sequence[TrialSpec]) -> list[list[TrialSpec]]:
    """Return the trials in the groups that run together, in the order of their first ones.

    The last bits of a trial depend on its stack, so that stacks follow from the plan alone: ten seeds each, in their
    order, on every machine. What is stored is always a whole stack, and a study that goes on has the same ones.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> specs = [TrialSpec(task("paper-mlp").spec, arm("relu").spec, seed) for seed in range(12)]
        >>> [[spec.seed for spec in stack] for stack in stacks(specs)]
        [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11]]
    """
    alike: dict[object, list[TrialSpec]] = {}
    for spec in specs:
        alike.setdefault((spec.task, spec.arm) if stackable(spec) else spec, []).append(spec)
    return [group[start : start + MOST] for group in alike.values() for start in range(0, len(group), MOST)]


def run_group(
    specs: Sequence[TrialSpec],
    data: DataSet,
    progress: Callable[[TrialSpec, int, float], None] | None = None,
) -> list[TrialResult]:
    """Run one group of :func:`stacks`: as a stack if trials of this kind run in stacks."""
    if stackable(specs[0]):
        return run_stack(specs, data, progress)
    (spec,) = specs
    tell = None if progress is None else lambda iteration, loss: progress(spec, iteration, loss)
    return [run_trial(spec, data, tell)]


def run_stack(
    specs: Sequence[TrialSpec],
    data: DataSet,
    progress: Callable[[TrialSpec, int, float], None] | None = None,
    *,
    mapped: bool | None = None,
) -> list[TrialResult]:
    """Run trials of one group of :func:`stacks`; on the CPU to the same bits whenever the same group is run.

    Args:
        specs: Trials that differ in their seed alone.
        data: The data set that they name.
        progress: Called for each trial with the iteration and the loss of its last batch, about twice a second.
        mapped: Stack by vmap, which takes any network, instead of layers that are written for stacks and twice as
            fast on a CPU; None for what suits the device.

    Raises:
        ArgumentError: If there is no such device.
    """
    check_device(specs[0].task.budget)
    with one_thread():
        return _Stack(specs, data, progress, mapped=mapped).run()


class _Stack:
    """State of running trials."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        data: DataSet,
        progress: Callable[[TrialSpec, int, float], None] | None,
        *,
        mapped: bool | None = None,
    ) -> None:
        self.specs, self.progress = specs, progress
        self.budget, arm = specs[0].task.budget, specs[0].arm
        self.device = torch.device(self.budget.device)
        self.data = data if self.device.type == "cpu" else data.to(self.device)
        self.singles = [
            build_network(
                spec.task.model,
                arm,
                input_shape=tuple(data.train_x.shape[1:]),
                classes=data.classes,
                seed=spec.seed,
                sample=lambda spec=spec: calibration_sample(data, spec.seed),  # type: ignore[misc]
            )
            for spec in specs
        ]
        mapped = self.device.type != "cpu" if mapped is None else mapped
        self.model: MappedNetwork | StackedNetwork
        self.model = MappedNetwork(self.singles) if mapped else self._written_out(arm)
        self.model.to(self.device)
        self.optimizer = build_optimizer(self.model, arm)
        self.scheduler = build_scheduler(self.optimizer, arm, self.budget.iterations)
        self.smoothing = arm.label_smoothing
        data.objective.smoothed(self.smoothing)  # its check alone: the losses are taken one by one
        self.agile = agile_modules(self.singles[0])
        self.measured = [Measured(spec, map(short, self.agile)) for spec in specs]
        self.best: list[dict[str, Tensor] | None] = [None for _ in specs]
        self.saved_bytes = saved_bytes(self.singles[0], data.train_x[: self.budget.batch_size])

    def _written_out(self, arm: ArmSpec) -> StackedNetwork:
        names = [name for name, _ in self.singles[0].named_children() if name.endswith("_activation")]
        return StackedNetwork(self.singles, {name: arm.activation("fc", name) or "" for name in names})

    @property
    def running(self) -> list[int]:
        """Which trials have not diverged."""
        return [index for index, one in enumerate(self.measured) if one.status == "finished"]

    def run(self) -> list[TrialResult]:
        """Train all, and return what was measured."""
        start = time.perf_counter()
        final = self.budget.use_test
        before = [sampled(single) for single in self.singles] if final else []
        durations = self._train()
        ends = [self._single(index, self.model.part(index)) for index in range(len(self.specs))] if final else []
        learned = [shapes(end, rows) for end, rows in zip(ends, before, strict=True)] or [{} for _ in self.specs]
        tests = self._tests()
        seconds = (time.perf_counter() - start) / len(self.specs)
        step = statistics.median(durations) / len(self.specs) if durations else 0.0
        return [
            one.result(single, test, shape, step=step, seconds=seconds, saved=self.saved_bytes)
            for one, single, test, shape in zip(self.measured, self.singles, tests, learned, strict=True)
        ]

    def _train(self) -> list[float]:
        """Take the budget's steps; return the length of each."""
        budget, data, count = self.budget, self.data, len(self.specs)
        self._measure(0, [loss for loss, _ in self._evaluate(data.train_x, data.train_y)])
        streams = [batches(len(data.train_y), budget.batch_size, spec.seed) for spec in self.specs]
        total = torch.zeros(count, device=self.device)
        since, durations, reported = 0, [], time.perf_counter()
        for iteration in range(1, budget.iterations + 1):
            begin = time.perf_counter()
            chosen = torch.cat([next(stream) for stream in streams])
            x, y = data.train_x[chosen].unflatten(0, (count, -1)), data.train_y[chosen]
            self.optimizer.zero_grad(set_to_none=True)
            losses = self._losses(self.model(x), y, self.smoothing)
            losses.sum().backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            durations.append(time.perf_counter() - begin)
            total += losses.detach()
            since += 1
            last = iteration == budget.iterations
            if iteration % budget.evaluate_every == 0 or last:
                self._measure(iteration, (total / since).tolist())
                total.zero_()
                since = 0
                if not self.running:
                    break
            now = time.perf_counter()
            if self.progress and (last or now - reported > _SECONDS_BETWEEN_REPORTS):
                for index in self.running:
                    self.progress(self.specs[index], iteration, float(losses[index].detach()))
                reported = now
        return durations

    def _losses(self, output: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return each network's mean loss, given targets one network after the other."""
        flat = output.flatten(0, 1)
        if self.data.kind == "regression":
            return mse_loss(flat, y, reduction="none").view(len(output), -1).mean(1)
        return cross_entropy(flat, y, reduction="none", label_smoothing=smoothing).view(len(output), -1).mean(1)

    def _evaluate(self, x: Tensor, y: Tensor) -> list[Evaluation]:
        """Return mean loss and accuracy of each network over all of ``x``."""
        count, training = len(self.specs), self.model.training
        self.model.eval()
        with torch.inference_mode():
            output = self.model(x.unsqueeze(0))
            losses = self._losses(output, y.repeat(count, *[1] * (y.ndim - 1))).tolist()
            right = [None] * count
            if self.data.kind != "regression":
                right = (output.argmax(2) == y).double().mean(1).tolist()
        self.model.train(training)
        return list(zip(losses, right, strict=True))

    def _measure(self, iteration: int, train_losses: Sequence[float]) -> None:
        """Note losses, and where the scales are; a trial whose loss is no number ends here."""
        data = self.data
        found = self._evaluate(data.validation_x, data.validation_y)
        tests: Sequence[Evaluation | None] = [None] * len(found)
        if self.budget.test_curve:
            tests = self._evaluate(data.test_x, data.test_y)
        for index in self.running:
            one, part = self.measured[index], self.model.part(index)
            one.note(iteration, train_losses[index], found[index], tests[index])
            if one.to_be_kept:
                self.best[index] = {name: value.detach().clone() for name, value in part.items()}
            for name in self.agile:
                scale, location = (part[f"{name}.{of}"].detach() for of in ("scale", "location"))
                one.trace(short(name), scale, location)

    def _tests(self) -> Sequence[tuple[float | None, float | None]]:
        """Return test loss and accuracy of each trial at the iteration that validation chose."""
        if self.budget.test_curve or not self.budget.use_test:
            return [one.chosen_test() for one in self.measured]
        for index, state in enumerate(self.best):
            if state is not None:
                self.model.set_part(index, state)
        found = self._evaluate(self.data.test_x, self.data.test_y)
        return [(None, None) if state is None else one for state, one in zip(self.best, found, strict=True)]

    def _single(self, index: int, state: dict[str, Tensor]) -> torch.nn.Module:
        model = copy.deepcopy(self.singles[index])
        model.load_state_dict(state)
        return model
