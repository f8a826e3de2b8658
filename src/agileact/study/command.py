"""agileact study: plan, run, watch and export a study."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agileact._errors import ArgumentError, TrialError
from agileact._files import write_atomically
from agileact._json import print_json
from agileact._optional import expect
from agileact._values import difference
from agileact.study._place import add_place, add_training, as_asked, make_executor
from agileact.study.report import command as report_command

if TYPE_CHECKING:
    from agileact.study.data import DataSet
    from agileact.study.protocol import Plan, Study


def add_command(commands: Any, count: Callable[[str], int]) -> None:
    """Add ``agileact study`` and ``agileact compare``.

    Args:
        commands: The subparsers of the main command.
        count: Parses a whole number greater than 0.
    """
    parser = commands.add_parser(
        "study",
        help="compare activations fairly: arms x tasks x seeds from a YAML file",
        description="Compare activations under the fair protocol: every arm has the same tuning budget, final trials "
        "use fresh paired seeds, the iteration is chosen on validation data and the test set is evaluated once per "
        "trial. Every finished trial is stored at once in OUT/store.sqlite; the same command continues a study that "
        "was cut short.",
    )
    from agileact.study import rescue

    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, text in (
        ("plan", _plan, "print what would run and how long it would take, without running it"),
        ("run", _run, "run what is missing, then show the outcome"),
        ("status", _status, "print how far the study is, also while it runs"),
        ("show", _show, "print the outcome so far: tables and verdicts"),
        ("export", _export, "write one row for every finished trial, as CSV or Parquet"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument(
            "spec", type=Path, metavar="SPEC", help="the study's YAML file, or the folder of its results"
        )
        action.add_argument(
            "--out", type=Path, help="with a YAML file: folder for all results (default: runs/study/NAME)"
        )
        action.add_argument("--data-dir", type=Path, metavar="DIR", help="folder that the data's files lie in")
        add_training(action)
        if name in ("plan", "run"):
            action.add_argument("--jobs", type=count, metavar="N", help="trials side by side (default: one per core)")
        if name == "run":
            add_place(action)
        if name in ("run", "show"):
            action.add_argument(
                "--matters", type=difference, metavar="X", help="smallest difference in loss that matters"
            )
        if name == "show":
            action.add_argument("--baseline", metavar="ARM", help="compare with this arm instead of the first one")
        what = "rows as JSON to standard output, besides a file or alone" if name == "export" else None
        action.add_argument("--json", action="store_true", help=f"print {what or 'JSON to standard output, no table'}")
        if name == "export":
            kind = action.add_mutually_exclusive_group()
            kind.add_argument("--csv", type=Path, metavar="FILE", help="write CSV; - for standard output")
            kind.add_argument("--parquet", type=Path, metavar="FILE", help="write Parquet (needs pyarrow)")
        action.set_defaults(run=run, resumes=name == "run")
    rescue.add_action(actions)
    report_command.add_actions(actions, lambda options: _Context.read(options).identity)
    _add_compare(commands, count)


def _add_compare(commands: Any, count: Callable[[str], int]) -> None:
    from agileact.study.compare import duration

    parser = commands.add_parser(
        "compare",
        help="compare activations on your own model and data, within a time",
        description="Compare activations on your own model and data under the fair protocol. The model's activations "
        "are exchanged for each arm's, functional ones too; the first arm is the baseline. The cost is estimated "
        "first, and as many trials are planned as fit into the budget; the end is a verdict.",
    )

    def seconds(text: str) -> float:
        with contextlib.suppress(ValueError):
            return duration(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m or 1.5h")

    parser.add_argument("--model", required=True, metavar="PKG.MODULE:FUNCTION", help="returns the network")
    parser.add_argument("--data", required=True, metavar="PKG.MODULE:FUNCTION", help="returns pairs (inputs, targets)")
    parser.add_argument(
        "--arms", required=True, metavar="A,B", help="such as original,agile-relu,prelu; see agileact.study.arms"
    )
    parser.add_argument(
        "--budget", type=seconds, default=1800.0, metavar="TIME", help="such as 90s, 30m or 1.5h (default: 30m)"
    )
    parser.add_argument(
        "--iterations", type=count, default=1000, metavar="N", help="steps of a trial (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=count, default=100, metavar="N", help="samples a step (default: %(default)s)"
    )
    parser.add_argument(
        "--validation", type=count, default=500, metavar="N", help="samples to set aside (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder for all results (default: runs/compare)")
    parser.add_argument("--jobs", type=count, metavar="N", help="trials side by side (default: one per core)")
    add_place(parser)
    add_training(parser)
    parser.add_argument("--matters", type=difference, metavar="X", help="smallest difference in loss that matters")
    parser.add_argument("--json", action="store_true", help="print JSON to standard output, no table")
    parser.set_defaults(run=_compare, data_dir=None, resumes=True)


class _Context:
    """The study of a command, with its data loaded and its store's place known."""

    def __init__(self, study: Study, data: Mapping[str, DataSet], out: Path) -> None:
        self.study, self.data, self.out = study, data, out
        self.path = out / "store.sqlite"

    @classmethod
    def read(cls, options: argparse.Namespace, *, trains: bool = False) -> _Context:
        """Return the study of a YAML file, or of a folder of results; ``trains`` tells that its data is needed."""
        from agileact.study.conduct import identified, unidentified
        from agileact.study.report.source import stored
        from agileact.study.spec_file import read_study

        if not (options.spec.is_dir() or options.spec.suffix.lower() in (".sqlite", ".db")):
            study, data = identified(as_asked(read_study(options.spec), options), options.data_dir)
            return cls(study, data, options.out or Path("runs") / "study" / _folder(study.name))
        if options.out is not None:
            raise ArgumentError(f"--out is for a study's YAML file; {options.spec} is a folder of results already")
        source = stored(options.spec)
        recorded = as_asked(source.known()[0], options)
        if not trains:
            # Its trials are known by the data's fingerprints; the data itself may be elsewhere.
            return cls(recorded, {}, source.folder)
        study, data = identified(unidentified(recorded), options.data_dir)
        for task, old in zip(study.tasks, recorded.tasks, strict=True):
            if task != old:
                what = "data" if task.spec.data != old.spec.data else "model"
                raise ArgumentError(
                    f"the {what} of the task {task.name!r} is not what the results in {source.folder} were made with; "
                    "a study of another one goes into another folder, from its YAML file"
                )
        return cls(study, data, source.folder)

    @property
    def identity(self) -> tuple[Study, Path]:
        """The study, with the fingerprints of its data, and its store's file."""
        return self.study, self.path

    @contextlib.contextmanager
    def planned(self) -> Any:
        """Yield plan and lookup, from the store if there is one, without locking it."""
        from agileact.study.conduct import Known
        from agileact.study.protocol import plan
        from agileact.study.store import Store

        # An empty file is what a runner leaves that was killed before it had made its store.
        if not self.path.exists() or self.path.stat().st_size == 0:
            yield plan(self.study, lambda spec: None), lambda spec: None
            return
        with Store(self.path, read_only=True) as store:
            known = Known(store)
            yield plan(self.study, known), known


