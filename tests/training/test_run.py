"""Whole runs of a tiny encoder through the entrypoint: what they leave, and that they survive `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from tests import warm
from tests.numeric import assert_all_near


def request(model: Path, data: Path, root: Path, *more: str) -> list[str]:
    """A CTL run of a few steps on the CPU in full precision."""
    return [
        "algorithm=ctl",
        f"model.path={model}",
        "model.pooling=mean",
        "model.precision=fp32",
        "data=jsonl",
        f"data.path={data}",
        "tracking=none",
        f"paths.outputs={root}/outputs",
        f"paths.cache={root}/cache",
        "trainer.use_cpu=true",
        "trainer.per_device_train_batch_size=8",
        "trainer.learning_rate=1e-3",
        "evaluation.bootstrap=50",
        *more,
    ]


def run_at(directory: Path, arguments: list[str]) -> RunDirectory:
    assert train.start([*arguments, f"hydra.run.dir={directory}"]) == 0
    return RunDirectory.open(directory)


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(run.model_dir / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> RunDirectory:
    from tests.conftest import write_small_data

    root = tmp_path_factory.mktemp("finished")
    data = write_small_data(root / "data")
    return run_at(root / "run", request(tiny_bert, data, root, "trainer.num_train_epochs=2", "trainer.logging_steps=2"))


def test_a_run_directory_holds_what_the_contract_says(finished):
    status = finished.read_status()
    assert status["state"] == "completed"
    assert status["algorithm"] == "ctl"
    assert status["config_hash"]
    assert status["data_hash"]
    assert status["error"] is None
    assert {"torch", "transformers"} <= set(status["versions"])
    for name in ("config.yaml", ".hydra/overrides.yaml", "metrics.jsonl", "metrics.json", "train.log"):
        assert (finished.path / name).is_file(), name
    metrics = finished.read_final_metrics()
    for stage in ("zero_shot/dev", "zero_shot/test", "dev", "test"):
        for name in ("recall@1", "recall@4", "recall@20", "hit@1", "hit@4", "mrr@10", "ndcg@10"):
            assert 0 <= metrics[f"{stage}/{name}"] <= 1
        for name in ("recall@1", "recall@4"):
            low, high = metrics[f"{stage}/{name}_ci_low"], metrics[f"{stage}/{name}_ci_high"]
            assert low <= metrics[f"{stage}/{name}"] <= high
        rows = finished.read_predictions(stage)
        assert len(rows) == 10
        assert set(rows[0]) >= {"id", "question", "retrieved_ids", "retrieved_scores", "gold_ids", "metrics"}
    for split in ("dev", "test"):  # beside an encoder, BM25 on the same questions
        assert 0 < metrics[f"baseline/bm25/{split}/recall@4"] <= 1
        assert [row["id"] for row in finished.read_predictions(f"baseline/bm25/{split}")] == [
            row["id"] for row in finished.read_predictions(split)
        ]
    assert metrics["seconds/train"] > 0
    assert metrics["peak_memory_mb"] > 0
    assert metrics["tokens_per_second"] > 0


def test_the_log_has_a_line_a_step_with_named_metrics(finished):
    lines = finished.read_metrics()
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert all({"step", "epoch", "seconds"} <= set(line) for line in lines)
    names = {name for line in lines for name in line}
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "train/negatives_per_question"} <= names
    assert {"dev/recall@4", "zero_shot/test/recall@1"} <= names


def test_it_learned_and_its_figures_are_those_of_its_predictions(finished):
    metrics = finished.read_final_metrics()
    assert metrics["dev/mrr@10"] > metrics["zero_shot/dev/mrr@10"]
    rows = finished.read_predictions("test")
    hits = [row["retrieved_ids"][0] in row["gold_ids"] for row in rows]
    assert metrics["test/hit@1"] == pytest.approx(sum(hits) / len(hits))


def test_every_trainable_parameter_moved(finished, tiny_bert):
    before, after = load_file(tiny_bert / "model.safetensors"), weights(finished)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert all(name.startswith("pooler.") for name in still), still  # BERT's own pooler is not part of the encoder


def test_a_finished_directory_is_not_overwritten(finished, tiny_bert, capsys):
    root = finished.path.parent
    again = [*request(tiny_bert, root / "data", root), f"hydra.run.dir={finished.path}"]
    with pytest.raises(SystemExit) as leaving:
        command_line.exit_with(train.start, again)
    assert leaving.value.code == 2
    assert "already holds a run" in capsys.readouterr().err


def test_one_batch_of_16_equals_cached_sub_batches_of_4(tiny_bert, small_data, tmp_path):
    same = ["trainer.max_steps=3", "trainer.per_device_train_batch_size=16", "trainer.save_strategy=no"]
    same += ["trainer.eval_strategy=no", "trainer.load_best_model_at_end=false", "evaluation.zero_shot=false"]
    same += ["model.architecture=null"]
    plain = run_at(tmp_path / "plain", request(no_dropout(tiny_bert, tmp_path), small_data, tmp_path, *same))
    cached = run_at(
        tmp_path / "cached",
        request(tmp_path / "no_dropout", small_data, tmp_path, *same, "algorithm.mini_batch_size=4"),
    )
    assert_all_near(weights(cached), weights(plain), share=2e-5)


def no_dropout(model: Path, root: Path) -> Path:
    """A copy of `model` whose config turns dropout off."""
    import shutil

    folder = root / "no_dropout"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.timeout(300)
def test_killed_in_the_middle_and_resumed_equals_uninterrupted(tiny_bert, small_data, tmp_path):
    steps = ["trainer.max_steps=60", "trainer.save_strategy=steps", "trainer.save_steps=10", "trainer.logging_steps=5"]
    steps += ["trainer.eval_strategy=steps", "trainer.eval_steps=10"]
    whole = run_at(tmp_path / "whole", request(tiny_bert, small_data, tmp_path / "a", *steps))

    arguments = request(tiny_bert, small_data, tmp_path / "b", *steps)
    killed = start_and_kill(arguments, tmp_path / "b" / "outputs")
    assert killed.state == "interrupted"
    assert train.start([*arguments, "resume=auto"]) == 0

    assert killed.state == "completed"
    assert killed.read_status()["resumed"] == 1
    expected, got = whole.read_final_metrics(), killed.read_final_metrics()
    for name, value in expected.items():
        if "seconds" not in name and name not in ("tokens_per_second", "peak_memory_mb"):
            assert got[name] == value, name
    for name, value in weights(whole).items():
        assert torch.equal(weights(killed)[name], value), name
    assert loss_curve(killed) == loss_curve(whole)


def start_and_kill(arguments: list[str], outputs: Path) -> RunDirectory:
    """Start a run in its own process and `kill -9` it once its second checkpoint stands."""
    child = warm.start(
        [sys.executable, "-m", "rag_experiments.train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert child.poll() is None, "the run ended before it was killed"
        if list(outputs.glob("ctl/*/checkpoints/checkpoint-20/trainer_state.json")):
            child.send_signal(signal.SIGKILL)
            child.wait()
            (run,) = find_runs(outputs)
            return run
        time.sleep(0.005)
    raise AssertionError("no checkpoint within two minutes")


def test_resumed_within_an_epoch_equals_uninterrupted(tiny_bert, small_data, tmp_path):
    """Five steps an epoch; negatives are drawn anew each epoch, so the sixth step's are not those of the first."""
    steps = ["trainer.max_steps=9", "trainer.save_strategy=steps", "trainer.save_steps=7", "trainer.logging_steps=1"]
    steps += ["trainer.eval_strategy=no", "trainer.load_best_model_at_end=false", "evaluation.zero_shot=false"]
    whole = run_at(tmp_path / "whole", request(tiny_bert, small_data, tmp_path, *steps))
    cut = interrupted_copy(whole, tmp_path / "cut", "checkpoint-7")
    assert train.start([f"resume={cut.path}"]) == 0
    assert loss_curve(cut) == loss_curve(whole)
    for name, value in weights(whole).items():
        assert torch.equal(weights(cut)[name], value), name


