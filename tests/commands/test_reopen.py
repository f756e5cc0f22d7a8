"""Finished runs of tiny readers: evaluated again, asked, used as a reader, its parts not to be changed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from rag_experiments import ask, evaluate, train
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from tests.conftest import write_small_data


def request(model: Path, encoder: Path, data: Path, root: Path, *more: str) -> list[str]:
    """An SwR run of a few steps on the CPU in full precision."""
    return [
        "algorithm=swr",
        f"model.path={model}",
        "model.precision=fp32",
        "model.max_new_tokens=6",
        "model.max_input_length=700",
        f"retriever.encoder.path={encoder}",
        "retriever.encoder.precision=fp32",
        "retriever.encoder.max_query_length=64",
        "retriever.encoder.max_passage_length=64",
        "data=jsonl",
        f"data.path={data}",
        "tracking=none",
        f"paths.outputs={root}/outputs",
        f"paths.cache={root}/cache",
        "trainer.use_cpu=true",
        "trainer.learning_rate=3e-3",
        "trainer.max_steps=4",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "evaluation.bootstrap=50",
        "evaluation.latency=2",
        *more,
    ]


def write_run(root: Path, arguments: list[str]) -> RunDirectory:
    directory = root / "run"
    assert train.start([*arguments, f"hydra.run.dir={directory}"]) == 0
    return RunDirectory.open(directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_llama, tiny_bert) -> RunDirectory:
    root = tmp_path_factory.mktemp("finished_reader")
    return write_run(root, request(tiny_llama, tiny_bert, write_small_data(root / "data"), root))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, tiny_llama, tiny_bert) -> RunDirectory:
    """The same with adapters."""
    root = tmp_path_factory.mktemp("finished_adapters")
    more = ["model.lora.r=4", "model.lora.dropout=0.0", "evaluation.zero_shot=false"]
    return write_run(root, request(tiny_llama, tiny_bert, write_small_data(root / "data"), root, *more))


def again(run: RunDirectory, *changes: str) -> tuple[dict, Path]:
    assert evaluate.start([f"run={run.path}", "name=again", *changes]) == 0
    folder = run.path / "evaluations" / "again"
    return json.loads((folder / "metrics.json").read_text()), folder


def measured(metrics: dict) -> dict:
    """Figures that are not times."""
    return {
        name: value for name, value in metrics.items() if name.startswith(("dev/", "test/")) and "seconds" not in name
    }


def test_a_readers_run_measures_answers_retrieval_time_and_truncation(finished):
    metrics = finished.read_final_metrics()
    for name in ("exact_match", "f1", "rouge_l", "answer_in_passages", "f1_to_passages", "recall@1", "mrr@10"):
        assert 0 <= metrics[f"test/{name}"] <= 1
    assert metrics["test/f1_ci_low"] <= metrics["test/f1"] <= metrics["test/f1_ci_high"]
    for what in ("retrieval", "generation"):
        assert 0 < metrics[f"test/seconds/{what}_p50"] <= metrics[f"test/seconds/{what}_p95"]
    assert "test/truncation/prompts_truncated" in metrics
    assert metrics["tokens_per_second"] > 0
    row = finished.read_predictions("test")[0]
    assert row["answer"] is not None
    assert row["given_ids"] == row["retrieved_ids"][:4]


@pytest.mark.parametrize("which", ["finished", "adapted"])
def test_the_same_again_gives_the_same_figures(which, request):
    run = request.getfixturevalue(which)
    metrics, folder = again(run)
    assert measured(metrics) == pytest.approx(measured(run.read_final_metrics()))
    assert (folder / "predictions" / "test.jsonl").is_file()
    assert (folder / "config.yaml").is_file()
    assert list(find_runs(run.path.parent)) != [], "an evaluation is no run of its own"


def test_another_k_and_gold_passages(finished):
    metrics, _ = again(finished, "retriever.k=1", "evaluation.oracle=true", "evaluation.splits=[test]")
    assert "test/oracle_exact_match" in metrics
    assert not any(name.startswith("dev/") for name in metrics)
    rows = [json.loads(line) for line in (finished.path / "evaluations/again/predictions/test.jsonl").open()]
    assert all(len(row["given_ids"]) == 1 for row in rows)


def test_other_data_without_training_questions(finished, tmp_path):
    data = write_small_data(tmp_path / "other", passages=24)
    metrics, _ = again(finished, f"data.path={data}", "evaluation.splits=[test]")
    assert metrics["test/questions"] == 6


def test_another_retriever(finished):
    metrics, _ = again(finished, "retriever=bm25", "evaluation.splits=[test]")
    assert metrics["test/recall@1"] != finished.read_final_metrics()["test/recall@1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs run="),
        (["run=/nowhere"], "no such directory"),
        (["RUN", "model.path=x"], "model.path made the model"),
        (["RUN", "trainer.learning_rate=1"], "trainer.learning_rate made the model"),
        (["RUN", "algorithm=sft"], "algorithm made the model"),
        (["RUN", "retriever.k=500"], "larger than the corpus"),
        (["RUN", "evaluation.splits=[test,train]"], "splits"),
    ],
)
def test_wrong_requests(finished, arguments, message):
    with pytest.raises(RequestError, match=message):
        evaluate.start([f"run={finished.path}" if word == "RUN" else word for word in arguments])


def test_only_adapters_are_in_the_run_and_it_is_a_reader_for_another_run(adapted, tiny_llama, tiny_bert, tmp_path):
    files = {file.name for file in adapted.model_dir.iterdir()}
    assert "adapter_model.safetensors" in files
    assert not files & {"model.safetensors", "pytorch_model.bin"}
    arguments = request(tiny_llama, tiny_bert, write_small_data(tmp_path / "data"), tmp_path)
    arguments = [value for value in arguments if not value.startswith("model.")]
    more = ["model=run", f"model.path=run://{adapted.path}", "model.precision=fp32", "trainer.max_steps=2"]
    second = write_run(tmp_path, [*arguments, *more])
    assert "adapter_model.safetensors" in {file.name for file in second.model_dir.iterdir()}


def test_asked_a_question(finished, capsys):
    assert ask.start([f"run={finished.path}", "where is the cat", "retriever.k=2"]) == 0
    out = capsys.readouterr().out
    assert "[1]" in out
    assert "[2]" in out
    assert "[3]" not in out
    assert "sleeps in" in out


def test_asked_in_a_conversation(finished, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("where is the cat\nand the dog\n/new\nwho\n"))
    seen = []
    inner = ask.reply
    monkeypatch.setattr(
        ask, "reply", lambda parts, question, history: seen.append(len(history)) or inner(parts, question, history)
    )
    assert ask.start([f"run={finished.path}"]) == 0
    assert seen == [0, 2, 0]
    assert capsys.readouterr().out.count("[1]") == 3
