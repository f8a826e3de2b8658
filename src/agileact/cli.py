"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agileact._errors import AgileactError
from agileact._version import __version__

_PAPER = "doi 10.3745/KTSDE.2020.9.7.213"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0: done. 1: it could not be done, and one line says why. 2: the command was not understood.
    130: stopped by Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return 2
    options.command = shlex.join(["agileact", *arguments])
    try:
        options.run(options)
        sys.stdout.flush()
    except AgileactError as error:
        print(f"agileact: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # A second Ctrl-C must not cut short what is said, nor end in a traceback at the interpreter's exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(
            "agileact: stopped; finished trials are stored, and the same command continues with the rest",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left. Point stdout elsewhere, or the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a folder without permission: the system's words say what, and the path says where.
        where = f": {error.filename}" if error.filename else ""
        print(f"agileact: error: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("AGILEACT_DEBUG"):
            traceback.print_exc()
        print(
            f"agileact: internal error: {type(error).__name__}: {error} "
            "(set AGILEACT_DEBUG=1 to see where, and please report it)",
            file=sys.stderr,
        )
        return 70
    return 0


def _parser() -> argparse.ArgumentParser:
    from agileact import doctor
    from agileact.bench import command as bench_command
    from agileact.study import command as study_command

    parser = _Parser(
        prog="agileact",
        description="Agile activation functions a*f(x - b), with size a and position b learned by gradient descent.",
    )
    parser.add_argument("--version", action="version", version=f"agileact {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_paper(commands)
    _add_xor(commands)
    study_command.add_command(commands, _count)
    bench_command.add_bench(commands)
    doctor.add_command(commands)
    return parser


# -- agileact paper ------------------------------------------------------------------------------------


def _add_paper(commands: Any) -> None:
    parser = commands.add_parser(
        "paper",
        help="run the paper's experiment: twelve networks on MNIST digits, table and figures",
        description=f"Run the experiment of {_PAPER}, section 4, on real MNIST digits: train the network with each "
        "combination of convolutional and fully connected activations from shared initial weights, print our table "
        "beside the paper's, and draw its figures. Every finished trial is stored at once in OUT/store.sqlite; "
        "the same command continues a run that was cut short.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="presets:\n"
        "  smoke   every part once, 60 iterations, well under a minute\n"
        "  quick   all twelve combinations, one seed, 2,000 iterations, a few minutes on two cores\n"
        "  full    10 seeds, 10,000 iterations, hours\n\n"
        "activations: any base, or agile-BASE, with options behind colons: agile-leaky_relu:negative_slope=0.2",
    )
    parser.add_argument("--preset", default="quick", metavar="NAME", help="smoke, quick or full (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/paper"), help="folder for all results (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="mnist5k-split: 4,000 digits to train and 1,000 to test on, needs no download. mnist5k: 5,000 to train, "
        "tested on the official 10,000 (from --data-dir, the cache, or downloaded). Default: mnist5k if --data-dir "
        "is given, else mnist5k-split",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder that holds the official test digits")
    parser.add_argument("--seeds", type=_seeds, help="how many (5), or which (0,3,7 or 0-4)")
    parser.add_argument("--iterations", type=_count, help="training steps of each trial")
    parser.add_argument("--evaluate-every", type=_count, metavar="N", help="steps between evaluations")
    parser.add_argument("--batch-size", type=_count, metavar="N", help="digits a step (default: 100)")
    parser.add_argument("--validation", type=_count, metavar="N", help="training digits set aside (default: 500)")
    parser.add_argument("--optimizer", metavar="NAME", help="adam (default), adamw, nadam, rmsprop, sgd, momentum")
    parser.add_argument("--lr", type=_rate, help="learning rate of the weights (default: 0.001)")
    parser.add_argument(
        "--activation-lr",
        type=_rate,
        metavar="LR",
        help="learning rate of size and position (default: as --lr)",
    )
    parser.add_argument("--conv", type=_names, metavar="A,B", help="activations of the convolutional layers")
    parser.add_argument("--fc", type=_names, metavar="A,B", help="activations of the hidden layers")
    parser.add_argument(
        "--filters", type=_sizes, metavar="N,N", help="filters of each convolutional layer, or none (16,8,4)"
    )
    parser.add_argument("--nodes", type=_sizes, metavar="N,N", help="nodes of each hidden layer, or none (30)")
    parser.add_argument("--kernel", type=_count, metavar="N", help="size of the kernels, odd (3)")
    parser.add_argument("--pooling", type=_count, metavar="N", help="size of the max pooling, 1 for none (2)")
    parser.add_argument("--jobs", type=_count, metavar="N", help="trials side by side (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print results.json to standard output, no table")
    parser.set_defaults(run=_paper)


_RECIPE_OPTIONS = (
    "data",
    "seeds",
    "iterations",
    "evaluate_every",
    "batch_size",
    "validation",
    "optimizer",
    "lr",
    "activation_lr",
    "conv",
    "fc",
    "filters",
    "nodes",
    "kernel",
    "pooling",
)


def _paper(options: argparse.Namespace) -> None:
    from agileact.paper import recipe as paper_recipe
    from agileact.paper.run import run_paper

    if options.data is None and options.data_dir is not None:
        options.data = "mnist5k"
    changes = {name: getattr(options, name) for name in _RECIPE_OPTIONS if getattr(options, name) is not None}
    recipe = paper_recipe.preset(options.preset, **changes)
    outcome = run_paper(
        recipe,
        options.out,
        jobs=options.jobs,
        data_dir=options.data_dir,
        command=options.command,
        notify=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if options.json:
        print(json.dumps(outcome.document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    from agileact._table import print_table
    from agileact.paper.table import HEADER, cells

    title = f"{recipe.data}, {len(recipe.seeds)} seed(s), {recipe.iterations} iterations"
    print_table(title, HEADER, [cells(row) for row in outcome.rows], keys=3)
    print()
    for sentence in outcome.reading:
        print(sentence)
    print(f"\nData: {outcome.description}.")
    print(f"Table, results and {sum(f.suffix == '.png' for f in outcome.files)} figures are in {options.out}.")


# -- agileact xor --------------------------------------------------------------------------------------


def _add_xor(commands: Any) -> None:
    parser = commands.add_parser(
        "xor",
        help="train the 2-2-1 network on XOR, plain and agile, from many starts",
        description=f"Train the 2-2-1 network of {_PAPER}, Fig. 4, on XOR with a plain and with an agile activation "
        "from the same initial weights, many times; print how often each solves it and how long it takes; draw Fig. 4.",
    )
    parser.add_argument("--base", help="activation (default: sigmoid)")
    parser.add_argument("--starts", type=_count, metavar="N", help="initial weights to try (default: 200)")
    parser.add_argument("--epochs", type=_count, metavar="N", help="steps of full-batch training")
    parser.add_argument("--optimizer", metavar="NAME", help="how the networks are trained")
    parser.add_argument("--lr", type=_rate, help="learning rate of the weights")
    parser.add_argument("--activation-lr", type=_rate, metavar="LR", help="learning rate of size and position")
    parser.add_argument("--seed", type=_seed, help="source of the initial weights (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/xor"),
        help="folder for results and figure (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=_xor)


def _xor(options: argparse.Namespace) -> None:
    from agileact._files import write_atomically
    from agileact.paper.figures import draw_xor
    from agileact.paper.xor import XorSpec, run_xor

    names = ("base", "starts", "epochs", "optimizer", "lr", "activation_lr", "seed")
    spec = XorSpec(**{name: getattr(options, name) for name in names if getattr(options, name) is not None})
    outcome = run_xor(spec)
    text = json.dumps(outcome.to_dict(), indent=1, allow_nan=False)
    write_atomically(options.out / "xor.json", text + "\n")
    files = draw_xor(outcome, options.out, notify=lambda line: print(line, file=sys.stderr))
    if options.json:
        print(text)
        return
    print(outcome.to_markdown())
    print("\nWritten: " + ", ".join(str(path) for path in [options.out / "xor.json", *files]))


# -- values --------------------------------------------------------------------------------------------


def _value(what: str) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Turn a parsing function's ValueError into argparse's error that says what would be right."""

    def decorate(parse: Callable[[str], Any]) -> Callable[[str], Any]:
        def parsed(text: str) -> Any:
            with contextlib.suppress(ValueError):
                return parse(text)
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

        return parsed

    return decorate


@_value("a whole number greater than 0")
def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


@_value("a whole number, 0 or greater")
def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


@_value("a learning rate greater than 0")
def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


@_value("a list of whole numbers greater than 0, such as 16,8,4, or none")
def _sizes(text: str) -> tuple[int, ...]:
    sizes = () if text == "none" else tuple(int(part) for part in text.split(","))
    if any(size < 1 for size in sizes):
        raise ValueError
    return sizes


@_value("a list of names, such as relu,agile-relu")
def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError
    return tuple(dict.fromkeys(names))


@_value("a number of seeds (5), a list (0,3,7) or a range (0-4)")
def _seeds(text: str) -> tuple[int, ...]:
    first, dash, last = text.partition("-")
    if dash:
        seeds = tuple(range(int(first), int(last) + 1))
    elif "," in text:
        seeds = tuple(int(part) for part in text.split(",") if part)
    else:
        seeds = tuple(range(int(text)))
    if not seeds or min(seeds) < 0:
        raise ValueError
    return tuple(dict.fromkeys(seeds))


if __name__ == "__main__":
    sys.exit(main())
