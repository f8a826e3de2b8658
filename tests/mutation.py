"""Seeds faults, one at a time, and tells which tests find them: what only slow tests find needs a fast test.

``python tests/mutation.py`` runs the campaign in a copy of the tree and prints a table. A result is kept in
build/mutation.json, and a second call goes on with what is missing or has changed. For each fault: the fast tests of
the folders that it names, then all fast tests, then the slow ones of those folders, then all slow ones, until one
fails. The test that failed must pass again without the fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "mutation.json"
LIBRARIES = Path("src/agileact/ops/lib")


@dataclasses.dataclass(frozen=True)
class Fault:
    """A replacement of one piece of text in one file, why it is a fault, and whose tests should find it first."""

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Write the fault into a copy of the tree; exit with the fault's name where its text is not there once."""
        path = tree / self.file
        found = path.read_text(encoding="utf-8").count(self.old) if path.exists() else "no"
        if found != 1:
            sys.exit(f"the fault {self.name!r} no longer applies: {self.file} has {found} times {self.old!r}")
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")

    @property
    def digest(self) -> str:
        text = json.dumps([self.name, self.file, self.old, self.new])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _faults(folder: str, tests: tuple[str, ...], *rows: tuple[str, str, str, str, str]) -> Iterator[Fault]:
    for name, file, old, new, why in rows:
        yield Fault(name, f"{folder}/{file}", old, new, why, tests)


KERNELS = _faults(
    "csrc",
    ("tests/ops", "tests/test_functional.py"),
    (
        "a folded-back slope is undone",
        "layout.cpp",
        "return formula.p > 0 && std::isfinite(formula.p);",
        "return std::isfinite(formula.p);",
        "with a negative slope two inputs share an output, and the gradient is that of the other one",
    ),
    (
        "a tiny scale is divided out",
        "layout.cpp",
        "within &= size >= bounds.low && size <= bounds.high;",
        "within &= size <= bounds.high;",
        "an output that underflowed cannot be divided by its scale: gradients are lost",
    ),
    (
        "a jump of softplus is overlooked",
        "layout.cpp",
        "formula.base == Base::kSoftplus && !(std::exp(-formula.q) < epsilon);",
        "false;",
        "below a small threshold an output has two sources, and the derivative is that of the wrong one",
    ),
    (
        "axes in the order of the shortest stride",
        "layout.cpp",
        "return out.x.stride(a) > out.x.stride(b);",
        "return out.x.stride(a) < out.x.stride(b);",
        "dense tensors in another order (channels last, transposed) get the parameters of other channels",
    ),
    (
        "a location alone passes for plain",
        "layout.cpp",
        "plain &= scale == 1 && location == 0;",
        "plain &= scale == 1;",
        "f(x - b) with a = 1 is computed as f(x)",
    ),
    (
        "later terms pass for zero",
        "layout.cpp",
        "plain &= a != nullptr && a[i] == 0;",
        "plain &= a != nullptr;",
        "of a sum of terms whose first is plain only the first is computed",
    ),
    (
        "the location's gradient has the wrong sign",
        "operators.cpp",
        "sums[n + i] *= -(wide ?",
        "sums[n + i] *= (wide ?",
        "d/db of a f(x - b) is minus a f'",
    ),
    (
        "the location's second gradient has the wrong sign",
        "operators.cpp",
        "sums[n + i] = -sums[n + i];",
        "sums[n + i] = +sums[n + i];",
        "the gradient by the location is minus that by x, also of the second derivative",
    ),
    (
        "a view in place is not written back",
        "operators.cpp",
        "if (!layout.x.is_same(x)) {",
        "if (false) {",
        "in place on a view that is not dense the result stays in a copy",
    ),
    (
        "one parameter for all channels sums one channel",
        "pool_operators.cpp",
        "parameter->numel() == n ? sum : sum.sum(0, true);",
        "parameter->numel() == n ? sum : sum.slice(0, 0, 1);",
        "the gradient of a layer's scale is the sum over all channels",
    ),
    (
        "a term's second derivative by the scale",
        "combined.cpp",
        "sum_f = g * t * d;",
        "sum_f = g * t;",
        "the factor f' is missing from the second gradient of a combined scale",
    ),
    (
        "the last of equals is pooled",
        "pool.cpp",
        "if (place < 0 || y > best || y != y) {",
        "if (place < 0 || y >= best || y != y) {",
        "PyTorch's pooling returns the first of equal elements, and sends the gradient there",
    ),
    (
        "overlapping windows overwrite their gradients",
        "pool_backward.cpp",
        "static_cast<T>(disjoint ? to[i] : static_cast<A>(target) + to[i]);",
        "static_cast<T>(to[i]);",
        "an element that is the largest of several windows gets the sum of their gradients",
    ),
    (
        "the side of a kink is lost by underflow",
        "elementwise.cpp",
        "const V floor = at::vec::clamp_max(f * huge, smallest);",
        "const V floor = at::vec::clamp_max(f * huge, V(0));",
        "backward reads from an output of 0 that the input was below the kink",
    ),
    (
        "lanes behind the end are summed",
        "loops.h",
        "acc[k] = acc[k] + (sums[k] & valid);",
        "acc[k] = acc[k] + sums[k];",
        "what a vector computes of the zeros behind a row's end counts in the parameters' gradients",
    ),
    (
        "GELU bends too little",
        "bases.h",
        "e = phi * (V(2) - near * near);",
        "e = phi * (V(1) - near * near);",
        "the second derivative of x Phi(x) is phi(x) (2 - x^2)",
    ),
)

