"""Builds the CPU kernels: one library for each instruction set, for the PyTorch that is installed.

``setup.py`` calls :func:`build`; by hand: ``python csrc/build.py``. In a checkout the library for this machine is
built, which takes a third of the time; a wheel gets all of them, as it may be installed elsewhere. A library holds the
registered operators and autograd, compiled once for any machine, and the loops, compiled for its instruction set. Each
is a file of its own, so that an inline function compiled for AVX-512 can never be linked into a program for a machine
without it. Where Python's headers are, ``binding`` lies beside them: a short way from Python to the operator, for the
version of Python that builds. ``python csrc/build.py --check aarch64-linux-gnu-g++`` only reads the sources,
for another machine.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.machinery
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = HERE.parent / "src" / "agileact" / "ops" / "lib"
SCHEMA = HERE.parent / "src" / "agileact" / "ops" / "schema.py"

COMMON = (
    "autograd.cpp",
    "gain_operator.cpp",
    "layout.cpp",
    "operators.cpp",
    "pool_autograd.cpp",
    "pool_operators.cpp",
    "stamp.cpp",
)
BINDING = "binding.cpp"
LOOPS = ("elementwise.cpp", "combined.cpp", "conv_pool.cpp", "gain.cpp", "pool.cpp", "pool_backward.cpp")

_X86 = {
    "DEFAULT": (),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"),
}


class BuildError(RuntimeError):
    """The libraries could not be built; the message says why."""


def digest(*files: Path) -> str:
    """Return a hash over names and contents."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def source_digest() -> str:
    """Return the hash of the sources that a library is built from."""
    return digest(*HERE.glob("*.cpp"), *HERE.glob("*.h"))


