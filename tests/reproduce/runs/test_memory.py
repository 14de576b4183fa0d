"""The peak memory of a process."""

import subprocess
import sys

import pytest

from reproduce.runs.memory import peak_memory, reset_peak_memory

SIZE = 300

needs_reset = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux resets it"
)


@needs_reset
def test_it_holds_what_was_freed_again():
    reset_peak_memory()
    before = peak_memory()
    block = bytearray(SIZE * 2**20)
    del block
    assert peak_memory() - before == pytest.approx(SIZE, rel=0.25)


@needs_reset
def test_after_a_reset_it_forgets_what_was_freed():
    block = bytearray(SIZE * 2**20)
    del block
    before = peak_memory()
    reset_peak_memory()
    assert peak_memory() < before - SIZE / 2


def test_a_process_does_not_inherit_it():
    block = bytearray(SIZE * 2**20)
    code = "from reproduce.runs.memory import peak_memory; print(peak_memory())"
    command = f"import sys; sys.path[:0] = {sys.path!r}; {code}"
    child = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    del block
    assert 0 < float(child.stdout) < SIZE
