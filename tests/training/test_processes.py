"""One run by two processes, one of which starts later: one directory, one writer, the weights of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rag_experiments import train
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core import distributed
from rag_experiments.core.errors import RequestError
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from tests import warm
from tests.numeric import assert_all_near
from tests.shared_work import shares
from tests.training.test_run import no_dropout, request


def launch(rank: int, port: int, arguments: list[str], module: str) -> warm.Started | subprocess.Popen[str]:
    """What torchrun sets, and `accelerate launch`; each rank has a seed of hashes of its own, as there."""
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return warm.start(
        [sys.executable, "-m", module, *arguments],
        source_name=("heavy", "another heavy")[rank],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_by_two(arguments: list[str], seconds: float = 240, module: str = "rag_experiments.train") -> tuple[str, str]:
    """What the two print; the second starts two seconds after the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = launch(0, port, arguments, module)
    time.sleep(2)
    second = launch(1, port, arguments, module)
    try:
        said = first.communicate(timeout=seconds)[0], second.communicate(timeout=seconds)[0]
    finally:
        first.kill()
        second.kill()
    assert (first.returncode, second.returncode) == (0, 0), said
    return said


@pytest.mark.timeout(400)
def test_two_processes_write_one_run_with_the_weights_of_one(tiny_bert, small_data, tmp_path):
    """Batches are in sub-batches of 3 with recomputation: the two run their encoders different numbers of times."""
    model = no_dropout(tiny_bert, tmp_path)
    steps = ["trainer.max_steps=6", "trainer.logging_steps=1", "algorithm.mini_batch_size=3", "trainer.optim=sgd"]
    steps += ["trainer.learning_rate=0.05", "trainer.lr_scheduler_type=constant"]
    alone = tmp_path / "alone"
    assert train.start([*request(model, small_data, tmp_path / "a", *steps), f"hydra.run.dir={alone}"]) == 0

    both = request(model, small_data, tmp_path / "b", *steps, "trainer.per_device_train_batch_size=4")
    first, second = run_by_two(both)

    (run,) = find_runs(tmp_path / "b" / "outputs")
    assert [folder.name for folder in (tmp_path / "b" / "outputs" / "ctl").iterdir()] == [run.path.name]
    assert run.state == "completed"
    assert "before and after training" in first
    assert "before and after training" not in second
    assert (run.path / "train.log").read_text().count("evaluating zero_shot/dev") == 1
    assert "hydra.output_subdir=null" not in (run.path / ".hydra" / "overrides.yaml").read_text()
    alones = load_file(alone / "model" / "model.safetensors")
    assert_all_near(load_file(run.model_dir / "model.safetensors"), alones, share=2e-5)
    expected = RunDirectory.open(alone).read_final_metrics()
    got = run.read_final_metrics()
    assert got["dev/mrr@10"] == pytest.approx(expected["dev/mrr@10"])


@pytest.mark.timeout(400)
def test_two_processes_mine_negatives_and_ask_a_teacher_as_one_does(tiny_bert, small_data, tmp_path):
    """Each scores a share of the pairs; both show the same negatives."""
    model, reranker = no_dropout(tiny_bert, tmp_path), tmp_path / "reranker"
    CrossEncoder.load(CrossEncoderConfig(path=str(tiny_bert), precision="fp32"), device="cpu").save(reranker)
    asked = ["algorithm.negatives=mined", "algorithm.hard_negatives=2", "algorithm.refresh_every=2"]
    asked += ["algorithm.margin=null", "algorithm.last_rank=12"]
    for role in ("guide", "teacher"):
        asked += [f"model@algorithm.{role}=minilm_reranker_msmarco", f"algorithm.{role}.path={reranker}"]
        asked += [f"algorithm.{role}.precision=fp32"]
    steps = ["trainer.max_steps=5", "trainer.logging_steps=1", "trainer.optim=sgd", "trainer.learning_rate=0.05"]
    steps += ["trainer.lr_scheduler_type=constant", "evaluation.splits=[dev]", "evaluation.zero_shot=false"]
    alone = tmp_path / "alone"
    assert train.start([*request(model, small_data, tmp_path / "a", *steps, *asked), f"hydra.run.dir={alone}"]) == 0

    run_by_two(request(model, small_data, tmp_path / "b", *steps, *asked, "trainer.per_device_train_batch_size=4"))
    (run,) = find_runs(tmp_path / "b" / "outputs")
    alones = load_file(alone / "model" / "model.safetensors")
    assert_all_near(load_file(run.model_dir / "model.safetensors"), alones, share=2e-5)
    searches = [
        [line.partition("mined negatives")[2] for line in (folder / "train.log").read_text().splitlines()]
        for folder in (alone, run.path)
    ]
    assert [line for line in searches[0] if line] == [line for line in searches[1] if line]
    assert sum(map(bool, searches[0])) == 3
    assert " 0 dropped by the guide" not in searches[0][-1]


