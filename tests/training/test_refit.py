"""`refit=true`: dev chooses the length, then train and dev together are trained on; whole, interrupted, refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks.storm import differences
from rag_experiments import train
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.comparison.analysis.before_after import before_after
from rag_experiments.config import command_line
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import refit
from tests.conftest import write_small_data
from tests.training.test_run import request, run_at, weights

STEPS = (
    *("trainer.max_steps=6", "trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.save_strategy=steps"),
    *("trainer.save_steps=2", "trainer.logging_steps=1", "trainer.warmup_steps=0", "evaluation.bootstrap=20"),
)


def arguments(model: Path, data: Path, root: Path, *more: str) -> list[str]:
    return request(model, data, root, *STEPS, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = write_small_data(tmp_path_factory.mktemp("refit") / "data")
    dev = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    for number, row in enumerate(dev):  # train has the same questions, and rows that ask the same are merged
        row |= {"id": f"dev-{number}", "question": f"tell me {row['question']}"}
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory, tiny_bert) -> RunDirectory:
    root = tmp_path_factory.mktemp("whole")
    return run_at(root / "run", arguments(tiny_bert, data, root, "refit=true"))


def test_the_second_training_is_one_on_train_and_dev_of_the_chosen_length(whole, data, tiny_bert, tmp_path):
    """With a constant learning rate it is an ordinary run of that length on the two files together."""
    constant = ("trainer.lr_scheduler_type=constant", "trainer.eval_steps=2")
    chosen = run_at(tmp_path / "chosen", arguments(tiny_bert, data, tmp_path, *constant, "refit=true"))
    steps = refit.read_choice(chosen.path).steps
    together = write_small_data(tmp_path / "together")
    lines = [(data / f"{split}.jsonl").read_text() for split in ("train", "dev")]
    (together / "train.jsonl").write_text("".join(line.rstrip("\n") + "\n" for line in lines))
    fixed = ("trainer.load_best_model_at_end=false", "trainer.eval_strategy=no", f"trainer.max_steps={steps}")
    plain = run_at(tmp_path / "plain", arguments(tiny_bert, together, tmp_path, *constant, *fixed))
    for name, tensor in weights(plain).items():
        assert torch.equal(tensor, weights(chosen)[name]), name
    test = {name: value for name, value in plain.read_final_metrics().items() if name.startswith("test/recall")}
    assert test == {name: chosen.read_final_metrics()[name] for name in test}


def test_dev_is_measured_with_the_first_and_test_with_the_second(whole, data, tiny_bert, tmp_path):
    first = run_at(tmp_path / "first", arguments(tiny_bert, data, tmp_path))
    figures, expected = whole.read_final_metrics(), first.read_final_metrics()
    for name in ("dev/recall@1", "dev/mrr@10", "zero_shot/test/mrr@10"):
        assert figures[name] == expected[name]
    state = json.loads((first.last_checkpoint() / "trainer_state.json").read_text())
    told = whole.read_status()["refit"]
    choice = refit.read_choice(whole.path)
    assert (choice.best, told["of"]) == (state["best_global_step"], 6)
    assert told["steps"] == choice.steps
    assert told["metric"] == "dev/ndcg@10"
    assert told["value"] == pytest.approx(figures["dev/ndcg@10"])
    assert any("refit: dev is measured after the first training" in note for note in before_after(whole).notes)
    assert not any("refit" in note for note in before_after(first).notes)
    assert max(line["step"] for line in whole.read_metrics()) == told["steps"]


CURVES = {
    "the last is the best": ([0.3, 0.4, 0.6], 6),
    "nearly as good at the end": ([0.5, 0.62, 0.6], 6),
    "worse at the end": ([0.5, 0.9, 0.2], 4),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_whole_training_is_made_unless_dev_is_worse_at_its_end(name, data, tiny_bert, tmp_path, monkeypatch):
    curve, expected = CURVES[name]
    unchanged = CTLTrainer.evaluate

    def evaluated(self, *given, **more):
        """Figures as the curve has them in the mean, other questions above it at each step."""
        step, original = self.state.global_step, self.components.evaluate

        def measured(questions, **told):
            result = original(questions, **told)
            for number, row in enumerate(result.rows):
                row["metrics"]["ndcg@10"] = curve[step // 2 - 1] + 0.1 * (number * step % 5 - 2)
            mean = sum(row["metrics"]["ndcg@10"] for row in result.rows) / len(result.rows)
            return dataclasses.replace(result, metrics={**result.metrics, "ndcg@10": mean})

        monkeypatch.setattr(self.components, "evaluate", measured, raising=False)
        try:
            return unchanged(self, *given, **more)
        finally:
            monkeypatch.setattr(self.components, "evaluate", original)

    monkeypatch.setattr(CTLTrainer, "evaluate", evaluated)
    run = run_at(tmp_path / "run", arguments(tiny_bert, data, tmp_path, "refit=true", "evaluation.splits=[dev]"))
    choice = refit.read_choice(run.path)
    assert choice.best == 2 * (curve.index(max(curve)) + 1)
    assert choice.steps == expected
    monkeypatch.undo()
    fixed = ("trainer.load_best_model_at_end=false", "trainer.eval_strategy=no", "trainer.warmup_steps=0")
    plain = run_at(tmp_path / "plain", arguments(tiny_bert, data, tmp_path, *fixed, "evaluation.splits=[dev]"))
    if expected == 6:  # dev's figures are those of the weights that were chosen
        for figure in ("dev/ndcg@10", "dev/mrr@10"):
            assert run.read_final_metrics()[figure] == plain.read_final_metrics()[figure]


def test_the_learning_rate_falls_over_the_steps_of_the_first(whole):
    rates = [line["train/learning_rate"] for line in whole.read_metrics() if "train/learning_rate" in line]
    assert rates == pytest.approx([1e-3 * (1 - step / 6) for step in range(len(rates))])


@pytest.mark.parametrize("call", [4, 8])
def test_interrupted_in_either_training_it_ends_as_undisturbed(call, whole, data, tiny_bert, tmp_path, monkeypatch):
    calls, real = [], CTLTrainer.compute_loss

    def interrupts(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(CTLTrainer, "compute_loss", interrupts)
    at = tmp_path / "cut"
    with pytest.raises(SystemExit):
        command_line.exit_with(
            train.start, [*arguments(tiny_bert, data, tmp_path, "refit=true"), f"hydra.run.dir={at}"]
        )
    assert (refit.read_choice(at) is None) == (call == 4)
    monkeypatch.undo()
    assert train.start([f"resume={at}"]) == 0
    assert list(differences(whole.path, at)) == []
    assert refit.read_choice(at).steps == refit.read_choice(whole.path).steps


def test_without_an_evaluation_nothing_can_be_chosen(data, tiny_bert, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(
            train.start, arguments(tiny_bert, data, tmp_path, "refit=true", "trainer.eval_strategy=no",
                                   "trainer.load_best_model_at_end=false"),
        )  # fmt: skip
    assert ended.value.code == command_line.WRONG_REQUEST
    assert "refit=true chooses the number of steps with dev" in capsys.readouterr().err