def _folder(name: str) -> str:
    """Return a study's name as that of one folder, whatever it holds."""
    safe = "".join("_" if character == "/" or ord(character) < 32 else character for character in name)
    return "_" if safe in (".", "..") else safe


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plan(options: argparse.Namespace) -> None:
    from agileact._table import print_table
    from agileact.study.cost import estimate
    from agileact.study.executors.local import available_cores
    from agileact.study.feasible import check_arms
    from agileact.study.progress import format_duration

    context = _Context.read(options, trains=True)
    study, jobs = context.study, options.jobs or available_cores()
    check_arms(study, context.data)
    with context.planned() as (current, _):
        cost = estimate(study, current, context.data, jobs)
    protocol = study.protocol
    tuning = protocol.trials * len(protocol.tuning_seeds) if protocol.tune else 0
    if options.json:
        document = {
            "study": study.name,
            "trials": study.most_trials,
            "done": current.done,
            "next": [spec.key for spec in current.next],
            "jobs": jobs,
            "seconds": cost.seconds,
            "least_seeds": study.least_seeds,
            "trial_seconds": [[*pair, seconds] for pair, seconds in cost.trial_seconds.items()],
        }
        print_json(document)
        return
    rows = [
        (task.name, arm.name, str(tuning), str(len(protocol.seeds)), f"{cost.trial_seconds[arm.name, task.name]:.1f}")
        for task in study.tasks
        for arm in study.arms
    ]
    print_table(study.name, ("task", "arm", "tuning trials", "final trials", "seconds a trial"), rows, keys=2)
    for task in study.tasks:
        print(f"{task.name}: {context.data[task.name].description}.")
    print(
        f"At most {study.most_trials} trials, {current.done} of them done; about {format_duration(cost.seconds)} on "
        f"{jobs} core(s). {len(current.next)} can run now."
    )
    if warning := study.warning():
        print(f"Note: {warning}.")


