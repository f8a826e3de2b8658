"""The monitor: it copies scales and locations at every step, and works statistics out when there is time."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact._common.optional import require
from agileact.monitor.activity import Activity, Turning
from agileact.monitor.alerts import Alerts
from agileact.monitor.plot import draw
from agileact.monitor.records import (
    ACTIVITY,
    DIRECTION,
    RANGE,
    SIGNS,
    ParameterBuffer,
    Record,
    Rows,
    parameter_statistics,
)
from agileact.monitor.units import agile_layers


class Monitor:
    r"""Watch the agile activations of a model over training, at less than a hundredth of the step's time.

    For each layer: the range and the distribution of scale and location, as in Fig. 14 of "Performance Improvement
    Method of Convolutional Neural Network Using Agile Activation Function" (doi 10.3745/KTSDE.2020.9.7.213), for any
    model; the share of units whose scale is negative or has another sign than at the start; and of units that are

    - *dead*: :math:`f'(x - b)` was (nearly) 0 at every value sampled in the last ``window`` measurements,
    - *saturated*, if f is bounded: the mean of :math:`|f'(x - b)|` is below the share ``saturation`` of its maximum.

    A unit is what one pair (a, b) belongs to: a filter or a node, by default.

    A step copies the parameters into memory that is there already; statistics are worked out for many steps at once,
    when the memory is full or you read them. Every ``activations_every`` steps, a hook looks at a sample of
    what arrives at each module in the forward passes that record gradients. A graph compiled by ``torch.compile`` does
    not contain the hook: under it everything works but dead and saturated units, which are seen only in what
    runs uncompiled. Of parameters that FSDP2 has sharded, each process records its own part.

    Of layers whose weights :func:`agileact.standardize` has standardised, ``directions_every`` adds the length of the
    rows and the angle, in radians, that a step turns them by. Make the monitor after
    :func:`~agileact.standardize_weights`, or lengths are those before the projection. A learning rate whose angles are
    near 1 forgets a direction in one step.

    Warnings (:class:`MonitorWarning`) tell of parameters and inputs that are not finite, of exploding scales and of
    dead layers, each once a layer, with what helps. They come when the statistics do, at most 128 recorded steps late.

    Args:
        model: The model; it may be compiled or wrapped, and its agile modules may still be lazy.
        optimizer: Attach to this optimizer: each of its steps is then a step of the monitor. Without it, call
            :meth:`step` after each.
        every: Record every so many steps.
        activations_every: Measure dead and saturated units every so many steps; None for never.
        directions_every: Measure standardised rows every so many steps, by a copy of them one step before; None for
            never.
        samples: How many values of each unit a measurement looks at, at most, in each forward pass.
        window: See above.
        saturation: See above.
        max_records: How many steps are kept. When there are more, every second one is forgotten, and from then on half
            as many are recorded; so memory is bounded, and the whole training is always covered evenly.
        alerts: Whether to warn.
        explosion: Warn of a scale that is larger than this many times the largest of its layer at the start (or 1).
        dead_share: Warn of a layer if at least this share of its units is dead.

    Raises:
        ArgumentError: If the model has no agile modules, or a number is out of range.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), ag.AgileSigmoid(3), torch.nn.Linear(3, 2))
        >>> optimizer = torch.optim.SGD(ag.param_groups(model, lr=0.1))
        >>> with ag.Monitor(model, optimizer=optimizer) as monitor:
        ...     for _ in range(5):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(8, 4)).sum().backward()
        ...         optimizer.step()
        >>> [record.step for record in monitor.records if record[1:4] == ("1", "scale", "median")]
        [0, 1, 2, 3, 4, 5]
        >>> monitor.records[0]
        Record(step=0, layer='1', parameter='scale', statistic='min', value=1.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Optimizer | None = None,
        every: int = 1,
        activations_every: int | None = 100,
        directions_every: int | None = None,
        samples: int = 512,
        window: int = 5,
        saturation: float = 0.1,
        max_records: int = 1000,
        alerts: bool = True,
        explosion: float = 100.0,
        dead_share: float = 0.9,
    ) -> None:
        checks.model(model)
        if optimizer is not None:
            checks.optimizer(optimizer)
        for name, count, least in (
            ("every", every, 1),
            ("activations_every", 1 if activations_every is None else activations_every, 1),
            ("directions_every", 1 if directions_every is None else directions_every, 1),
            ("samples", samples, 1),
            ("window", window, 1),
            ("max_records", max_records, 2),
        ):
            checks.integer(name, count, least)
        for name, number, highest in (
            ("saturation", saturation, 1.0),
            ("explosion", explosion, math.inf),
            ("dead_share", dead_share, 1.0),
        ):
            if not 0 < checks.number(name, number) <= highest:
                raise ArgumentError(f"{name} must be greater than 0 and at most {highest:g}, not {number}")
        found = agile_layers(model)
        if not found:
            raise ArgumentError("model has no agile modules to watch; agileact.convert(model, ...) makes its own agile")
        self._names = list(found)
        self._modules = list(found.values())
        self._every = every
        self._activations_every = activations_every
        self._window = window
        self._explosion = explosion
        self._dead_share = dead_share
        self._alerts = Alerts(alerts)
        self._activities = [Activity(module, samples, saturation) for module in self._modules]
        self._measuring = False
        self._directions_every = directions_every
        self._turning = Turning(model)
        if directions_every is not None and not self._turning.layers:
            raise ArgumentError(
                "directions_every is for standardised layers, and the model has none; agileact.standardize makes them, "
                "before the monitor"
            )
        parameters = [*(("scale", one) for one in RANGE + SIGNS), *(("location", one) for one in RANGE)]
        self._tables = {
            name: Rows(max_records, stride or 1, [(layer, *column) for layer in layers for column in columns])
            for name, stride, layers, columns in (
                ("parameters", every, self._names, parameters),
                ("activity", activations_every, self._names, [("activation", one) for one in ACTIVITY]),
                ("directions", directions_every, self._turning.layers, [("direction", one) for one in DIRECTION]),
            )
        }
        self._count = 0
        self._buffer: ParameterBuffer | None = None
        self._start_scales: list[Tensor] | None = None
        self._written = -1
        self._newest: set[tuple[int, str, str, str]] = set()
        self._open = True
        self._handle: RemovableHandle | None = None
        if not any(module.has_uninitialized_params() for module in self._modules):
            self._record()
        self._measure_next()
        if optimizer is not None:
            self._handle = optimizer.register_step_post_hook(lambda *_: self.step())

    # -- during training -----------------------------------------------------------------------------

    def step(self) -> None:
        """Say that the optimizer has taken a step; not needed for an optimizer that was given.

        Raises:
            ArgumentError: If the monitor is closed, or a module still has no parameters after a step.
        """
        if not self._open:
            raise ArgumentError(
                "this monitor is closed; to go on, make another one and load the state_dict() of this one"
            )
        if self._measuring:
            self._finish_measurement()
        self._count += 1
        if self._count % self._every == 0:
            self._record()
        if self._directions_every is not None and self._count % self._directions_every == 0:
            turned = self._turning.measure()
            if turned is not None:
                self._tables["directions"].add(self._count, turned)
        self._measure_next()

    def close(self) -> None:
        """Take all hooks off the model and the optimizer; what was recorded stays."""
        if not self._open:
            return
        self._open = False
        if self._handle is not None:
            self._handle.remove()
        for activity in self._activities:
            activity.stop()
        self._flush()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _measure_next(self) -> None:
        if self._directions_every is not None and (self._count + 1) % self._directions_every == 0:
            self._turning.note()
        if self._activations_every is not None and self._count % self._activations_every == 0:
            self._measuring = True
            for activity in self._activities:
                activity.watch()

    def _finish_measurement(self) -> None:
        self._measuring = False
        results = [activity.result(self._window) for activity in self._activities]
        row = [value for result in results for value in ((math.nan, math.nan) if result is None else result[:2])]
        self._tables["activity"].add(self._count, torch.tensor(row, dtype=torch.float64))
        # At the end, because a warning may be made an error.
        for name, activity, result in zip(self._names, self._activities, results, strict=True):
            if result is None:
                continue
            dead, _, finite = result
            if not finite:
                self._alerts.warn("input not finite", name, step=self._count)
            elif dead >= self._dead_share and activity.measured >= self._window:
                self._alerts.warn("dead", name, step=self._count, percent=100 * dead, base=activity.module.base)

    def _record(self) -> None:
        if self._buffer is None or not self._buffer.copy(self._count):
            self._flush()
            lazy = [n for n, m in zip(self._names, self._modules, strict=True) if m.has_uninitialized_params()]
            if lazy:
                raise ArgumentError(
                    f"layer {lazy[0]!r} has no parameters yet; run one batch through the model before the first step"
                )
            self._buffer = ParameterBuffer(self._modules)
            self._buffer.copy(self._count)
        if self._buffer.full:
            self._flush()

    # -- statistics ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Turn what is in the buffer into rows of statistics, and warn of what is wrong in it."""
        if self._buffer is None or not self._buffer.steps:
            return
        steps, parts = self._buffer.drain()
        scales, locations = parts[::2], parts[1::2]
        if self._start_scales is None:
            self._start_scales = [scale[0].clone() for scale in scales]
        # Only what will be kept; the newest is, until another one comes.
        rows = self._tables["parameters"]
        kept = [index for index, step in enumerate(steps) if rows.wants(step) or index == len(steps) - 1]
        columns = []
        for scale, location, start in zip(scales, locations, self._start_scales, strict=True):
            scale, location = scale[kept], location[kept]
            columns += [
                parameter_statistics(scale),
                (scale < 0).to(scale.dtype).mean(dim=1, keepdim=True),
                (scale * start.sign() < 0).to(scale.dtype).mean(dim=1, keepdim=True),
                parameter_statistics(location),
            ]
        for index, row in zip(kept, torch.cat(columns, dim=1).double().unbind(), strict=True):
            rows.add(steps[index], row)
        self._warn(steps, scales, locations)

    def _warn(self, steps: list[int], scales: list[Tensor], locations: list[Tensor]) -> None:
        assert self._start_scales is not None
        for name, scale, location, start in zip(self._names, scales, locations, self._start_scales, strict=True):
            if scale.shape[1] == 0:
                continue
            size = scale.abs().amax(dim=1)
            for parameter, sizes in (("scale", size), ("location", location.abs().amax(dim=1))):
                finite = sizes.isfinite()
                if not finite.all():
                    first = int(finite.logical_not().nonzero()[0])
                    self._alerts.warn("not finite", name, step=steps[first], parameter=parameter)
                    break
            before = float(start.abs().max())
            large = size > self._explosion * max(1.0, before)
            if large.any():
                first = int(large.nonzero()[0])
                self._alerts.warn("exploding", name, step=steps[first], largest=float(size[first]), start=before)

    # -- what was seen -------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the modules that are watched; one that is used twice is there once."""
        return tuple(self._names)

    @property
    def records(self) -> list[Record]:
        """All statistics, sorted by step, and within a step by layer."""
        self._flush()
        order = {name: index for index, name in enumerate((*self._turning.layers, *self._names))}
        found = [record for table in self._tables.values() for record in table.records()]
        # What could not be measured of an activation is NaN; that of a parameter says something.
        measured = [record for record in found if record.parameter != "activation" or not math.isnan(record.value)]
        return sorted(measured, key=lambda record: (record.step, order[record.layer]))

    def to_dataframe(self) -> Any:
        """Return the records as a tidy :class:`pandas.DataFrame`: step, layer, parameter, statistic, value.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        return require("pandas", "monitor").DataFrame(self.records, columns=list(Record._fields))

    def to_tensorboard(self, writer: Any, prefix: str = "agileact") -> int:
        """Write what was not written before to a TensorBoard writer, as scalars ``prefix/layer/parameter/statistic``.

        Args:
            writer: A :class:`torch.utils.tensorboard.SummaryWriter`, or anything with its ``add_scalar``.
            prefix: What all names begin with.

        Returns:
            How many numbers were written.

        Raises:
            ArgumentTypeError: If ``writer`` has no ``add_scalar``.
        """
        if not callable(getattr(writer, "add_scalar", None)):
            raise ArgumentTypeError(
                f"writer must have an add_scalar(tag, value, step), as TensorBoard's SummaryWriter; "
                f"{type(writer).__name__} has none"
            )
        later = [record for record in self.records if record.step > self._written]
        new = [record for record in later if record[:4] not in self._newest]
        for record in new:
            tag = f"{prefix}/{record.layer}/{record.parameter}/{record.statistic}"
            writer.add_scalar(tag, record.value, record.step)
        # What is measured in the forward pass after a step is known one step later.
        self._written = max([self._written, *(record.step for record in later if record.step < self._count)])
        self._newest = {record[:4] for record in later if record.step > self._written}
        return len(new)

    def plot(self, layers: list[str] | None = None) -> Any:
        """Draw scale and location by layer over the steps, as Fig. 14 of the paper, and dead and flipped units.

        Line: the median over the layer's units; bands: half of them, and all. Dotted: the start, a = 1 and b = 0.
        If rows of weights were measured, a last picture has the angles by which steps turned them, and their lengths.

        Args:
            layers: Which layers; all unless given.

        Returns:
            A :class:`matplotlib.figure.Figure`; ``figure.savefig("monitor.png")`` writes it.

        Raises:
            ArgumentError: If a layer is unknown, or nothing was recorded.
            MissingExtraError: If matplotlib is not installed.
        """
        chosen = list(self._names) if layers is None else list(layers)
        for name in chosen:
            if name not in self._names:
                raise ArgumentError(f"layers has {name!r}; there are: {', '.join(map(repr, self._names))}")
        records = self.records
        if not chosen or not records:
            raise ArgumentError("there is nothing to draw yet: no layers, or no step was recorded")
        return draw(records, chosen, list(self._turning.layers) if self._tables["directions"].steps else [])

    # -- to go on later ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs to go on: tensors, numbers and strings, to be saved by torch.save."""
        self._flush()
        return {
            "layers": list(self._names),
            "step": self._count,
            "written": self._written,
            "newest": sorted(map(list, self._newest)),
            "given": sorted(list(one) for one in self._alerts.given),
            "start_scales": self._start_scales,
            **{name: table.state() for name, table in self._tables.items()},
            "idle": [activity.idle for activity in self._activities],
            "measured": [activity.measured for activity in self._activities],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`, in place of what this monitor has recorded itself.

        Raises:
            ArgumentError: If the state is of a model with other layers.
        """
        if state.get("layers") != self._names:
            raise ArgumentError(f"state has the layers {state.get('layers')}, the model has {self._names}")
        if self._buffer is not None:
            self._buffer.steps = []
        old = () if state.get("directions", {}).get("steps") else ("directions",)  # of an earlier version
        self._tables = {n: t if n in old else t.loaded(state[n]) for n, t in self._tables.items()}
        self._count, self._written = int(state["step"]), int(state["written"])
        self._newest = set(map(tuple, state.get("newest", ())))
        self._alerts.given = {(cause, layer) for cause, layer in state["given"]}
        self._start_scales = None if state["start_scales"] is None else [one.clone() for one in state["start_scales"]]
        for activity, idle, measured in zip(self._activities, state["idle"], state["measured"], strict=True):
            activity.stop()
            activity.idle = None if idle is None else idle.clone()
            activity.measured = int(measured)
        self._measuring = False
        self._measure_next()
