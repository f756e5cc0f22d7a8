"""Metrics against the figures of the programs that everybody compares with (`tests/oracles/README.md`)."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from rag_experiments.evaluation import metrics
from rag_experiments.evaluation.ranking import ranking_metrics

ORACLES = Path(__file__).parent.parent / "oracles"
TREC_NAMES = {
    **{f"recall_{k}": f"recall@{k}" for k in (1, 4, 20)},
    **{f"success_{k}": f"hit@{k}" for k in (1, 4, 20)},
    "recip_rank": "mrr@10",
    "ndcg_cut_10": "ndcg@10",
}


def test_ranking_metrics_are_trec_evals_for_each_question() -> None:
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (ORACLES / "ranking.qrels").read_text().splitlines():
        question, _, passage, grade = line.split()
        grades[question] |= {passage: int(grade)} if int(grade) > 0 else {}
    retrieved: dict[str, list[str]] = defaultdict(list)
    for line in (ORACLES / "ranking.run").read_text().splitlines():
        question, _, passage, *_ = line.split()
        retrieved[question].append(passage)
    expected: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (ORACLES / "ranking.trec_eval").read_text().splitlines():
        name, question, value = line.split()
        expected[question][TREC_NAMES[name]] = float(value)
    assert expected.pop("q13").keys() == set(TREC_NAMES.values())  # without a gold passage: a row of zeros there,
    del expected["all"]
    ours = ranking_metrics(
        [grades[q] for q in [*expected, "q13"]], [retrieved[q] for q in [*expected, "q13"]], [1, 4, 20]
    )
    assert ours.pop() == {}  # no figures here
    assert len(ours) == 12
    for question, found in zip(expected, ours, strict=True):
        assert found == pytest.approx(expected[question], abs=5.1e-5), question  # it prints four decimals


@pytest.mark.parametrize("line", (ORACLES / "squad.jsonl").read_text().splitlines())
def test_exact_match_and_f1_are_squads_official(line: str) -> None:
    case = json.loads(line)
    assert metrics.squad_exact_match(case["prediction"], case["references"]) == case["exact"]
    assert metrics.squad_f1(case["prediction"], case["references"]) == pytest.approx(case["f1"], abs=1e-12)


def lines(name: str) -> list[str]:
    return (ORACLES / name).read_text().splitlines()


def test_bleu_is_the_sacrebleu_commands() -> None:
    references = list(zip(lines("answers.first"), lines("answers.second"), strict=True))
    expected = json.loads((ORACLES / "answers.sacrebleu").read_text())["score"]
    assert metrics.bleu(lines("answers.predicted"), references) == pytest.approx(expected / 100, abs=1e-9)


@pytest.mark.parametrize("which", ["first", "second"])
def test_rouge_l_is_the_rouge_score_commands(which: str) -> None:
    with open(ORACLES / f"answers.{which}.rouge", newline="") as file:
        expected = [float(row["rougeL-F"]) for row in csv.DictReader(file)]
    pairs = zip(lines("answers.predicted"), lines(f"answers.{which}"), strict=True)
    ours = [metrics.rouge_l(prediction, [reference]) for prediction, reference in pairs]
    assert ours == pytest.approx(expected, abs=1e-6)


def test_rouge_l_with_two_references_is_the_higher_of_the_commands_two() -> None:
    scores = []
    for which in ("first", "second"):
        with open(ORACLES / f"answers.{which}.rouge", newline="") as file:
            scores.append([float(row["rougeL-F"]) for row in csv.DictReader(file)])
    both = zip(lines("answers.predicted"), lines("answers.first"), lines("answers.second"), strict=True)
    ours = [metrics.rouge_l(prediction, references) for prediction, *references in both]
    assert ours == pytest.approx([max(pair) for pair in zip(*scores, strict=True)], abs=1e-6)
