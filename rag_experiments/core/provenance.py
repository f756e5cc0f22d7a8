"""Where a run's figures come from: code version, library versions, and the process that made them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = (
    "rag_experiments",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "sentence-transformers",
    "peft",
    "datasets",
    "numpy",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "bm25s",
    "hydra-core",
    "omegaconf",
    "optuna",
    "wandb",
)


def library_versions() -> dict[str, str]:
    """Installed versions by distribution name, and Python's; read from metadata, so nothing is imported."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state() -> tuple[str | None, bool | None]:
    """The commit of the checkout this package runs from, and whether its code or `conf/` differs from it.

    `(None, None)` where the package is installed from a wheel, even inside somebody's own repository.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "rag_experiments", "conf")
    return commit, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(root), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # a status must not take the index's lock
    try:
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def process_identity() -> dict[str, Any]:
    """This process, so that another can tell later whether it still lives."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": _start_ticks(os.getpid())}


def process_lives(identity: dict[str, Any]) -> bool | None:
    """Whether the process of `process_identity()` still runs; `None` where it was on another host."""
    if identity.get("host") != socket.gethostname():
        return None
    pid = identity.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:  # no process has another number
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, under another user
    started = identity.get("pid_started")
    # Numbers are used again: a process that started at another time is another process.
    return started is None or _start_ticks(pid) in (None, started)


def _start_ticks(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` started (Linux); `None` where that cannot be read or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return -1 if fields[0] == "Z" else int(fields[19])
