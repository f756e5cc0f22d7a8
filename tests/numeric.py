"""Tests whose outcome rests on floating point, and how they compare: `make test-numeric` runs them once per processor.

A claim of mathematics (batched equals one by one, ours equals the published form) is made in float64. What cannot be,
because the product computes it in float32, is compared relative to the largest of the compared values: instruction
sets and thread counts add in other orders, and what that changes grows with the values.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent

# float64: transformers rounds inside to float32 (norms, rotations), so models are no nearer than that allows.
SHARE = {torch.float64: 1e-6, torch.float32: 1e-4}


def assert_near(got: Any, wanted: Any, share: float | None = None, what: str = "") -> None:
    """The largest difference is at most `share` of the largest of the `wanted` values.

    Args:
        got: a tensor, array or list of any shape.
        wanted: what it must be; its precision chooses the default share.
        share: a share of the largest absolute value of `wanted`.
        what: named in the message.
    """
    got, wanted = (v.detach() if isinstance(v, torch.Tensor) else torch.tensor(v) for v in (got, wanted))
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    if share is None:
        share = max(SHARE.get(tensor.dtype, SHARE[torch.float32]) for tensor in (got, wanted))
    if not wanted.numel():
        return
    size, difference = float(wanted.double().abs().max()), float((got.double() - wanted.double()).abs().max())
    assert difference <= share * size, f"{what}: {difference:.2e} apart, where the values are up to {size:.2e}"


def assert_all_near(got: dict[str, Any], wanted: dict[str, Any], share: float | None = None) -> None:
    """As `assert_near` for tensors of one kind (the weights or gradients of a model), relative to the largest of all.

    Some are zero by mathematics (attention's softmax does not see a key's bias): relative to themselves they are noise.
    """
    assert got.keys() == wanted.keys()
    whole = {
        name: torch.cat([tensor.detach().flatten().double() for _, tensor in sorted(given.items())])
        for name, given in (("got", got), ("wanted", wanted))
    }
    if share is None:
        share = max(SHARE.get(tensor.dtype, SHARE[torch.float32]) for tensor in (*got.values(), *wanted.values()))
    assert_near(whole["got"], whole["wanted"], share=share)


def surroundings() -> dict[str, dict[str, str]]:
    """What to run under, by name: each instruction set up to the machine's own, then two threads.

    torch, MKL and oneDNN choose their code apart from one another, so each is told.
    """
    below = {
        "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        "AVX512": {"ATEN_CPU_CAPABILITY": "avx512", "MKL_CBWR": "AVX512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    }
    order = list(below)
    has = torch.backends.cpu.get_cpu_capability()
    last = order.index(has) if has in order else 0
    found = {name: {**below[name], "OMP_NUM_THREADS": "1"} for name in order[: last + 1]}
    return {**found, "the machine's own, two threads": {"OMP_NUM_THREADS": "2"}}


def main(arguments: list[str]) -> int:
    """One pytest process after another, each named with what it was told; the worst exit status."""
    worst, ends = 0, []
    for name, settings in surroundings().items():
        print(f"== {name}: {' '.join(f'{key}={value}' for key, value in settings.items())}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-m", "numeric and not real", *arguments]
        started = time.monotonic()
        status = subprocess.run(command, env={**os.environ, **settings}, cwd=HERE.parent, check=False).returncode
        ends.append(f"{name}: {'passed' if not status else f'pytest left with {status}'}, "
                    f"{time.monotonic() - started:.0f} s")  # fmt: skip
        worst = max(worst, abs(status))
    print("\n".join(ends))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
