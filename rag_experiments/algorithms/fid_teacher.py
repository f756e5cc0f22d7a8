"""DCA's teacher: a frozen FiD reader, the scores it gives to sets of passages, and how it comes to be.

Scores do not change during training, so each (reader, question, candidate set) is computed once, kept on disk under
its content, and never computed again: in this run, in one beside it, or in the next. The order of the candidates
is no part of the content, since a reader that reads passages apart does not see it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from rag_experiments.algorithms.base import SAME_FIGURES, FirstRun
from rag_experiments.algorithms.fid import FiDConfig, FiDTrainer
from rag_experiments.algorithms.shared.score_cache import ScoreCache, content_key, score_file, token_bytes
from rag_experiments.config.schema import FidSettings, ReaderConfig, RunConfig
from rag_experiments.core.digest import digest
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.fid.fid_attention import TeacherScore, passage_scores
from rag_experiments.models.fid.fid_reader import FidReader, saved_settings
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.models.shared.precision import autocast

log = logging.getLogger(__name__)

SETS_A_COMMIT = 64
CHECKPOINT_STEPS = 100
"""Between two checkpoints of the teacher's own run."""


class PassageTeacher:
    """`scores(question, passages)` of a FiD reader, behind a cache on disk."""

    def __init__(self, reader: FidReader, kind: TeacherScore, cache: Path | None):
        """`cache`: the folder of all runs' caches; `None`: kept in memory for this run."""
        self.reader = reader
        self.kind = kind
        self.cache = ScoreCache(score_file(cache, "teacher_scores", digest(reader.fingerprint(), kind)))
        self.lookups = self.hits = self.underflowed = 0
        self.seconds = 0.0

    def scores(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]], progress: bool = False
    ) -> list[np.ndarray]:
        """float32 `[K]` a question, in the order of its passages, which are distinct; a constant per question is free.

        Raises `RequestError` where `adist` or `adist_peak` is asked for and a question has no answer.
        """
        orders = [_by_id(own_passages) for own_passages in passages]
        prompts = [
            self.reader.prompts.for_question(question, [own_passages[place] for place in order])
            for question, own_passages, order in zip(questions, passages, orders, strict=True)
        ]
        answers = [self._answer(question) for question in questions]
        keys = [self._key(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        scores_by_key = self.cache.get(keys)
        missing = {key: place for place, key in enumerate(keys) if key not in scores_by_key}
        self.lookups += len(keys)
        self.hits += len(keys) - len(missing)
        if missing:
            scores_by_key |= self._computed(missing, prompts, answers, progress)
        question_scores = []
        for key, order in zip(keys, orders, strict=True):
            scores_K = np.empty(len(order), dtype=np.float32)
            scores_K[order] = scores_by_key[key]
            question_scores.append(scores_K)
        return question_scores

    def _computed(
        self, missing: dict[bytes, int], prompts: Sequence[Prompt], answers: Sequence[str | None], progress: bool
    ) -> dict[bytes, np.ndarray]:
        """Scores of the sets that are not known, kept as they come: an interruption loses a few seconds."""
        started = time.perf_counter()
        fresh: dict[bytes, np.ndarray] = {}
        some: dict[bytes, np.ndarray] = {}
        reader, states = self.reader, self.reader.kept_states()
        # Neighbours share passages where they share the first; a batch's cost is its longest.
        order = sorted(missing.items(), key=lambda item: (prompts[item[1]].passages[:1], len(prompts[item[1]])))
        size = reader.config.batch_size
        with (
            reader._evaluating(),
            autocast(reader.device, reader.dtype),
            tqdm(total=len(order), desc="teacher's scores", disable=not progress) as bar,
        ):
            for start in range(0, len(order), size):
                chunk = order[start : start + size]
                texts = [answers[place] or "" for _, place in chunk] if self.kind != "cross_attention" else None
                rows, underflowed = passage_scores(
                    reader, [prompts[place] for _, place in chunk], self.kind, texts, states
                )
                self.underflowed += underflowed
                some |= {key: row.numpy() for (key, _), row in zip(chunk, rows, strict=True)}
                if len(some) >= SETS_A_COMMIT or start + size >= len(order):
                    self.cache.put(some)
                    fresh |= some
                    some = {}
                bar.update(len(chunk))
        self.seconds += time.perf_counter() - started
        return fresh

    def _answer(self, question: Question) -> str | None:
        if self.kind == "cross_attention":
            return None
        if not question.answers:
            raise RequestError(
                f"question {question.id!r} has no answer, which algorithm.teacher_score={self.kind} needs; "
                "use cross_attention"
            )
        return question.answers[0]

    def _key(self, prompt: Prompt, answer: str | None) -> bytes:
        parts = [token_bytes(part) for part in (prompt.head, *prompt.passages, prompt.tail)]
        return content_key(parts, answer)

    def cost(self) -> str:
        """What the scores have cost so far, in words."""
        text = f"{self.lookups} candidate sets, {self.hits} of them from the cache, in {self.seconds:.0f} s"
        if self.underflowed:
            text += f"; {self.underflowed} attentions had underflowed and were clamped"
        return text


def _by_id(passages: Sequence[Passage]) -> list[int]:
    """Places of `passages` in the order of their ids."""
    return sorted(range(len(passages)), key=lambda place: passages[place].id)


# -- a teacher of one's own -------------------------------------------------------------------------


def needs_training(config: ReaderConfig, steps: int) -> bool:
    """Whether a reader is trained before it teaches: unless it reads passages one by one already, or `steps` is 0."""
    return steps > 0 and (config.init == "random" or saved_settings(config.path, config.revision) is None)


def teacher_run(config: RunConfig, questions: list[Question]) -> FirstRun:
    """The short FiD run that makes DCA's teacher, on the passages that the untrained encoder finds.

    Its seed is not the run's: runs with other seeds share one teacher.
    """
    own, model = config.algorithm, config.algorithm.teacher
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = {name: config.trainer[name] for name in SAME_FIGURES if name in config.trainer}
    trainer |= {
        "max_steps": own.teacher_steps,
        "per_device_train_batch_size": max(1, own.teacher_batch_size // processes),
        "learning_rate": own.teacher_learning_rate,
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "lr_scheduler_type": "linear",
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": CHECKPOINT_STEPS,
        "save_total_limit": 1,
        "logging_steps": 10,
    }
    run = dataclasses.replace(
        config,
        seed=0,
        name=f"{config.name}-teacher",
        model=dataclasses.replace(model, fid=model.fid or FidSettings()),
        algorithm=FiDConfig(train_k=own.teacher_passages),
        trainer=trainer,
    )
    return FirstRun(trainer_class=FiDTrainer, role="reader", config=run, questions=questions)


def open_reader(config: ReaderConfig, cache: Path | None) -> FidReader:
    """The frozen reader that teaches, reading passages one by one with its own settings or the published ones."""
    saved = None if config.init == "random" else saved_settings(config.path, config.revision)
    config = dataclasses.replace(config, fid=config.fid or saved or FidSettings())
    return FidReader.load(config, cache, frozen=True)
