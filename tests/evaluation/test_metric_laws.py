"""Laws that hold for any answer and any ranking, and the same figures from plain loops."""

from __future__ import annotations

import re
from math import log2

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from rag_experiments.core import text as texts
from rag_experiments.evaluation import metrics
from rag_experiments.evaluation.ranking import ranking_metrics

few = settings(max_examples=60, deadline=None, derandomize=True)

words = st.sampled_from(["red", "Red", "cat", "dog,", "the", "a", "3.5", "x-y", "!", "größe", "кот"])
answers = st.lists(words, max_size=6).map(" ".join)
references = st.lists(answers, min_size=1, max_size=4)
FIGURES = {
    "exact_match": metrics.exact_match,
    "f1": metrics.f1,
    "rouge_l": metrics.rouge_l,
    "squad_exact_match": metrics.squad_exact_match,
    "squad_f1": metrics.squad_f1,
}


@few
@given(answers, references, st.randoms(use_true_random=False))
def test_answer_metrics_lie_between_0_and_1_and_the_order_of_references_is_nothing(prediction, wanted, chance) -> None:
    shuffled = chance.sample(wanted, len(wanted))
    for name, measure in FIGURES.items():
        value = measure(prediction, wanted)
        assert 0 <= value <= 1, name
        assert measure(prediction, shuffled) == value, name
    assert metrics.exact_match(prediction, wanted) <= metrics.f1(prediction, wanted)


@few
@given(answers, st.lists(answers.filter(texts.answer_key), min_size=1, max_size=4))
def test_the_best_reference_counts(prediction, wanted) -> None:
    for name, measure in FIGURES.items():
        assert measure(prediction, wanted) == max(measure(prediction, [one]) for one in wanted), name


@few
@given(answers)
def test_an_answer_equals_itself_and_normalising_twice_changes_nothing(text) -> None:
    assert metrics.exact_match(text, [text]) == metrics.f1(text, [text]) == 1
    assert metrics.squad_normalise(metrics.squad_normalise(text)) == metrics.squad_normalise(text)


def shared_tokens(one: list[str], other: list[str]) -> int:
    """Each token of one side is used up by at most one of the other."""
    left, same = list(other), 0
    for token in one:
        if token in left:
            left.remove(token)
            same += 1
    return same


@few
@given(answers, answers, st.randoms(use_true_random=False))
def test_f1_is_the_harmonic_mean_of_precision_and_recall_in_any_order_of_tokens(prediction, reference, chance) -> None:
    one, other = (texts.answer_words(text) for text in (prediction, reference))
    value = metrics.f1(prediction, [reference])
    same = shared_tokens(one, other)
    if same:
        precision, recall = same / len(one), same / len(other)
        assert value == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert value == float(one == other)
    assert metrics.f1(reference, [prediction]) == value
    assert metrics.f1(" ".join(chance.sample(one, len(one))), [reference]) == value


ascii_answers = st.lists(st.sampled_from(["red", "RED", "cat", "sat-on", "it's", "3", "under_score", "."]), max_size=7)


@few
@given(ascii_answers.map(" ".join), ascii_answers.map(" ".join))
def test_rouge_l_is_rouge_scores_on_ascii(prediction, reference) -> None:
    library = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False).score(reference, prediction)["rougeL"].fmeasure
    assert metrics.rouge_l(prediction, [reference]) == pytest.approx(library)


def stands_in(needle: list[str], hay: list[str]) -> bool:
    return bool(needle) and any(hay[i : i + len(needle)] == needle for i in range(len(hay)))


@few
@given(st.lists(answers, max_size=3), st.lists(answers, max_size=3))
def test_an_answer_stands_in_a_passage_where_its_tokens_follow_each_other_there(wanted, passages) -> None:
    tokens = [[re.findall(r"\w+|[^\w\s]", text.casefold()) for text in given] for given in (wanted, passages)]
    expected = any(stands_in(needle, hay) for needle in tokens[0] for hay in tokens[1])
    assert metrics.answer_in_passages(wanted, passages) == float(expected)


