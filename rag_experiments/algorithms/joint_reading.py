"""What the reader of joint training does in a step: it reads the first candidates to learn, and judges all of them.

It judges with the weights of the step, in eval mode and without gradient; nothing is kept, since the next step has
others. The candidates are those of the step, in one `[B, K]` order; -1 is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from rag_experiments.algorithms.fid import with_gold
from rag_experiments.algorithms.shared.lm_scoring import CandidateJudge, CurrentScorer
from rag_experiments.data.records import Question
from rag_experiments.models.fid.fid_attention import passage_scores
from rag_experiments.models.fid.fid_batch import to_device
from rag_experiments.models.reader.prompts import Prompt, TruncationCounts
from rag_experiments.models.shared.precision import autocast

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore

Objective = Literal["pdist", "emdr2", "loop", "adist", "adist_peak"]
ATTENTION = ("adist", "adist_peak")
"""Objectives that take a FiD reader's attention."""


class ReadingDesk:
    """A reader, the training questions, and which of a question's candidates it reads.

    Args:
        reader: a `Reader` or a `FidReader`.
        read_k: passages that it reads to learn.
        golds: rows of each question's gold passages, of which one that is a candidate is read in any case.

    Raises:
        RequestError: a question leaves no room for its answer.
    """

    def __init__(
        self,
        reader: Any,
        questions: Sequence[Question],
        passages: PassageStore,
        objective: Objective,
        read_k: int,
        golds: Sequence[Sequence[int]] | None = None,
    ):
        self.reader = reader
        self.questions = questions
        self.passages = passages
        self.objective = objective
        self.read_k = read_k
        self.golds = golds
        self.judge = CandidateJudge(CurrentScorer(reader), questions, passages, leave_one_out=objective == "loop")
        self.truncation = TruncationCounts()
        """Of the prompts that were read to learn."""

    def answer_ids(self, number: int) -> list[int]:
        """Tokens of a question's first answer, end token included."""
        return self.reader.answer_ids(self.questions[number].answers[0])

    def reading(self, numbers: Sequence[int], rows_BK: np.ndarray) -> dict[str, Any]:
        """The batch of the reader's loss, on its device: the first answer after the first candidates."""
        prompts = [
            self._prompt(number, self._read(number, rows_K)) for number, rows_K in zip(numbers, rows_BK, strict=True)
        ]
        answers = [self.answer_ids(number) for number in numbers]
        for prompt in prompts:
            self.truncation.add(prompt)
        if self.reader.config.fid is not None:
            return to_device(self.reader.training_batch(prompts, answers), self.reader.device)
        return self.reader.batch([(prompt.ids, answer) for prompt, answer in zip(prompts, answers, strict=True)])

    def judged(self, numbers: Sequence[int], rows_BK: np.ndarray) -> dict[str, Tensor]:
        """What the reader, as it is now, thinks of each candidate; on the CPU, without gradient.

        Returns:
            `attention` `[B, K]` for `adist` and `adist_peak`, 0 at empty places; for the others `token_log_probs`
            `[B, K, T]` and `token_mask` `[B, T]`, as `CandidateJudge` has them.
        """
        if self.objective in ATTENTION:
            return {"attention": self._attention(numbers, rows_BK)}
        log_probs_BKT, mask_BT = self.judge.log_probs(numbers, rows_BK)
        return {"token_log_probs": torch.from_numpy(log_probs_BKT), "token_mask": torch.from_numpy(mask_BT)}

    def _attention(self, numbers: Sequence[int], rows_BK: np.ndarray) -> Tensor:
        kind: Any = self.objective
        prompts = [self._prompt(number, _present(rows_K)) for number, rows_K in zip(numbers, rows_BK, strict=True)]
        answers = [self.questions[number].answers[0] for number in numbers]
        attention_BK = torch.zeros(rows_BK.shape)
        size = self.reader.config.batch_size
        with self.reader._evaluating(), autocast(self.reader.device, self.reader.dtype):
            for start in range(0, len(prompts), size):
                some = slice(start, start + size)
                scores, _ = passage_scores(self.reader, prompts[some], kind, answers[some])
                for b, scores_K in enumerate(scores, start):
                    attention_BK[b, torch.from_numpy(np.flatnonzero(rows_BK[b] >= 0))] = scores_K
        return attention_BK

    def _read(self, number: int, rows_K: np.ndarray) -> list[int]:
        rows = _present(rows_K)
        golds = self.golds[number] if self.golds is not None else []
        return with_gold(rows, [gold for gold in golds if gold in rows], self.read_k)

    def _prompt(self, number: int, rows: Sequence[int]) -> Prompt:
        question = self.questions[number]
        return self.reader.prompts.for_question(question, [self.passages[row] for row in rows], question.answers[0])


def _present(rows_K: np.ndarray) -> list[int]:
    """The candidates that there are, best first."""
    return [row for row in rows_K.tolist() if row >= 0]