_STATISTICS = ("scipy", "statsmodels")
"""What the verdict at the end of a study needs."""


def _run(options: argparse.Namespace) -> None:
    expect("study", *_STATISTICS)
    _conduct(_Context.read(options, trains=True), options)


def _conduct(context: _Context, options: argparse.Namespace) -> None:
    from agileact.study.conduct import Known, conduct
    from agileact.study.feasible import check_arms
    from agileact.study.progress import display
    from agileact.study.protocol import plan
    from agileact.study.record import write_record
    from agileact.study.report.source import told, write_report
    from agileact.study.show import show
    from agileact.study.store import Store

    for task in context.study.tasks:
        _say(f"{task.name}: {context.data[task.name].description}.")
    if warning := context.study.warning():
        _say(f"Note: {warning}.")
    with (
        Store(context.path) as store,
        make_executor(options) as executor,
        contextlib.ExitStack() as shown,
    ):
        if not plan(context.study, Known(store)).finished:
            check_arms(context.study, context.data)
        described = {name: data.description for name, data in context.data.items()}
        write_record(context.out, context.study, command=options.command, data=described)

        def begin(current: Plan) -> Any:
            shown.close()
            if current.finished:
                return None
            counts = ((len(current.tuning), "tuning"), (len(current.final), "final"))
            phase = " and ".join(f"{number} {name}" for number, name in counts if number)
            _say(f"{current.done} of at most {context.study.most_trials} trials done; next: {phase}.")
            return shown.enter_context(display(current.next))

        try:
            current = conduct(context.study, store, executor, on_plan=begin)
        except TrialError as error:
            if error.details:
                write_atomically(context.out / "failed-trials.txt", error.details)
                _say(f"What the failed trials printed is in {context.out / 'failed-trials.txt'}.")
            raise
        show(context.study, current, Known(store), as_json=options.json, matters=options.matters)
    try:
        write_report(told(*context.identity), context.out / "report.html", matters=options.matters)
    except OSError as error:
        # Everything is stored and shown: a full disk does not undo that.
        _say(
            f"The report could not be written ({error.strerror or error}): agileact study report {context.out} -o FILE"
        )
    else:
        _say(f"Report: {context.out / 'report.html'}")


