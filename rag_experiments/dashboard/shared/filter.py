"""The filter box: words that a run's name or settings must contain, or conditions as in `rag-compare --where`.

minilm hnsw
algorithm=ctl and learning_rate<1e-4 and "test/recall@1">=0.6
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rag_experiments.comparison.analysis.table_columns import NOT_COMPARED
from rag_experiments.comparison.records.metric_fields import Fields
from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.comparison.records.where import compile_where
from rag_experiments.core.errors import RequestError

Test = Callable[[RunRecord], bool]
_CONDITIONS = re.compile(r"[<>=!]|\b(in|not)\b")


def parse_filter(text: str, runs: Sequence[RunRecord]) -> tuple[Test, str | None]:
    """A function that tests runs, and an error message if the text is wrong (the test then accepts all runs)."""
    if not text or not runs:
        return lambda run: True, None
    if not _CONDITIONS.search(text):
        words = text.lower().split()
        return lambda run: all(_has(run, word) for word in words), None
    try:
        return compile_where(text, Fields(runs)), None
    except RequestError as error:
        return lambda run: True, str(error).removeprefix("--where ")


def _has(run: RunRecord, word: str) -> bool:
    if word in run.name.lower() or word in str(run.status.get("name", "")).lower():
        return True
    settings = ((key.split(".")[0], value) for key, value in run.flat.items() if isinstance(value, str))
    return any(word in value.lower() for group, value in settings if group not in NOT_COMPARED)