@pytest.mark.timeout(400)
def test_two_processes_train_dcas_teacher_together(tiny_bert, tiny_llama, small_data, tmp_path):
    """It is kept in the cache under a lock: a second process that waited for it would never bring its gradients."""
    arguments = [value for value in request(tiny_bert, small_data, tmp_path) if value != "algorithm=ctl"]
    arguments += [
        "algorithm=dca",
        f"algorithm.teacher.path={tiny_llama}",
        "algorithm.teacher.precision=fp32",
        "algorithm.teacher.max_input_length=700",
        "algorithm.teacher_steps=2",
        "algorithm.candidates=4",
        "trainer.max_steps=2",
        "evaluation.zero_shot=false",
        "evaluation.splits=[dev]",
    ]
    run_by_two(arguments)
    (run,) = find_runs(tmp_path / "outputs")
    assert run.state == "completed"
    (teacher,) = (tmp_path / "cache" / "first_runs").glob("*/*/model/config.json")
    by_two = load_file(teacher.parent / "model.safetensors")

    # A step of two processes is that of one with twice the batch, so the key is one, too.
    own = [f"paths.cache={tmp_path / 'own'}", f"hydra.run.dir={tmp_path / 'alone'}"]
    assert train.start([*arguments, *own]) == 0
    (alones,) = (tmp_path / "own" / "first_runs").glob("*/*/model/config.json")
    assert alones.parent.parent.name == teacher.parent.parent.name
    by_one = load_file(alones.parent / "model.safetensors")
    assert_all_near(by_two, by_one, share=2e-5)
    start = load_file(tiny_llama / "model.safetensors")
    with pytest.raises(AssertionError):
        assert_all_near({name: start[name] for name in by_one}, by_one, share=2e-5)  # it learnt something


@pytest.mark.timeout(400)
@pytest.mark.parametrize("reader_loss", ["sft", "fid"])
def test_two_processes_train_encoder_and_reader_as_one(tiny_bert, tiny_llama, small_data, tmp_path, reader_loss):
    """Answers differ in length, so that the two processes hold different shares of a step's tokens."""
    questions = [json.loads(line) for line in (small_data / "train.jsonl").read_text().splitlines()]
    for number, question in enumerate(questions):
        question["answers"] = [" ".join(question["answers"] * (1 + number % 3))]
    (small_data / "train.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    arguments = [
        value for value in request(no_dropout(tiny_bert, tmp_path), small_data, tmp_path) if value != "algorithm=ctl"
    ]
    arguments += [
        "algorithm=joint",
        f"algorithm.reader.path={tiny_llama}",
        "algorithm.reader.precision=fp32",
        "algorithm.reader.max_input_length=700",
        f"algorithm.reader_loss={reader_loss}",
        "algorithm.candidates=3",
        "algorithm.mini_batch_size=3",
        "algorithm.learning_rates={encoder: 0.05, reader: 0.05}",
        "retriever.k=2",
        "trainer.optim=sgd",
        "trainer.lr_scheduler_type=constant",
        "trainer.max_steps=4",
        "trainer.gradient_accumulation_steps=2",
        "trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false",
        "evaluation.zero_shot=false",
        "evaluation.splits=[dev]",
        "evaluation.latency=0",
        "evaluation.max_questions=2",
    ]
    run_by_two([*arguments, "trainer.per_device_train_batch_size=4", f"hydra.run.dir={tmp_path / 'both'}"])
    assert train.start([*arguments, f"hydra.run.dir={tmp_path / 'alone'}"]) == 0
    for role, start in (("encoder", tiny_bert), ("reader", tiny_llama)):
        both, alone = (load_file(tmp_path / name / "model" / role / "model.safetensors") for name in ("both", "alone"))
        assert_all_near(both, alone, share=2e-5)
        first = load_file(start / "model.safetensors")
        with pytest.raises(AssertionError):
            assert_all_near({name: first[name] for name in alone}, alone, share=2e-5)  # it learnt something


