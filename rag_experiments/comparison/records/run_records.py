"""Load run directories as records. Parsed records are kept in a small SQLite file, by the stamps of the files.

`metrics.jsonl` is not read here, because the table needs only the final figures. `history()` reads it on demand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rag_experiments.comparison.records import record_checks
from rag_experiments.comparison.records.record_cache import RecordCache
from rag_experiments.core.bounded_files import SETTINGS_BYTES, parse_json, read_json, read_lines, read_text, read_yaml
from rag_experiments.core.digest import settled_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.data.shown_ids import own_ids
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs

SAID = 300
"""Maximum length of a reason, in characters."""
UNREADABLE = "unreadable"
"""The state of a directory whose `status.json` or `config.yaml` cannot be read; `problem` holds the reason."""


@dataclass(frozen=True)
class StageInfo:
    """The questions of `predictions/<stage>.jsonl`.

    `digest` is a hash of ids, texts, gold passages and references. Equal digests mean the same questions.
    """

    questions: int
    digest: str


@dataclass
class RunRecord:
    """One run, read from its directory."""

    path: Path
    name: str
    """The path below the common folder of all loaded runs: it is short, and it finds the run when typed."""
    state: str
    """running | completed | failed | interrupted | unreadable"""
    status: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, float]
    """Final figures by `<stage>/<metric>`; empty until the run is completed."""
    stages: dict[str, StageInfo]
    choices: dict[str, str]
    """The option chosen for each config group, as Hydra recorded it."""
    problem: str | None = None
    _predictions: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, repr=False)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The config with dotted keys; lists are kept as values."""
        return dict(_flatten(self.config))

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def algorithm(self) -> str:
        algorithm = self.config.get("algorithm")
        return str(algorithm.get("name", "?")) if isinstance(algorithm, dict) else "?"

    @property
    def completed(self) -> bool:
        return self.state == "completed"

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    def comparable_key(self, stage: str) -> tuple[str, str]:
        """A key that is equal for runs that were asked the same questions over the same passages."""
        info = self.stages.get(stage)
        questions = info.digest if info else f"unknown:{self.status.get('data_hash')}"
        return str(self.status.get("corpus_hash")), questions

    def history(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, read again at every call because a live run adds lines."""
        return self.directory.read_metrics()

    def predictions(self, stage: str) -> dict[str, dict[str, Any]]:
        """Rows of `predictions/<stage>.jsonl` by question id, kept after the first call; empty if there is no file."""
        if stage not in self._predictions:
            rows = read_rows(self.directory.predictions_path(stage))
            self._predictions[stage] = {str(row["id"]): row for row in rows}
        return self._predictions[stage]


def load_runs(paths: Iterable[Path | str], cache: Path | None = None) -> list[RunRecord]:
    """Load every run at or below the paths, each once, in the order of the paths.

    Args:
        cache: the folder of the record cache; None: `RAG_EXPERIMENTS_CACHE` or `~/.cache/rag_experiments`.

    Raises:
        RequestError: a path does not exist, or there is no run below any of them.
    """
    roots = [Path(path) for path in paths]
    folders: dict[str, Path] = {}
    for path in roots:
        if not path.exists():
            raise RequestError(f"{path}: there is no such directory")
        for run in find_runs(path):
            folders.setdefault(os.path.realpath(run.path), run.path)
    if not folders:
        raise RequestError(f"no run below {', '.join(map(str, roots))}: a run is a directory with a status.json")
    names = short_names(list(folders))
    with RecordCache(cache or default_cache()) as store:
        return [_record(real, path, name, store) for (real, path), name in zip(folders.items(), names, strict=True)]


def load_record(path: Path, name: str, store: RecordCache) -> RunRecord:
    """Load one run under a given name; for callers that look at the same runs repeatedly."""
    return _record(os.path.realpath(path), path, name, store)


def default_cache() -> Path:
    """The folder of caches if no config gives another."""
    return Path(os.environ.get("RAG_EXPERIMENTS_CACHE") or "~/.cache/rag_experiments").expanduser()


def short_names(paths: Sequence[str]) -> list[str]:
    """Real paths below their common folder; a single path keeps its last part."""
    if len(paths) == 1:
        return [os.path.basename(paths[0])]
    shared = os.path.commonpath(paths)
    if shared in paths:  # a run and evaluations inside its folder
        shared = os.path.dirname(shared)
    shared = shared.rstrip(os.sep)
    return [path[len(shared) + 1 :] for path in paths]


def _record(real: str, path: Path, name: str, store: RecordCache) -> RunRecord:
    run = RunDirectory(path)
    files = _files(run)
    stamp = _stamp(files)
    parsed = store.get(real, stamp)
    if parsed is None:
        parsed = _parse(run, files)
        store.put(real, stamp, parsed)
    status = parsed["status"]
    state = status.get("state", "interrupted")
    if parsed["problem"]:
        state = UNREADABLE
    elif state == "running" and not run.process_lives():
        state = "interrupted"
    return RunRecord(
        path=path,
        name=name,
        state=state,
        status=status,
        config=parsed["config"],
        metrics=parsed["metrics"],
        stages={stage: StageInfo(**info) for stage, info in parsed["stages"].items()},
        choices=parsed["choices"],
        problem=parsed["problem"],
    )


def _files(run: RunDirectory) -> list[str]:
    """Paths of status, config, figures, Hydra's record, then the predictions. Strings, because making a `Path` takes
    longer than its `stat`."""
    root = str(run.path)
    prediction_files = []
    for folder, folders, names in os.walk(os.path.join(root, "predictions")):
        prediction_files += [
            os.path.join(folder, name) for name in (*names, *folders) if name.endswith(".jsonl") and name[0] != "."
        ]
    first = ("status.json", "config.yaml", "metrics.json", os.path.join(".hydra", "hydra.yaml"))
    return [*(os.path.join(root, name) for name in first), *sorted(prediction_files)]


def _stamp(files: Iterable[str]) -> str:
    parts = []
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:
            continue
        parts.append(f"{file[-40:]}:{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}")
    return "|".join(parts)


def _parse(run: RunDirectory, names: Sequence[str]) -> dict[str, Any]:
    """The parts of a record that depend only on files. `problem` names files that cannot be read."""
    problems: list[str] = []
    files = [Path(name) for name in names]

    def attempt(file: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        try:
            return read(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            message = (error.strerror if isinstance(error, OSError) else None) or str(error)
            first_line = next(iter(message.splitlines()), type(error).__name__)[:SAID]
            problems.append(f"{file.relative_to(run.path)} cannot be read: {first_line}")
            return {}

    status = attempt(run.status_path, lambda file: record_checks.status(read_json(file)))
    config = attempt(run.config_path, lambda file: record_checks.config(read_yaml(file)))
    metrics = attempt(run.metrics_path, lambda file: record_checks.figures(read_json(file)))
    stages = {}
    for file in files[4:]:
        stage = file.relative_to(run.path / "predictions").with_suffix("").as_posix()
        if info := attempt(file, _stage_info):
            stages[stage] = info
    return {
        "status": status,
        "config": config,
        "metrics": metrics,
        "stages": stages,
        "choices": _choices(files[3]),
        "problem": "; ".join(problems) or None,
    }


def read_config(file: Path) -> dict[str, Any]:
    """The content of a run's `config.yaml`; empty if it is missing or not a mapping."""
    try:
        value = read_yaml(file)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The lines of a predictions file; empty if it is missing.

    Raises:
        ValueError: a line is broken, or the file cannot be read.
    """
    rows = []
    try:
        for number, line in read_lines(file):
            try:
                rows.append(record_checks.prediction(parse_json(line)))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    except FileNotFoundError:
        return []
    return rows


def _stage_info(file: Path) -> dict[str, Any]:
    rows = read_rows(file)
    descriptions = sorted(
        json.dumps([str(r["id"]), r.get("question"), sorted(own_ids(r, "gold_ids")), r.get("references") or []])
        for r in rows
    )
    return {"questions": len(rows), "digest": settled_digest("\n".join(descriptions))[:16]}


def _choices(file: Path) -> dict[str, str]:
    """`hydra.runtime.choices`, read line by line, because parsing all of `hydra.yaml` is the slowest step."""
    try:
        lines = read_text(file, SETTINGS_BYTES).splitlines()
    except (OSError, ValueError):  # without it the runs only have longer names
        return {}
    choices: dict[str, str] = {}
    inside, indent = False, 0
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() == "choices:":
            inside, indent = True, depth
        elif inside:
            if depth <= indent:
                break
            key, _, value = line.strip().partition(": ")
            choices[key] = value.strip("'\"")
    return {key: value for key, value in choices.items() if not key.startswith("hydra/")}


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
