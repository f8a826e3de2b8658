"""Made-up results in the shape of a run, for tests of what is done with results. Never drawn for anyone."""

from __future__ import annotations

import itertools
import math
import zlib

import numpy as np

from agileact.study.spec.result import Curve, LayerTrace, Probe, TrialResult
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze

CONV = ("sigmoid", "agile-sigmoid", "relu", "agile-relu")
FC = ("relu", "agile-relu", "agile-sigmoid")


def run(seeds=3, *, iterations=4000, every=100, conv=CONV, fc=FC, mlp=("sigmoid", "agile-sigmoid"), **options):
    """Return results of every combination and of the fully connected networks, for each seed."""
    results = []
    for seed in range(seeds):
        for pair in itertools.product(conv, fc):
            results.append(result(seed, pair[0], pair[1], iterations, every, **options))
        for name in mlp:
            results.append(result(seed, None, name, iterations, every, **options))
    return results


def result(seed, conv, fc, iterations=4000, every=100, *, status="finished", test_curve=True, probe_every=20):
    """Return one trial: a loss that falls after a plateau, then rises a little; probes; traces."""
    random = np.random.default_rng((zlib.crc32(f"{conv} {fc}".encode()), seed))
    where = np.arange(0, iterations + 1, every)
    pace = {"sigmoid": 0.33, "agile-sigmoid": 0.22, "relu": 0.05, "agile-relu": 0.04}.get(conv or fc, 0.1)
    floor = 0.14 + 0.05 * (zlib.crc32(f"{fc}/{conv}".encode()) % 100) / 100
    fall = 1 / (1 + (where / (pace * iterations + 1)) ** 2.4)
    train = (2.3 - 0.03) * fall + 0.03 + 0.004 * random.standard_normal(where.size)
    rise = 0.06 * np.maximum(0, where / iterations - 3 * pace)
    test = (2.31 - floor) * fall + floor + rise + 0.006 * random.standard_normal(where.size)
    roles = {"fc": fc} if conv is None else {"conv": conv, "fc": fc}
    model = ModelSpec("mlp" if conv is None else "cnn")
    budget = Budget(iterations, 100, every, probe_every, test_curve)
    spec = TrialSpec(TaskSpec(DataSpec("made-up"), model, budget), ArmSpec(freeze(roles)), seed)
    agile = [f"conv{i}" for i in (1, 2, 3)] if (conv or "").startswith("agile-") else []
    agile += ["hidden1"] if fc.startswith("agile-") else []
    best = int(test.argmin())
    return TrialResult(
        spec=spec,
        status=status,
        curve=Curve(
            where.tolist(),
            train.tolist(),
            (test + 0.01).tolist(),
            [0.9] * where.size,
            test.tolist() if test_curve else [],
            [0.9] * where.size if test_curve else [],
        ),
        probe=_probe(random, iterations, probe_every, bool(agile)),
        layers={name: _trace(random, where.size, depth) for depth, name in enumerate(agile)},
        best_test_loss=float(test[best]) if test_curve else None,
        best_iteration=int(where[best]) if test_curve else None,
        selected_iteration=int(where[best]),
        selected_test_loss=float(test[best]),
        selected_test_accuracy=0.95,
        parameters=5000,
        seconds_per_iteration=0.004,
        seconds=20.0,
        versions={"python": "3"},
    )


def _probe(random, iterations, every, agile):
    if not every:
        return Probe()
    where = np.arange(1, iterations + 1, every)
    before = 2.3 * np.exp(-3.5 * where / iterations) * np.exp(0.2 * random.standard_normal(where.size)) + 0.02
    between = before * (1 - 0.02 * np.abs(1 + 0.8 * random.standard_normal(where.size)))
    after = between * (1 - 0.001 * (0.9 + 0.8 * random.standard_normal(where.size))) if agile else between
    return Probe(where.tolist(), before.tolist(), between.tolist(), after.tolist())


def _trace(random, size, depth):
    way = np.sqrt(np.linspace(0, 1, size)) * (1 + 0.4 * depth)
    wobble = 1 + 0.2 * random.standard_normal()
    return LayerTrace(
        scale_min=(1 - 0.35 * way * wobble).tolist(),
        scale_max=(1 + 0.9 * way * wobble).tolist(),
        location_min=(-0.8 * way * wobble).tolist(),
        location_max=(0.3 * way * math.copysign(wobble, 1)).tolist(),
    )