FAULTS: tuple[Fault, ...] = (*KERNELS,)


def copy_of_the_tree(to: Path) -> None:
    """Copy what git tracks or would track, and the built libraries; objects are shared, which are named by content."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    shutil.copytree(ROOT / LIBRARIES, to / LIBRARIES)
    (ROOT / "build" / "kernels").mkdir(parents=True, exist_ok=True)
    (to / "build").mkdir()
    (to / "build" / "kernels").symlink_to(ROOT / "build" / "kernels")


class Campaign:
    """Runs tests in a copy of the tree."""

    def __init__(self, tree: Path, jobs: int, limit: int) -> None:
        self.tree = tree
        self.jobs = jobs
        self.limit = limit
        self.environment = {**os.environ, "PYTHONPATH": str(tree / "src")}

    def python(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False, **options
        )

    def failing(self, *arguments: str) -> str:
        """Run pytest until a test fails; return that test, or nothing."""
        workers = ["-n", str(self.jobs), "--dist", "worksteal"] if self.jobs > 1 else ["-n", "0"]
        try:
            done = self.python(
                "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *workers, *arguments, timeout=self.limit
            )
        except subprocess.TimeoutExpired:
            return "(no end)"
        if done.returncode in (0, 5):
            return ""
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, flags=re.MULTILINE)
        if found is None:
            # The process itself was ended by a fault of the kernels.
            return "(no report)" if done.returncode < 0 else sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        return found[1]

    def build(self) -> None:
        done = self.python("csrc/build.py")
        if done.returncode:
            sys.exit(done.stderr)
        loaded = self.python("-c", "import agileact.ops as o; print(o.CPU.reason); raise SystemExit(not o.CPU.loaded)")
        if loaded.returncode:
            sys.exit(f"the kernels do not load: {loaded.stdout}{loaded.stderr}")

    def judge(self, fault: Fault) -> dict[str, str]:
        """Return which set finds a fault, and by which test."""
        original = (self.tree / fault.file).read_text(encoding="utf-8")
        fault.apply(self.tree)
        kernels = fault.file.startswith("csrc/")
        try:
            if kernels:
                self.build()
            found, where = "", "nothing"
            for mark in ("not slow", "slow"):
                for places in (fault.tests, ()):
                    found = found or self.failing("-m", mark, *places)
                if found:
                    where = "fast" if mark == "not slow" else "slow"
                    break
        finally:
            (self.tree / fault.file).write_text(original, encoding="utf-8")
            if kernels:
                shutil.rmtree(self.tree / LIBRARIES)
                shutil.copytree(ROOT / LIBRARIES, self.tree / LIBRARIES)
        if "::" in found and (blamed := self.failing(found)):
            sys.exit(f"{blamed} fails without the fault {fault.name!r} too")
        return {"set": where, "test": found, "digest": fault.digest}


def table(results: dict[str, dict[str, str]]) -> str:
    """Return the results as Markdown."""
    rows = ["| file | fault | found by | test |", "| --- | --- | --- | --- |"]
    for fault in FAULTS:
        result = results.get(fault.name, {"set": "not run", "test": ""})
        rows.append(f"| {fault.file} | {fault.name} | {result['set']} | {result['test']} |")
    counts = {name: sum(one["set"] == name for one in results.values()) for name in ("fast", "slow", "nothing")}
    return "\n".join([*rows, "", ", ".join(f"{name}: {count}" for name, count in counts.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help="faults whose name or file has a word")
    parser.add_argument("--jobs", type=int, default=1, help="processes of pytest")
    parser.add_argument("--limit", type=int, default=3600, help="seconds for one call of pytest")
    parser.add_argument("--check", action="store_true", help="only see whether every fault still applies")
    parser.add_argument("--table", action="store_true", help="only print the results that there are")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chosen = [fault for fault in FAULTS if any(word in fault.name + " " + fault.file for word in options.only)]
    if len({fault.name for fault in FAULTS}) < len(FAULTS):
        sys.exit("two faults share a name")
    if options.table:
        print(table(results))
        return
    with tempfile.TemporaryDirectory(prefix="agileact-mutation-") as folder:
        copy_of_the_tree(Path(folder))
        for fault in chosen:
            original = (Path(folder) / fault.file).read_text(encoding="utf-8")
            fault.apply(Path(folder))
            (Path(folder) / fault.file).write_text(original, encoding="utf-8")
        if options.check:
            print(f"{len(chosen)} faults apply")
            return
        campaign = Campaign(Path(folder), options.jobs, options.limit)
        for fault in chosen:
            if results.get(fault.name, {}).get("digest") == fault.digest:
                continue
            results[fault.name] = campaign.judge(fault)
            print(f"{fault.name}: {results[fault.name]['set']} {results[fault.name]['test']}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
