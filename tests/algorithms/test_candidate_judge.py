"""What RPG's language model is shown of each candidate, and where its scores stand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rag_experiments.algorithms.shared import lm_scoring, score_cache
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer, CandidateJudge
from rag_experiments.algorithms.shared.score_cache import ScoreCache
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.reader.prompts import Prompt
from tests.examples import ListStore

STORE = ListStore([Passage(id=str(row), text="") for row in range(9)])
QUESTIONS = [
    Question("0", "?", answers=("a", "unseen")),
    Question("1", "?", answers=("abc",)),
    Question("2", "?", answers=("ab",)),
]


class Reader:
    """An answer has a token a letter; its log-probabilities are minus the sum of what is shown, and 1, 2, … more."""

    kind = "encoder_decoder"
    config = SimpleNamespace(batch_size=4)

    def __init__(self):
        self.prompts = self
        self.scored: list[tuple] = []

    def fingerprint(self) -> str:
        return "reader"

    def for_question(self, question, passages, answer=None) -> Prompt:
        return Prompt((int(question.id),), tuple((int(passage.id),) for passage in passages), (len(answer),))

    def answer_ids(self, text: str, include_end: bool = True) -> list[int]:
        return [*map(ord, text), *([0] if include_end else [])]

    def score(self, prompts, texts, batch_size=None):
        import torch

        self.scored += [(prompt.ids, text) for prompt, text in zip(prompts, texts, strict=True)]
        rows = [
            torch.tensor([-float(sum(part[0] for part in prompt.passages)) - t - 1 for t in range(len(text))])
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        return SimpleNamespace(tokens=rows)


@pytest.fixture
def reader(monkeypatch) -> Reader:
    monkeypatch.setattr(lm_scoring, "can_share", lambda reader: False)
    return Reader()


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_stand_at_their_candidates_and_tokens(reader, leave_one_out):
    """Zeros where there is no candidate or token; left out, a candidate is judged by all the others."""
    judge = CandidateJudge(AnswerScorer(reader, None), QUESTIONS, STORE, leave_one_out)
    rows_BK = np.array([[4, 2, -1], [7, -1, 5], [1, 3, 8]])
    numbers = [1, 0, 2]
    log_probs_BKT, mask_BT = judge.log_probs(numbers, rows_BK)
    assert log_probs_BKT.shape == (3, 3, 3)
    assert log_probs_BKT.dtype == np.float32
    for b, number in enumerate(numbers):
        length = len(QUESTIONS[number].answers[0])
        assert mask_BT[b].tolist() == [t < length for t in range(3)]
        present = [row for row in rows_BK[b].tolist() if row >= 0]
        for k, row in enumerate(rows_BK[b].tolist()):
            shown = sum(present) - row if leave_one_out else row
            wanted = [-shown - t - 1 if t < length and row >= 0 else 0 for t in range(3)]
            assert log_probs_BKT[b, k].tolist() == wanted
    assert {text for _, text in reader.scored} == {"a", "abc", "ab"}, "the first answers"


def test_what_is_left_out_of_one_set_is_one_prompt_whatever_its_order(reader):
    scorer = AnswerScorer(reader, None)
    judge = CandidateJudge(scorer, QUESTIONS, STORE, leave_one_out=True)
    judge.log_probs([0], np.array([[4, 2, 6]]))
    judge.log_probs([0], np.array([[6, 4, 2]]))
    assert (scorer.lookups, scorer.hits, scorer.hit_rate) == (6, 3, 0.5)
    assert len(reader.scored) == 3


def test_questions_for_which_nothing_was_found(reader):
    judge = CandidateJudge(AnswerScorer(reader, None), QUESTIONS, STORE)
    log_probs_BKT, mask_BT = judge.log_probs([0, 1], np.full((2, 2), -1))
    assert log_probs_BKT.shape == (2, 2, 1)
    assert not log_probs_BKT.any()
    assert not mask_BT.any()


def test_pairs_are_kept_as_they_come_and_counted(reader, monkeypatch):
    """More than one commit; the budget counts every pair as if computed alone, the cost only what was computed."""
    monkeypatch.setattr(lm_scoring, "PAIRS_A_COMMIT", 3)
    scorer = AnswerScorer(reader, None)
    assert scorer.hit_rate == 0.0
    kept = []
    put = scorer.cache.put
    scorer.cache.put = lambda scores: kept.append(len(scores)) or put(scores)
    prompts = [Prompt((1,), ((row,),), (9, 9), passages_shortened=row % 2) for row in range(7)]
    found = scorer.token_log_probs(prompts + prompts[:2], ["ab"] * 9)
    assert kept == [3, 3, 1]
    assert [row.tolist() for row in found] == [[-row - 1, -row - 2] for row in [*range(7), 0, 1]]
    assert (scorer.lookups, scorer.hits) == (9, 2)
    assert (scorer.tokens_asked, scorer.tokens_computed) == (9 * 6, 7 * 6)
    assert (scorer.truncation.prompts, scorer.truncation.passages_shortened) == (7, 3)
    scorer.token_log_probs(prompts, ["ab"] * 7)
    assert (scorer.lookups, scorer.hits) == (16, 9)
    assert (scorer.tokens_asked, scorer.tokens_computed) == (16 * 6, 7 * 6)
    assert "16 pairs, 56% of them from the cache; 42 of 96 tokens" in scorer.cost()


def test_more_keys_than_a_query_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "KEYS_A_QUERY", 7)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    values = {f"{number}".encode(): np.array([-float(number)]) for number in range(25)}
    cache.put(values)
    asked = [*values, *values, b"unknown"]
    found = cache.get(asked)
    assert {key: value.tolist() for key, value in found.items()} == {
        key: value.tolist() for key, value in values.items()
    }
    assert cache.get([]) == {}


def test_keys_have_16_bytes_and_tell_lengths_apart():
    key = score_cache.pair_key([1, 2], [3])
    assert len(key) == 16
    assert len({key, *(score_cache.pair_key(*pair) for pair in [([1, 2, 3], []), ([], [1, 2, 3]), ([2, 1], [3])])}) == 4
