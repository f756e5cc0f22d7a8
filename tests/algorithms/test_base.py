"""What every algorithm's trainer does the same: figures, counts of tokens, the evaluations' questions, batches."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Trainer

from rag_experiments.algorithms import base
from rag_experiments.algorithms.base import AlgorithmTrainer, Examples, check_add_gold, sample_questions
from rag_experiments.algorithms.health import Health
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.config.schema import EvaluationConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage, Question
from rag_experiments.evaluation.results import EvaluationResult
from tests.algorithms.plain_encoder import TableEncoder


def bare(**parts) -> AlgorithmTrainer:
    trainer = AlgorithmTrainer.__new__(AlgorithmTrainer)
    trainer._recorded = defaultdict(list)
    trainer.tokens_seen = 0
    trainer._total_loss_scalar, trainer.state = 0.0, SimpleNamespace(global_step=0)
    trainer.components = SimpleNamespace(**parts)
    return trainer


def test_a_recorded_figure_is_the_mean_since_the_last_line(monkeypatch):
    lines = []
    monkeypatch.setattr(Trainer, "log", lambda self, logs, start_time=None: lines.append(logs))
    trainer = bare()
    for value in (1.0, torch.tensor(4.0, requires_grad=True)):
        trainer.record("kl", value)
    trainer.log({"dev/recall@1": 0.5})  # an evaluation's line is no logging step
    trainer.log({"loss": 2.0, "learning_rate": 0.1, "epoch": 1.5})
    trainer.record("kl", 7)
    trainer.log({"loss": 1.0})
    trainer._total_loss_scalar, trainer.state = 6.0, SimpleNamespace(global_step=4)
    trainer.log({"train_loss": 9.5, "train_runtime": 9.0})  # of the last segment alone
    assert lines == [
        {"dev/recall@1": 0.5},
        {"train/loss": 2.0, "train/learning_rate": 0.1, "train/kl": 2.5},
        {"train/loss": 1.0, "train/kl": 7.0},
        {"train/mean_loss": 1.5, "train/runtime": 9.0},
    ]


def test_evaluation_is_logged_as_dev_and_returned_as_trainer_asks(monkeypatch):
    """Rank 0's figures count; the questions are the sample."""
    monkeypatch.setattr(base, "broadcast_object_list", lambda given: [{**given[0], "recall@1": 0.25}])
    asked, logged = [], []
    questions = [Question(str(number), "?") for number in range(5)]
    trainer = bare(
        evaluate=lambda given: asked.append(given) or SimpleNamespace(metrics={"recall@1": 0.5}, rows=[]),
        data=SimpleNamespace(splits={"dev": questions}),
        config=SimpleNamespace(evaluation=EvaluationConfig(max_questions=2)),
    )
    trainer.log = logged.append
    trainer.args = trainer.state = trainer.control = None
    told = []
    trainer.callback_handler = SimpleNamespace(on_evaluate=lambda a, s, c, metrics: told.append(metrics) or "control")
    metrics = trainer.evaluate()
    assert asked == [sample_questions(questions, EvaluationConfig(max_questions=2))]
    assert metrics["eval_dev/recall@1"] == 0.25
    assert logged[0]["dev/recall@1"] == 0.25
    assert (
        set(metrics) == {f"eval_{name}" for name in logged[0]} == {"eval_dev/recall@1", "eval_dev/seconds/evaluation"}
    )
    assert told == [metrics]
    assert trainer.control == "control"


@pytest.mark.parametrize(("limit", "count"), [(None, 50), (50, 50), (60, 50), (49, 49), (7, 7), (1, 1)])
def test_sample_of_questions_is_one_for_all_runs_in_the_order_of_the_data(limit, count):
    import random

    questions = [Question(str(number), "?") for number in range(50)]
    random.seed(5)
    found = sample_questions(questions, EvaluationConfig(max_questions=limit))
    random.seed(6)
    assert found == sample_questions(questions, EvaluationConfig(max_questions=limit))
    numbers = [int(question.id) for question in found]
    assert len(numbers) == count
    assert numbers == sorted(set(numbers))
    assert limit != 7 or numbers != list(range(7)), "drawn, not the first"


