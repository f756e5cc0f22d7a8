"""A training that harms is noticed: dev against the same questions before training, paired, after each evaluation.

The alarm is given once per run, when the mean difference is below zero at p < 0.01 (`question_test`: sign flips over
clusters of questions). With it come the usual reasons, each looked up in this run's data and settings and named only
where it holds. What the run ends with is told by `comparison.analysis.before_after`; `keep=base` keeps the model that
it began with.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_experiments.algorithms.base import AlgorithmTrainer, RunComponents
from rag_experiments.comparison.analysis.before_after import MAIN
from rag_experiments.comparison.analysis.pairing import pair
from rag_experiments.comparison.analysis.statistics import QuestionTest, question_test
from rag_experiments.core import text as texts
from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import question_key
from rag_experiments.model_files import sources
from rag_experiments.model_files.sentence_transformers_format import read_folder
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import stages
from rag_experiments.training.request import Request

log = logging.getLogger(__name__)

ALARM = 0.01
"""The p value below which a fall counts. Every evaluation looks once more, so it is below the usual 0.05."""
SAMPLE = 1000
"""Gold passages that are looked at."""
NEARLY_EQUAL = 0.8
"""Share of words (Jaccard) from which two passages say nearly the same."""
HIGH_RATES = {"encoder": 2e-4, "reranker": 2e-4, "reader": 2e-4}
"""Learning rates of whole models above which fine-tuning often forgets; adapters take ten times as much."""
CUT_SHARE = 0.2

Row = Mapping[str, Any]


def main_metric(config: Any) -> str:
    """The bare name of `trainer.metric_for_best_model`; empty where there is none."""
    return str(config.trainer.get("metric_for_best_model") or "").removeprefix("dev/")


def deciding(metric: str, rows: Sequence[Row]) -> str:
    """`metric`, or where it is empty the first usual one that `rows` have; empty without any."""
    return metric or next((name for name in MAIN if rows and name in rows[0]["metrics"]), "")


def against_base(base: Sequence[Row], rows: Sequence[Row], metric: str) -> QuestionTest | None:
    """The paired test of `rows` minus `base` on the questions of both; None where they share none with the metric."""
    name = deciding(metric, rows)
    before, after = ({str(row["id"]): row["metrics"].get(name, math.nan) for row in side} for side in (base, rows))
    paired = pair(before, after, {str(row["id"]): row for row in rows})
    if not len(paired.ids) or np.isnan(paired.difference_Q).all():
        return None
    return question_test(paired.difference_Q, paired.clusters_Q)


def is_worse(test: QuestionTest | None) -> bool:
    """Whether the test says that training harmed."""
    return test is not None and test.difference < 0 and test.p < ALARM


def has_harmed(
    request: Request, components: RunComponents, run: RunDirectory
) -> tuple[bool, dict[str, dict[str, float]]]:
    """Whether dev is worse than before training, with the weights that `components` hold now; noted in the status.

    After `refit=true` it is what the first training left: the second has seen dev.

    Returns:
        The answer, and what was measured for it, by split: of a model that is kept, dev's final figures.
    """
    measured: dict[str, dict[str, float]] = {}
    if not request.config.refit:
        components.evaluator.timed = True
        measured["dev"] = stages.evaluate(components, run, "dev", components.data.splits["dev"])
    test = None
    if run.writes:
        test = against_base(
            run.read_predictions("zero_shot/dev"), run.read_predictions("dev"), main_metric(request.config)
        )
    (harmed,) = broadcast_object_list([is_worse(test)])
    if harmed and test is not None:
        log.warning(
            "keep=base: the model before training is saved, because dev is worse after it: %+.3f [%+.3f, %+.3f]",
            *(test.difference, test.low, test.high),
        )
        run.update_status(kept="base")
    return bool(harmed), measured


class HarmWatch(TrainerCallback):
    """Compares each evaluation on dev with the one before training."""

    def __init__(self, trainer: AlgorithmTrainer, request: Request, run: RunDirectory):
        self.trainer, self.request = trainer, request
        self.metric = main_metric(request.config)
        self.base = run.read_predictions("zero_shot/dev")
        self.alarmed = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        rows = self.trainer.dev_rows
        if self.alarmed or not self.base or not rows or not state.is_world_process_zero:
            return
        test = against_base(self.base, rows, self.metric)
        if not is_worse(test):
            return
        assert test is not None
        self.alarmed = True
        log.warning(
            "after %d steps dev/%s is worse than before training: %+.3f [%+.3f, %+.3f] over %d questions (p %.3f). %s",
            *(
                state.global_step,
                deciding(self.metric, rows),
                test.difference,
                test.low,
                test.high,
                test.questions,
                test.p,
            ),
            " ".join(reasons(self.request, self.trainer.components)) or "None of the usual reasons was found.",
        )


def reasons(request: Request, components: RunComponents) -> Iterator[str]:
    """A sentence for each usual reason that holds."""
    yield from _rate(request, components)
    yield from _other_use(request, components)
    golds = _gold_texts(components)
    yield from _near_equal(request, golds)
    yield from _cut(components, golds)
    yield from _shared(components)


def _rate(request: Request, components: RunComponents) -> Iterator[str]:
    rate = request.config.trainer.get("learning_rate")
    highs = [HIGH_RATES[role] for role in components.models if role in HIGH_RATES]
    high = max(highs, default=None)
    if rate is None or high is None:
        return
    opened = [getattr(component, "config", None) for component in components.models.values()]
    high *= 10 if any(getattr(one, "lora", None) for one in (request.config.model, *opened)) else 1
    if rate > high:
        yield f"trainer.learning_rate={rate:g} is high: above {high:g} models often forget; try a tenth."


def _other_use(request: Request, components: RunComponents) -> Iterator[str]:
    """Pooling, similarity or prefixes other than the model was made with."""
    encoder = components.models.get("encoder")
    if encoder is None:
        return
    try:
        place = sources.resolve(request.config.model.path, request.config.model.revision, weights=False).local
        facts = read_folder(place) if place is not None and place.is_dir() else None
    except RequestError:
        return
    for name in ("pooling", "similarity", "query_prefix", "passage_prefix") if facts is not None else ():
        own, used = getattr(facts, name), getattr(encoder.config, name, None)
        if own is not None and used is not None and own != used:
            yield f"model.{name}={used!r}, and the model was made with {own!r}."


def _gold_texts(components: RunComponents) -> list[str]:
    """The texts of gold passages of a sample of train, one per question, each passage once."""
    questions = [question for question in components.data.splits["train"] if question.positive_ids]
    if len(questions) > SAMPLE:
        questions = random.Random(0).sample(questions, SAMPLE)
    ids = dict.fromkeys(question.positive_ids[0] for question in questions)
    store = components.data.passages
    return store.full_texts(store.rows(list(ids))) if ids else []


def _near_equal(request: Request, golds: Sequence[str]) -> Iterator[str]:
    """Gold passages that say nearly the same are each other's negatives in a batch."""
    if not request.trainer_class.contrasts_in_batch or len(golds) < 2:
        return
    near = near_equal_share(golds)
    if near > 0.01:
        yield (
            f"{near:.0%} of the gold passages looked at say nearly the same as another question's "
            "(four in five words): in a batch these are negatives of each other; remove copies from the corpus."
        )


