"""How likely a frozen language model finds the answers, given candidate passages.

`AnswerScorer` puts a cache on disk before the model; what is kept is the log-probability of each token, from which
every kind of target is made. `CandidateJudge` asks it about questions and their candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from rag_experiments.algorithms.shared.score_cache import ScoreCache, pair_key, score_file
from rag_experiments.data.records import Question
from rag_experiments.models.reader.prefix_scorer import PrefixScorer, can_share
from rag_experiments.models.reader.prompts import Prompt, TruncationCounts
from rag_experiments.models.reader.reader import Reader

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore

PAIRS_A_COMMIT = 128


class AnswerScorer:
    """`Reader.score` behind a `ScoreCache`, with counts of what it cost."""

    def __init__(self, reader: Reader, cache: Path | None, batch_size: int | None = None):
        """`cache`: the folder of all runs' caches; `None`: kept in memory for this run."""
        self.reader = reader
        self.batch_size = batch_size
        self.cache = ScoreCache(score_file(cache, "lm_scores", reader.fingerprint()))
        self.shared = PrefixScorer(reader) if can_share(reader) else None
        self.truncation = TruncationCounts()
        self.lookups = self.hits = 0
        """Pairs asked for, and those of them that were known."""
        self.tokens_asked = 0
        """Tokens of all pairs asked for, as if each had been computed alone: the budget that objectives are held to."""
        self.tokens_computed = 0
        """Tokens that went through the model."""
        self.seconds = 0.0

    @contextmanager
    def counted(self, record: Callable[[str, float], None]) -> Iterator[None]:
        """Record what the scores asked for within have cost."""
        before = (self.lookups, self.hits, self.seconds, self.tokens_asked, self.tokens_computed)
        yield
        after = (self.lookups, self.hits, self.seconds, self.tokens_asked, self.tokens_computed)
        lookups, hits, seconds, tokens_asked, tokens_computed = (b - a for a, b in zip(before, after, strict=True))
        record("cache_hit_rate", hits / max(1, lookups))
        record("lm_seconds", seconds)
        record("lm_tokens_asked", tokens_asked)
        record("lm_tokens_computed", tokens_computed)

    def token_log_probs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], progress: bool = False
    ) -> list[np.ndarray]:
        """Log-probabilities of each answer's tokens after its prompt, end token left out: float32 `[T]` a pair."""
        answer_ids = {answer: self.reader.answer_ids(answer, include_end=False) for answer in set(answers)}
        keys = [pair_key(prompt.ids, answer_ids[answer]) for prompt, answer in zip(prompts, answers, strict=True)]
        log_probs_by_key = self.cache.get(keys)
        missing = {key: pair for pair, key in enumerate(keys) if key not in log_probs_by_key}
        self.lookups += len(keys)
        self.hits += len(keys) - len(missing)
        self.tokens_asked += sum(
            len(prompt) + len(answer_ids[answer]) for prompt, answer in zip(prompts, answers, strict=True)
        )
        if missing:
            log_probs_by_key |= self._computed(missing, prompts, answers, progress)
        return [log_probs_by_key[key] for key in keys]

    def _computed(
        self, missing: Mapping[bytes, int], prompts: Sequence[Prompt], answers: Sequence[str], progress: bool
    ) -> dict[bytes, np.ndarray]:
        """Scores of the pairs `missing` (key to position), kept as they come: an interruption loses a few seconds."""
        started = time.perf_counter()
        # Pairs with the same passages beside each other, so that they are computed in one go; like lengths too.
        order = sorted(missing.items(), key=lambda item: _prefix_order(prompts[item[1]]))
        fresh: dict[bytes, np.ndarray] = {}
        with tqdm(total=len(order), desc="scoring answers", disable=not progress) as bar:
            for start in range(0, len(order), PAIRS_A_COMMIT):
                some = order[start : start + PAIRS_A_COMMIT]
                rows = self._compute([prompts[pair] for _, pair in some], [answers[pair] for _, pair in some])
                scored = {key: row for (key, _), row in zip(some, rows, strict=True)}
                self.cache.put(scored)
                fresh |= scored
                bar.update(len(some))
        self.seconds += time.perf_counter() - started
        return fresh

    def _compute(self, prompts: list[Prompt], answers: list[str]) -> list[np.ndarray]:
        for prompt in prompts:
            self.truncation.add(prompt)
        if self.shared is not None:
            before = self.shared.tokens_computed
            scores = self.shared.score(prompts, answers, batch_size=self.batch_size)
            self.tokens_computed += self.shared.tokens_computed - before
        else:
            scores = self.reader.score(prompts, answers, batch_size=self.batch_size)
            self.tokens_computed += sum(map(len, prompts)) + sum(map(len, scores.tokens))
        return [row.float().numpy() for row in scores.tokens]

    @property
    def hit_rate(self) -> float:
        """Share of the pairs asked for that were known; 0 before the first."""
        return self.hits / self.lookups if self.lookups else 0.0

    def cost(self) -> str:
        """What the scores have cost so far, in words."""
        return (
            f"{self.lookups} pairs, {self.hit_rate:.0%} of them from the cache; {self.tokens_computed} of "
            f"{self.tokens_asked} tokens computed in {self.seconds:.0f} s. {self.truncation.sentence()}"
        ).rstrip()


