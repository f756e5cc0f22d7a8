"""DCA's teacher: a frozen FiD reader, the scores it gives to sets of passages, and how it comes to be.

Scores do not change during training, so each (reader, question, candidate set) is computed once, kept on disk under
its content, and never computed again: in this run, in one beside it, or in the next. The order of the candidates
is no part of the content, since a reader that reads passages apart does not see it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from tqdm.auto import tqdm
from transformers import TrainingArguments

from rag_experiments.algorithms.base import Parts
from rag_experiments.algorithms.fid import FiDConfig, FiDTrainer
from rag_experiments.algorithms.shared.gathering import on_one_device
from rag_experiments.algorithms.shared.lm_scoring import ScoreCache
from rag_experiments.config.schema import FidSettings, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_directory
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.fid.fid_attention import TeacherScore, passage_scores
from rag_experiments.models.fid.fid_reader import FidReader, saved_settings
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.models.shared.precision import autocast

log = logging.getLogger(__name__)

SETS_A_COMMIT = 64


class PassageTeacher:
    """`scores(question, passages)` of a FiD reader, behind a cache on disk."""

    def __init__(self, reader: FidReader, kind: TeacherScore, cache: Path | None):
        """`cache`: the folder of all runs' caches; `None`: kept in memory for this run."""
        self.reader = reader
        self.kind = kind
        name = f"{reader.fingerprint()}_{kind}.sqlite"
        self.cache = ScoreCache(None if cache is None else cache / "teacher_scores" / name)
        self.asked = self.hits = self.underflowed = 0
        self.seconds = 0.0

    def scores(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]], progress: bool = False
    ) -> list[np.ndarray]:
        """float32 `[K]` a question, in the order of its passages, which are distinct; a constant per question is free.

        Raises `RequestError` where `adist` or `adist_peak` is asked for and a question has no answer.
        """
        orders = [_by_id(given) for given in passages]
        prompts = [
            self.reader.prompts.for_question(question, [given[place] for place in order])
            for question, given, order in zip(questions, passages, orders, strict=True)
        ]
        answers = [self._answer(question) for question in questions]
        keys = [self._key(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        known = self.cache.get(keys)
        missing = {key: place for place, key in enumerate(keys) if key not in known}
        self.asked += len(keys)
        self.hits += len(keys) - len(missing)
        if missing:
            known |= self._computed(missing, prompts, answers, progress)
        found = []
        for key, order in zip(keys, orders, strict=True):
            scores_K = np.empty(len(order), dtype=np.float32)
            scores_K[order] = known[key]
            found.append(scores_K)
        return found

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
        digest = hashlib.blake2b(digest_size=16)
        for part in (prompt.head, *prompt.passages, prompt.tail):
            digest.update(len(part).to_bytes(4, "little"))
            digest.update(np.asarray(part, dtype="<i4").tobytes())
        digest.update(repr(answer).encode())
        return digest.digest()

    def cost(self) -> str:
        """What the scores have cost so far, in words."""
        said = f"{self.asked} candidate sets, {self.hits} of them from the cache, in {self.seconds:.0f} s"
        if self.underflowed:
            said += f"; {self.underflowed} attentions had underflowed and were clamped"
        return said


def _by_id(passages: Sequence[Passage]) -> list[int]:
    """Places of `passages` in the order of their ids."""
    return sorted(range(len(passages)), key=lambda place: passages[place].id)


# -- a teacher of one's own -------------------------------------------------------------------------


@dataclasses.dataclass(kw_only=True)
class TeacherTraining:
    """How a reader that was not trained to read passages apart is prepared before it teaches."""

    steps: int
    batch_size: int
    learning_rate: float
    passages: int
    seed: int = 0
    """Not the run's: runs with other seeds share one teacher."""


def check_can_be_trained(config: ReaderConfig, steps: int, questions: Sequence[Question]) -> None:
    """Raise `RequestError` where a teacher has to be trained first and no question has an answer to learn from."""
    if steps == 0 or any(question.answers for question in questions):
        return
    if config.init == "random" or saved_settings(config.path, config.revision) is None:
        raise RequestError(
            "algorithm=dca trains a reader first, and no training question has an answer: give a trained one "
            "(model@algorithm.teacher=run algorithm.teacher.path=run://…), or algorithm.teacher_steps=0"
        )


def open_teacher(config: ReaderConfig, parts: Parts, training: TeacherTraining, args: TrainingArguments) -> FidReader:
    """The frozen reader that teaches: as it is where it is a FiD run's or `steps` is 0, else trained first, once.

    A trained teacher is kept in the cache under what it was made from: model, data, retriever, training.
    """
    saved = None if config.init == "random" else saved_settings(config.path, config.revision)
    settings = config.fid or saved or FidSettings()
    config = dataclasses.replace(config, fid=settings)
    if saved is not None or training.steps == 0:
        return FidReader.load(config, parts.cache, frozen=True)
    folder = parts.cache / "fid_teachers" / _teacher_key(config, parts, training)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # All processes of this run train together, so only the first may hold back other runs: the second would wait for
    # the lock, and the first for the second's gradients.
    with FileLock(f"{folder}.lock") if args.process_index == 0 else contextlib.nullcontext():
        (known,) = broadcast_object_list([(folder / "config.json").is_file()])
        if not known:
            _train(config, parts, training, args, folder)
        else:
            log.info("teacher: %s, trained before", folder)
    trained = dataclasses.replace(config, path=str(folder), init="pretrained", architecture=None, lora=None)
    return FidReader.load(trained, parts.cache, frozen=True)


def _teacher_key(config: ReaderConfig, parts: Parts, training: TeacherTraining) -> str:
    content = {
        "model": dataclasses.asdict(config),
        "data": parts.data.content_hash,
        "train": [question.id for question in parts.data.splits["train"]],
        "retriever": parts.retriever.fingerprint(),
        "queries": parts.config.data.query_history,
        "training": dataclasses.asdict(training),
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _train(config: ReaderConfig, parts: Parts, training: TeacherTraining, args: TrainingArguments, to: Path) -> None:
    """A short FiD run on the current retriever's passages, without evaluation, into folder `to`."""
    questions = [question for question in parts.data.splits["train"] if question.answers]
    log.info("teacher: training a FiD reader for %d steps, once", training.steps)
    reader = FidReader.load(config, parts.cache)
    run = dataclasses.replace(
        parts.config, seed=training.seed, model=config, algorithm=FiDConfig(train_k=training.passages)
    )
    data = dataclasses.replace(parts.data, splits={**parts.data.splits, "train": questions})
    own = dataclasses.replace(parts, config=run, data=data, model=reader)
    trainer = FiDTrainer(own, _arguments(training, args, to.parent), [])
    trainer.train()
    if args.process_index == 0:
        with atomic_directory(to) as folder:
            reader.save(folder)
    trainer.accelerator.wait_for_everyone()


def _arguments(training: TeacherTraining, args: TrainingArguments, folder: Path) -> Any:
    own = TrainingArguments(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=max(1, training.batch_size // args.world_size),
        learning_rate=training.learning_rate,
        warmup_steps=0.1,
        weight_decay=0.01,
        lr_scheduler_type="linear",
        eval_strategy="no",
        save_strategy="no",
        logging_steps=10,
        seed=training.seed,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        bf16=args.bf16,
        fp16=args.fp16,
        use_cpu=args.use_cpu,
        disable_tqdm=args.disable_tqdm,
        ddp_broadcast_buffers=args.ddp_broadcast_buffers,
        ddp_find_unused_parameters=args.ddp_find_unused_parameters,
        ddp_backend=args.ddp_backend,
        ddp_timeout=args.ddp_timeout,
    )
    return on_one_device(own)
