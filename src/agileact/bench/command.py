"""``agileact bench``: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_bench(commands: Any) -> None:
    """Add ``agileact bench op|step|pool|monitor|study``."""
    parser = commands.add_parser("bench", help="time the operator and whole training steps on this machine")
    kinds = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    texts = {
        "op": "the operator against the plain activation, the eager formula, torch.compile, PReLU and a rational",
        "step": "a training step of the paper's network and of a ResNet-18, and what they save for backward",
        "pool": "fused activation and pooling against the two steps",
        "monitor": "a training step of both networks with a monitor attached, against the step alone",
        "study": "trials of the paper's twelve arms, by the study's engine and by a straightforward PyTorch loop",
    }
    for name, text in texts.items():
        kind = kinds.add_parser(name, help=text, description=f"Time {text}: interleaved medians in one process.")
        kind.add_argument("--quick", action="store_true", help="fewer rounds, nothing under torch.compile")
        kind.add_argument("--json", action="store_true", help="print the result as JSON, with hardware and versions")
        kind.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON to a file")
        kind.set_defaults(run=_bench, benchmark=name)


def _bench(options: argparse.Namespace) -> None:
    from agileact._files import write_atomically
    from agileact.bench import monitor, op, pool, step, study

    def notify(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    runs: dict[str, Callable[..., dict[str, Any]]] = {
        "op": op.run,
        "step": step.run,
        "pool": pool.run,
        "monitor": monitor.run,
        "study": study.run,
    }
    result = runs[options.benchmark](quick=options.quick, notify=notify)
    text = json.dumps(result, indent=1)
    if options.out is not None:
        write_atomically(options.out, text + "\n")
    if options.json:
        print(text)
        return
    for key in (
        "speedup",
        "trials_per_minute",
        "plain_trials_per_minute",
        "greatest_difference",
        "summary",
        "saved_bytes",
        "environment",
    ):
        if key in result:
            print(f"{key}: {json.dumps(result[key], indent=1)}")
