"""Ranked lists in the format of TREC's tools (`trec_eval`, ranx, ir-measures, Pyserini): one line per passage.

    query-id Q0 passage-id rank score tag

White space separates the columns, so white space and `%` in an id are percent-encoded as in URLs (`a%20b`). trec_eval
sorts by score and breaks ties by id. If that would change the order of a list, its scores are replaced by -rank.
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
        tag: the name of the run in the last column.
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
