"""Since when this process runs, and what to say where the system does not tell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from agileact._common import machine


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("ps"), reason="ps tells when a process was started")
def test_the_time_since_the_process_was_started():
    seconds = machine.running_seconds()
    told = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    assert int(told.stdout) - 2 <= seconds <= int(told.stdout) + 2


def test_without_the_systems_word_it_is_the_time_that_was_computed(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError

    before = time.process_time()
    monkeypatch.setattr("builtins.open", refuse)
    assert before <= machine.running_seconds() <= time.process_time()