@pytest.mark.timeout(400)
def test_two_processes_train_two_roles_from_outside(tiny_bert, tiny_llama, small_data, tmp_path, monkeypatch):
    """The example of `CONTRIBUTING.md`: the encoder runs twice a step and the reader once, in one forward."""
    examples = Path(__file__).resolve().parents[2] / "docs" / "extending"
    monkeypatch.setenv("PYTHONPATH", f"{examples}{os.pathsep}{examples.parents[1]}")
    arguments = [value for value in request(tiny_bert, small_data, tmp_path) if value != "algorithm=ctl"]
    arguments += [
        *["--config-dir", str(examples / "conf"), "algorithm=both"],
        f"algorithm.reader.path={tiny_llama}",
        "algorithm.reader.precision=fp32",
        "algorithm.reader.max_input_length=700",
        "retriever.k=2",
        "trainer.max_steps=3",
        "trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false",
        "evaluation.zero_shot=false",
        "evaluation.splits=[dev]",
        "evaluation.max_questions=2",
        "evaluation.latency=0",
    ]
    run_by_two(arguments)
    (run,) = find_runs(tmp_path / "outputs")
    assert run.state == "completed"


@pytest.mark.timeout(400)
def test_two_processes_read_as_one(tiny_bert, tiny_llama, small_data, tmp_path):
    """The same answers before training, each process having written half of them."""
    arguments = [
        value for value in request(tiny_bert, small_data, tmp_path) if not value.startswith(("algor", "model."))
    ]
    arguments += [
        "algorithm=fid",
        f"model.path={tiny_llama}",
        "model.precision=fp32",
        "model.max_input_length=700",
        "model.max_new_tokens=4",
        f"retriever.encoder.path={tiny_bert}",
        "retriever.k=2",
        "trainer.max_steps=1",
        "trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false",
        "evaluation.splits=[dev]",
        "evaluation.latency=0",
    ]
    run_by_two([*arguments, f"hydra.run.dir={tmp_path / 'both'}"])
    assert train.start([*arguments, f"hydra.run.dir={tmp_path / 'alone'}"]) == 0
    both, alone = (RunDirectory.open(tmp_path / name) for name in ("both", "alone"))
    assert both.state == "completed"
    assert len(alone.read_predictions("zero_shot/dev")) > 2
    assert both.read_predictions("zero_shot/dev") == alone.read_predictions("zero_shot/dev")
    assert len(both.read_predictions("dev")) == len(alone.read_predictions("dev"))


@pytest.mark.timeout(120)
def test_two_processes_share_the_work_of_an_evaluation(tmp_path):
    """Each answers and embeds its part, and both hold what one process finds."""
    run_by_two([str(tmp_path)], module="tests.shared_work")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = shares(tmp_path)
    for name in ("answers", "oracle", "cut", "vectors", "one", "none"):
        assert first[name] == second[name] == alone[name], name
    assert (alone["asked"], first["asked"], second["asked"]) == ([3, 2], [2, 1], [1, 1])
    assert (alone["embedded"], first["embedded"], second["embedded"]) == (7, 4, 3)


def test_what_rank_0_decides_or_refuses_reaches_the_others(monkeypatch):
    held: dict[str, str] = {}

    class Store:
        def set(self, key: str, value: str) -> None:
            held[key] = value

        def get(self, key: str) -> bytes:
            return held[key].encode()

    def refuse() -> None:
        raise RequestError("there is no such run")

    def never() -> None:
        raise AssertionError("only rank 0 decides")

    monkeypatch.setattr(distributed, "_store", Store)
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcomes = []
    for rank, decide in (("0", lambda: {"directory": "outputs/é"}), ("1", never)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(distributed, "_numbers", iter([0, 1]))
        outcomes.append(distributed.decided_once(decide))
        with pytest.raises(RequestError, match="no such run"):
            distributed.decided_once(refuse if rank == "0" else never)
    assert outcomes[0] == outcomes[1] == {"directory": "outputs/é"}
    assert all(json.loads(value) for value in held.values())


def test_a_sweep_is_not_started_by_every_process(monkeypatch, small_data: Path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="without torchrun"):
        train.start(["-m", "algorithm=ctl", "seed=0,1", f"data.path={small_data}"])


def test_only_the_first_process_shows_a_configuration(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert train.start(["--cfg", "job"]) == 0
    assert capsys.readouterr().out == ""
