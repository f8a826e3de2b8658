"""Numbers by which the signals of a folded model differ from those of the agile one, and what ties them together.

A signal of the agile model is its gauge times the signal of the folded model, channel by channel. What a model computes
ties gauges by ratios: that is a union-find whose edges carry a ratio. All its steps are on whole arrays.
"""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Numbers = NDArray[np.float64]

GROUND = 0
"""The label of all signals that are the same in both models."""

# How far a product of ratios around a loop may be from 1: some roundings of float64.
_CLOSED = 1e-14


Snapshot = tuple[Labels, Numbers, NDArray[np.int8]]


class Gauges:
    """The gauge of each label, known up to one factor for each set of labels that are tied together.

    Label 0 has gauge 1. No ratio may be larger than ``limit``, or smaller than its inverse.

    Example:
        >>> gauges = Gauges(4)
        >>> gauges.tie(np.array([2, 3]), np.array([1, 2]), np.array([2.0, 5.0])), gauges.tie(3, 1, 7.0)
        (True, False)
        >>> gauges.solved().tolist()
        [1.0, 1.0, 2.0, 10.0]
    """

    def __init__(self, count: int, limit: float = 1e8) -> None:
        self.limit = limit
        self._parent: Labels = np.arange(count, dtype=np.int64)
        # The gauge of a label is its weight times the gauge of its parent.
        self._weight: Numbers = np.ones(count)
        # The sign that the gauge of a root must have; 0 if it may have either.
        self._sign = np.zeros(count, dtype=np.int8)
        self._sign[GROUND] = 1

    def snapshot(self) -> Snapshot:
        """Return the state, to come back to it."""
        return self._parent.copy(), self._weight.copy(), self._sign.copy()

    def restore(self, snapshot: Snapshot) -> None:
        """Come back to a state."""
        self._parent, self._weight, self._sign = (one.copy() for one in snapshot)  # type: ignore[assignment]

    def find(self, labels: Labels) -> tuple[Labels, Numbers]:
        """Return the root of each label, and the label's gauge as a multiple of the root's."""
        root, weight = self._parent[labels], self._weight[labels]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            weight = weight * self._weight[root]
            root = above
        self._parent[labels], self._weight[labels] = root, weight
        return root, weight

    def tie(self, upper: Labels | int, lower: Labels | int, ratio: Numbers | float = 1.0) -> bool:
        """Require that the gauge of ``upper`` is ``ratio`` times that of ``lower``, element by element.

        False if that contradicts what was required before; the state is then of no use: restore a snapshot.
        """
        u, v, q = np.broadcast_arrays(np.atleast_1d(upper), np.atleast_1d(lower), np.asarray(ratio, np.float64))
        while u.size:
            root_u, weight_u = self.find(u)
            root_v, weight_v = self.find(v)
            between = q * weight_v / weight_u
            joined = root_u == root_v
            if not np.all(np.abs(between[joined] - 1) <= _CLOSED):
                return False
            u, v, q = u[~joined], v[~joined], q[~joined]
            if not self._join(root_u[~joined], root_v[~joined], between[~joined]):
                return False
        return True

    def _join(self, upper: Labels, lower: Labels, ratio: Numbers) -> bool:
        """Hang roots below other roots, each once: who comes twice is left for the next round."""
        size = np.abs(ratio)
        if not np.all((size <= self.limit) & (size >= 1 / self.limit)):
            return False
        # The larger below the smaller: no circles, and the ground is always a root.
        weight = np.where(upper > lower, ratio, 1 / ratio)
        child, first = np.unique(np.maximum(upper, lower), return_index=True)
        above, weight = np.minimum(upper, lower)[first], weight[first]
        self._parent[child], self._weight[child] = above, weight
        return self._require_sign(above, (self._sign[child] * np.sign(weight)).astype(np.int8))

    def positive(self, labels: Labels) -> bool:
        """Require that gauges are positive; returns as :meth:`tie` does."""
        return self._require_sign(np.atleast_1d(labels), np.ones(np.size(labels), np.int8))

    def _require_sign(self, labels: Labels, sign: NDArray[np.int8]) -> bool:
        labels, sign = labels[sign != 0], sign[sign != 0]
        root, weight = self.find(labels)
        wanted = sign * np.sign(weight).astype(np.int8)
        self._sign[root] = np.where(self._sign[root] == 0, wanted, self._sign[root])
        return bool(np.all(self._sign[root] == wanted))

    def fixed(self, labels: Labels) -> tuple[NDArray[np.bool_], Numbers]:
        """Return which labels are tied to the ground, and their gauges if they are."""
        root, weight = self.find(labels)
        return root == GROUND, weight

    def alone(self) -> NDArray[np.bool_]:
        """Return for each label whether it is tied to no other."""
        root, _ = self.find(np.arange(self._parent.size))
        members: NDArray[np.int64] = np.bincount(root, minlength=root.size)
        alone: NDArray[np.bool_] = members[root] == 1
        return alone

    def solved(self) -> Numbers:
        """Return a gauge for each label: a root that is free has 1, or -1 if it must be negative."""
        root, weight = self.find(np.arange(self._parent.size))
        gauge: Numbers = weight * np.where(self._sign[root] < 0, -1.0, 1.0)
        return gauge
