"""``agileact completion``: a script with which a shell completes commands, options and values.

The script is made from the parser once, by shtab, so that pressing Tab never waits for Python and PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from agileact._common.optional import require
from agileact._common.text import HelpFormatter

SHELLS = ("bash", "zsh", "fish")

_HOW = """\
bash:  agileact completion bash > ~/.local/share/bash-completion/completions/agileact
       (or, without the package bash-completion, to another file that ~/.bashrc sources)
zsh:   agileact completion zsh > DIR/_agileact   where DIR is in $fpath, before compinit runs
fish:  agileact completion fish > ~/.config/fish/completions/agileact.fish"""


def add_command(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Add ``agileact completion``.

    Args:
        commands: The subparsers of the main command.
        whole: The parser of the main command, whose options are to be completed.
    """
    parser = commands.add_parser(
        "completion",
        help="print a script with which bash, zsh or fish completes commands, options and values",
        description="Print a script with which a shell completes commands, options, names and files. Make it anew "
        "after an upgrade.",
        formatter_class=HelpFormatter,
        epilog=_HOW,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    parser.set_defaults(run=lambda options: print(script(whole, options.shell)))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script of one of ``SHELLS`` for a parser, which is good for nothing else afterwards.

    Raises:
        MissingExtraError: If shtab is not installed.
    """
    shtab = require("shtab", "completion")
    lists = _lists()
    for action in _actions(parser):
        kind = None if action.metavar == _OWN else _KINDS.get(action.dest)
        if kind in lists:
            action.complete = {shell: _call(shell, kind)}  # type: ignore[attr-defined]
        elif "|" in str(action.metavar or ""):
            action.choices = str(action.metavar).split("|")
        elif kind is not None:
            action.choices = _values(kind)
        elif action.type is Path:
            action.complete = _paths(shtab, action)  # type: ignore[attr-defined]
    return str(
        shtab.complete(parser, shell, preamble={shell: "".join(_FUNCTIONS[shell](*one) for one in lists.items())})
    )


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the actions of a parser and of all parsers below it."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for below in action.choices.values() for one in _actions(below)]
        else:
            found.append(action)
    return found


_KINDS = {
    "preset": "presets",
    "base": "bases",
    "optimizer": "optimizers",
    "data": "data",
    "on": "places",
    "device": "devices",
    "precision": "precisions",
    "conv": "activations",
    "fc": "activations",
    "arms": "arms",
}
"""What the values of an option are, by the name under which it is stored."""
_OWN = "PKG.MODULE:FUNCTION"
"""Marks an option that names something of the user's."""


def _values(kind: str) -> list[str]:
    from agileact import bases
    from agileact.paper import recipe
    from agileact.study.training import optimizers

    return {
        "presets": list(recipe.PRESETS),
        "bases": list(bases.names()),
        "optimizers": optimizers.names(),
        "data": ["mnist5k-split", "mnist5k"],
        "places": ["local", "ray"],
        "devices": ["cpu", "cuda"],
        "precisions": ["fp32", "bf16", "fp16"],
    }[kind]


def _lists() -> dict[str, list[str]]:
    """Return what may stand in lists with commas; of arms also what may stand behind a plus sign, with the plus."""
    from agileact import baselines, bases
    from agileact.study.spec import arms

    activations = [form + base for base in bases.names() for form in ("", "agile-")] + list(baselines.names())
    combined = [f"combined-{base}:terms=2" for base in bases.names()]
    behind = [f"+{word.removesuffix('NUMBER')}" for word in arms.modifiers()]
    return {"activations": activations, "arms": ["original", *activations, *combined, *behind]}


def _paths(shtab: Any, action: argparse.Action) -> Any:
    if action.metavar == "SPEC":
        return shtab.glob("*.yaml", "*.yml")
    return shtab.DIRECTORY if action.metavar == "DIR" or (action.dest == "out" and not action.metavar) else shtab.FILE


# -- lists with commas, in the language of each shell ------------------------------------------------------


def _name(kind: str) -> str:
    return f"_agileact_{kind}"


def _call(shell: str, kind: str) -> str:
    return f"({_name(kind)})" if shell == "fish" else _name(kind)


def _bash(kind: str, words: Sequence[str]) -> str:
    plain, behind = _split(words)
    return dedent(f"""
        # $1: what is typed; the part behind the last comma, or plus, is completed
        {_name(kind)}() {{
          local head="" word="$1"
          [[ "$word" == *,* ]] && head="${{word%,*}}," && word="${{word##*,}}"
          if [[ "$word" == *+* ]]; then
            head+="${{word%+*}}" && word="+${{word##*+}}"
            compgen -P "$head" -W "{" ".join(behind)}" -- "$word"
          else
            compgen -P "$head" -W "{" ".join(plain)}" -- "$word"
          fi
        }}
        """)


def _zsh(kind: str, words: Sequence[str]) -> str:
    plain, behind = _split(words)
    return dedent(f"""
        {_name(kind)}() {{
          compset -P '*,'
          if compset -P '*+'; then
            compadd -S '' -- {" ".join(word.removeprefix("+") for word in behind)}
          else
            compadd -S '' -- {" ".join(plain)}
          fi
        }}
        """)


def _fish(kind: str, words: Sequence[str]) -> str:
    plain, behind = _split(words)
    return dedent(f"""
        function {_name(kind)}
          set -l typed (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
          set -l head (string replace -r -- '[^,]*$' '' "$typed")
          set -l word (string replace -r -- '^.*,' '' "$typed")
          if string match -q -- '*+*' "$word"
            printf '%s\\n' $head(string replace -r -- '[+][^+]*$' '' "$word"){{{",".join(behind)}}}
          else
            printf '%s\\n' $head{{{",".join(plain)}}}
          end
        end
        """)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    plain = [word for word in words if not word.startswith("+")]
    # Where nothing may stand behind a plus sign, a list of nothing would not be a list in every shell.
    return plain, [word for word in words if word.startswith("+")] or ["+"]


_FUNCTIONS: dict[str, Callable[[str, Sequence[str]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
