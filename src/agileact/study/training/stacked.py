"""Trials that differ in seed, rates and the like, trained as one network: small ones are mostly overhead of calls."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, mse_loss, nll_loss

from agileact.monitor.activity import Turning
from agileact.nn.rows import Projection, directions
from agileact.study.data.dataset import DataSet
from agileact.study.data.objective import OPTIONS
from agileact.study.models.stack import MappedNetwork, StackedNetwork, same_in_a_stack
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import HELD, ArmSpec, DataSpec, TaskSpec, TrialSpec
from agileact.study.spec.user_targets import target_of
from agileact.study.training.loop import (
    Evaluation,
    Measured,
    agile_modules,
    batches,
    calibration_sample,
    drawn,
    saved_bytes,
    short,
)
from agileact.study.training.optimizers import Numbers, StackedOptimizer, factors
from agileact.study.training.run import check_device, run_trial
from agileact.study.training.setup import (
    Steps,
    build_optimizer,
    build_scheduler,
    keeping_positive,
    network_on,
    parameter_groups,
)
from agileact.study.training.shapes import sampled, shapes
from agileact.study.training.threads import one_thread

_MODELS = {"cpu": ("mlp", "deep-mlp"), "cuda": ("mlp", "deep-mlp", "cnn", "resnet")}
"""On the CPU convolutions are not worth it: what they cost is arithmetic. A GPU has room beside them."""

MOST = 24
"""More in one stack are hardly faster, and other cores have nothing to do meanwhile."""

_NUMBERS = (
    *("optimizer", "optimizer_options", "lr", "activation_lr", "scale_lr", "location_lr", "bias_lr_multiplier"),
    *("weight_decay", "activation_decay", "schedule", "warmup", "clip_norm", "label_smoothing"),
)
"""Fields of an arm in which the networks of a stack may differ: what tuning looks through."""
_USUAL: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(ArmSpec) if field.name in _NUMBERS}

_EVALUATED_AT_ONCE = 500
"""Samples of each network, where each has samples of its own."""

_SECONDS_BETWEEN_REPORTS = 0.5


def stackable(spec: TrialSpec) -> bool:
    """Return whether trials of this kind run in stacks.

    A stack cannot probe single steps, take folded updates or end one network's training. It is for full precision, one
    process, and the loss and metric that the kind of data has by itself. An activation of the user's must compute in it
    what it computes alone.
    """
    budget = spec.task.budget
    return (
        spec.task.model.name in _MODELS[budget.device]
        and (budget.precision, budget.processes) == ("fp32", 1)
        and budget.probe_every == 0
        and not {name for name, _ in spec.task.data.options}.intersection(OPTIONS)
        and spec.arm.updates == "own"
        and spec.arm.weights != "weight-norm"  # torch has no rule to take it over networks
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

    Trials of a stack have the same network, task and budget. Their seeds may differ, their division into training and
    validation samples, and the numbers of their optimizers: those of all points and replicates are together.
    The last bits of a trial depend on its stack, so that stacks follow from the plan alone: so many each, in their
    order, on every machine. What is stored is always a whole stack, and a study that goes on has the same ones.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> arms = [arm("relu", lr=lr).spec for lr in (0.001, 0.01)]
        >>> specs = [TrialSpec(task("paper-mlp").spec, one, seed) for seed in range(15) for one in arms]
        >>> [len(stack) for stack in stacks(specs)]
        [24, 6]
    """
    alike: dict[object, list[TrialSpec]] = {}
    for spec in specs:
        alike.setdefault(_kind(spec) if stackable(spec) else spec, []).append(spec)
    return [group[start : start + MOST] for group in alike.values() for start in range(0, len(group), MOST)]


def _kind(spec: TrialSpec) -> tuple[TaskSpec, ArmSpec]:
    """Return what the trials of a stack have in common."""
    task = dataclasses.replace(spec.task, data=dataclasses.replace(spec.task.data, split=0))
    return task, dataclasses.replace(spec.arm, **_USUAL)


def run_group(
    specs: Sequence[TrialSpec],
    data: Mapping[DataSpec, DataSet],
    progress: Callable[[TrialSpec, int, float], None] | None = None,
    *,
    aside: bool = False,
) -> list[TrialResult]:
    """Run one group of :func:`stacks`, on the data that they name: as a stack if their kind runs in stacks.

    ``aside``: whether a core is to spare for evaluation; the steps of a stack are too short for a second thread.
    """
    if stackable(specs[0]):
        return run_stack(specs, data, progress)
    (spec,) = specs
    tell = None if progress is None else lambda iteration, loss: progress(spec, iteration, loss)
    return [run_trial(spec, data[spec.task.data], tell, aside=aside)]


