"""Seeds faults, one at a time, and tells which tests find them: what only slow tests find needs a fast test.

``python tests/mutation.py`` runs the campaign in a copy of the tree and prints a table. A result is kept in
build/mutation.json, and a second call goes on with what is missing or has changed. For each fault: the fast tests of
the files that it names, then all fast tests, then the slow ones of those files, then all slow ones, until one fails.
The test that failed must pass again without the fault.
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
    """A fault, the tests to ask first, a replacement of one piece of text in a file, and why that is wrong."""

    name: str
    tests: tuple[str, ...]
    file: str
    old: str
    new: str
    why: str

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


def _faults(folder: str, *rows: tuple[str, str, str, str, str, str]) -> Iterator[Fault]:
    for name, tests, file, old, new, why in rows:
        places = tuple(f"tests/{place}" for place in tests.split())
        yield Fault(name, places, f"{folder}/{file}", old, new, why)


KERNELS = _faults(
    "csrc",
    (
        "a folded-back slope is undone",
        "ops/test_agile.py",
        "layout.cpp",
        "return formula.p > 0 && std::isfinite(formula.p);",
        "return std::isfinite(formula.p);",
        "with a negative slope two inputs share an output, and the gradient is that of the other one",
    ),
    (
        "a tiny scale is divided out",
        "ops/test_agile.py",
        "layout.cpp",
        "within &= size >= bounds.low && size <= bounds.high;",
        "within &= size <= bounds.high;",
        "an output that underflowed cannot be divided by its scale: gradients are lost",
    ),
    (
        "a jump of softplus is overlooked",
        "ops/test_agile.py",
        "layout.cpp",
        "formula.base == Base::kSoftplus && !(std::exp(-formula.q) < epsilon);",
        "false;",
        "below a small threshold an output has two sources, and the derivative is that of the wrong one",
    ),
    (
        "axes in the order of the shortest stride",
        "ops/test_agile.py",
        "layout.cpp",
        "return out.x.stride(a) > out.x.stride(b);",
        "return out.x.stride(a) < out.x.stride(b);",
        "dense tensors in another order (channels last, transposed) get the parameters of other channels",
    ),
    (
        "a location alone passes for plain",
        "ops/test_agile.py",
        "layout.cpp",
        "plain &= scale == 1 && location == 0;",
        "plain &= scale == 1;",
        "f(x - b) with a = 1 is computed as f(x)",
    ),
    (
        "later terms pass for zero",
        "ops/test_combined.py",
        "layout.cpp",
        "plain &= a != nullptr && a[i] == 0;",
        "plain &= a != nullptr;",
        "of a sum of terms whose first is plain only the first is computed",
    ),
    (
        "the location's gradient has the wrong sign",
        "ops/test_agile.py",
        "operators.cpp",
        "sums[n + i] *= -(wide ?",
        "sums[n + i] *= (wide ?",
        "d/db of a f(x - b) is minus a f'",
    ),
    (
        "the location's second gradient has the wrong sign",
        "ops/test_transforms.py",
        "operators.cpp",
        "sums[n + i] = -sums[n + i];",
        "sums[n + i] = +sums[n + i];",
        "the gradient by the location is minus that by x, also of the second derivative",
    ),
    (
        "a view in place is not written back",
        "ops/test_inplace.py",
        "operators.cpp",
        "if (!layout.x.is_same(x)) {",
        "if (false) {",
        "in place on a view that is not dense the result stays in a copy",
    ),
    (
        "one parameter for all channels sums one channel",
        "ops/test_pool.py",
        "pool_operators.cpp",
        "parameter->numel() == n ? sum : sum.sum(0, true);",
        "parameter->numel() == n ? sum : sum.slice(0, 0, 1);",
        "the gradient of a layer's scale is the sum over all channels",
    ),
    (
        "a term's second derivative by the scale",
        "ops/test_combined.py",
        "combined.cpp",
        "sum_f = g * t * d;",
        "sum_f = g * t;",
        "the factor f' is missing from the second gradient of a combined scale",
    ),
    (
        "the last of equals is pooled",
        "ops/test_pool.py",
        "pool.cpp",
        "if (place < 0 || y > best || y != y) {",
        "if (place < 0 || y >= best || y != y) {",
        "PyTorch's pooling returns the first of equal elements, and sends the gradient there",
    ),
    (
        "overlapping windows overwrite their gradients",
        "ops/test_pool.py",
        "pool_backward.cpp",
        "static_cast<T>(disjoint ? to[i] : static_cast<A>(target) + to[i]);",
        "static_cast<T>(to[i]);",
        "an element that is the largest of several windows gets the sum of their gradients",
    ),
    (
        "the side of a kink is lost by underflow",
        "ops/test_agile.py",
        "elementwise.cpp",
        "const V floor = at::vec::clamp_max(f * huge, smallest);",
        "const V floor = at::vec::clamp_max(f * huge, V(0));",
        "backward reads from an output of 0 that the input was below the kink",
    ),
    (
        "the last row of a tile counts alone",
        "ops/test_agile.py",
        "loops.h",
        "(V::loadu(total) + (acc[0][k] + acc[1][k])).store(total);",
        "(acc[0][k] + acc[1][k]).store(total);",
        "a parameter's gradient is the sum over all samples",
    ),
    (
        "the beginning of a run is lost",
        "ops/test_agile.py",
        "loops.h",
        "begun[half][k] = sums[half][k] ^ ended;",
        "begun[half][k] = V(0);",
        "where a run begins within a vector, its first elements count too",
    ),
    (
        "the gradient by the gain lacks the scale",
        "ops/test_gain.py",
        "gain_operator.cpp",
        "sums[2 * n + i] *= number(a, i);",
        "",
        "d/dg of a f(g z) is a z f'(g z)",
    ),
    (
        "GELU bends too little",
        "ops/test_transforms.py",
        "bases.h",
        "e = phi * (V(2) - near * near);",
        "e = phi * (V(1) - near * near);",
        "the second derivative of x Phi(x) is phi(x) (2 - x^2)",
    ),
)

TRANSFORMS = _faults(
    "src/agileact/transforms",
    (
        "channels of a raw input along the last axis",
        "transforms/convert/test_channels.py",
        "convert/channels.py",
        "axis = min(1, len(value.shape) - 1)",
        "axis = len(value.shape) - 1",
        "by convention the channels of an input that no layer made lie along axis 1",
    ),
    (
        "axes behind the channels shift them",
        "transforms/convert/test_channels.py",
        "convert/channels.py",
        "axis -= sum(one < axis for one in dims)",
        "axis -= len(dims)",
        "a mean over height and width leaves the channels where they are",
    ),
    (
        "the steps of a formula stay computed",
        "transforms/convert/test_written_out.py",
        "edit/rewrite.py",
        "for start, stop, _ in edit.unused:",
        "for start, stop, _ in ():",
        "a step sees the signal before the formula, so that no location folds, and is found again as an activation",
    ),
    (
        "one module for all turns of a loop shares its pair",
        "transforms/convert/test_loops.py",
        "convert/sites.py",
        "if len(each) > 1 and source.countable:",
        "if False:",
        "each layer before a call has units of its own",
    ),
    (
        "a location that stays agile is not in the gauge of its signal",
        "transforms/fold/test_architecture.py transforms/fold/test_gains.py",
        "fold/leftovers.py",
        "location[use.index] / solution.gauges[use.inputs]",
        "location[use.index] / 1",
        "a scale that went into the weights before it changes the size of what the location is taken from",
    ),
    (
        "a sample without a batch has one number",
        "transforms/convert/test_convert.py",
        "convert/parameter_shape.py",
        "shapes = {value.shape[min(1, len(value.shape) - 1) :]",
        "shapes = {value.shape[1:]",
        "of an input with one axis that axis holds the elements, it is no batch",
    ),
    (
        "one example tensor becomes two",
        "transforms/trace",
        "trace/recording.py",
        "if id(tensor) not in copies:",
        "if True:",
        "a tensor that is given twice to a model must stay one, or in-place changes of it are lost",
    ),
    (
        "a copied decoder layer hides its activation",
        "transforms/edit transforms/convert/test_convert_kept.py",
        "edit/revert.py",
        "if key in new.__dict__ and key not in old.__dict__:",
        "if False:",
        "deepcopy of nn.TransformerDecoderLayer puts F.relu in front of the agile module",
    ),
    (
        "a negative ratio keeps the sign",
        "transforms/fold/test_gauge.py",
        "fold/gauge.py",
        "wanted = sign * np.sign(weight).astype(np.int8)",
        "wanted = sign",
        "a signal whose factor is minus that of another must be negative where the other is positive",
    ),
    (
        "ratios of a loop may contradict each other",
        "transforms/fold/test_gauge.py",
        "fold/gauge.py",
        "if not np.all(np.abs(between[joined] - 1) <= _CLOSED):",
        "if False:",
        "scales that meet in a sum are folded although they differ",
    ),
    (
        "a ratio is taken upside down",
        "transforms/fold/test_gauge.py",
        "fold/gauge.py",
        "weight = np.where(upper > lower, ratio, 1 / ratio)",
        "weight = np.where(upper < lower, ratio, 1 / ratio)",
        "a scale is divided out where it is to be multiplied",
    ),
    (
        "a scale of zero folds before more than a map",
        "transforms/fold/test_fold_scale.py",
        "fold/solve.py",
        "if not self.alone[use.outputs[zero]].all():",
        "if False:",
        "a channel that is switched off has no gauge where it meets others",
    ),
    (
        "a negative scale passes max pooling",
        "transforms/fold/test_fold_scale.py",
        "fold/rules.py",
        'self._positive(labels, "it goes into max pooling" + inside(call))',
        "pass",
        "the largest of negated numbers is the negated smallest",
    ),
    (
        "a number is added to a scaled signal",
        "transforms/fold/test_fold_scale.py",
        "fold/rules.py",
        "if number != 0:",
        "if False:",
        "a (f + 1) is not a f + 1",
    ),
    (
        "the second operand of a reversed difference",
        "transforms/fold/test_fold_location.py",
        "fold/locations.py",
        '"rsub": lambda alpha: (-alpha, 1.0),',
        '"rsub": lambda alpha: (alpha, 1.0),',
        "in rsub the first operand is subtracted: its shift has the other sign",
    ),
    (
        "means over padding take up a shift",
        "transforms/fold/test_fold_location.py",
        "fold/locations.py",
        'if (padded and call.argument(5, "count_include_pad", True)) or',
        "if",
        "a mean with zeros of the padding shifts by less at the border",
    ),
    (
        "a shift goes the wrong way through a product",
        "transforms/fold/test_fold_location.py",
        "fold/locations.py",
        'moved = shift / factor if name == "mul" else shift * factor',
        "moved = shift * factor",
        "x w shifts by s if x shifts by s / w",
    ),
    (
        "a missing bias counts as one",
        "transforms/fold/test_lint.py",
        "fold/lint.py",
        'return ADDS, f"as a bias would, which is missing: {few(created)}"',
        'return REPARAMETRISES, f"as a bias would, which is missing: {few(created)}"',
        "behind a layer without a bias the location adds what the model could not compute",
    ),
)
SPEC = _faults(
    "src/agileact/study/spec",
    (
        "later fields change the identity of older trials",
        "study/spec",
        "trial.py",
        'if not (entry.metadata.get("later") and getattr(value, entry.name) == entry.default)',
        "if True",
        "stored results are no longer found, and are trained again",
    ),
    (
        "the identity follows the order of fields",
        "study/spec",
        "trial.py",
        "json.dumps(_plain(self), sort_keys=True,",
        "json.dumps(_plain(self), sort_keys=False,",
        "a field that moves in the source loses all stored results",
    ),
    (
        "one meaning has two identities",
        "study/spec",
        "trial.py",
        "if list(self.freeze) != sorted(self.freeze):",
        "if False:",
        "freezing (scale, location) and (location, scale) is the same arm",
    ),
    (
        "scale-only freezes the scale",
        "study/spec",
        "arms.py",
        '"scale-only": _Modifier({"freeze": ("location",)}',
        '"scale-only": _Modifier({"freeze": ("scale",)}',
        "the control trains what its name excludes",
    ),
    (
        "a seed too few counts as enough",
        "study/running/test_planner.py",
        "protocol.py",
        "math.ceil(math.log2(2 * max(1, self.comparisons) / 0.05))",
        "math.ceil(math.log2(max(1, self.comparisons) / 0.05))",
        "the exact test is two-sided: its least p-value is 2 / 2^n",
    ),
    (
        "tuning seeds are compared on",
        "study/running/test_planner.py",
        "protocol.py",
        "shared = sorted(set(self.seeds) & set(self.tuning_seeds))",
        "shared: list[int] = []",
        "an arm that was tuned on a seed looks better with it than it is",
    ),
)
STATISTICS = _faults(
    "src/agileact/study/statistics",
    (
        "intervals read together are not widened",
        "study/statistics/test_paired.py",
        "paired.py",
        "each = 1 - (1 - level) / comparisons",
        "each = level",
        "of twenty intervals of 95 % one misses by chance",
    ),
    (
        "the exact test looks at one side",
        "study/statistics/test_paired.py",
        "paired.py",
        "return float(np.mean(np.abs(sums) >= least))",
        "return float(np.mean(sums >= least))",
        "the p-value is half of what it is",
    ),
    (
        "Hedges' factor is off",
        "study/statistics/test_paired.py",
        "paired.py",
        "/ math.sqrt(free / 2)",
        "/ math.sqrt(free)",
        "effect sizes of few pairs are too small by a third",
    ),
    (
        "too much is trimmed",
        "study/statistics/test_tasks.py",
        "tasks.py",
        "cut = len(ordered) // 4",
        "cut = (len(ordered) + 3) // 4",
        "the interquartile mean cuts off the whole part of n/4 on each side",
    ),
    (
        "ties count for nobody",
        "study/statistics/test_tasks.py",
        "tasks.py",
        "return float(((a < b) + 0.5 * (a == b)).mean())",
        "return float((a < b).mean())",
        "an arm beats itself with probability 0",
    ),
    (
        "tied ranks take the highest",
        "study/statistics/test_typical.py",
        "paired.py",
        ".rankdata(sizes))",
        '.rankdata(sizes, method="max"))',
        "equal differences share their mean rank",
    ),
    (
        "the race ends at the better loss",
        "study/statistics/test_times.py",
        "times.py",
        "else max(best[0], best[1])",
        "else min(best[0], best[1])",
        "a loss that only one run reaches is no common target",
    ),
    (
        "power of a test with one side",
        "study/statistics/test_power.py",
        "power.py",
        "edge = float(stats.t.ppf(1 - alpha / 2, free))",
        "edge = float(stats.t.ppf(1 - alpha, free))",
        "a smaller effect is called detectable than the two-sided test would see",
    ),
    (
        "equivalence by the mean alone",
        "study/statistics/test_verdict.py",
        "verdict.py",
        "inside = matters is not None and -matters < difference.low and difference.high < matters",
        "inside = matters is not None and -matters < difference.mean and difference.mean < matters",
        "a difference counts as none although the interval holds ones that matter",
    ),
)
RUNNING = _faults(
    "src/agileact/study/running",
    (
        "two processes may write one store",
        "study/running/test_store.py",
        "store.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "a second runner trains and stores the same trials",
    ),
    (
        "a row of another status passes",
        "study/running/test_store.py study/running/test_rescue.py",
        "store.py",
        "if parsed.spec.key != key or parsed.status != status:",
        "if parsed.spec.key != key:",
        "a damaged row is handed on as whole",
    ),
    (
        "a killed runner's journal is not rolled back",
        "study/running/test_store.py",
        "store.py",
        "mode={'rw' if read_only else 'rwc'}",
        "mode={'ro' if read_only else 'rwc'}",
        "nobody can look at a store whose runner was killed in the middle of a write",
    ),
    (
        "a commit does not wait for the disk",
        "study/running/test_store.py",
        "store.py",
        'one("PRAGMA synchronous = FULL")',
        'one("PRAGMA synchronous = OFF")',
        "a crash of the machine damages the store",
    ),
    (
        "a trial is told before it is stored",
        "study/running/test_runner.py",
        "runner.py",
        "                    store.put(event.result)\n",
        "                    on_event and on_event(event)\n                    store.put(event.result)\n",
        "what was told to be finished is lost if the process is killed in between",
    ),
    (
        "tuning sees the test set",
        "study/running/test_planner.py",
        "planner.py",
        "test_curve=False, use_test=False, probe_every=0",
        "test_curve=False, use_test=True, probe_every=0",
        "the test set is for the configuration that validation chose, once",
    ),
    (
        "a diverged trial keeps its lowest loss",
        "study/running/test_planner.py",
        "planner.py",
        'math.inf if result.status == "diverged" else min(',
        "min(",
        "a learning rate at which training diverges is chosen for what it was before",
    ),
)

FAULTS: tuple[Fault, ...] = (*KERNELS, *TRANSFORMS, *SPEC, *STATISTICS, *RUNNING)


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

    def judge(self, fault: Fault, *, quick: bool) -> dict[str, str] | None:
        """Return which set finds a fault, and by which test; None where only the first tests were asked, in vain."""
        original = (self.tree / fault.file).read_text(encoding="utf-8")
        fault.apply(self.tree)
        kernels = fault.file.startswith("csrc/")
        try:
            if kernels:
                self.build()
            found = self.failing("-m", "not slow", *fault.tests)
            if quick and not found:
                return None
            where = "fast"
            for name, mark, places in (("fast", "not slow", ()), ("slow", "slow", fault.tests), ("slow", "slow", ())):
                if not found:
                    found, where = self.failing("-m", mark, *places), name
            where = where if found else "nothing"
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
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that keeps them")
    parser.add_argument("--quick", action="store_true", help="ask the first tests alone; leave what they do not find")
    parser.add_argument("--check", action="store_true", help="only see whether every fault still applies")
    parser.add_argument("--table", action="store_true", help="only print the results that there are")
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
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
            result = campaign.judge(fault, quick=options.quick)
            if result is None:
                print(f"{fault.name}: not found by {' '.join(fault.tests)}", flush=True)
                continue
            results[fault.name] = result
            print(f"{fault.name}: {results[fault.name]['set']} {results[fault.name]['test']}", flush=True)
            options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
