"""How long `agileact compare --budget TIME` takes by a clock on the wall, from the typed command to its end.

The time begins before the process does, and ends when it is gone: start-up, data, trials, verdict and report are in it.
A budget is kept if that is at most 110 % of it. `--load N` makes the machine busy with N processes that compute.

    python benchmarks/budget.py --budgets 20s 60s 90s --runs 3 --load 2
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agileact._common.terminal import print_table
from agileact.study.commands.study import duration

ARMS = "original,agile-relu,prelu"
MINE = """import torch
from torch import nn


def build():
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def load():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 8, generator=generator)
    y = (x[:, :3] * x[:, 3:6]).argmax(1)
    return (x[:2000], y[:2000]), (x[2000:2500], y[2000:2500]), (x[2500:], y[2500:])
"""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Let so many processes compute while the block runs."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()


def run(budget: str, iterations: int, folder: Path) -> tuple[float, int, str]:
    """Run the command once in an empty folder; return seconds, exit code and its last line on standard error."""
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    command = [sys.executable, "-m", "agileact.cli", "compare", "--model", "mine:build", "--data", "mine:load"]
    command += ["--arms", ARMS, "--budget", budget, "--iterations", str(iterations)]
    begun = time.monotonic()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return time.monotonic() - begun, ended.returncode, ended.stderr.strip().rpartition("\n")[2]


def main() -> None:
    """Run the command with each budget, and print how much of it was taken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--budgets", nargs="+", default=["20s", "60s", "90s"], metavar="TIME")
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    parser.add_argument("--iterations", type=int, default=200, metavar="N")
    parser.add_argument("--load", type=int, default=0, metavar="N")
    options = parser.parse_args()
    rows = []
    with busy(options.load):
        for budget in options.budgets:
            for _ in range(options.runs):
                with tempfile.TemporaryDirectory() as folder:
                    seconds, code, last = run(budget, options.iterations, Path(folder))
                share = seconds / duration(budget)
                print(f"{budget}: {seconds:.1f} s, {last}", file=sys.stderr, flush=True)
                load = os.getloadavg()[0]
                rows.append((budget, f"{seconds:.1f}", f"{100 * share:.0f}", str(code), f"{load:.1f}"))
    print_table("A budget is a limit", ("budget", "seconds", "% of it", "exit code", "load after it"), rows, keys=1)


if __name__ == "__main__":
    main()
