"""What holds for every test: the same examples on every run, and one thread unless a test asks for more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Inductor keeps code by graph, not by instruction set: code of another set gives garbage.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR",
    f"{tempfile.gettempdir()}/agileact-inductor-{os.environ.get('ATEN_CPU_CAPABILITY', 'native')}",
)
settings.register_profile("agileact", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("agileact")
# Two test processes with two threads each would be slower than with one.
torch.set_num_threads(1)


def pytest_collectstart() -> None:
    """Models that a file builds for its parameters are the same on every run, whichever files are collected."""
    torch.manual_seed(0)


def pytest_runtest_setup() -> None:
    """The same random numbers on every run, whatever ran before in the same process."""
    torch.manual_seed(0)


@pytest.fixture
def _clean_registry() -> Iterator[None]:
    """Forget the base functions that a test registers: others would find them in formulas."""
    from agileact.bases import registry

    before = dict(registry._REGISTRY)
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


def pytest_configure(config: pytest.Config) -> None:
    # PyTorch itself calls what it deprecates: torch.jit.script when forward-mode derivatives are first used.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script:DeprecationWarning")
