"""A run that did not learn does not end as completed, and a model that is no numbers is never saved."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rag_experiments import train
from rag_experiments.algorithms import health
from rag_experiments.algorithms.health import NothingLearnt, check_finite
from rag_experiments.algorithms.sft import SFTTrainer
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from tests.algorithms.reader_parts import losses, make_trainer
from tests.conftest import write_jsonl, write_small_data
from tests.tiny_readers import write_tiny_llama
from tests.training.test_run import request

DIVERGES = ("trainer.learning_rate=1e30", "trainer.max_steps=8", "trainer.warmup_steps=0", "trainer.logging_steps=1")


@pytest.mark.parametrize("rate", ["1e30", "1e20"])
def test_a_run_that_diverges_has_failed_at_that_step(tiny_bert, small_data, tmp_path, rate):
    steps = ("trainer.save_strategy=steps", "trainer.save_steps=1", "trainer.eval_strategy=no")
    steps += (
        "trainer.load_best_model_at_end=false",
        "trainer.metric_for_best_model=null",
        "evaluation.zero_shot=false",
    )
    directory = tmp_path / "run"
    words = request(tiny_bert, small_data, tmp_path, *DIVERGES, *steps, f"trainer.learning_rate={rate}")
    assert train.start([*words, "trainer.max_grad_norm=0", "trainer.optim=sgd", f"hydra.run.dir={directory}"]) == 1
    run = RunDirectory.open(directory)
    status = run.read_status()
    assert (status["state"], status["error"]["type"]) == ("failed", "NothingLearnt")
    assert "learning_rate" in status["error"]["message"]
    assert not run.model_dir.exists()
    for checkpoint in directory.glob("checkpoints/checkpoint-*"):
        for tensor in load_file(checkpoint / "model.safetensors").values():
            assert torch.isfinite(tensor).all()
    last = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()][-1]
    assert "diverged at step" in status["error"]["message"] or "not saved" in status["error"]["message"]
    if "diverged" in status["error"]["message"]:
        assert f"step {last['step']}:" in status["error"]["message"]
        assert None in (last["train/loss"], last["train/grad_norm"])  # as JSON writes what is no number


def test_a_reader_that_diverges_is_noticed_before_its_weights_take_it_up(tmp_path, monkeypatch):
    trainer = make_trainer(SFTTrainer, write_tiny_llama(tmp_path / "model"), tmp_path, max_steps=3)
    real = trainer.compute_loss
    calls = []

    def compute_loss(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(trainer, "compute_loss", compute_loss)
    with pytest.raises(NothingLearnt, match="diverged at step 2: the loss is nan"):
        trainer.train()
    assert len(losses(trainer)) == 2
    check_finite(trainer.model, "the reader")


def test_without_any_gradient_that_is_said_and_the_end_is_a_failure(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(health, "STILL_STEPS", 2)
    trainer = make_trainer(SFTTrainer, write_tiny_llama(tmp_path / "model"), tmp_path, max_steps=3)
    real = trainer.compute_loss
    monkeypatch.setattr(trainer, "compute_loss", lambda *args, **kwargs: real(*args, **kwargs) * 0.0)
    with pytest.raises(NothingLearnt, match="gradient was 0 at each of 3 steps"):
        trainer.train()
    assert sum("nothing is learnt" in record.getMessage() for record in caplog.records) == 1


def test_one_step_with_a_gradient_is_learning(tmp_path, monkeypatch):
    trainer = make_trainer(SFTTrainer, write_tiny_llama(tmp_path / "model"), tmp_path, max_steps=3)
    real, calls = trainer.compute_loss, []

    def compute_loss(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (1.0 if len(calls) == 1 else 0.0)

    monkeypatch.setattr(trainer, "compute_loss", compute_loss)
    trainer.train()
    assert trainer.health.moved


@pytest.mark.parametrize(("steps", "warned"), [(1, True), (2, True), (3, False)])
def test_steps_without_a_learning_rate_are_told(tmp_path, caplog, steps, warned):
    """The first step of a warm-up has the rate 0."""
    at = tmp_path / "model"
    trainer = make_trainer(SFTTrainer, write_tiny_llama(at), tmp_path, max_steps=steps, warmup_steps=2)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.create_optimizer(), lambda step: 0.0 if step < 2 else 1.0
    )
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert any("the weights are those of the beginning" in record.getMessage() for record in caplog.records) == warned
    assert all(torch.equal(before[name], after[name]) for name in before) == warned


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(value):
    module = nn.Linear(2, 2)
    check_finite(module, "the encoder")
    with torch.no_grad():
        module.weight[1, 1] = value
    with pytest.raises(NothingLearnt, match=r"the encoder is not saved.*weight"):
        check_finite(module, "the encoder")


def test_integers_among_the_weights_are_no_matter():
    module = nn.BatchNorm1d(2)  # counts its batches
    check_finite(module, "the encoder")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        (("trainer.per_device_train_batch_size=1",), True),
        (("trainer.per_device_train_batch_size=1", "algorithm.hard_negatives=0"), True),
        (("trainer.per_device_train_batch_size=2",), False),
        (("data.max_train=1",), True),
    ],
)
def test_a_question_alone_in_its_batch_has_nothing_to_be_told_apart_from(tiny_bert, tmp_path, changes, refused):
    data = write_small_data(tmp_path / "data")
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    write_jsonl(data / "train.jsonl", [{**row, "negative_ids": []} for row in rows])
    words = [*request(tiny_bert, data, tmp_path, *changes), "plan=true"]
    if refused:
        with pytest.raises(RequestError, match="alone in its batch"):
            train.start(words)
    else:
        assert train.start(words) == 0
