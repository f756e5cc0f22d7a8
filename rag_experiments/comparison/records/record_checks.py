"""Check a run's files before they are used: anybody may have written them, and a kill may have cut them short.

All code that uses loaded runs relies on these checks. A run that fails one is `unreadable`, and its problem is shown.
"""

from __future__ import annotations

import math
from typing import Any

from rag_experiments.data.shown_ids import HASHED_AS

STATES = ("running", "completed", "failed", "interrupted")
_MAPPINGS = ("data", "error", "versions", "sweep")
_PLAIN = ("started", "ended", "data_hash", "corpus_hash", "config_hash", "git_commit", "wandb_run_id", "command")
_GROUPS = ("algorithm", "model", "data", "retriever", "trainer", "evaluation", "tracking", "paths")


def status(value: Any) -> dict[str, Any]:
    """Check the content of `status.json`.

    Raises:
        ValueError: it does not hold what it should.
    """
    fields = _mapping(value, "it")
    if fields.get("state", "interrupted") not in STATES:
        raise ValueError(f"state is not one of {', '.join(STATES)}")
    for key in _MAPPINGS:
        if fields.get(key) is not None:
            _mapping(fields[key], key)
    for key in _PLAIN:
        if not isinstance(fields.get(key), str | int | None):
            raise ValueError(f"{key} is not text")
    seconds = fields.get("seconds")
    if not isinstance(seconds, int | float | None) or (seconds is not None and not math.isfinite(seconds)):
        raise ValueError("seconds is not a number")
    return fields


def config(value: Any) -> dict[str, Any]:
    """Check the content of `config.yaml`.

    Raises:
        ValueError: it does not hold what it should.
    """
    settings = _mapping(value, "it")
    for group in _GROUPS:
        if settings.get(group) is not None:
            _mapping(settings[group], group)
    if not isinstance(settings.get("seed"), str | int | None):
        raise ValueError("seed is not a number")
    if not isinstance((settings.get("retriever") or {}).get("k"), int | None):
        raise ValueError("retriever.k is not a number")
    return settings


def figures(value: Any) -> dict[str, float]:
    """The finite numbers of `metrics.json`. Other values (the loss diverged) are dropped.

    Raises:
        ValueError: it is not a mapping.
    """
    numbers = {k: v for k, v in _mapping(value, "it").items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def prediction(value: Any) -> dict[str, Any]:
    """Check a row of `predictions/<stage>.jsonl`.

    Raises:
        ValueError: it does not hold what it should.
    """
    row = _mapping(value, "a line")
    if not isinstance(row.get("id"), str | int) or not isinstance(row.get("question"), str):
        raise ValueError("a line has no id or no question")
    metrics = row.get("metrics")
    if not isinstance(metrics, dict) or not all(isinstance(v, int | float | None) for v in metrics.values()):
        raise ValueError(f"question {row['id']} has no figures")
    for key in ("retrieved_ids", "gold_ids", "given_ids", "references"):
        if not _is_texts(row.get(key)) and not (row.get(key) is None and key != "retrieved_ids"):
            raise ValueError(f"question {row['id']} has no list of {key}")
    if not isinstance(hashed := row.get(HASHED_AS, {}), dict) or not _is_texts(list(hashed.values())):
        raise ValueError(f"question {row['id']} has no ids under {HASHED_AS}")
    row["metrics"] = {name: value if value is None or math.isfinite(value) else None for name, value in metrics.items()}
    if not isinstance(row.get("answer"), str | None):
        raise ValueError(f"question {row['id']} has an answer that is not text")
    return row


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a mapping")
    return value