def run_stack(
    specs: Sequence[TrialSpec],
    data: Mapping[DataSpec, DataSet],
    progress: Callable[[TrialSpec, int, float], None] | None = None,
    *,
    mapped: bool | None = None,
) -> list[TrialResult]:
    """Run trials of one group of :func:`stacks`; on the CPU to the same bits whenever the same group is run.

    Args:
        specs: Trials that a stack can hold.
        data: The data sets that they name, with parts of the same sizes.
        progress: Called for each trial with the iteration and the loss of its last batch, about twice a second.
        mapped: Stack by vmap, which takes any network, instead of layers that are written for stacks and twice as
            fast on a CPU; None for what suits the device.

    Raises:
        ArgumentError: If there is no such device, or an arm and the model do not fit.
    """
    check_device(specs[0].task.budget)
    # Networks with the same options side by side: they share an optimizer.
    order = sorted(
        range(len(specs)), key=lambda index: repr((specs[index].arm.optimizer, specs[index].arm.optimizer_options))
    )
    with one_thread():
        results = _Stack([specs[index] for index in order], data, progress, mapped=mapped).run()
    found = dict(zip(order, results, strict=True))
    return [found[index] for index in range(len(specs))]


class _Stack:
    """State of running trials."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        data: Mapping[DataSpec, DataSet],
        progress: Callable[[TrialSpec, int, float], None] | None,
        *,
        mapped: bool | None = None,
    ) -> None:
        self.specs, self.progress = specs, progress
        self.budget, arm = specs[0].task.budget, specs[0].arm
        self.device = torch.device(self.budget.device)
        own = {name: data[name] for name in dict.fromkeys(spec.task.data for spec in specs)}
        moved = own if self.device.type == "cpu" else {name: one.to(self.device) for name, one in own.items()}
        # One data set for all, or the data set of each.
        self.data = moved[specs[0].task.data]
        self.sets = [moved[spec.task.data] for spec in specs] if len(own) > 1 else []
        self.singles = [
            network_on(
                own[spec.task.data],
                spec.task.model,
                spec.arm,
                spec.seed,
                lambda spec=spec: calibration_sample(own[spec.task.data], spec.seed),  # type: ignore[misc]
            )
            for spec in specs
        ]
        mapped = self.device.type != "cpu" if mapped is None else mapped
        self.model: MappedNetwork | StackedNetwork
        self.model = MappedNetwork(self.singles) if mapped else self._written_out(arm)
        self.model.to(self.device)
        self.optimizer, self.scheduler = self._optimizer(mapped)
        smoothings = [spec.arm.label_smoothing for spec in specs]
        for smoothing in smoothings:
            self.data.objective.smoothed(smoothing)  # its check alone: the losses are taken one by one
        self.smoothing: float | Tensor = smoothings[0]
        if len(set(smoothings)) > 1:
            self.smoothing = torch.tensor(smoothings, device=self.device).repeat_interleave(self.budget.batch_size)
        self.agile = agile_modules(self.singles[0])
        self.turning = Turning(self.model)
        # Results name layers as one network does.
        directed = list(directions(self.singles[0]))
        self.measured = [Measured(spec, map(short, self.agile), directed) for spec in specs]
        self.best: list[dict[str, Tensor] | None] = [None for _ in specs]
        self.saved_bytes = saved_bytes(self.singles[0], own[specs[0].task.data].train_x[: self.budget.batch_size])

    def _written_out(self, arm: ArmSpec) -> StackedNetwork:
        names = [name for name, _ in self.singles[0].named_children() if name.endswith("_activation")]
        return StackedNetwork(self.singles, {name: arm.activation("fc", name) or "" for name in names})

    def _optimizer(self, mapped: bool) -> tuple[Steps, Any]:
        """Return what takes the steps, and the schedule that is not in it."""
        arms, iterations = [spec.arm for spec in self.specs], self.budget.iterations
        first = arms[0]
        of_each = first.clip_norm is not None or first.bias_lr_multiplier != 1.0 or first.weights != "free"
        of_each |= mapped and first.activation_decay != 0.0
        if len(set(arms)) == 1 and not of_each:
            # All numbers are the same, so that an optimizer need not know of networks.
            optimizer = build_optimizer(self.model, first)
            return optimizer, build_scheduler(optimizer, first, iterations)
        layout = self.model.layout()
        numbers = [_numbers(single, arm, iterations) for single, arm in zip(self.singles, arms, strict=True)]
        starts = {}
        for name, module in agile_modules(self.singles[0]).items():
            for leaf, start in module.initial_values().items():
                key = f"{name}.{leaf}"
                before, _, behind = layout[key][0].view(layout[key][1]).shape
                starts[key] = start.to(self.device).view(before, 1, behind)
        rows = Projection(directions(self.model))
        after = [rows.project] if first.weights in HELD else []
        after += [keeping_positive(self.model)] if first.scale_sign == "positive" else []
        return StackedOptimizer(numbers, layout, starts, after), None

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
        budget, count = self.budget, len(self.specs)
        self._measure(0, [loss for loss, _ in self._evaluate("train")])
        streams = [batches(len(self.data.train_y), budget.batch_size, spec.seed) for spec in self.specs]
        total = torch.zeros(count, device=self.device)
        since, durations, reported = 0, [], time.perf_counter()
        for iteration in range(1, budget.iterations + 1):
            last = iteration == budget.iterations
            evaluated = last or iteration % budget.evaluate_every == 0
            if evaluated and self.turning.layers:
                self.turning.note()
            begin = time.perf_counter()
            x, y = self._batch([next(stream) for stream in streams])
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
            if evaluated:
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

    def _batch(self, chosen: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return a batch of each network, and their targets one network after the other."""
        if not self.sets:
            x, y = drawn(self.data, torch.cat(list(chosen)))
            return x.unflatten(0, (len(chosen), -1)), y
        xs, ys = zip(*(drawn(own, one) for own, one in zip(self.sets, chosen, strict=True)), strict=True)
        return torch.stack(xs), torch.cat(ys)

    def _losses(self, output: Tensor, y: Tensor, smoothing: float | Tensor = 0.0) -> Tensor:
        """Return each network's mean loss, given targets one network after the other."""
        flat = output.flatten(0, 1)
        if isinstance(smoothing, Tensor):
            chances = log_softmax(flat, 1)
            losses = (1 - smoothing) * nll_loss(chances, y, reduction="none") - smoothing * chances.mean(1)
            return losses.view(len(output), -1).mean(1)
        if self.data.kind == "regression":
            return mse_loss(flat, y, reduction="none").view(len(output), -1).mean(1)
        return cross_entropy(flat, y, reduction="none", label_smoothing=smoothing).view(len(output), -1).mean(1)

    def _evaluate(self, part: str) -> list[Evaluation]:
        """Return mean loss and accuracy of each network over all of a part of the data."""
        count, training = len(self.specs), self.model.training
        self.model.eval()
        with torch.inference_mode():
            if self.sets:
                xs, ys = ([getattr(own, f"{part}_{which}") for own in self.sets] for which in "xy")
                starts = range(0, len(ys[0]), _EVALUATED_AT_ONCE)
                many = [torch.stack([x[start : start + _EVALUATED_AT_ONCE] for x in xs]) for start in starts]
                output, y = torch.cat([self.model(x) for x in many], 1), torch.stack(ys)
            else:
                own = getattr(self.data, f"{part}_y")
                output = self.model(getattr(self.data, f"{part}_x").unsqueeze(0))
                y = own.expand(count, *own.shape)
            losses = self._losses(output, y.flatten(0, 1)).tolist()
            right = [None] * count
            if self.data.kind != "regression":
                right = (output.argmax(2) == y).double().mean(1).tolist()
        self.model.train(training)
        return list(zip(losses, right, strict=True))

    def _measure(self, iteration: int, train_losses: Sequence[float]) -> None:
        """Note losses, and where the scales are; a trial whose loss is no number ends here."""
        found = self._evaluate("validation")
        tests: Sequence[Evaluation | None] = [None] * len(found)
        if self.budget.test_curve:
            tests = self._evaluate("test")
        turned = [angle for _, angle in self.turning.each().values()] if iteration and self.turning.layers else []
        for index in self.running:
            one, part = self.measured[index], self.model.part(index)
            one.note(iteration, train_losses[index], found[index], tests[index])
            if one.to_be_kept:
                self.best[index] = {name: value.detach().clone() for name, value in part.items()}
            for name in self.agile:
                scale, location = (part[f"{name}.{of}"].detach() for of in ("scale", "location"))
                one.trace(short(name), scale, location)
            for trace, angle in zip(one.directions.values(), turned, strict=bool(turned)):
                trace.turn_median.append(float(angle[index].quantile(0.5)))
                trace.turn_max.append(float(angle[index].max()))

    def _tests(self) -> Sequence[tuple[float | None, float | None]]:
        """Return test loss and accuracy of each trial at the iteration that validation chose."""
        if self.budget.test_curve or not self.budget.use_test:
            return [one.chosen_test() for one in self.measured]
        for index, state in enumerate(self.best):
            if state is not None:
                self.model.set_part(index, state)
        found = self._evaluate("test")
        return [(None, None) if state is None else one for state, one in zip(self.best, found, strict=True)]

    def _single(self, index: int, state: dict[str, Tensor]) -> nn.Module:
        model = copy.deepcopy(self.singles[index])
        model.load_state_dict(state)
        return model


def _numbers(single: nn.Module, arm: ArmSpec, iterations: int) -> Numbers:
    """Return what an optimizer of a network alone would be told."""
    names = {id(parameter): name for name, parameter in single.named_parameters()}
    groups = {names[id(one)]: group for group in parameter_groups(single, arm) for one in group["params"]}
    factor = factors(arm.schedule, arm.warmup, iterations)
    return Numbers((arm.optimizer, arm.optimizer_options), groups, factor, arm.clip_norm)
