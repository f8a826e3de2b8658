"""Builds the compiled kernels along with the package; without a compiler the package installs without them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def _load_builder() -> Any:
    spec = importlib.util.spec_from_file_location("agileact_build", ROOT / "csrc" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_ext):
    """Builds the libraries with csrc/build.py; a failure is written down for ``agileact doctor``.

    ``AGILEACT_BUILD=0`` leaves them out, ``AGILEACT_BUILD=1`` makes a failure an error. An editable install is for this
    machine, a wheel for any of its kind.
    """

    def run(self) -> None:
        """Build in place, and copy for a wheel."""
        wanted = os.environ.get("AGILEACT_BUILD", "")
        builder = _load_builder()
        target = builder.LIBRARIES
        try:
            if wanted == "0":
                raise builder.BuildError("AGILEACT_BUILD=0 left the compiled kernels out")
            builder.build(target, everywhere=not self.inplace)
        except (builder.BuildError, ImportError, OSError) as error:
            if wanted == "1":
                raise
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            (target / "failed.txt").write_text(f"{error}\n")
            print(f"agileact: installing without the compiled kernels: {error}", file=sys.stderr)
        if not self.inplace:
            installed = Path(self.build_lib) / "agileact" / "ops" / "lib"
            shutil.rmtree(installed, ignore_errors=True)
            shutil.copytree(target, installed)

    def get_outputs(self) -> list[str]:
        """Return nothing: the libraries are no Python modules."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Return nothing, likewise."""
        return {}

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs."""
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").iterdir()) if path.is_file()]


class Wheel(bdist_wheel):
    """Tags the wheel for its platform and for any Python: where the binding does not fit, ``torch.ops`` serves."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag."""
        _, _, machine = super().get_tag()
        return "py3", "none", machine


setup(
    ext_modules=[Extension("agileact.ops.lib", sources=[])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
