"""The command lines of `agileact study` and `agileact compare`; what they do is imported when they run."""

import argparse
import contextlib
import importlib
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common.arguments import count, difference, parser_of, port
from agileact._common.deadline import LATEST, DeadlineError, deadline
from agileact._common.errors import ArgumentError

TRAINING = ("device", "precision", "processes", "sharded")
"""Fields of a budget that a command can set for all tasks."""

_TRIAL = (
    "what a trial is",
    "They identify a trial: give them to every command of the study. The default is the study's own.",
)
_OPTIONS: dict[str, dict[str, Any]] = {
    "out": {"type": Path, "help": "with a YAML file: folder for all results (default: runs/study/NAME)"},
    "data-dir": {"type": Path, "metavar": "DIR", "help": "folder with the data's files"},
    "device": {"metavar": "NAME", "help": "cpu or cuda, for all tasks"},
    "precision": {"metavar": "NAME", "help": "fp32, or bf16 or fp16 by Accelerate"},
    "processes": {"type": int, "metavar": "N", "help": "processes that train one network together"},
    # None where it is not given: then the study's own word holds.
    "sharded": {
        "action": "store_true",
        "default": None,
        "help": "each process keeps a part of the network (FSDP)",
    },
    "jobs": {"type": count, "metavar": "N", "help": "trials side by side (default: one per core)"},
    "on": {
        "default": "local",
        "metavar": "WHERE",
        "help": "local (worker processes, the default), ray (a cluster on this machine) or ray://HOST:PORT",
    },
    "gpus": {
        "type": float,
        "default": 0.0,
        "metavar": "SHARE",
        "help": "with Ray and --device cuda: GPUs that a trial asks for, such as 0.25",
    },
    "matters": {"type": difference, "metavar": "X", "help": "smallest difference in loss that matters"},
    "baseline": {"metavar": "ARM", "help": "compare with this arm instead of the first one"},
    "json": {"action": "store_true", "help": "print JSON to standard output, no table"},
}
SOURCE = ("out", "data-dir", *TRAINING)
"""What finds the results of a YAML file."""
PLACE = ("jobs", "on", "gpus")


def add(parser: argparse.ArgumentParser, *names: str, **helps: str) -> None:
    """Add the options of these names; ``helps`` are texts in place of the usual ones."""
    trial = parser.add_argument_group(*_TRIAL) if set(names) & set(TRAINING) else None
    for name in names:
        text = helps.get(name)
        place = trial if trial and name in TRAINING else parser
        place.add_argument(f"--{name}", **{**_OPTIONS[name], **({"help": text} if text else {})})