@few
@given(answers, st.lists(answers, max_size=3))
def test_precision_to_passages_is_the_share_of_known_tokens(prediction, passages) -> None:
    tokens = texts.answer_words(prediction)
    known = [any(token in texts.answer_words(text) for text in passages) for token in tokens]
    assert metrics.precision_to_passages(prediction, passages) == (known.count(True) / len(known) if known else 1)


@few
@given(st.lists(st.tuples(answers, references), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_bleu_is_sacrebleus_whatever_the_order_of_questions_and_references(pairs, chance) -> None:
    most = max(len(texts) for _, texts in pairs)
    streams = [[texts[i] if i < len(texts) else None for _, texts in pairs] for i in range(most)]
    expected = sacrebleu.corpus_bleu([prediction for prediction, _ in pairs], streams).score / 100
    shuffled = [(one, chance.sample(texts, len(texts))) for one, texts in chance.sample(pairs, len(pairs))]
    for order in (pairs, shuffled):
        assert metrics.bleu([p for p, _ in order], [texts for _, texts in order]) == pytest.approx(expected)


passages = [f"p{i}" for i in range(14)]
golds = st.dictionaries(st.sampled_from(passages), st.integers(1, 3), max_size=4)
rankings = st.lists(st.sampled_from(passages), max_size=14)
"""Ids may come twice."""


def by_loops(gold: dict[str, int], retrieved: list[str], cutoffs: list[int]) -> dict[str, float]:
    ranked = [p for i, p in enumerate(retrieved) if p not in retrieved[:i]]
    found = {}
    for k in cutoffs:
        hits = sum(p in gold for p in ranked[:k])
        found |= {f"recall@{k}": hits / len(gold), f"hit@{k}": float(hits > 0)}
    found["mrr@10"] = max((1 / rank for rank, p in enumerate(ranked[:10], 1) if p in gold), default=0.0)
    gain = sum(gold.get(p, 0) / log2(rank + 1) for rank, p in enumerate(ranked[:10], 1))
    ideal = sum(grade / log2(rank + 1) for rank, grade in enumerate(sorted(gold.values(), reverse=True)[:10], 1))
    return found | {"ndcg@10": gain / ideal}


@few
@given(st.lists(st.tuples(golds, rankings), max_size=4), st.lists(st.integers(1, 14), max_size=3, unique=True))
def test_ranking_metrics_are_the_definitions(questions, cutoffs) -> None:
    ours = ranking_metrics([gold for gold, _ in questions], [ranking for _, ranking in questions], cutoffs)
    for (gold, ranking), found in zip(questions, ours, strict=True):
        assert found == (pytest.approx(by_loops(gold, ranking, cutoffs)) if gold else {})


@few
@given(golds.filter(len), rankings, st.randoms(use_true_random=False))
def test_ranking_metrics_grow_with_k_and_see_nothing_below_it(gold, ranking, chance) -> None:
    found = ranking_metrics([gold], [ranking], [1, 4, 12])[0]
    assert all(0 <= value <= 1 for value in found.values())
    for name in ("recall", "hit"):
        assert found[f"{name}@1"] <= found[f"{name}@4"] <= found[f"{name}@12"]
    for k in (1, 4, 12):
        assert found[f"recall@{k}"] <= found[f"hit@{k}"]
    ranked = list(dict.fromkeys(ranking))
    below = ranking_metrics([gold], [[*ranked[:4], *chance.sample(ranked[4:], len(ranked[4:]))]], [1, 4, 12])[0]
    assert {name: below[name] for name in ("recall@1", "recall@4", "hit@4")} == {
        name: found[name] for name in ("recall@1", "recall@4", "hit@4")
    }


@few
@given(st.lists(st.tuples(golds, rankings), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_questions_changes_no_question(questions, chance) -> None:
    def measured(order):
        return ranking_metrics([gold for gold, _ in order], [ranking for _, ranking in order], [1, 4])

    order = chance.sample(range(len(questions)), len(questions))
    shuffled = measured([questions[i] for i in order])
    straight = measured(questions)
    assert shuffled == [straight[i] for i in order]
