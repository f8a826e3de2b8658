"""What `agileact study` does: plan, run, show, export, report and watch a study."""

import argparse
import sys

from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import expect
from agileact._common.terminal import print_json, print_table, say
from agileact.study.commands.context import STATISTICS, Context, carry_out, make_executor, visible
from agileact.study.commands.study import SOURCE
from agileact.study.report.document import write_report
from agileact.study.report.watch import Server
from agileact.study.results import printing
from agileact.study.results.export import TABLE_COLUMNS, TABLES, to_csv, to_parquet
from agileact.study.results.source import Source, stored, told
from agileact.study.running.cost import estimate
from agileact.study.running.executors.local import available_cores
from agileact.study.running.progress import format_duration
from agileact.study.statistics import detectable
from agileact.study.training.dry_run import check_arms


def plan(options: argparse.Namespace) -> None:
    """Print what would run, and how long it would take."""
    context = Context.read(options, trains=True)
    study, jobs = context.study, options.jobs or available_cores()
    check_arms(study, context.data)
    current = context.source.read().current
    cost = estimate(study, current, context.data, jobs)
    protocol = study.protocol
    final = protocol.replicates * len(protocol.seeds)
    tuning = study.pair_trials - final
    if options.json:
        document = {
            "study": study.name,
            "trials": study.most_trials,
            "done": current.done,
            "next": [spec.key for spec in current.next],
            "jobs": jobs,
            "seconds": cost.seconds,
            f"least_{protocol.unit}s": study.least_seeds,
            "spaces": {one: space for arms, space in study.searches for one in arms},
            "detectable_deviations": detectable(protocol.units, comparisons=max(1, study.comparisons)),
            "trial_seconds": [[*pair, seconds] for pair, seconds in cost.trial_seconds.items()],
        }
        print_json(document)
        return
    rows = [
        (task.name, arm.name, str(tuning), str(final), f"{cost.trial_seconds[arm.name, task.name]:.1f}")
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
    for arms, space in study.searches:
        print(f"Search space of {', '.join(arms)} ({protocol.trials} points, {protocol.sampler}): {space}.")
    if shown := visible(study):
        print(f"{shown}.")
    for note in context.notes():
        print(f"Note: {note}.")


def run(options: argparse.Namespace) -> None:
    """Run what is missing, then show the outcome."""
    expect("study", *STATISTICS)
    context = Context.read(options, trains=True)
    with make_executor(options) as executor:
        carry_out(context, options, executor)


def status(options: argparse.Namespace) -> None:
    """Print how far the study is."""
    outcome = Context.read(options).source.read()
    study, current = outcome.study, outcome.current
    most, pairs = study.most_trials, len(current.parts)
    if options.json:
        counts = {"trials": most, "done": current.done, "tuned": len(current.choices), "pairs": pairs}
        print_json({"study": study.name, **counts, "finished": current.finished})
        return
    state = "finished" if current.finished else f"{len(current.next)} can run now"
    tuned = f"{len(current.choices)} of {pairs} pairs of arm and task are tuned; " * study.protocol.tune
    tuned = tuned.replace("arm and task", "arm and task, in each replicate,") if outcome.unit == "replicate" else tuned
    print(f"{study.name}: {current.done} of at most {most} trials done; {tuned}{state}.")
    for choice in current.choices.values():
        if choice.flags:
            where = f", replicate {choice.replicate}" * (outcome.unit == "replicate")
            print(f"{choice.task}, {choice.arm}{where}: {'; '.join(choice.flags)}.")


def show(options: argparse.Namespace) -> None:
    """Print the outcome so far."""
    source = Context.read(options).source
    printing.show(source.read(matters=options.matters, baseline=options.baseline), as_json=options.json)


def export(options: argparse.Namespace) -> None:
    """Write a tidy table."""
    if options.csv is None and options.parquet is None and not options.json:
        raise ArgumentError("nothing to export to: give --csv FILE, --parquet FILE or --json")
    if options.json and str(options.csv) == "-":
        raise ArgumentError("--csv - and --json would both print to standard output; give one of them a file")
    outcome = Context.read(options).source.read()
    rows, columns = TABLES[options.table](outcome), TABLE_COLUMNS[options.table]
    if options.parquet is not None:
        write_atomically(options.parquet, to_parquet(rows, columns))
    elif str(options.csv) == "-":
        sys.stdout.write(to_csv(rows, columns))
        return
    elif options.csv is not None:
        write_atomically(options.csv, to_csv(rows, columns))
    file = options.parquet or options.csv
    if file is not None:
        noun = {"trials": "trials", "tuning": "tuning trials"}.get(options.table, f"rows of {options.table}")
        say(f"{len(rows)} {noun} written to {file}.")
    if options.json:
        print_json({"study": outcome.study.name, "file": file, options.table: rows})


def _source(options: argparse.Namespace) -> Source:
    """Return where a report is read, of a folder that need not be there yet, or of a YAML file."""
    if options.spec.suffix.lower() in (".yaml", ".yml"):
        context = Context.read(options)
        return told(context.study, context.path)
    for name in SOURCE:
        if getattr(options, name.replace("-", "_")) is not None:
            raise ArgumentError(f"--{name} is for a study's YAML file; {options.spec} is a store's place")
    return stored(options.spec, copies=True)


def report(options: argparse.Namespace) -> None:
    """Write the report."""
    source = _source(options)
    path = options.output or source.folder / "report.html"
    outcome = source.read(matters=options.matters)
    others = [_source(argparse.Namespace(**{**vars(options), "spec": other})) for other in options.others]
    try:
        write_report(outcome, path, *(other.read(matters=options.matters) for other in others))
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}; name another file with -o") from None
    say(f"Report: {path}")
    if options.json:
        print_json({"study": outcome.study.name, "file": path})


def watch(options: argparse.Namespace) -> None:
    """Serve the report."""
    source = _source(options)
    with Server(source, options.port, matters=options.matters) as server:
        print(f"Watching {source.folder}: {server.url} (Ctrl-C ends this; the study continues)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("Stopped watching.")