def _compare(options: argparse.Namespace) -> None:
    from agileact.study import compare, models
    from agileact.study.arms import arm
    from agileact.study.conduct import identified
    from agileact.study.cost import estimate
    from agileact.study.executors.local import available_cores
    from agileact.study.feasible import check_arms
    from agileact.study.progress import format_duration
    from agileact.study.protocol import plan

    expect("study", *_STATISTICS)
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    if len(set(names)) < 2:
        raise ArgumentError(f"--arms must name at least two different arms, not {options.arms!r}")
    study = compare.proposed(
        [arm(name) for name in dict.fromkeys(names)],
        options.model,
        options.data,
        fingerprint=models.model_fingerprint(options.model),
        iterations=options.iterations,
        batch_size=options.batch_size,
        validation=options.validation,
    )
    study, data = identified(as_asked(study, options), options.data_dir)
    context = _Context(study, data, options.out or Path("runs") / "compare")
    jobs = options.jobs or available_cores()
    check_arms(context.study, context.data)
    seconds = _remembered(
        context,
        lambda: estimate(context.study, plan(context.study, lambda spec: None), context.data, jobs).trial_seconds,
    )
    context.study = compare.fitted(context.study, seconds, options.budget, jobs)
    protocol = context.study.protocol
    points, runs = protocol.trials, len(protocol.tuning_seeds)
    whole = compare.START_SECONDS + sum(seconds.values()) * (points * runs + len(protocol.seeds)) / jobs
    _say(
        f"{len(names)} arms: each {points} points to tune, {runs} seeds a point, and {len(protocol.seeds)} fresh ones; "
        f"about {format_duration(whole)} on {jobs} core(s), within {format_duration(options.budget)}."
    )
    _conduct(context, options)


def _remembered(context: _Context, measure: Callable[[], dict[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """Return measured seconds; the same ones when the command is repeated, or it would plan other trials."""
    path = context.out / "cost.json"
    wanted = [[arm.name, task.name, repr(task.spec)] for task in context.study.tasks for arm in context.study.arms]
    if path.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.loads(path.read_text())
            if [row[:3] for row in known] == wanted:
                return {(row[0], row[1]): float(row[3]) for row in known}
    found = measure()
    rows = [[*row, found[row[0], row[1]]] for row in wanted]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")
    return found


def _status(options: argparse.Namespace) -> None:
    context = _Context.read(options)
    with context.planned() as (current, _):
        most = context.study.most_trials
        pairs = len(context.study.arms) * len(context.study.tasks)
        if options.json:
            document = {
                "study": context.study.name,
                "trials": most,
                "done": current.done,
                "tuned": len(current.choices),
                "pairs": pairs,
                "finished": current.finished,
            }
            print_json(document)
            return
        state = "finished" if current.finished else f"{len(current.next)} can run now"
        tuned = f"{len(current.choices)} of {pairs} pairs of arm and task are tuned; " * context.study.protocol.tune
        print(f"{context.study.name}: {current.done} of at most {most} trials done; {tuned}{state}.")
        for choice in current.choices.values():
            if choice.flags:
                print(f"{choice.task}, {choice.arm}: {'; '.join(choice.flags)}.")


def _show(options: argparse.Namespace) -> None:
    from agileact.study.show import show

    context = _Context.read(options)
    study = context.study if options.baseline is None else context.study.against(options.baseline)
    with context.planned() as (current, known):
        show(study, current, known, as_json=options.json, matters=options.matters)


def _export(options: argparse.Namespace) -> None:
    from agileact.study import outcome
    from agileact.study.export import to_csv, to_parquet

    if options.csv is None and options.parquet is None and not options.json:
        raise ArgumentError("nothing to export to: give --csv FILE, --parquet FILE or --json")
    if options.json and str(options.csv) == "-":
        raise ArgumentError("--csv - and --json would both print to standard output; give one of them a file")
    context = _Context.read(options)
    with context.planned() as (current, known):
        rows = outcome.trial_rows(context.study, current, known)
    if options.parquet is not None:
        write_atomically(options.parquet, to_parquet(rows))
    elif str(options.csv) == "-":
        sys.stdout.write(to_csv(rows))
        return
    elif options.csv is not None:
        write_atomically(options.csv, to_csv(rows))
    file = options.parquet or options.csv
    if file is not None:
        _say(f"{len(rows)} trials written to {file}.")
    if options.json:
        print_json({"study": context.study.name, "file": file, "trials": rows})
