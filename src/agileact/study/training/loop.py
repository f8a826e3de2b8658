"""The training loop of one trial, on one device and in full precision, and what it measures."""

import contextlib
import copy
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact._common.machine import versions
from agileact.monitor.activity import Turning
from agileact.nn import Agile, AgileModule, CombinedAgile
from agileact.study import models
from agileact.study.data.dataset import DataSet
from agileact.study.data.objective import OPTIONS, Objective
from agileact.study.spec.result import Curve, DirectionTrace, LayerTrace, Probe, Shape, TrialResult
from agileact.study.spec.trial import TrialSpec
from agileact.study.spec.user_targets import target_of
from agileact.study.training.pooling import pooled_at_once
from agileact.study.training.setup import Steps, build_optimizer, build_scheduler, network_on
from agileact.study.training.shapes import sampled, shapes
from agileact.study.training.threads import one_thread

Evaluation = tuple[float, float | None]
"""Mean loss and metric: accuracy, unless the task names another; none of a regression by itself."""

Progress = Callable[[int, float], None]
"""Called as ``progress(iteration, loss)`` about twice a second."""

_EVALUATION_BATCH = 500
_CALIBRATION_SAMPLES = 512
_SECONDS_BETWEEN_REPORTS = 0.5


class Measured:
    """What is measured of one running trial: its curves and traces, and at last its result."""

    def __init__(self, spec: TrialSpec, layers: Iterable[str], directions: Iterable[str] = ()) -> None:
        self.spec = spec
        self.status = "finished"
        self.curve, self.probe = Curve(), Probe()
        self.layers = {name: LayerTrace() for name in layers}
        self.directions = {name: DirectionTrace() for name in directions}

    def note(self, iteration: int, train_loss: float, validation: Evaluation, test: Evaluation | None = None) -> None:
        """Note an evaluation; a trial of which a loss is no number has diverged."""
        curve = self.curve
        curve.iteration.append(iteration)
        curve.train_loss.append(train_loss)
        for losses, accuracies, found in (
            (curve.validation_loss, curve.validation_accuracy, validation),
            (curve.test_loss, curve.test_accuracy, test),
        ):
            if found is not None:
                losses.append(found[0])
                if found[1] is not None:
                    accuracies.append(found[1])
        if iteration and not (math.isfinite(train_loss) and math.isfinite(validation[0])):
            self.status = "diverged"

    def trace(self, name: str, scale: Tensor, location: Tensor) -> None:
        """Note where the scales and locations of a layer are."""
        trace = self.layers[name]
        trace.scale_min.append(float(scale.min()))
        trace.scale_max.append(float(scale.max()))
        trace.location_min.append(float(location.min()))
        trace.location_max.append(float(location.max()))

    def turned(self, turning: Turning) -> None:
        """Note how far the last step turned the rows of each standardised layer."""
        found = turning.measure()
        if found is not None:
            for trace, (_, _, middle, largest) in zip(
                self.directions.values(), found.view(-1, 4).tolist(), strict=True
            ):
                trace.turn_median.append(middle)
                trace.turn_max.append(largest)

    @property
    def ends(self) -> bool:
        """Whether the trial is over before its last iteration: diverged, or without progress for long enough."""
        losses, patience = self.curve.validation_loss, self.spec.task.budget.patience
        best = lowest(losses)
        return self.status == "diverged" or (patience > 0 and best is not None and len(losses) - 1 - best >= patience)

    @property
    def to_be_kept(self) -> bool:
        """Whether the network as it is now is the best so far, and the test set, touched once, may need it."""
        budget, losses = self.spec.task.budget, self.curve.validation_loss
        return budget.use_test and not budget.test_curve and lowest(losses) == len(losses) - 1

    def chosen_test(self) -> tuple[float | None, float | None]:
        """Return what the test curve, if there is one, says at the iteration that validation chose."""
        chosen = lowest(self.curve.validation_loss)
        if chosen is None or not self.curve.test_loss:
            return None, None
        return self.curve.test_loss[chosen], self.curve.test_accuracy[chosen] if self.curve.test_accuracy else None

    def result(
        self,
        model: nn.Module,
        test: tuple[float | None, float | None],
        learned: Mapping[str, Shape],
        *,
        step: float,
        seconds: float,
        saved: int,
    ) -> TrialResult:
        """Return the trial's result."""
        curve = self.curve
        chosen, best = lowest(curve.validation_loss), lowest(curve.test_loss)
        return TrialResult(
            spec=self.spec,
            status=self.status,
            curve=curve,
            probe=self.probe,
            layers=self.layers,
            best_test_loss=None if best is None else curve.test_loss[best],
            best_iteration=None if best is None else curve.iteration[best],
            selected_iteration=None if chosen is None else curve.iteration[chosen],
            selected_test_loss=test[0],
            selected_test_accuracy=test[1],
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            seconds_per_iteration=step,
            seconds=seconds,
            versions=versions(),
            saved_bytes=saved,
            shapes={short(name): shape for name, shape in learned.items()},
            directions=self.directions,
        )


