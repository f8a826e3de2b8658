"""agileact paper and agileact xor: parse, call, print."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common import arguments as _values
from agileact._common.optional import expect
from agileact._common.terminal import HelpFormatter, format_json, print_json, print_table, say

_PAPER = "doi 10.3745/KTSDE.2020.9.7.213"
_CONV = "sigmoid,agile-sigmoid,relu,agile-relu"


_Options = tuple[tuple[str, Callable[[str], Any], str | None, str], ...]
# Fields of the recipe: without one of them the preset's holds.
_RECIPE: _Options = (
    (
        "data",
        str,
        "NAME",
        "mnist5k-split: 4,000 digits to train and 1,000 to test on, needs no download. mnist5k: 5,000 to train, tested "
        "on the official 10,000 (from --data-dir, the cache, or downloaded). Default: mnist5k if --data-dir is given, "
        "else mnist5k-split",
    ),
    ("seeds", _values.seeds, None, "how many (5), or which (0,3,7 or 0-4) (default: the preset's)"),
    ("iterations", _values.count, "N", "training steps of each trial (default: the preset's)"),
    ("evaluate-every", _values.count, "N", "steps between evaluations (default: the preset's)"),
    ("batch-size", _values.count, "N", "digits a step (default: 100)"),
    ("validation", _values.count, "N", "training digits set aside (default: 500)"),
    ("optimizer", str, "NAME", "adam, adamw, nadam, rmsprop, sgd or momentum (default: adam)"),
    ("lr", _values.rate, None, "learning rate of the weights (default: 0.001)"),
    ("activation-lr", _values.rate, "LR", "learning rate of size and position (default: as --lr)"),
    ("conv", _values.names, "A,B", f"activations of the convolutional layers (default: {_CONV})"),
    ("fc", _values.names, "A,B", "activations of the hidden layers (default: relu,agile-relu,agile-sigmoid)"),
    ("filters", _values.sizes, "N,N", "filters of each convolutional layer, or none (default: 16,8,4)"),
    ("nodes", _values.sizes, "N,N", "nodes of each hidden layer, or none (default: 30)"),
    ("kernel", _values.count, "N", "size of the kernels, odd (default: 3)"),
    ("pooling", _values.count, "N", "size of the max pooling, 1 for none (default: 2)"),
)
_XOR: _Options = (
    ("base", str, None, "activation (default: sigmoid)"),
    ("starts", _values.count, "N", "initial weights to try (default: 200)"),
    ("epochs", _values.count, "N", "steps of full-batch training (default: 3000)"),
    ("optimizer", str, "adam|sgd", "how the networks are trained (default: adam)"),
    ("lr", _values.rate, None, "learning rate of the weights (default: 0.01)"),
    ("activation-lr", _values.rate, "LR", "learning rate of size and position (default: as --lr)"),
    ("seed", _values.seed, None, "source of the initial weights (default: 0)"),
)


def _given(options: argparse.Namespace, table: _Options) -> dict[str, Any]:
    """Return the options of a table that were given, by field."""
    names = [name.replace("-", "_") for name, *_ in table]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def add_paper(commands: Any) -> None:
    """Add ``agileact paper``."""
    parser = commands.add_parser(
        "paper",
        help="run the paper's experiment: twelve networks on MNIST digits, table and figures",
        description=f"Run the experiment of {_PAPER}, section 4, on real MNIST digits: train the network with each "
        "combination of convolutional and fully connected activations from shared initial weights, print our table "
        "beside the paper's, and draw its figures. Every finished trial is stored at once in OUT/store.sqlite; "
        "the same command continues a run that was cut short.",
        formatter_class=HelpFormatter,
        epilog="presets:\n"
        "  smoke   every part once, 60 iterations, well under a minute\n"
        "  quick   all twelve combinations, one seed, 1,000 iterations, a few minutes on two cores\n"
        "  full    10 seeds, 10,000 iterations, hours\n\n"
        "activations: any base, or agile-BASE, with options behind colons: agile-leaky_relu:negative_slope=0.2",
    )
    parser.add_argument("--preset", default="quick", metavar="NAME", help="smoke, quick or full (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/paper"), help="folder for all results (default: %(default)s)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder that holds the official test digits")
    for name, kind, shown, text in _RECIPE:
        parser.add_argument(f"--{name}", type=kind, metavar=shown, help=text)
    parser.add_argument("--jobs", type=_values.count, metavar="N", help="trials side by side (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print results.json to standard output, no table")
    parser.set_defaults(run=_paper, resumes=True)


def _paper(options: argparse.Namespace) -> None:
    from agileact.paper import recipe as paper_recipe
    from agileact.paper.run import run_paper

    expect("paper", "matplotlib", "scipy", "statsmodels")
    if options.data is None and options.data_dir is not None:
        options.data = "mnist5k"
    recipe = paper_recipe.preset(options.preset, **_given(options, _RECIPE))
    outcome = run_paper(
        recipe,
        options.out,
        jobs=options.jobs,
        data_dir=options.data_dir,
        command=options.command,
        notify=say,
    )
    if options.json:
        print_json(outcome.document)
        return
    from agileact.paper.table import HEADER, cells

    title = f"{recipe.data}, {len(recipe.seeds)} seed(s), {recipe.iterations} iterations"
    print_table(title, HEADER, [cells(row) for row in outcome.rows], keys=3)
    print()
    for sentence in outcome.reading:
        print(sentence)
    print(f"\nData: {outcome.description}.")
    print(f"Table, results and {sum(f.suffix == '.png' for f in outcome.files)} figures are in {options.out}.")


def add_xor(commands: Any) -> None:
    """Add ``agileact xor``."""
    parser = commands.add_parser(
        "xor",
        help="train the 2-2-1 network on XOR, plain and agile, from many starts",
        description=f"Train the 2-2-1 network of {_PAPER}, Fig. 4, on XOR with a plain and with an agile activation "
        "from the same initial weights, many times; print how often each solves it and how long it takes; draw Fig. 4.",
    )
    for name, kind, shown, text in _XOR:
        parser.add_argument(f"--{name}", type=kind, metavar=shown, help=text)
    out = "folder for results and figure (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("runs/xor"), help=out)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=_xor)


def _xor(options: argparse.Namespace) -> None:
    from agileact._common.files import write_atomically
    from agileact.paper.figures import draw_xor
    from agileact.paper.xor import HEADER, XorSpec, run_xor

    expect("paper", "matplotlib", "scipy")
    spec = XorSpec(**_given(options, _XOR))
    outcome = run_xor(spec)
    write_atomically(options.out / "xor.json", format_json(outcome.to_dict()) + "\n")
    files = draw_xor(outcome, options.out, notify=say)
    if options.json:
        print_json(outcome.to_dict())
        return
    print_table("XOR", HEADER, outcome.rows(), keys=1)
    print("\n" + "\n".join(outcome.sentences()))
    print("\nWritten: " + ", ".join(str(path) for path in [options.out / "xor.json", *files]))
