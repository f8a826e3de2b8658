"""Counts the instructions that the loops take for an element, by valgrind's callgrind: repeatable on a busy machine.

    python benchmarks/instructions.py [--against FOLDER]

prints a table for docs/kernels.md: base by pass and dtype. With ``--against``, a folder of object files that an older
``csrc`` was built into, the older count stands first. Valgrind knows no AVX-512, hence AVX2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
sys.path.insert(0, str(CSRC))
build: Any = importlib.import_module("build")

BASES = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "identity", "silu", "gelu", "gelu_tanh", "mish",
         "hardswish", "hardsigmoid")  # fmt: skip
INVERTIBLE = BASES[:7]
SIZES = (16384, 32768)


def count(objects: Path, dtypes: tuple[str, ...]) -> dict[tuple[str, str, str], float]:
    """Return the instructions an element by pass, base and dtype, for the newest objects in a folder."""
    calls = [
        (step, base, dtype)
        for base in BASES
        for step in ("forward", "from-output" if base in INVERTIBLE else "backward")
        for dtype in dtypes
    ]
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "count"
        newest = [
            str(max(objects.glob(pattern), key=lambda path: path.stat().st_mtime))
            for pattern in ("elementwise-AVX2-*.o", "layout-any-*.o")
        ]
        command = [*shlex.split(build.compiler()), "-std=c++20", "-O1", f"-I{root / 'include'}", f"-I{CSRC}"]
        command += [str(HERE / "instructions.cpp"), *newest, "-o", str(program), f"-L{root / 'lib'}", "-ltorch_cpu"]
        subprocess.run([*command, "-ltorch", "-lc10", "-lgomp", f"-Wl,-rpath,{root / 'lib'}"], check=True)
        lines = [f"{' '.join(call)} {size}" for call in calls for size in SIZES]
        subprocess.run(
            ["valgrind", "--tool=callgrind", "--combine-dumps=no", f"--callgrind-out-file={folder / 'out'}", program],
            input="\n".join(lines), text=True, check=True, capture_output=True,
            env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        totals: dict[str, int] = {}
        for path in folder.glob("out*"):
            text = path.read_text(errors="replace")
            label = re.search(r"desc: Trigger: Client Request: (.*)", text)
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            if label and total:
                totals[label[1].strip()] = int(total[1])
    small, large = SIZES
    return {
        call: (totals[f"{' '.join(call)} {large}"] - totals[f"{' '.join(call)} {small}"]) / (large - small)
        for call in calls
    }


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    dtypes = ("float32", "bfloat16", "float16")
    now = count(HERE.parent / "build" / "kernels", dtypes)
    before = count(options.against, ("float32", "bfloat16")) if options.against else {}
    print("| base | " + " | ".join(f"{step} {d}" for d in dtypes for step in ("forward", "backward")) + " |")
    print("|---" * 7 + "|")
    for base in BASES:
        cells = []
        for dtype in dtypes:
            for step in ("forward", "from-output" if base in INVERTIBLE else "backward"):
                old = before.get((step, base, dtype))
                cells.append(f"{f'{old:.2f} / ' if old is not None else ''}{now[step, base, dtype]:.2f}")
        print(f"| {base} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