def short(name: str) -> str:
    """Return the name that an activation has in results."""
    return name.removesuffix("_activation")


def agile_modules(model: nn.Module) -> dict[str, AgileModule]:
    """Return the agile activations of a network, by their names in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (Agile, CombinedAgile))}


def evaluates_aside(spec: TrialSpec) -> bool:
    """Return whether a trial can be evaluated on a thread of its own: on the CPU, and without code of the user's.

    What user code draws or keeps belongs to the thread that trains.
    """
    budget, task = spec.task.budget, spec.task
    return (
        (budget.device, budget.precision, budget.processes) == ("cpu", "fp32", 1)
        and task.model.name != "custom"
        and not {name for name, _ in task.data.options}.intersection(OPTIONS)
        and not any(target_of(str(name)) for _, name in spec.arm.activations)
    )


class Trial:
    """State of one running trial, in one process and in full precision.

    With ``aside`` a copy of the network is evaluated on a thread of its own while the network trains on, for a machine
    with a core to spare. What is measured is the same, to the bit: a trial that turns out to be over goes back to the
    copy, and the steps that it took meanwhile are forgotten.
    """

    def __init__(
        self,
        spec: TrialSpec,
        data: DataSet,
        progress: Progress | None,
        device: torch.device | None = None,
        *,
        aside: bool = False,
    ) -> None:
        self.spec = spec
        self.budget = spec.task.budget
        self.device = device or torch.device(self.budget.device)
        self.data = data if self.device.type == "cpu" else data.to(self.device)
        self.progress = progress
        self.loss = data.objective.smoothed(spec.arm.label_smoothing)
        if self.budget.processes > 1 and data.class_weights:
            raise ArgumentError("class weights do not go with several processes, each of which sees a part of a batch")
        sample = functools.partial(calibration_sample, data, spec.seed)
        self.model = network_on(data, spec.task.model, spec.arm, spec.seed, sample)
        # Built and calibrated on the CPU: the same start on every device.
        self.saved_bytes = self.place(self.data.train_x[: self.budget.batch_size])
        if (self.device.type, self.budget.precision, self.budget.processes) == ("cpu", "fp32", 1):
            self.model = pooled_at_once(self.model)
        self.optimizer = build_optimizer(self.model, spec.arm)
        self.scheduler = build_scheduler(self.optimizer, spec.arm, self.budget.iterations)
        self.agile = {short(name): module for name, module in agile_modules(self.model).items()}
        self.turning = Turning(self.model, lambda weight: self.full(weight.detach()))
        self.measured = Measured(spec, self.agile, self.turning.layers)
        self.best_state: dict[str, Tensor] | None = None
        self.thread = ThreadPoolExecutor(1) if aside else None
        self.evaluated = copy.deepcopy(self.model) if aside else self.model
        self.pending: tuple[int, float, Callable[[], tuple[Evaluation, Evaluation | None]]] | None = None

    def run(self) -> TrialResult:
        """Train, measure, and return the result."""
        start = time.perf_counter()
        durations: list[float] = []
        with self.gathered():
            before = sampled(self.model) if self.budget.use_test else {}
        # What a network draws while it trains, such as dropout, must not depend on what ran here before.
        with torch.random.fork_rng(devices=[]), self.thread or contextlib.nullcontext():
            torch.manual_seed(models.subseed(self.spec.seed, self.stream()))
            self._train(durations)
            self._settle()
        with self.gathered():
            learned = shapes(self.model, before) if self.budget.use_test else {}
        test = self._selected_test()
        return self.measured.result(
            self.model,
            test,
            learned,
            step=statistics.median(durations) if durations else 0.0,
            seconds=time.perf_counter() - start,
            saved=self.saved_bytes,
        )

    def _train(self, durations: list[float]) -> None:
        """Take the budget's steps; ``durations`` receives the length of each."""
        budget = self.budget
        train_loss, _ = self._evaluate("train")
        self._measure(0, train_loss)
        stream = batches(len(self.data.train_y), budget.batch_size, self.spec.seed)
        total = torch.zeros((), device=self.device)
        since, reported = 0, time.perf_counter()
        for iteration in range(1, budget.iterations + 1):
            last = iteration == budget.iterations
            evaluated = last or iteration % budget.evaluate_every == 0
            if evaluated and self.turning.layers:
                self.turning.note()
            begin = time.perf_counter()
            x, y = drawn(self.data, next(stream))
            x = self.data.objective.augmented(x)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.backward(x, y)
            if self.spec.arm.clip_norm is not None:
                self.clip(self.spec.arm.clip_norm)
            if budget.probe_every and (iteration - 1) % budget.probe_every == 0:
                self._probed_step(iteration, float(self.whole(loss)), x, y)
            else:
                self.optimizer.step()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                durations.append(time.perf_counter() - begin)
            if self.scheduler is not None:
                self.scheduler.step()
            total += loss
            since += 1
            if evaluated:
                mean = float(self.whole(total)) / since
                self._measure(iteration, mean)
                total.zero_()
                since = 0
                if self.agreed(self.measured.ends):
                    return
            now = time.perf_counter()
            if self.progress and (last or now - reported > _SECONDS_BETWEEN_REPORTS):
                self.progress(iteration, float(loss))
                reported = now

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Form the gradients of a batch, and return this process's part of its loss."""
        loss = self.loss(self.model(x), y)
        loss.backward()
        return loss.detach()

    def clip(self, norm: float) -> None:
        """Shorten the gradient of all parameters together to this norm, if it is longer."""
        nn.utils.clip_grad_norm_(self.model.parameters(), norm)

    def place(self, x: Tensor) -> int:
        """Put the network where it trains, before the optimizer sees its parameters; return what a pass of x keeps."""
        return saved_bytes(self.model.to(self.device), x)

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which every process has the whole network, and can call any module of it."""
        return contextlib.nullcontext()

    def full(self, parameter: Tensor) -> Tensor:
        """Return a parameter of which this process may keep a part."""
        return parameter

    def whole(self, part: Tensor) -> Tensor:
        """Return the sum of a number over all processes of the trial."""
        return part

    def agreed(self, stop: bool) -> bool:
        """Return what all processes of the trial do."""
        return stop

    def stream(self) -> str:
        """Return the name of the random numbers that this process draws while it trains."""
        return "training"

    def _probed_step(self, iteration: int, before: float, x: Tensor, y: Tensor) -> None:
        moved = [p for module in self.agile.values() for p in (module.scale, module.location)]
        between, after = halved_step(self.optimizer, moved, lambda: self.loss(self.model(x), y))
        probe = self.measured.probe
        probe.iteration.append(iteration)
        probe.before.append(before)
        probe.after_weights.append(between)
        probe.after_activations.append(after)

    def _measure(self, iteration: int, train_loss: float) -> None:
        """Evaluate the network as it is now; what is found aside is noted before the next evaluation."""
        self._settle()
        if self.measured.ends:
            return
        if self.thread is None:
            found = self._evaluations()
            self.pending = iteration, train_loss, lambda: found
            self._settle()
        else:
            self.evaluated.load_state_dict(self.model.state_dict())
            self.pending = iteration, train_loss, self.thread.submit(self._evaluations).result
        for name, module in self.agile.items():
            self.measured.trace(name, self.full(module.scale.detach()), self.full(module.location.detach()))
        self.measured.turned(self.turning)

    def _settle(self) -> None:
        """Note the evaluation that is not noted yet, if there is one; a trial that it ends goes back to it."""
        if self.pending is None:
            return
        iteration, train_loss, found = self.pending
        self.pending = None
        self.measured.note(iteration, train_loss, *found())
        if self.measured.to_be_kept:
            self.best_state = copy.deepcopy(self.evaluated.state_dict())
        if self.measured.ends and self.thread is not None:
            self.model.load_state_dict(self.evaluated.state_dict())

    def _evaluations(self) -> tuple[Evaluation, Evaluation | None]:
        """Return what the network that is evaluated does on validation data, and on test data if there is a curve."""
        with contextlib.nullcontext() if self.thread is None else one_thread():
            test = self._evaluate("test") if self.budget.test_curve else None
            return self._evaluate("validation"), test

    def _evaluate(self, part: str) -> Evaluation:
        x, y = getattr(self.data, f"{part}_x"), getattr(self.data, f"{part}_y")
        return evaluate(self.evaluated, x, y, objective=self.data.objective)

    def _selected_test(self) -> tuple[float | None, float | None]:
        if self.best_state is None:
            return self.measured.chosen_test()
        self.evaluated.load_state_dict(self.best_state)
        return self._evaluate("test")


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, *, kind: str = "classification", objective: Objective | None = None
) -> Evaluation:
    """Return the mean loss and the metric of ``model`` over all of ``x``, without gradients.

    Without an objective they are those of the kind of data: the accuracy, which a regression has not.

    Example:
        >>> evaluate(nn.Flatten(), torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))[1]
        0.5
    """
    told = objective or Objective(kind, metric="" if kind == "regression" else "accuracy")
    training = model.training
    model.eval()
    loss, divisor = 0.0, 0.0
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(y), _EVALUATION_BATCH):
            output = model(x[start : start + _EVALUATION_BATCH])
            total, count = told.total(output, y[start : start + _EVALUATION_BATCH])
            loss, divisor = loss + total, divisor + count
            if told.metric:
                outputs.append(output)
        found = loss / divisor, told.score(outputs, y)
    model.train(training)
    return found


def calibration_sample(data: DataSet, seed: int) -> Tensor:
    """Return training inputs from a stream of their own, so that no arm shifts the batches."""
    generator = torch.Generator().manual_seed(models.subseed(seed, "calibration"))
    return data.train_x[torch.randperm(len(data.train_x), generator=generator)[:_CALIBRATION_SAMPLES]]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return how many bytes a training pass over ``x`` keeps for its backward pass, parameters and ``x`` left out.

    Memory that several operations keep together counts once. The model, its buffers and the random stream are left
    as they are.

    Example:
        >>> saved_bytes(nn.Sequential(nn.Linear(3, 5), nn.Sigmoid()), torch.zeros(2, 3)) == 2 * 5 * 4
        True
    """
    twin = copy.deepcopy(model).train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*twin.parameters(), x)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = twin(x)
    del output
    return sum(kept.values())


def halved_step(optimizer: Steps, moved: list[nn.Parameter], loss: Callable[[], Tensor]) -> tuple[float, float]:
    """Take the optimizer's step; return the loss when all but ``moved`` had moved, and when these had moved as well.

    The optimizer moves everything at once; the moment between the halves is brought back.
    """
    old = [p.detach().clone() for p in moved]
    optimizer.step()
    with torch.no_grad():
        after = between = float(loss())
        if moved:
            new = [p.detach().clone() for p in moved]
            _assign(moved, old)
            between = float(loss())
            _assign(moved, new)
    return between, after


def _assign(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def lowest(values: list[float]) -> int | None:
    """Return the first index of the lowest finite value."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    return min(finite, key=values.__getitem__) if finite else None


def drawn(data: DataSet, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the training samples at some places: row by row, which takes a quarter of the time of indexing."""
    return data.train_x.index_select(0, chosen), data.train_y.index_select(0, chosen)


def batches(samples: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield indices of batches for ever: each pass is a new permutation, and no sample is left out.

    A batch that the end of one pass cannot fill takes the rest from the next pass.
    """
    generator = torch.Generator().manual_seed(models.subseed(seed, "batches"))
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(samples, generator=generator)])
        yield left[:size]
        left = left[size:]
