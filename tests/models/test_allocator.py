"""Freed memory stays with the process: counted in page faults, by processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rag_experiments.models.allocator import keep_freed_memory

COUNT = """
import resource, torch
from rag_experiments.models.allocator import keep_freed_memory
kept = keep_freed_memory(torch.device("cpu")) if {asked} else False
torch.ones(2**24)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count(asked: bool, **environment: str) -> tuple[str, int]:
    """Whether memory is kept, and the page faults of five tensors of 64 MiB after a first."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", COUNT.format(asked=asked)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = ran.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_the_next_tensor_takes_the_memory_of_the_last():
    pages = 5 * 2**26 // os.sysconf("SC_PAGE_SIZE")
    assert count(asked=False)[1] > pages // 2
    kept, faults = count(asked=True)
    assert kept == "True"
    assert faults < pages // 4  # one grows the heap once more, where the blocks do not line up


def test_who_has_set_malloc_is_obeyed_and_gpus_are_left_alone(monkeypatch):
    assert not keep_freed_memory(torch.device("cuda"))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory(torch.device("cpu"))