def add_command(commands: Any) -> None:
    """Add ``agileact study`` and ``agileact compare``."""
    from agileact.study.running import rescue

    parser = commands.add_parser(
        "study",
        help="compare activations fairly: arms x tasks x seeds from a YAML file",
        description="Compare activations under the fair protocol: every arm has the same tuning budget, final trials "
        "use fresh paired seeds, the iteration is chosen on validation data and the test set is evaluated once per "
        "trial. Every finished trial is stored at once in OUT/store.sqlite; the same command continues a study that "
        "was cut short.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    found = {}
    for name, own, text in (
        ("plan", ("jobs", "json"), "print what would run and how long it would take, without running it"),
        ("run", (*PLACE, "matters", "json"), "run what is missing, then show the outcome"),
        ("status", ("json",), "print how much of the study is done, also while it runs"),
        ("show", ("matters", "baseline", "json"), "print the outcome so far: tables and verdicts"),
        ("export", (), "write trials, curves or tuning as a tidy table, as CSV or Parquet"),
        ("report", ("matters",), "write the study as one HTML file that any browser opens: verdict, charts"),
        ("watch", ("matters",), "serve the report to this machine's browser; it follows the running study"),
    ):
        found[name] = action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        what = "the study's YAML file, the folder of its results, or its store"
        action.add_argument("spec", type=Path, metavar="SPEC", help=what)
        add(action, *SOURCE, *own)
        action.set_defaults(run=_later("actions", name), resumes=name == "run")
    add(found["export"], "json", json="print rows as JSON to standard output, besides a file or alone")
    kind = found["export"].add_mutually_exclusive_group()
    kind.add_argument("--csv", type=Path, metavar="FILE", help="write CSV; - for standard output")
    found["export"].add_argument(
        "--table",
        choices=("trials", "curves", "tuning", "sensitivity"),
        default="trials",
        help="what a row is: a trial, an evaluation of a trial, a tuning trial, a learning rate (default: %(default)s)",
    )
    kind.add_argument("--parquet", type=Path, metavar="FILE", help="write Parquet (needs pyarrow)")
    add(found["report"], "json", json="print study and file as JSON to standard output")
    found["report"].add_argument(
        "others", nargs="*", type=Path, metavar="OTHER", help="further studies, shown side by side with the first"
    )
    found["report"].add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the HTML file (default: report.html there)"
    )
    found["watch"].description = (
        "Serve the report on 127.0.0.1, to this machine alone. The page updates itself while the study runs; the study "
        "may start later. Ctrl-C ends the page; the study continues."
    )
    where = "port on 127.0.0.1, 0 for any free one (default: %(default)s)"
    found["watch"].add_argument("--port", type=port, default=8788, metavar="N", help=where)
    rescue.add_action(actions)
    _add_compare(commands)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare activations on your own model and data, within a time limit",
        description="Compare activations on your own model and data under the fair protocol. Each arm replaces the "
        "model's activations, functional ones too; the first arm is the baseline. The command estimates the cost and "
        "runs as many trials as fit into the budget. If trials take longer, it runs fewer of all arms alike. It ends "
        "with a verdict.",
    )
    seconds = parser_of("a time such as 90s, 30m or 1.5h")(duration)

    def weights(text: str) -> str | tuple[float, ...]:
        with contextlib.suppress(ValueError):
            return text if text == "balanced" else tuple(float(part) for part in text.split(","))
        raise argparse.ArgumentTypeError(f"{text!r} is neither balanced nor numbers such as 1,2,4")

    parser.add_argument("--model", required=True, metavar="PKG.MODULE:FUNCTION", help="returns the network")
    parser.add_argument("--data", required=True, metavar="PKG.MODULE:FUNCTION", help="returns pairs (inputs, targets)")
    parser.add_argument(
        "--arms", required=True, metavar="A,B", help="such as original,agile-relu,prelu,PKG.MODULE:ACTIVATION"
    )
    parser.add_argument(
        "--budget", type=seconds, default=1800.0, metavar="TIME", help="for all trials: 90s, 30m or 1.5h (default: 30m)"
    )
    for name, default, what in (("iterations", 1000, "steps of a trial"), ("batch-size", 100, "samples a step")):
        text = f"{what} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=count, default=default, metavar="N", help=text)
    parser.add_argument(
        "--validation", type=count, metavar="N", help="validation samples to set aside (default: 500, at most a fifth)"
    )
    parser.add_argument("--metric", metavar="NAME", help="beside the loss: accuracy, auc, ..., or PKG.MODULE:FUNCTION")
    parser.add_argument(
        "--better",
        choices=("higher", "lower"),
        default="",
        help="which values of the metric are good (default: by name)",
    )
    parser.add_argument("--loss", metavar="PKG.MODULE:FUNCTION", help="loss function of outputs and targets")
    parser.add_argument(
        "--class-weights", type=weights, metavar="W", help="balanced, or a number for each class: 1,2,4"
    )
    parser.add_argument("--augment", metavar="PKG.MODULE:FUNCTION", help="changes the inputs of a training batch")
    parser.add_argument(
        "--space",
        nargs="+",
        metavar="NAME=VALUES",
        help="values that tuning tries, for all arms: lr=1e-4..0.1 weight_decay=0,1e-6..1e-2 schedule=constant,cosine",
    )
    parser.add_argument(
        "--sampler", default="sobol", metavar="NAME", help="sampler of --space: sobol (default), optuna:TPESampler, ..."
    )
    add(parser, "out", *PLACE, *TRAINING, "matters", "json", out="folder for all results (default: runs/compare)")
    parser.set_defaults(run=_compare, data_dir=None, resumes=True)


_CORE_SECONDS = 15.0
"""What one core needs to begin, to run the fewest trials, and to say what they show."""


def _compare(options: argparse.Namespace) -> None:
    """Run the comparison; what comes before its trials, imports too, is interrupted when the budget is over."""
    try:
        with deadline(options.begun + LATEST * options.budget - time.monotonic()) as options.ready:
            _later("compare", "run")(options)
    except DeadlineError:
        # The share of a core that this process had until now: what it still needs takes as much longer.
        share = min(1.0, time.process_time() / (time.monotonic() - options.begun))
        enough = max(4 * options.budget, 10 * math.ceil(_CORE_SECONDS / share / 10))
        raise ArgumentError(
            f"the budget of {options.budget:g} s was over before the first trial could begin, on this machine as busy "
            f"as it is; take one of {enough:g} s or more"
        ) from None


def _later(module: str, name: str) -> Callable[[argparse.Namespace], None]:
    """Return a command that is imported when it runs: help, completion and refusals need no PyTorch."""
    return lambda options: getattr(importlib.import_module(f"agileact.study.commands.{module}"), name)(options)


def duration(text: str) -> float:
    """Return the seconds of a time such as "30m", "1h30m", "1.5h" or "90s"; a ValueError if it is none."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
    if not parts:
        raise ValueError(text)
    seconds = sum(float(part) * unit for part, unit in zip(parts.groups(), (3600.0, 60.0, 1.0), strict=True) if part)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds
