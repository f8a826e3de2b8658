"""Find gauges that fulfil what a model demands, with as many scales folded as that allows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agileact.transforms.fold.gauge import GROUND, Gauges, Labels, Numbers
from agileact.transforms.fold.labels import Activation, Constraints, Product, Use, flat


@dataclass
class Solution:
    """The gauge of each label (0 where a signal is multiplied by a scale of 0), and what became of each site's scale.

    By name of the site: why its scale stays, if it does; the modules behind it into whose weights it could go, and
    those before it, each once. ``into`` returns those that have other weights because of it.
    """

    gauges: Numbers
    reasons: dict[str, str]
    forward: dict[str, tuple[str, ...]]
    backward: dict[str, tuple[str, ...]]
    into: Callable[[str], tuple[str, ...]]


def solve(constraints: Constraints, scales: Mapping[str, Numbers], frozen: Mapping[str, str] | None = None) -> Solution:
    """Return gauges that fulfil all constraints.

    What the model demands comes first; it can always be fulfilled, by gauges that are all 1. Then each site is tried in
    its order: its scale is folded unless that contradicts what stands already. A site that is frozen stays as it is,
    with gauges of 1 before and behind.
    """
    refused: dict[str, str] = {}
    while True:
        solver = _Solver(constraints, scales, refused, frozen or {})
        culprit = solver.run()
        if culprit is None:
            return solver.solution()
        # A scale that was folded before the rest of the model was known turned out to contradict it.
        refused[culprit] = solver.reasons.get(culprit) or "its factor meets others that differ"


class _Solver:
    def __init__(
        self,
        constraints: Constraints,
        scales: Mapping[str, Numbers],
        refused: Mapping[str, str],
        frozen: Mapping[str, str],
    ) -> None:
        self.constraints = constraints
        self.scales = scales
        self.frozen = frozen
        self.reasons = {**refused, **frozen}
        self.gauges = Gauges(constraints.count)
        # Which labels are tied together by the model, whatever their ratio, when the ground ties nothing.
        self.streams = Gauges(constraints.count)
        self.early: list[str] = []
        self.done: set[str] = set()
        self.backwards: set[str] = set()
        self.zero: list[Labels] = []
        self.site_of: Labels = np.full(constraints.count, -1, dtype=np.int64)
        self.sites = list(constraints.sites.values())

    def run(self) -> str | None:
        """Take all sites; return the name of one to refuse from the start if there is no way on."""
        for number, site in enumerate(self.sites):
            for use in site.uses:
                self.site_of[use.outputs] = number
        if not self._structure():
            raise AssertionError("what a model demands can be fulfilled by gauges of 1")
        for name in self.frozen:
            if not self._stay(self.constraints.sites[name]):
                raise AssertionError("what a model demands can be fulfilled by gauges of 1")
        alone = self.gauges.alone()
        for labels in self.constraints.nonzero:
            alone[labels] = False
        self.alone = alone
        for product in self.constraints.products:
            if not self._product(product):
                return self._culprit()
        for site in self.sites:
            if len(site.uses) > 1 and site.name not in self.done:
                self._take(site)
                if site.name not in self.reasons:
                    self.early.append(site.name)
                elif not self._stay(site):
                    return self._culprit()
        for site in self.sites:
            if site.name not in self.done:
                self._take(site)
        return None

    def _culprit(self) -> str:
        if not self.early:
            raise AssertionError("without any site folded, gauges of 1 fulfil what a model demands")
        return self.early[-1]

    def _structure(self) -> bool:
        for tie in self.constraints.ties:
            if not self.gauges.tie(tie.upper, tie.lower):
                return False
            real = (tie.upper != GROUND) & (tie.lower != GROUND)
            self.streams.tie(tie.upper[real], tie.lower[real])
        for mark in self.constraints.grounds:
            if not self.gauges.tie(mark.labels, GROUND):
                return False
        return all(self.gauges.positive(mark.labels) for mark in self.constraints.positives)

    def _product(self, product: Product) -> bool:
        """Tie the gauge of a product to that of one factor, with the other factor's gauge as the ratio."""
        for factor, other in ((product.second, product.first), (product.first, product.second)):
            gate = self._gate(factor)
            if gate is not None and not self.gauges.fixed(factor)[0].all():
                self.done.add(gate.name)
                before = self.gauges.snapshot()
                if gate.name not in self.reasons:
                    if self._folds(gate) and self._carry(product.output, other, factor):
                        self.early.append(gate.name)
                        return True
                    self.gauges.restore(before)
                    self.reasons[gate.name] = self._reason(gate)
                return self._stay(gate) and self._carry(product.output, other, factor)
        for factor, other in ((product.second, product.first), (product.first, product.second)):
            if self.gauges.fixed(factor)[0].all():
                return self._carry(product.output, other, factor)
        # Neither is known: that which no agile activation makes keeps its gauge.
        agile = bool((self.site_of[product.second] >= 0).any()) and not (self.site_of[product.first] >= 0).any()
        factor, other = (product.first, product.second) if agile else (product.second, product.first)
        return self.gauges.tie(factor, GROUND) and self._carry(product.output, other, factor)

    def _gate(self, labels: Labels) -> Activation | None:
        """Return the activation that makes all of a signal, if its gauge would be its scale and nothing else."""
        sites = np.unique(self.site_of[labels])
        if sites.size != 1 or sites[0] < 0:
            return None
        site = self.sites[sites[0]]
        apt = not site.homogeneous and len(site.uses) == 1 and not site.blocked and site.name not in self.done
        return site if apt else None

    def _carry(self, output: Labels, carried: Labels, factor: Labels) -> bool:
        return self.gauges.tie(output, carried, self.gauges.fixed(factor)[1])

    def _stay(self, site: Activation) -> bool:
        """Give an activation whose scale stays the same gauges before and behind in each of its calls: 1."""
        return all(self.gauges.tie(use.inputs, GROUND) and self.gauges.tie(use.outputs, GROUND) for use in site.uses)

    def _take(self, site: Activation) -> None:
        self.done.add(site.name)
        if site.name in self.reasons:
            return
        before = self.gauges.snapshot()
        zeros = len(self.zero)
        if self._folds(site):
            return
        del self.zero[zeros:]
        self.gauges.restore(before)
        if self._folds_before(site):
            self.backwards.add(site.name)
            return
        self.gauges.restore(before)
        self.reasons[site.name] = self._reason(site)

    def _folds(self, site: Activation) -> bool:
        """Require that the gauge behind an activation is its scale times that before it."""
        scale = self.scales[site.name]
        if site.blocked or not np.isfinite(scale).all():
            return False
        for use in site.uses:
            ratio = scale[use.index]
            zero = ratio == 0
            if not self.alone[use.outputs[zero]].all():
                return False
            self.zero.append(use.outputs[zero])
            upper, ratio = use.outputs[~zero], ratio[~zero]
            if not site.homogeneous or len(site.uses) > 1:
                if not (self.gauges.tie(use.inputs, GROUND) and self.gauges.tie(upper, GROUND, ratio)):
                    return False
            elif not self.gauges.tie(upper, use.inputs[~zero], ratio):
                return False
        return True

    def _folds_before(self, site: Activation) -> bool:
        """Require that the gauges before the calls of a homogeneous activation take its scale up, all alike."""
        scale = self.scales[site.name]
        if site.blocked or not site.homogeneous or not np.isfinite(scale).all() or not scale.all():
            return False
        return all(
            self.gauges.tie(use.outputs, GROUND) and self.gauges.tie(use.inputs, GROUND, 1 / scale[use.index])
            for use in site.uses
        )

    def _reason(self, site: Activation) -> str:
        """Say why a scale cannot be folded."""
        if site.blocked:
            return site.blocked
        scale = self.scales[site.name]
        if not np.isfinite(scale).all():
            return "its scale is not finite"
        behind = self._stream(use.outputs for use in site.uses)
        for mark in self.constraints.grounds:
            if behind[self.streams.find(mark.labels)[0]].any():
                return f"behind it: {mark.why}"
        if (scale < 0).any():
            for mark in self.constraints.positives:
                if behind[self.streams.find(mark.labels)[0]].any():
                    return f"its scale is negative in {int((scale < 0).sum())} of {scale.size}, and {mark.why}"
        if (scale == 0).any():
            return "its scale is 0 somewhere, and more than a linear map lies behind it"
        return "behind it, it meets other signals with other factors (a sum, or one number for several channels)"

    def _stream(self, labels: object) -> NDArray[np.bool_]:
        """Mark the roots of the streams that labels belong to; the ground is in none."""
        marked = np.zeros(self.constraints.count, dtype=np.bool_)
        for one in labels:  # type: ignore[attr-defined]
            marked[self.streams.find(one)[0]] = True
        marked[GROUND] = False
        return marked

    def solution(self) -> Solution:
        """Return the gauges, checked against every constraint, and what came of each site."""
        gauges = self.gauges.solved()
        for labels in self.zero:
            gauges[labels] = 0.0
        self._verify(gauges)
        for product in self.constraints.products:
            self.streams.tie(product.output, product.first)
            self.streams.tie(product.output, product.second)
        root = self.streams.find
        maps = self.constraints.maps
        inputs, outputs = [root(flat(one.inputs))[0] for one in maps], [root(flat(one.outputs))[0] for one in maps]
        fed = self._stream(use.outputs for site in self.sites for use in site.uses)

        def owners(touched: Iterable[object]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(one.owner for one, is_one in zip(maps, touched, strict=True) if is_one))

        def into(name: str) -> tuple[str, ...]:
            site = self.constraints.sites[name]
            moved = self._stream(self._moved(site, use, gauges, fed) for use in site.uses)
            return owners(
                (moved[above] & (gauges[flat(one.inputs)] != 1)).any()
                or (moved[below] & (gauges[flat(one.outputs)] != 1)).any()
                for one, above, below in zip(maps, inputs, outputs, strict=True)
            )

        forward, backward = {}, {}
        for site in self.sites:
            behind = self._stream(use.outputs for use in site.uses)
            before = self._stream(use.inputs for use in site.uses)
            forward[site.name] = owners(site.name not in self.backwards and behind[one].any() for one in inputs)
            backward[site.name] = owners(before[one].any() for one in outputs)
        reasons = {name: why for name, why in self.reasons.items() if name in self.constraints.sites}
        return Solution(gauges, reasons, forward, backward, into)

    def _moved(self, site: Activation, use: Use, gauges: Numbers, fed: NDArray[np.bool_]) -> Labels:
        """Return the labels at a site whose signals have another size because of its scale."""
        scaled = self.scales[site.name][use.index] != 1
        behind = scaled & (gauges[use.outputs] != 1) & (site.name not in self.backwards)
        # What lies before took all of it up, or its sign alone, or a part that no site before can have made.
        own = ~behind | (gauges[use.inputs] < 0) | ~fed[self.streams.find(use.inputs)[0]]
        before = scaled & site.homogeneous & (gauges[use.inputs] != 1) & own
        return np.concatenate([use.outputs[behind], use.inputs[before]])

    def _verify(self, gauges: Numbers) -> None:
        def require(upper: Numbers, lower: Numbers) -> None:
            if not np.all(np.abs(upper - lower) <= 1e-12 * np.abs(lower)):
                raise AssertionError("gauges that were found do not fulfil what the model demands")

        for tie in self.constraints.ties:
            require(gauges[tie.upper], gauges[tie.lower])
        for mark in self.constraints.grounds:
            require(gauges[mark.labels], np.ones(mark.labels.size))
        for mark in self.constraints.positives:
            if (gauges[mark.labels] < 0).any():
                raise AssertionError("a gauge that must be positive is negative")
        for product in self.constraints.products:
            require(gauges[product.output], gauges[product.first] * gauges[product.second])
        for site in self.sites:
            if site.name not in self.reasons:
                for use in site.uses:
                    require(gauges[use.outputs], self.scales[site.name][use.index] * gauges[use.inputs])


def residual_factor(use: Use, scale: Numbers, gauges: Numbers) -> Numbers:
    """Return by what an activation that is not folded has to multiply: a, in the gauges before and behind it."""
    factor: Numbers = scale[use.index] * gauges[use.inputs] / gauges[use.outputs]
    return factor