class CurrentScorer:
    """`Reader.score` with the weights of the moment, of which nothing is kept: for a reader that learns meanwhile."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def token_log_probs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], progress: bool = False
    ) -> list[np.ndarray]:
        """See `AnswerScorer.token_log_probs`: without gradient, without dropout."""
        # Made anew each time: it keeps what the weights make of a prompt's head. Passages that are read apart are no
        # one text to begin with.
        shared = self.reader.config.fid is None and can_share(self.reader)
        scores = (PrefixScorer(self.reader) if shared else self.reader).score(prompts, answers)
        return [row.float().numpy() for row in scores.tokens]


class CandidateJudge:
    """What the language model thinks of each question's candidates."""

    def __init__(
        self,
        scorer: AnswerScorer | CurrentScorer,
        questions: Sequence[Question],
        passages: PassageStore,
        leave_one_out: bool = False,
    ):
        """`leave_one_out`: candidate k is judged by the answer's score without it, given all the others.

        Raises `RequestError` for a question that leaves no room for its answer.
        """
        self.scorer: Any = scorer
        self.questions = questions
        self.passages = passages
        self.leave_one_out = leave_one_out
        for question in questions:
            scorer.reader.prompts.for_question(question, (), question.answers[0])

    def log_probs(
        self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the first answer of each question in `numbers`, given each of its candidates `rows_BK` (-1: none).

        Returns:
            Log-probabilities float32 `[B, K, T]`, 0 where there is no candidate or no token, and the mask `[B, T]`
            of each answer's tokens.
        """
        places, prompts, answers = [], [], []
        for b, number in enumerate(numbers):
            question = self.questions[number]
            for k, prompt in self.prompts(question, rows_BK[b]):
                places.append((b, k))
                prompts.append(prompt)
                answers.append(question.answers[0])
        scores = self.scorer.token_log_probs(prompts, answers, progress)
        log_probs_BKT = np.zeros((*rows_BK.shape, max(map(len, scores), default=1)), dtype=np.float32)
        mask_BT = np.zeros((len(numbers), log_probs_BKT.shape[2]), dtype=bool)
        for (b, k), row_T in zip(places, scores, strict=True):
            log_probs_BKT[b, k, : len(row_T)] = row_T
            mask_BT[b, : len(row_T)] = True
        return log_probs_BKT, mask_BT

    def prompts(self, question: Question, rows_K: np.ndarray) -> list[tuple[int, Prompt]]:
        """Place and prompt of each candidate: with it alone or, leaving one out, with all the others."""
        present = [(k, int(row)) for k, row in enumerate(rows_K) if row >= 0]
        passages = {row: self.passages[row] for _, row in present}
        prompts = []
        for k, row in present:
            # In the corpus's order, so that the same set is the same prompt whatever the encoder's ranking.
            shown = sorted(passages.keys() - {row}) if self.leave_one_out else [row]
            prompt = self.scorer.reader.prompts.for_question(
                question, [passages[other] for other in shown], question.answers[0]
            )
            prompts.append((k, prompt))
        return prompts


def _prefix_order(prompt: Prompt) -> tuple[int, tuple[tuple[int, ...], ...]]:
    return sum(map(len, prompt.passages)), prompt.passages
