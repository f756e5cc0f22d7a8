"""The run directory: where everything is, how it is written, what state it is in. Imports no torch.

    config.yaml  status.json  metrics.jsonl  metrics.json  error.txt (a failed run's traceback)
    predictions/<split>.jsonl  checkpoints/  model/  plots/  evaluations/<name>/  wandb/  train.log  .hydra/

A run that says `running` but whose process is gone was killed: it counts as interrupted. Only the
main process (rank 0) writes.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from rag_experiments.config.overrides import typed
from rag_experiments.core import provenance
from rag_experiments.core.bounded_files import BROKEN_LINES, lines_of, open_regular, parse_json, read_json
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import (
    TEMPORARY_PREFIX,
    atomic_write_json,
    atomic_write_jsonl,
    atomic_write_text,
    json_text,
    safetensors_size,
)

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
HEARTBEAT = ".running"
STALE_SECONDS = 600.0
"""A run on another host, whose process cannot be looked at, is taken for dead after this silence."""


class RunDirectory:
    """One run's directory. Every write is whole or not at all; on other ranks writes do nothing."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.writes = is_main_process()

    @classmethod
    def create(cls, path: Path | str) -> RunDirectory:
        """A fresh run at `path`, which may exist (Hydra makes it) but hold no run.

        Raises:
            RequestError: there is a run already: its result is never overwritten.
        """
        run = cls(path)
        if run.writes:
            if run.status_path.exists():
                raise RequestError(f"{run.path} already holds a run: continue it with {typed('resume', str(run.path))}")
            run.path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The run at `path`.

        Raises:
            RequestError: there is none.
        """
        run = cls(path)
        if not run.status_path.is_file():
            raise RequestError(f"{run.path}: there is no run there (no status.json)")
        return run

    @property
    def holds_work(self) -> bool:
        """Whether anything was finished here that a later run could use or a reader could want."""
        return self.history_path.exists() or (self.path / "predictions").exists() or self.last_checkpoint() is not None

    def discard(self) -> None:
        """Remove the directory: of a request that was refused before anything was done."""
        if self.writes:
            shutil.rmtree(self.path, ignore_errors=True)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    # -- layout ----------------------------------------------------------------------------------

    @property
    def status_path(self) -> Path:
        return self.path / "status.json"

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The final figures."""
        return self.path / "metrics.json"

    @property
    def history_path(self) -> Path:
        """A line a logging step."""
        return self.path / "metrics.jsonl"

    @property
    def error_path(self) -> Path:
        return self.path / "error.txt"

    @property
    def model_dir(self) -> Path:
        return self.path / "model"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def wandb_dir(self) -> Path:
        return self.path / "wandb"

    def predictions_path(self, stage: str) -> Path:
        """`zero_shot/dev` → `predictions/zero_shot/dev.jsonl`."""
        return self.path / "predictions" / f"{stage}.jsonl"

    def write_config(self, text: str) -> None:
        """`config.yaml`."""
        if self.writes:
            atomic_write_text(self.config_path, text)

    # -- status ----------------------------------------------------------------------------------

    def read_status(self) -> dict[str, Any]:
        """`status.json`; empty where there is none.

        Raises:
            RequestError: it is no JSON mapping, or no file that can be read.
        """
        try:
            status = read_json(self.status_path)
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise RequestError(f"{self.status_path} cannot be read: {error}") from error
        if not isinstance(status, dict):
            raise RequestError(f"{self.status_path} cannot be read: it is no mapping")
        return status

    def update_status(self, **changes: Any) -> None:
        """Merge `changes` into `status.json`."""
        if self.writes:
            atomic_write_json(self.status_path, {**self.read_status(), **changes})

    @property
    def state(self) -> str:
        """`running`, `completed`, `failed` or `interrupted`; a run whose process is gone is interrupted."""
        status = self.read_status()
        state = status.get("state", "interrupted")
        return "interrupted" if state == "running" and not self.process_lives() else state

    def process_lives(self) -> bool:
        """Whether the process that wrote the status last still runs (on another host: has been heard of lately)."""
        lives = provenance.process_lives(self.read_status())
        if lives is not None:
            return lives
        try:
            silence = time.time() - (self.path / HEARTBEAT).stat().st_mtime
        except OSError:
            return False
        return silence < STALE_SECONDS

    # -- metrics and predictions -----------------------------------------------------------------

    def append_metrics(self, step: int, epoch: float, seconds: float, metrics: dict[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        if not self.writes:
            return
        line = json_text({"step": int(step), "epoch": float(epoch), "seconds": round(float(seconds), 3), **metrics})
        with open(self.history_path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end > 0:  # a line that a full disk or a kill broke off must not swallow this one
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write((line + "\n").encode("utf-8"))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a broken one (the last, after a kill) is left out."""
        lines: list[dict[str, Any]] = []
        with suppress(OSError, ValueError), open_regular(self.history_path) as file:
            lines += parsed_metrics(file)
        return lines

    def truncate_metrics(self, step: int, logged: int | None = None) -> None:
        """Drop what was logged after `step`, as a run that goes on from a checkpoint logs it again.

        `logged`: how many lines training had written by then; those of the same step that came later (the closing
        figures, where a run was killed after its last step) go as well. Zero-shot figures stay.
        """
        if not (self.writes and self.history_path.exists()):
            return
        before = [line for line in self.read_metrics() if line["step"] <= step]
        in_training = [number for number, line in enumerate(before) if not _is_zero_shot(line)]
        late = set(in_training[logged:]) if logged is not None else set()
        atomic_write_jsonl(self.history_path, [line for number, line in enumerate(before) if number not in late])

    def go_back_to_checkpoint(self) -> None:
        """Leave what the last complete checkpoint knows of: no later log lines, checkpoints or unfinished files.

        Without a checkpoint training begins anew, and only the figures from before it stay.
        """
        if not self.writes:
            return
        for leftover in _unfinished(self.path):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        checkpoint = self.last_checkpoint()
        step = 0 if checkpoint is None else int(_checkpoint_step(checkpoint) or 0)
        for entry in self.checkpoints_dir.iterdir() if self.checkpoints_dir.is_dir() else ():
            if (_checkpoint_step(entry) or 0) > step:  # half-written: it would count as one of `save_total_limit`
                shutil.rmtree(entry)
        self.truncate_metrics(step, 0 if checkpoint is None else _lines_logged(checkpoint))

    def write_metrics(self, final: dict[str, Any]) -> None:
        """`metrics.json`."""
        if self.writes:
            atomic_write_json(self.metrics_path, final)

    def read_final_metrics(self) -> dict[str, Any]:
        """`metrics.json`; empty where the run did not come that far."""
        if not self.metrics_path.exists():
            return {}
        return read_json(self.metrics_path)

    def write_predictions(self, stage: str, rows: Iterable[dict[str, Any]]) -> None:
        """`predictions/<stage>.jsonl`, a question a line."""
        if self.writes:
            atomic_write_jsonl(self.predictions_path(stage), rows)

    def read_predictions(self, stage: str) -> list[dict[str, Any]]:
        """The rows of a stage; empty where there are none."""
        path = self.predictions_path(stage)
        if not path.exists():
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]

    # -- checkpoints -----------------------------------------------------------------------------

    def last_checkpoint(self) -> Path | None:
        """The complete checkpoint with the most steps; a half-written one is passed over."""
        if not self.checkpoints_dir.is_dir():
            return None
        found = [(match, entry) for entry in self.checkpoints_dir.iterdir() if (match := _checkpoint_step(entry))]
        for step, entry in sorted(found, reverse=True):
            if checkpoint_is_complete(entry, step):
                return entry
        return None


def parsed_metrics(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The lines of a log from where the file stands; what is broken is passed over, thousands of it end the reading.

    A step is a whole number; figures that are not finite (a loss that diverged) are None.
    """
    broken = 0
    for _, text in lines_of(file):
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and type(line.get("step")) is int and not _no_number(line.get("seconds")):
            yield {name: None if _is_infinite(value) else value for name, value in line.items()}
            continue
        broken += 1
        if broken > BROKEN_LINES:
            return


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _no_number(value: object) -> bool:
    return value is not None and (isinstance(value, bool) or not isinstance(value, int | float))


def _is_zero_shot(line: dict[str, Any]) -> bool:
    return any(name.startswith("zero_shot/") for name in line)


def _unfinished(run: Path) -> list[Path]:
    """What a kill left of files that were being written; an evaluation's may be another process's at this moment."""
    places = [run, run / "predictions", run / "predictions" / "zero_shot"]
    return [found for place in places for found in place.glob(f"{TEMPORARY_PREFIX}*")]


def _lines_logged(checkpoint: Path) -> int | None:
    """How many lines of the log had been written when the checkpoint was: Trainer keeps them all in its state."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    history = state.get("log_history")
    return len(history) if isinstance(history, list) else None


def _checkpoint_step(path: Path) -> int | None:
    match = CHECKPOINT_NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def checkpoint_is_complete(path: Path, step: int) -> bool:
    """Whether Trainer finished writing the checkpoint: its state, which comes last, is whole, and so are weights."""
    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = [file for file in path.rglob("*.safetensors") if file.is_file()]
    return state.get("global_step") == step and bool(weights) and all(_safetensors_whole(file) for file in weights)


def _safetensors_whole(path: Path) -> bool:
    """Whether the file is as long as its own header says."""
    try:
        return path.stat().st_size >= safetensors_size(path)
    except (OSError, ValueError):
        return False