def capabilities(everywhere: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the instruction sets to build for, with their compiler flags.

    The environment variable ``AGILEACT_BUILD_SETS`` names them (``AVX2 AVX512``), or says ``all``.

    Args:
        everywhere: Whether to build for any machine of this architecture, unless the variable says otherwise; if not,
            for this one.

    Raises:
        BuildError: If the variable names a set that does not exist here.
    """
    import torch

    # On arm64 ATen's default vectors are NEON.
    sets = _X86 if platform.machine().lower() in ("x86_64", "amd64") else {"DEFAULT": ()}
    wanted = os.environ.get("AGILEACT_BUILD_SETS", "").split()
    if wanted == ["all"] or (everywhere and not wanted):
        return dict(sets)
    if not wanted:
        here = torch.backends.cpu.get_cpu_capability()
        wanted = [here if here in sets else "DEFAULT"]
    unknown = [name for name in wanted if name not in sets]
    if unknown:
        raise BuildError(f"AGILEACT_BUILD_SETS must be 'all' or some of {', '.join(sets)}, not {' '.join(wanted)!r}")
    return {name: sets[name] for name in wanted}


def stamp(capability: str) -> dict[str, str]:
    """Return what a library says about itself; the loader compares it before loading."""
    import torch

    return {
        "torch": torch.__version__,
        "cxx11_abi": str(int(torch.compiled_with_cxx11_abi())),
        "machine": platform.machine(),
        "capability": capability,
        "schema": digest(SCHEMA),
        "source": source_digest(),
    }


def compiler() -> str:
    """Return the C++ compiler: ``$CXX``, else c++, g++ or clang++.

    Raises:
        BuildError: If there is none.
    """
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if name and shutil.which(shlex.split(name)[0]):
            return name
    raise BuildError(f"no C++ compiler found ({wanted or 'c++, g++ or clang++'}); set CXX to name one")


def build(
    out: Path = LIBRARIES, work: Path = HERE.parent / "build" / "kernels", *, everywhere: bool = False
) -> list[Path]:
    """Compile what has changed and link the libraries.

    Args:
        out: The folder for the libraries; what was there before is removed.
        work: The folder for object files, named by the hash of what they are made from.
        everywhere: As for :func:`capabilities`.

    Raises:
        BuildError: If there is no compiler, no PyTorch headers, or a file does not compile.
    """
    if sys.platform == "win32":
        raise BuildError("building on Windows is not supported")
    import torch

    cxx = shlex.split(compiler())
    root = Path(torch.__file__).parent
    flags = _flags(root)
    work.mkdir(parents=True, exist_ok=True)

    def compile_one(name: str, label: str, extra: tuple[str, ...]) -> Path:
        made_from = [cxx, flags, extra, digest(HERE / name, *HERE.glob("*.h")), torch.__version__]
        key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
        target = work / f"{Path(name).stem}-{label}-{key}.o"
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}.tmp")
            _run([*cxx, *flags, *extra, "-c", str(HERE / name), "-o", str(partial)])
            partial.replace(target)
        return target

    jobs: dict[tuple[str, str], tuple[str, ...]] = {}
    sets = capabilities(everywhere)
    for capability, extra in sets.items():
        defines = (f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}")
        for name in LOOPS:
            jobs[name, capability] = (*extra, *defines)
        jobs["stamp.cpp", capability] = _stamp_define(capability)
    for name in COMMON:
        if name != "stamp.cpp":
            jobs[name, "any"] = ()
    headers, tag = _python_headers(), sys.implementation.cache_tag
    if headers is not None:
        jobs[BINDING, tag] = (f"-I{headers}",)
        jobs["stamp.cpp", tag] = _stamp_define(tag)
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        pending = {key: pool.submit(compile_one, *key, extra) for key, extra in jobs.items()}
        if headers is not None and (error := pending[BINDING, tag].exception()) is not None:
            # torch.ops leads to the same operators: slower for small tensors, no reason to have no kernels.
            print(
                f"agileact: the short way from Python is left out, it does not compile here: {error}", file=sys.stderr
            )
            headers = None
            del pending[BINDING, tag]
        objects = {key: future.result() for key, future in pending.items()}

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    def link(target: Path, labels: tuple[str, ...], more: tuple[str, ...] = ()) -> Path:
        own = [str(path) for (_, label), path in objects.items() if label in labels]
        # OpenMP is not linked: its symbols come from the library that PyTorch itself runs on. A second OpenMP
        # would bring a second pool of threads.
        _run([*cxx, "-shared", *own, "-o", str(target), f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10", *more,
              *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []),
              *shlex.split(os.environ.get("LDFLAGS", ""))])  # fmt: skip
        return target

    libraries = [link(out / f"libagileact_{capability}.so", ("any", capability)) for capability in sets]
    if headers is not None:
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        libraries.append(link(out / f"binding{suffix}", (tag,), ("-ltorch_python",)))
    return libraries


def check(cxx: str) -> None:
    """Read every source with another compiler, of arm64 say, without making anything; raise if it finds an error.

    PyTorch's headers are the same for all machines, so that this needs no PyTorch for that machine.
    """
    import torch

    defines = ("-DCPU_CAPABILITY=DEFAULT", "-DCPU_CAPABILITY_DEFAULT", '-DAGILEACT_STAMP="{}"')
    headers = _python_headers()
    own = () if headers is None else (BINDING, f"-I{headers}")
    for name in (*LOOPS, *COMMON, *own[:1]):
        flags = [*_flags(Path(torch.__file__).parent), *defines, *own[1:], "-fsyntax-only"]
        _run([*shlex.split(cxx), *flags, str(HERE / name)])


def _python_headers() -> Path | None:
    headers = Path(sysconfig.get_paths()["include"])
    return headers if (headers / "Python.h").exists() else None


def _stamp_define(label: str) -> tuple[str]:
    text = json.dumps(stamp(label), sort_keys=True, separators=(",", ":"))
    return (f"-DAGILEACT_STAMP={json.dumps(text)}",)


def _flags(root: Path) -> list[str]:
    import torch

    include = root / "include"
    if not (include / "ATen" / "ATen.h").exists():
        raise BuildError(f"the PyTorch in {root} came without its C++ headers")
    return [
        "-std=c++20" if _version(torch.__version__) >= (2, 9) else "-std=c++17",
        *("-O2", "-g0", "-fPIC", "-DNDEBUG", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-I{include}",
        f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}",
        *([] if sys.platform == "darwin" else ["-fopenmp"]),
        *shlex.split(os.environ.get("CXXFLAGS", "")),
    ]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:2])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise BuildError(f"{command[0]} failed with exit code {done.returncode}: {lines[0]}")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        check(sys.argv[2])
        sys.exit()
    print(f"Python {sysconfig.get_python_version()}, building for {', '.join(capabilities())}", file=sys.stderr)
    for library in build():
        print(library)
