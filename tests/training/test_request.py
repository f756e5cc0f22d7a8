"""What a request asks for and its data cannot give."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rag_experiments.algorithms.base import AlgorithmTrainer
from rag_experiments.config import extra_packages
from rag_experiments.config.schema import EvaluationConfig, SweepConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from rag_experiments.train import objective
from rag_experiments.training.request import check_batch, check_best_metric, check_launch, check_trainer_fits

BARE = Question("q", "Why?")
KNOWN = Question("q", "Why?", answers=("because",), positive_ids=("p",))


def check(metric: str | None, *dev: Question, kind: str = "encoder", trainer_class=AlgorithmTrainer, **evaluation):
    trainer = {"eval_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": metric}
    config = SimpleNamespace(
        trainer=trainer,
        evaluation=EvaluationConfig(**evaluation),
        model=SimpleNamespace(kind=kind),
        retriever=SimpleNamespace(reranker=None),
    )
    check_best_metric(config, SimpleNamespace(splits={"dev": list(dev)}), trainer_class)


@pytest.mark.parametrize(
    ("metric", "kind", "evaluation"),
    [
        ("dev/ndcg@10", "encoder", {}),
        ("dev/recall@4", "encoder", {"cutoffs": [100]}),
        ("dev/recall@100", "decoder", {"cutoffs": [100]}),
        ("dev/f1", "encoder_decoder", {}),
        ("dev/oracle_f1", "decoder", {"oracle": True}),
        ("dev/bleu", "decoder", {"bleu": True}),
        ("dev/exact_match_ci_low", "decoder", {}),
    ],
)
def test_what_is_measured_may_choose_the_checkpoint(metric, kind, evaluation):
    check(metric, KNOWN, kind=kind, **evaluation)


@pytest.mark.parametrize(
    ("metric", "kind", "dev", "message"),
    [
        ("dev/ndcg@10", "encoder", BARE, r"no dev question has positive_ids.*keeps the last weights"),
        ("dev/f1", "decoder", BARE, "no dev question has answers"),
        ("dev/f1", "encoder", KNOWN, "is not measured"),
        ("dev/recal@4", "encoder", KNOWN, "did you mean 'recall@4'"),
        ("dev/bleu", "decoder", KNOWN, "is not measured"),
        (None, "encoder", KNOWN, "needs trainer.metric_for_best_model"),
    ],
)
def test_what_is_not_measured_is_refused(metric, kind, dev, message):
    with pytest.raises(RequestError, match=message):
        check(metric, dev, kind=kind)


def test_arguments_that_would_be_ignored_or_fail_are_refused():
    from rag_experiments.algorithms.ctl import CTLTrainer
    from rag_experiments.algorithms.swr import SwRTrainer

    def fits(trainer_class, early_stopping=None, **trainer):
        config = SimpleNamespace(
            trainer=trainer,
            algorithm=SimpleNamespace(name="x"),
            early_stopping=early_stopping,
            refit=False,
            keep="trained",
        )
        check_trainer_fits(config, trainer_class)

    fits(SwRTrainer, train_sampling_strategy="group_by_length", label_smoothing_factor=0.0)
    with pytest.raises(RequestError, match="sorts the texts of a batch"):
        fits(CTLTrainer, train_sampling_strategy="group_by_length")
    with pytest.raises(RequestError, match="no smoothing"):
        fits(SwRTrainer, label_smoothing_factor=0.1)
    fits(CTLTrainer, early_stopping=3, eval_strategy="epoch", load_best_model_at_end=True)
    for short in ({"eval_strategy": "epoch"}, {"load_best_model_at_end": True}, {}):
        with pytest.raises(RequestError, match="early_stopping=3 needs"):
            fits(CTLTrainer, early_stopping=3, **short)


def test_a_search_goes_by_the_sweeps_metric_where_there_is_one():
    metrics = {"dev/ndcg@10": 0.5, "dev/recall@4": 0.7}

    def found(metric, **trainer):
        return objective(
            SimpleNamespace(config=SimpleNamespace(sweep=SweepConfig(metric=metric), trainer=trainer)), metrics
        )

    assert found(None, metric_for_best_model="dev/ndcg@10") == 0.5
    assert found("dev/recall@4", metric_for_best_model="dev/ndcg@10") == 0.7
    assert found(None, metric_for_best_model=None) is None


def test_the_questions_that_are_asked_during_training_count():
    many = [KNOWN, *[BARE] * 50]
    check("dev/ndcg@10", *many)
    with pytest.raises(RequestError, match="positive_ids"):
        check("dev/ndcg@10", *many, max_questions=1)


def test_an_evaluator_of_its_own_names_its_metrics():
    class Own(AlgorithmTrainer):
        @classmethod
        def make_evaluator(cls, config, data, models, retriever):
            raise NotImplementedError

    check("dev/kindness", BARE, trainer_class=Own)


def test_the_names_are_those_of_the_evaluators():
    """Held against what the two evaluators report, so that neither list grows alone."""
    from rag_experiments.evaluation.generation_evaluator import GenerationEvaluator
    from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator
    from tests.evaluation.test_generation import PASSAGES, QUESTIONS, ListStore, Parrot, WordRetriever, run_config

    config = run_config(oracle=True, bleu=True)
    made = GenerationEvaluator(Parrot(), WordRetriever(ListStore(PASSAGES)), config)
    reported = {name for name in made.evaluate(QUESTIONS).metrics if "_ci_" not in name and "/" not in name}
    assert reported == {name for names in GenerationEvaluator.metric_names(config).values() for name in names}
    retrieval = {name for name in made.retrieval.evaluate(QUESTIONS).metrics if "_ci_" not in name and "/" not in name}
    assert retrieval == {name for names in RetrievalEvaluator.metric_names(config).values() for name in names}


@pytest.mark.parametrize(
    ("questions", "processes", "refused"), [(7, 1, True), (8, 1, False), (8, 2, True), (16, 2, False)]
)
def test_dropping_the_last_batch_must_leave_one(questions, processes, refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    trainer = {"dataloader_drop_last": True, "per_device_train_batch_size": 8}
    if refused:
        with pytest.raises(RequestError, match=f"leaves no batch: {questions} training questions"):
            check_batch(SimpleNamespace(trainer=trainer), questions)
    else:
        check_batch(SimpleNamespace(trainer=trainer), questions)
    check_batch(SimpleNamespace(trainer={**trainer, "dataloader_drop_last": False}), questions)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_what_accelerate_launch_would_shard_is_refused(variable, monkeypatch):
    config = SimpleNamespace(trainer={}, model=SimpleNamespace(kind="encoder"))
    resolved = {"model": {}, "retriever": {}, "algorithm": {}}
    check_launch(config, resolved)
    monkeypatch.setenv(variable, "true")
    with pytest.raises(RequestError, match="not supported: each process holds the whole model"):
        check_launch(config, resolved)


def test_a_model_that_is_used_again_needs_its_packages_and_not_those_of_its_training(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(extra_packages, "_is_installed", lambda module: False)
    config = SimpleNamespace(trainer={"optim": "adamw_bnb_8bit"}, model=SimpleNamespace(kind="encoder"))
    check_launch(config, {"model": {}}, training=False)
    with pytest.raises(RequestError, match=r"^model\.attn_implementation=sage_attention needs a package"):
        check_launch(config, {"model": {"attn_implementation": "sage_attention"}}, training=False)
    with pytest.raises(RequestError, match=r"^trainer\.optim=adamw_bnb_8bit needs a package"):
        check_launch(config, {"model": {}})
    config.trainer = {}
    with pytest.raises(RequestError, match="fsdp, which is not supported"):
        check_launch(config, {"model": {}})