def near_equal_share(passages: Sequence[str]) -> float:
    """The share of `passages` that have a partner with at least `NEARLY_EQUAL` of all their words in common."""
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}
    words_N = [{numbers.setdefault(run, len(numbers)) for run in texts.index_runs(passage)} for passage in passages]
    columns = np.array([word for words in words_N for word in words], dtype=np.int64)
    starts = np.cumsum([0, *map(len, words_N)])
    matrix = csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(passages), max(len(numbers), 1)))
    common = (matrix @ matrix.T).tocoo()
    sizes_N = np.diff(starts)
    union = sizes_N[common.row] + sizes_N[common.col] - common.data
    near = (common.row != common.col) & (common.data >= NEARLY_EQUAL * union)
    return len(np.unique(common.row[near])) / len(passages)


def _cut(components: RunComponents, golds: Sequence[str]) -> Iterator[str]:
    encoder = components.models.get("encoder")
    limit = getattr(getattr(encoder, "config", None), "max_passage_length", None)
    if encoder is None or not limit or not golds:
        return
    cut = sum(len(ids) >= limit for ids in encoder.tokenize_passages(list(golds))) / len(golds)
    if cut > CUT_SHARE:
        yield f"{cut:.0%} of the gold passages are cut at the {limit} tokens that the encoder reads."


def _shared(components: RunComponents) -> Iterator[str]:
    """Questions of dev that train has too: dev is then no measure of what is new."""
    train = {question_key(question) for question in components.data.splits["train"]}
    dev = components.data.splits["dev"]
    shared = sum(question_key(question) in train for question in dev)
    if shared:
        yield f"{shared} of the {len(dev)} questions of dev are in train as well."
