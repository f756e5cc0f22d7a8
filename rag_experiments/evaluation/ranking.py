"""Metrics of ranked lists, computed by `ir-measures` with `pytrec-eval-terrier`.

| name here   | ir-measures | meaning                                                       |
|-------------|-------------|---------------------------------------------------------------|
| `recall@k`  | `R@k`       | share of the question's gold passages among the first k       |
| `hit@k`     | `Success@k` | 1 where any gold passage is among the first k                 |
| `mrr@10`    | `RR@10`     | 1 / rank of the first gold passage, 0 beyond rank 10          |
| `ndcg@10`   | `nDCG@10`   | gain is the grade, discount log2(rank + 1), ideal order below |

A grade of 1 or more is gold; 0 and negative grades are not. Only the order of the list counts, not the scores:
trec_eval breaks ties by passage id, so it gets ranks instead of scores. If an id occurs twice, its first position
counts. Copies (equal title and text) count as one passage: any of them is a hit, and recall counts them once
(`one_of_each`). A question without a gold passage has no ranking metrics; a question for which nothing was retrieved
scores 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import ir_measures
from ir_measures import RR, R, Success, nDCG

from rag_experiments.data.records import Question


def gold_grades(question: Question) -> dict[str, int]:
    """The gold passages of a question with their grades (at least 1)."""
    if question.relevance is not None:
        return {passage: int(grade) for passage, grade in question.relevance.items() if grade > 0}
    return dict.fromkeys(question.positive_ids, 1)


def one_of_each(
    gold: Mapping[str, int], retrieved: Sequence[str], copies: Mapping[str, str]
) -> tuple[dict[str, int], list[str]]:
    """Merge copies in grades and ranked list: the copy that is ranked first gets the id of its original.

    Copies further down keep their place in the list, like passages that are not gold.
    """
    grades: dict[str, int] = {}
    for passage, grade in gold.items():
        name = copies.get(passage, passage)
        grades[name] = max(grade, grades.get(name, grade))
    first_id: dict[str, str] = {}
    ranked = []
    for passage in dict.fromkeys(retrieved):
        name = copies.get(passage, passage)
        if name not in grades:
            ranked.append(passage)
        elif name not in first_id:
            first_id[name] = passage
            ranked.append(name)
        else:
            ranked.append(passage if passage != name else first_id[name])
    return grades, ranked


def ranking_metrics(
    grades: Sequence[Mapping[str, int]], retrieved: Sequence[Sequence[str]], cutoffs: Iterable[int]
) -> list[dict[str, float]]:
    """The metrics of each question, in order; an empty dict for a question without a gold passage.

    Args:
        grades: for each question, the grade (at least 1) of each gold passage id.
        retrieved: for each question, the retrieved ids, best first.
        cutoffs: the k of `recall@k` and `hit@k`.

    Raises:
        ValueError: the two lists differ in length.
    """
    if len(grades) != len(retrieved):
        raise ValueError(f"{len(grades)} questions but {len(retrieved)} ranked lists")
    names = _measures(cutoffs)
    rows: list[dict[str, float]] = [dict.fromkeys(names.values(), 0.0) if gold else {} for gold in grades]
    qrels = {str(row): dict(gold) for row, gold in enumerate(grades) if gold}
    run = {key: _by_rank(retrieved[int(key)]) for key in qrels}
    if run:
        for value in ir_measures.iter_calc(list(names), qrels, run):
            rows[int(value.query_id)][names[value.measure]] = float(value.value)
    return rows


def _measures(cutoffs: Iterable[int]) -> dict[ir_measures.Measure, str]:
    cutoffs = sorted(cutoffs)
    return {
        **{R @ k: f"recall@{k}" for k in cutoffs},
        **{Success @ k: f"hit@{k}" for k in cutoffs},
        RR @ 10: "mrr@10",
        nDCG @ 10: "ndcg@10",
    }


def _by_rank(ids: Sequence[str]) -> dict[str, float]:
    """Scores that fall with the rank: float(-rank) keeps the order exactly."""
    return {passage: -float(rank) for rank, passage in enumerate(dict.fromkeys(ids))}