def interrupted_copy(run: RunDirectory, to: Path, checkpoint: str) -> RunDirectory:
    """`run` as it was when it had just written `checkpoint`."""
    import shutil

    shutil.copytree(run.path / ".hydra", to / ".hydra")
    shutil.copytree(run.checkpoints_dir / checkpoint, to / "checkpoints" / checkpoint)
    shutil.copy(run.history_path, to)
    (to / "status.json").write_text(json.dumps({**run.read_status(), "state": "interrupted"}))
    return RunDirectory.open(to)


def loss_curve(run: RunDirectory) -> list[tuple[int, float]]:
    return [(line["step"], line["train/loss"]) for line in run.read_metrics() if "train/loss" in line]


def test_resume_refuses_what_would_change_the_result(finished, tiny_bert, small_data, tmp_path):
    from rag_experiments.core.errors import RequestError

    finished_path = finished.path
    with pytest.raises(RequestError, match="completed"):
        train.start([f"resume={finished_path}"])
    status = {**finished.read_status(), "state": "interrupted"}
    copy = tmp_path / "copy"
    (copy / ".hydra").mkdir(parents=True)
    for name in ("overrides.yaml", "hydra.yaml", "config.yaml"):
        (copy / ".hydra" / name).write_text((finished_path / ".hydra" / name).read_text())
    (copy / "status.json").write_text(json.dumps(status))
    with pytest.raises(RequestError, match=r"algorithm\.temperature"):
        train.start([f"resume={copy}", "algorithm.temperature=0.3"])


def test_early_stopping_ends_a_run_that_no_longer_improves(tiny_bert, small_data, tmp_path):
    more = [
        "trainer.max_steps=40",
        "trainer.eval_strategy=steps",
        "trainer.eval_steps=2",
        "trainer.save_strategy=steps",
    ]
    more += ["trainer.save_steps=2", "trainer.learning_rate=1e-30", "early_stopping=2", "evaluation.zero_shot=false"]
    run = run_at(tmp_path / "run", request(tiny_bert, small_data, tmp_path, *more))
    assert max(line["step"] for line in run.read_metrics()) == 6  # the first is the best; two without a better one


def test_a_plan_says_how_many_questions_a_question_is_contrasted_with(tiny_bert, small_data, tmp_path, capsys):
    """Accumulation makes a step larger and adds no negative."""
    batches = ("trainer.per_device_train_batch_size=4", "trainer.gradient_accumulation_steps=2")
    assert train.start([*request(tiny_bert, small_data, tmp_path, *batches), "plan=true"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "8 questions per step" in lines["batch"]
    assert "from the 4 questions" in lines["negatives"]
    assert "gradient_accumulation_steps adds none" in lines["negatives"]


def test_plan_writes_nothing_and_says_what_would_happen(tiny_bert, small_data, tmp_path, capsys):
    assert train.start([*request(tiny_bert, small_data, tmp_path, "plan=true")]) == 0
    said = capsys.readouterr().out
    for part in ("40", "questions", "steps", "parameters", "memory", "run directory"):
        assert part in said
    assert not (tmp_path / "outputs").exists()
