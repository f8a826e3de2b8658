"""``agileact completion``: a script with which a shell completes commands, options and values.

The script is made from the parser once, by shtab, so that pressing Tab never waits for Python and PyTorch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agileact._common.optional import require
from agileact._common.terminal import HelpFormatter

SHELLS = ("bash", "zsh", "fish")

_HOW = """\
bash:  agileact completion bash > ~/.local/share/bash-completion/completions/agileact
       (or, without the package bash-completion, to another file that ~/.bashrc sources)
zsh:   agileact completion zsh > DIR/_agileact   where DIR is in $fpath, before compinit runs
fish:  agileact completion fish > ~/.config/fish/completions/agileact.fish"""


def add_command(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Add ``agileact completion``, of the options of a ``whole`` parser."""
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
    """Return the script of one of ``SHELLS`` for a parser, which is good for nothing else afterwards."""
    shtab = require("shtab", "completion")
    values, lists = _values(), _lists()
    for action in _actions(parser):
        own = action.metavar == "PKG.MODULE:FUNCTION"  # names something of the user's
        if action.dest in lists and not own:
            action.complete = lists[action.dest]  # type: ignore[attr-defined]
        elif "|" in str(action.metavar or ""):
            action.choices = str(action.metavar).split("|")
        elif action.dest in values and not own:
            action.choices = values[action.dest]
        elif action.metavar == "SPEC":
            action.complete = shtab.glob("*.yaml", "*.yml")  # type: ignore[attr-defined]
        elif action.type is Path:
            folder = action.metavar == "DIR" or (action.dest == "out" and not action.metavar)
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the actions of a parser and of all parsers below it."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for below in action.choices.values() for one in _actions(below)]
        else:
            found.append(action)
    return found


def _values() -> dict[str, list[str]]:
    """Return what an option can be, by the name under which it is stored."""
    from agileact import bases
    from agileact.paper import recipe
    from agileact.study.training import optimizers

    return {
        "preset": list(recipe.PRESETS),
        "base": list(bases.names()),
        "optimizer": optimizers.names(),
        "data": ["mnist5k-split", "mnist5k"],
        "on": ["local", "ray"],
        "device": ["cpu", "cuda"],
        "precision": ["fp32", "bf16", "fp16"],
    }


def _lists() -> dict[str, dict[str, Any]]:
    """Return how to complete the entries of lists with commas, by the option's name; of arms also behind a plus."""
    from agileact import baselines, bases
    from agileact.study.spec import arms

    activations = [form + base for base in bases.names() for form in ("", "agile-")] + list(baselines.names())
    combined = [f"combined-{base}:terms=2" for base in bases.names()]
    # Where nothing may stand behind a plus sign, a list of nothing would not be a list in every shell.
    named = _completer("activations", activations, [""])
    behind = [word.removesuffix("NUMBER") for word in arms.modifiers()]
    return {"conv": named, "fc": named, "arms": _completer("arms", ["original", *activations, *combined], behind)}


# The part behind the last comma, or plus, is completed: shtab completes single words alone.
_BASH = """
NAME() {
  local head="" word="$1"
  [[ "$word" == *,* ]] && head="${word%,*}," && word="${word##*,}"
  if [[ "$word" == *+* ]]; then
    compgen -P "$head${word%+*}+" -W "BEHIND" -- "${word##*+}"
  else
    compgen -P "$head" -W "PLAIN" -- "$word"
  fi
}
"""
_ZSH = """
NAME() {
  compset -P '*,'
  if compset -P '*+'; then compadd -S '' -- BEHIND; else compadd -S '' -- PLAIN; fi
}
"""
_FISH = """
function NAME
  set -l typed (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
  set -l head (string replace -r -- '[^,]*$' '' "$typed")
  set -l word (string replace -r -- '^.*,' '' "$typed")
  if string match -q -- '*+*' "$word"
    printf '%s\\n' $head(string replace -r -- '[+][^+]*$' '+' "$word")(string split ' ' 'BEHIND')
  else
    printf '%s\\n' $head(string split ' ' 'PLAIN')
  end
end
"""


def _completer(kind: str, plain: Sequence[str], behind: Sequence[str]) -> dict[str, Any]:
    name = f"_agileact_{kind}"
    words = {"NAME": name, "PLAIN": " ".join(plain), "BEHIND": " ".join(behind)}
    functions = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
    for shell in functions:
        for word, meaning in words.items():
            functions[shell] = functions[shell].replace(word, meaning)
    return {"bash": name, "zsh": name, "fish": f"({name})", "preamble": functions}
