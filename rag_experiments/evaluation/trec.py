"""Ranked lists as TREC's tools read them (`trec_eval`, ranx, ir-measures, Pyserini): a line a passage.

    query-id Q0 passage-id rank score tag

Columns are parted by white space, so that white space and `%` in an id are written as URLs write them (`a%20b`).
trec_eval sorts by score and breaks ties by id: where the list's own order differs, scores are replaced by -rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import quote


def run_lines(rows: Iterable[Mapping[str, Any]], tag: str) -> Iterator[str]:
    """The lines of a run file.

    Args:
        rows: lines of `predictions/<stage>.jsonl`.
        tag: what the run is called.
    """
    tag = _one_word(tag) or "run"
    for row in rows:
        ids, scores = row.get("retrieved_ids") or [], row.get("retrieved_scores") or []
        falling = len(scores) == len(ids) and all(a > b for a, b in pairwise(scores))
        for rank, passage in enumerate(ids, 1):
            score = repr(float(scores[rank - 1])) if falling else f"-{rank}"
            yield f"{_one_word(str(row['id']))} Q0 {_one_word(str(passage))} {rank} {score} {tag}\n"


def _one_word(text: str) -> str:
    return re.sub(r"[\s%]", lambda found: quote(found.group()), text)