def test_tokens_are_counted_without_padding_wherever_they_stand(monkeypatch):
    loss, given = torch.tensor(2.0, requires_grad=True), []
    monkeypatch.setattr(
        Trainer, "training_step", lambda self, model, inputs, items=None: given.append((inputs, items)) or loss
    )
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    trainer = bare()
    trainer.health = Health(trainer)
    nested = {"queries": {"chunks": [{"attention_mask": mask}, {"attention_mask": mask}], "order_N": torch.arange(4)}}
    assert trainer.training_step(None, nested, 3) is loss
    assert given == [(nested, 3)]
    assert trainer.health.losses == [loss.detach()], "what `Health` looks at before the step is made"
    assert trainer.tokens_seen == 6
    trainer.training_step(None, {"chunks": [{"attention_mask": mask}], "tail_mask": mask, "mask_BS": mask})
    assert trainer.tokens_seen == 12
    packed = {"attention_mask": torch.ones(1, 1, 3, 3), "labels": torch.ones(1, 3)}
    trainer.training_step(None, packed)
    assert trainer.tokens_seen == 12, "a 4-D mask counts pairs of tokens, not tokens"


def test_checkpoints_are_written_by_the_component_on_one_process_and_read_by_it(tmp_path):
    calls = []
    trainer = bare(
        save=lambda folder: calls.append(("save", folder)) or folder.mkdir(),
        load_weights=lambda folder: calls.append(("load", folder)),
    )
    trainer._totals = {"tokens": 3}
    trainer.args = SimpleNamespace(should_save=False, output_dir=str(tmp_path / "out"))
    trainer._save()
    assert calls == []
    trainer.args.should_save = True
    trainer._save()
    trainer._save(str(tmp_path / "given"))
    assert (tmp_path / "given" / "totals.json").is_file()
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    trainer.state = SimpleNamespace(best_model_checkpoint=str(tmp_path / "best"))
    trainer._load_best_model()
    assert calls == [
        ("save", tmp_path / "out"), ("save", tmp_path / "given"), ("load", tmp_path / "checkpoint"),
        ("load", tmp_path / "best"),
    ]  # fmt: skip


def test_examples_are_remade_for_the_epoch():
    plain, made = Examples(["a", "b"]), Examples(["a", "b"], lambda item, epoch: f"{item}{epoch}")
    assert (len(made), made[1], plain[1]) == (2, "b0", "b")
    for examples in (plain, made):
        examples.set_epoch(3)
    assert (made[0], plain[0]) == ("a3", "a")


def test_add_gold_needs_one_question_with_gold():
    def check(add_gold: bool, *positives: tuple[str, ...]) -> None:
        questions = [Question(str(number), "?", positive_ids=ids) for number, ids in enumerate(positives)]
        config = SimpleNamespace(algorithm=SimpleNamespace(add_gold=add_gold))
        check_add_gold(config, SimpleNamespace(splits={"train": questions}))

    check(True, (), ("p",))
    check(False, (), ())
    with pytest.raises(RequestError, match="no training question has positive_ids"):
        check(True, (), ())


def test_evaluating_takes_up_the_current_weights_and_gives_rows_as_people_see_them(tmp_path):
    refreshed, questions = [], [Question("q", "?")]
    write_passages(tmp_path, [Passage("h0", "text", place="a.csv:2")])

    def measured(given):
        return EvaluationResult({"refreshed": len(refreshed)}, [{"id": one.id, "gold_ids": ["h0"]} for one in given])

    for persist in (False, True):
        parts = base.RunComponents(
            config=None,
            data=SimpleNamespace(passages=PassageStore(tmp_path)),
            models={},
            retriever=SimpleNamespace(refresh=lambda persist: refreshed.append(persist)),
            evaluator=SimpleNamespace(evaluate=measured),
            cache=None,
        )
        result = parts.evaluate(questions, persist=persist)
        assert result.metrics == {"refreshed": len(refreshed)}
        assert result.rows == [{"id": "q", "gold_ids": ["a.csv:2"], "hashed_as": {"a.csv:2": "h0"}}]
    assert parts.evaluate(questions).metrics == {"refreshed": 3}, "refreshed before it is measured"
    assert refreshed == [False, True, False], "corpus vectors are kept on disk only where asked"


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9), size=st.integers(1, 4))
def test_chunks_are_of_like_length_and_come_back_in_order(lengths, size):
    encoder = TableEncoder(similarity="dot")
    ids = [[number] * length for number, length in enumerate(lengths)]
    batch = length_sorted_chunks(encoder, ids, size)
    shapes = [tuple(chunk["input_ids"].shape) for chunk in batch["chunks"]]
    ordered = sorted(lengths)
    blocks = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    assert shapes == [(len(block), max(block)) for block in blocks], "no more padding than their order allows"
    assert torch.equal(encode_chunks(encoder, batch), encoder.table[: len(lengths)])
