"""agileact study report and agileact study watch."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agileact._common.arguments import difference
from agileact._common.errors import ArgumentError
from agileact._common.terminal import print_json
from agileact.study.commands.placement import TRAINING, add_training

if TYPE_CHECKING:
    from agileact.study.report.source import Source
    from agileact.study.spec.protocol import Study

ReadSpec = Callable[[argparse.Namespace], "tuple[Study, Path]"]
"""Returns the study of the YAML file ``options.spec``, with the fingerprints of its data, and its store's file."""


def add_actions(actions: Any, read_spec: ReadSpec) -> None:
    """Add ``report`` and ``watch`` to the actions of ``agileact study``.

    Args:
        actions: The subparsers of ``agileact study``.
        read_spec: Reads a study's YAML file.
    """
    report = actions.add_parser(
        "report",
        help="write the study as one HTML file: verdict, table, charts",
        description="Write what is known of a study as one HTML file that opens in any browser and loads nothing.",
    )
    _add_source(report)
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="the HTML file (default: report.html there)")
    report.add_argument("--json", action="store_true", help="print study and file as JSON to standard output")
    report.set_defaults(run=lambda options: _report(options, read_spec))
    watch = actions.add_parser(
        "watch",
        help="serve the report to this machine's browser; it updates itself while the study runs",
        description="Serve the report on 127.0.0.1, to this machine alone. The page updates itself while the study "
        "runs; the study need not have begun. Ctrl-C ends it; the study goes on.",
    )
    _add_source(watch)
    watch.add_argument(
        "--port",
        type=_port,
        default=8788,
        metavar="N",
        help="port on 127.0.0.1, 0 for any free one (default: %(default)s)",
    )
    watch.set_defaults(run=lambda options: _watch(options, read_spec))


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spec",
        type=Path,
        metavar="STORE|SPEC",
        help="the folder of results, its store.sqlite, or the study's YAML file",
    )
    parser.add_argument("--out", type=Path, help="with a YAML file: folder of its results (default: runs/study/NAME)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="with a YAML file: folder of the data's files")
    add_training(parser)
    parser.add_argument("--matters", type=difference, metavar="X", help="smallest difference in loss that matters")


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        number = int(text)
        if 0 <= number <= 65535:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")


def _source(options: argparse.Namespace, read_spec: ReadSpec) -> Source:
    from agileact.study.report.source import is_spec, stored, told

    if is_spec(options.spec):
        return told(*read_spec(options))
    for name in ("out", "data_dir", *TRAINING):
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise ArgumentError(f"--{flag} is for a study's YAML file; {options.spec} is a store's place")
    return stored(options.spec)


def _report(options: argparse.Namespace, read_spec: ReadSpec) -> None:
    from agileact.study.report.source import write_report

    source = _source(options, read_spec)
    path = options.output or source.folder / "report.html"
    try:
        write_report(source, path, matters=options.matters)
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}; name another file with -o") from None
    print(f"Report: {path}", file=sys.stderr)
    if options.json:
        print_json({"study": source.known()[0].name, "file": path})


def _watch(options: argparse.Namespace, read_spec: ReadSpec) -> None:
    from agileact.study.report.watch import Server

    with Server(_source(options, read_spec), options.port, matters=options.matters) as server:
        print(f"Watching {server.news.folder}: {server.url} (Ctrl-C ends this; the study goes on)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("Stopped watching.", file=sys.stderr)
