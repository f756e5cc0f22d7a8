"""The run directory: the layout of its files, how they are written, and the state of the run. Imports no torch.

    config.yaml  status.json  metrics.jsonl  metrics.json  error.txt (a failed run's traceback)
    predictions/<split>.jsonl  checkpoints/  model/  plots/  evaluations/<name>/  wandb/  train.log  .hydra/

If the status says `running` but the process is gone, the run was killed, and it counts as interrupted. Only the main
process (rank 0) writes.
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

CHOICE = "choice"
"""Folder inside a run with `refit=true`: its first training, which chooses the number of steps."""
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
HEARTBEAT = ".running"
BASELINE = "baseline"
"""The stages of a baseline are `baseline/<name>/dev` and `…/test`, as the untrained model has `zero_shot/…`."""
STALE_SECONDS = 600.0
"""A run on another host, whose process cannot be checked, counts as dead after this time without a heartbeat."""


class RunDirectory:
    """The directory of one run. A file is written completely or not at all; on other ranks writes do nothing."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.writes = is_main_process()

    @classmethod
    def create(cls, path: Path | str) -> RunDirectory:
        """Begin a new run at `path`. The folder may exist (Hydra makes it), but must not hold a run.

        Raises:
            RequestError: the folder holds a run, whose result is never overwritten.
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
            RequestError: there is no run.
        """
        run = cls(path)
        if not run.status_path.is_file():
            raise RequestError(f"{run.path}: there is no run there (no status.json)")
        return run

    @property
    def holds_work(self) -> bool:
        """Whether the directory holds finished work (such as a checkpoint or figures) that must be kept."""
        parts = (self.history_path, self.path / "predictions", self.path / CHOICE)
        return any(part.exists() for part in parts) or self.last_checkpoint() is not None

    def discard(self) -> None:
        """Remove the directory, because the request was refused before any work was done."""
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
        """The file with one line per logging step."""
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
        """The content of `status.json`; empty if there is no such file.

        Raises:
            RequestError: the file cannot be read, or is not a JSON mapping.
        """
        try:
            status = read_json(self.status_path)
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise RequestError(f"{self.status_path} cannot be read: {error}") from error
        if not isinstance(status, dict):
            raise RequestError(f"{self.status_path} cannot be read: it is not a mapping")
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
        """Whether the process that last wrote the status is alive (on another host: whether its heartbeat is new)."""
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
        """Append one line to `metrics.jsonl`."""
        if not self.writes:
            return
        line = json_text({"step": int(step), "epoch": float(epoch), "seconds": round(float(seconds), 3), **metrics})
        with open(self.history_path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end > 0:  # the last line may be incomplete (full disk, killed process): begin a new one
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write((line + "\n").encode("utf-8"))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a broken line (the last one, after a kill) is skipped."""
        lines: list[dict[str, Any]] = []
        with suppress(OSError, ValueError), open_regular(self.history_path) as file:
            lines += parsed_metrics(file)
        return lines

    def truncate_metrics(self, step: int, logged: int | None = None) -> None:
        """Drop lines logged after `step`: a run that continues from a checkpoint logs them again.

        `logged` is the number of lines that training had written at the checkpoint. Later lines of the same step (the
        final figures, if the run was killed after its last step) are dropped too. Figures from before training stay.
        """
        if not (self.writes and self.history_path.exists()):
            return
        before = [line for line in self.read_metrics() if line["step"] <= step]
        in_training = [number for number, line in enumerate(before) if not _is_from_before(line)]
        late = set(in_training[logged:]) if logged is not None else set()
        atomic_write_jsonl(self.history_path, [line for number, line in enumerate(before) if number not in late])

    def go_back_to_checkpoint(self) -> None:
        """Remove log lines and checkpoints that are later than the last complete checkpoint, and unfinished files.

        Without a checkpoint, training starts again, and only the figures from before training stay.
        """
        if not self.writes:
            return
        for leftover in _unfinished(self.path):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        checkpoint = self.last_checkpoint()
        step = 0 if checkpoint is None else int(_checkpoint_step(checkpoint) or 0)
        for entry in self.checkpoints_dir.iterdir() if self.checkpoints_dir.is_dir() else ():
            if (_checkpoint_step(entry) or 0) > step:  # half-written: it would count for `save_total_limit`
                shutil.rmtree(entry)
        self.truncate_metrics(step, 0 if checkpoint is None else _lines_logged(checkpoint))

    def write_metrics(self, final: dict[str, Any]) -> None:
        """`metrics.json`."""
        if self.writes:
            atomic_write_json(self.metrics_path, final)

    def read_final_metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`; empty if the run has no final figures yet."""
        if not self.metrics_path.exists():
            return {}
        return read_json(self.metrics_path)

    def write_predictions(self, stage: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write `predictions/<stage>.jsonl`, one line per question."""
        if self.writes:
            atomic_write_jsonl(self.predictions_path(stage), rows)

    def read_predictions(self, stage: str) -> list[dict[str, Any]]:
        """The rows of a stage; empty if there are none."""
        path = self.predictions_path(stage)
        if not path.exists():
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]

    # -- checkpoints -----------------------------------------------------------------------------

    def last_checkpoint(self) -> Path | None:
        """The complete checkpoint with the most steps; half-written ones are skipped."""
        if not self.checkpoints_dir.is_dir():
            return None
        checkpoints = [(match, entry) for entry in self.checkpoints_dir.iterdir() if (match := _checkpoint_step(entry))]
        for step, entry in sorted(checkpoints, reverse=True):
            if checkpoint_is_complete(entry, step):
                return entry
        return None


def parsed_metrics(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The lines of a log from the file's current position. Broken lines are skipped; after thousands, reading stops.

    A step is a whole number. Figures that are not finite (the loss diverged) become None.
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


def baseline_stage(name: str, split: str) -> str:
    """The stage of a retriever that is measured beside the trained one."""
    return f"{BASELINE}/{name}/{split}"


def _is_from_before(line: dict[str, Any]) -> bool:
    """Whether the figures were measured before training."""
    return any(name.startswith(("zero_shot/", f"{BASELINE}/")) for name in line)


def _unfinished(run: Path) -> list[Path]:
    """Temporary files that a killed process left. Those of `evaluations/` are not included: another process may be
    writing them now."""
    written = [run / "predictions", *(run / "predictions").glob("**/")]
    return [file for place in dict.fromkeys([run, *written]) for file in place.glob(f"{TEMPORARY_PREFIX}*")]


def _lines_logged(checkpoint: Path) -> int | None:
    """The number of log lines written before the checkpoint; Trainer's saved state contains all of them."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    history = state.get("log_history")
    return len(history) if isinstance(history, list) else None


def _checkpoint_step(path: Path) -> int | None:
    match = CHECKPOINT_NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def checkpoint_is_complete(path: Path, step: int) -> bool:
    """Whether Trainer finished writing the checkpoint: its state (written last) and its weights are complete."""
    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = [file for file in path.rglob("*.safetensors") if file.is_file()]
    return state.get("global_step") == step and bool(weights) and all(_safetensors_whole(file) for file in weights)


def _safetensors_whole(path: Path) -> bool:
    """Whether the file has the length that its header gives."""
    try:
        return path.stat().st_size >= safetensors_size(path)
    except (OSError, ValueError):
        return False
