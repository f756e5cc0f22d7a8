"""`import rag_experiments as rag`: what it gives is what the commands give, and it leaves the process as it was."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.style  # noqa: F401  (draws a random number at its first import)
import torch
from safetensors.torch import load_file

import rag_experiments as rag
from rag_experiments import ask, compare, evaluate, train
from rag_experiments.config import command_line
from rag_experiments.runs.directory import RunDirectory
from tests import warm
from tests.conftest import write_small_data
from tests.training.test_run import request, run_at

STEPS = ("trainer.max_steps=3", "trainer.logging_steps=1", "evaluation.latency=0")


def typed(model: Path, data: Path, root: Path, *more: str) -> list[str]:
    return request(model, data, root, *STEPS, *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api")
    write_small_data(root / "data")
    return root


@pytest.fixture(scope="module")
def by_command(place: Path, tiny_bert: Path) -> rag.Run:
    """A run by the command, in a process of its own."""
    arguments = [*typed(tiny_bert, place / "data", place), f"hydra.run.dir={place / 'command'}"]
    command = [sys.executable, "-m", "rag_experiments.train", *arguments]
    warm.run(command, check=True, timeout=300)
    return rag.open_run(place / "command")


@pytest.fixture(scope="module")
def run(place: Path, tiny_bert: Path) -> rag.Run:
    """The same from Python."""
    return rag.train(*typed(tiny_bert, place / "data", place), {"hydra.run.dir": place / "first"})


def measured(metrics: Any) -> dict[str, float]:
    return {name: value for name, value in dict(metrics).items() if "@" in name or name.endswith("questions")}


def surroundings() -> dict[str, Any]:
    """What a run could leave changed."""
    from hydra.core.global_hydra import GlobalHydra

    root = logging.getLogger()
    return {
        "handlers": root.handlers[:],
        "level": root.level,
        "argv": sys.argv[:],
        "HYDRA_FULL_ERROR": os.environ.get("HYDRA_FULL_ERROR"),
        "hydra": GlobalHydra.instance().hydra,
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "directory": os.getcwd(),
    }


# -- train ---------------------------------------------------------------------------------------------


def test_training_twice_in_one_process_gives_the_commands_figures_to_the_bit(by_command, run, place, tiny_bert):
    random.seed(11)
    torch.manual_seed(5)
    second = rag.train(*typed(tiny_bert, place / "data", place), {"hydra.run.dir": place / "second"})
    weights = load_file(by_command.path / "model" / "model.safetensors")
    for one in (run, second):
        assert len(measured(one.metrics)) > 20
        assert measured(one.metrics) == measured(by_command.metrics)
        for stage in by_command.stages:
            file = Path("predictions") / f"{stage}.jsonl"
            assert (one.path / file).read_bytes() == (by_command.path / file).read_bytes()
        ours = load_file(one.path / "model" / "model.safetensors")
        assert all(torch.equal(ours[name], weight) for name, weight in weights.items())
        assert one.status["config_hash"] == by_command.status["config_hash"]
        assert one.status["command"].startswith("python") == by_command.status["command"].startswith("python")
        assert "-m rag_experiments.train algorithm=ctl" in one.status["command"]


@pytest.mark.parametrize("how", ["ends well", "fails", "is refused"])
def test_the_process_is_as_it_was_before(place, tiny_bert, tmp_path, monkeypatch, how):
    more = ["algorithm=ctx"] if how == "is refused" else ["evaluation.zero_shot=false"]
    if how == "fails":
        monkeypatch.setattr("rag_experiments.training.stages.fit", fails)
    before = surroundings()
    arguments = [*typed(tiny_bert, place / "data", tmp_path, *more), f"hydra.run.dir={tmp_path / 'run'}"]
    if how == "ends well":
        rag.train(*arguments)
    else:
        with pytest.raises(rag.RunFailed if how == "fails" else rag.RequestError):
            rag.train(*arguments)
    assert surroundings() == before
    log = tmp_path / "run" / "train.log"
    size = log.stat().st_size if log.exists() else 0
    logging.getLogger("rag_experiments").warning("after the run")
    assert (log.stat().st_size if log.exists() else 0) == size


def fails(*_: Any) -> None:
    raise ValueError("the loss of everything\nand more lines")


def test_a_failed_run_raises_its_own_sentence_and_names_its_directory(place, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr("rag_experiments.training.stages.fit", fails)
    with pytest.raises(rag.RunFailed) as failed:
        rag.train(*typed(tiny_bert, place / "data", tmp_path), name="ends badly")
    (directory,) = (tmp_path / "outputs" / "ctl").iterdir()
    assert str(failed.value).startswith(f"ValueError: the loss of everything (the run's directory: {directory};")
    assert isinstance(failed.value.__cause__, ValueError)
    assert failed.value.run.status["state"] == "failed"
    assert failed.value.run.metrics.empty
    assert "ends badly" in directory.name
    with pytest.raises(rag.RequestError, match="no model/"):
        failed.value.run.search("where is the cat")


def test_a_request_that_proves_wrong_after_some_work_names_the_directory(place, tiny_bert, tmp_path, monkeypatch):
    def refuses(*_: Any) -> None:
        raise rag.RequestError("trainer.x is not possible")

    monkeypatch.setattr("rag_experiments.training.stages.fit", refuses)
    directory = tmp_path / "run"
    with pytest.raises(rag.RequestError) as refused:
        rag.train(*typed(tiny_bert, place / "data", tmp_path), {"hydra.run.dir": directory})
    assert str(refused.value) == f"trainer.x is not possible (the run's directory: {directory})"
    nothing = ("evaluation.zero_shot=false", "evaluation.baselines=[]")
    with pytest.raises(rag.RequestError, match=r"^trainer\.x is not possible$"):
        rag.train(*typed(tiny_bert, place / "data", tmp_path, *nothing), name="nothing yet")
    assert not (tmp_path / "outputs").exists()


def test_ctrl_c_is_a_keyboard_interrupt_and_the_run_goes_on_as_if_it_had_not_been(place, tiny_bert, run, monkeypatch):
    from rag_experiments.algorithms.ctl import CTLTrainer

    saving = ["trainer.save_strategy=steps", "trainer.save_steps=1", "trainer.eval_strategy=steps"]
    arguments = [*typed(tiny_bert, place / "data", place, *saving, "trainer.eval_steps=1")]
    whole = rag.train(*arguments, {"hydra.run.dir": place / "whole"})
    inner, calls = CTLTrainer.compute_loss, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(CTLTrainer, "compute_loss", interrupted)
        with pytest.raises(KeyboardInterrupt, match="resume") as stopped:
            rag.train(*arguments, {"hydra.run.dir": place / "stopped"})
    assert str(place / "stopped") in str(stopped.value)
    assert rag.open_run(place / "stopped").status["state"] == "interrupted"
    resumed = rag.train({"resume": rag.open_run(place / "stopped")})
    assert resumed.path == place / "stopped"
    assert measured(resumed.metrics) == measured(whole.metrics)


def test_it_trains_in_a_thread_and_under_a_running_event_loop(place, tiny_bert, run):
    arguments = typed(tiny_bert, place / "data", place)
    trained: list[rag.Run] = []

    async def in_a_loop() -> None:
        trained.append(rag.train(*arguments, {"hydra.run.dir": place / "looped"}))

    asyncio.run(in_a_loop())
    thread = threading.Thread(
        target=lambda: trained.append(rag.train(*arguments, {"hydra.run.dir": place / "threaded"}))
    )
    thread.start()
    thread.join()
    assert [measured(one.metrics) for one in trained] == [measured(run.metrics)] * 2


def test_a_run_on_the_cpu_does_not_leave_the_cpu_to_later_ones(run):
    """`trainer.use_cpu` of one run is kept in accelerate's state of the process."""
    from accelerate import PartialState

    from rag_experiments.config.surroundings import as_before

    PartialState(cpu=True)
    with as_before():
        assert PartialState._shared_state == {}


def test_strings_and_a_mapping_are_the_same_request(place, tiny_bert):
    strings = typed(tiny_bert, place / "data", place, "trainer.learning_rate=0.001", "evaluation.cutoffs=[1,2]")
    mapping = dict(value.split("=", 1) for value in typed(tiny_bert, place / "data", place))
    numbers = {"trainer.max_steps": 3, "evaluation.bootstrap": np.int64(50), "trainer.use_cpu": True}
    mapping |= {"trainer.learning_rate": 1e-3, "evaluation.cutoffs": (1, 2), "evaluation.latency": 0, **numbers}
    mapping |= {"trainer.per_device_train_batch_size": 8, "trainer.logging_steps": 1}
    rows = [dict(plan.rows)["config hash"] for plan in (rag.plan(*strings), rag.plan(mapping))]
    assert rows[0] == rows[1]


WRONG = {
    "unknown option": ["algorithm=ctx"],
    "unknown key": ["trainer.learning_rat=1"],
    "no key=value": ["nonsense"],
    "a second value": ["seed=1,2"],
    "no such data": ["data.path=/nowhere"],
    "a directory that holds a run": ["hydra.run.dir=RUN"],
    "a secret": ["tracking.api_key=0123456789abcdef0123456789abcdef01234567"],
    "no such run to resume": ["resume=/nowhere"],
    "a search space": ["sweep=ctl"],
    "k larger than the corpus": ["retriever.k=41"],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_request_raises_the_sentence_of_the_command(run, place, tiny_bert, tmp_path, capsys, kind):
    wrong = [word.replace("RUN", str(run.path)) for word in WRONG[kind]]
    arguments = [*typed(tiny_bert, place / "data", tmp_path), *wrong]
    with pytest.raises(SystemExit) as left:
        command_line.exit_with(train.start, arguments)
    assert left.value.code == 2
    said = capsys.readouterr().err
    for function in (rag.train, rag.plan):
        with pytest.raises(rag.RequestError) as refused:
            function(*arguments)
        assert said == f"error: {refused.value}\n"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "seed=1"], "for the command"),
        (["--cfg", "job"], "for the command"),
        (["experiment=fid_dca_loop"], "a chain"),
        (["plan=true"], r"rag\.plan"),
        ([{"trainer.max_steps": object()}], r"trainer\.max_steps: object is no value"),
    ],
)
def test_what_only_the_command_does_is_refused(place, tiny_bert, tmp_path, arguments, sentence):
    with pytest.raises(rag.RequestError, match=sentence):
        rag.train(*typed(tiny_bert, place / "data", tmp_path), *arguments)
    assert not (tmp_path / "outputs").exists()


def test_a_plan_is_what_the_command_prints(place, tiny_bert, capsys):
    arguments = [*typed(tiny_bert, place / "data", place), "hydra.run.dir=planned"]
    assert train.start([*arguments, "plan=true"]) == 0
    printed = capsys.readouterr().out
    assert f"{rag.plan(*arguments)}\n" == printed
    assert "encoder parameters" in printed
    assert not Path("planned").exists()


# -- a run ---------------------------------------------------------------------------------------------


def test_a_run_shows_what_its_files_hold(run):
    files = RunDirectory.open(run.path)
    assert run.status["state"] == "completed"
    assert run.config["trainer"]["max_steps"] == 3
    assert run.metrics.to_dict() == files.read_final_metrics()
    lines = files.read_metrics()
    assert len(run.log) == len(lines)
    assert run.log["train/loss"].dropna().tolist() == [line["train/loss"] for line in lines if "train/loss" in line]
    assert run.stages == ["baseline/bm25/dev", "baseline/bm25/test", "dev", "test", "zero_shot/dev", "zero_shot/test"]
    assert repr(run) == f"<Run {run.path} (completed)>"


def test_means_of_predictions_are_the_figures(run):
    figures = json.loads((run.path / "metrics.json").read_text())
    for stage in ("dev", "test", "zero_shot/dev", "zero_shot/test"):
        before, _, split = stage.rpartition("/")
        frame = run.predictions(split, before or None)
        names = [name for name in frame.columns if "@" in name]
        assert {"recall@1", "recall@4", "mrr@10"} <= set(names)
        for name in names:
            assert frame[name].mean() == pytest.approx(figures[f"{stage}/{name}"], abs=1e-12)
    frame = run.predictions()
    row = RunDirectory.open(run.path).read_predictions("test")[2]
    assert frame.index.is_unique
    for name in ("question", "retrieved_ids", "retrieved_scores", "gold_ids", "answer", "references"):
        assert frame.loc[row["id"], name] == row[name]


def test_predictions_that_are_not_there_are_named(run):
    with pytest.raises(rag.RequestError, match=r"no predictions of train \(there are: .*, dev, test, zero_shot/dev"):
        run.predictions("train")
    with pytest.raises(rag.RequestError, match="no predictions of"):
        run.predictions("../metrics")


@pytest.mark.parametrize(
    ("file", "look"),
    [
        ("status.json", lambda run: run.status),
        ("config.yaml", lambda run: run.config),
        ("metrics.json", lambda run: run.metrics),
        ("predictions/test.jsonl", lambda run: run.predictions()),
    ],
)
def test_a_damaged_file_is_a_sentence_with_its_name(run, tmp_path, file, look):
    copy = rag.open_run(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / file).write_bytes(b'{"id": [')
    with pytest.raises(rag.RequestError, match=f"{file} cannot be read"):
        look(copy)


def test_a_run_that_has_no_figures_yet_is_empty(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "failed"}')
    begun = rag.open_run(tmp_path)
    assert (begun.status, begun.config, begun.stages) == ({"state": "failed"}, {}, [])
    assert begun.metrics.empty
    assert begun.log.empty


def test_search_and_ask_give_what_the_command_gives(run, capsys):
    question = "where is the red cat one"
    expected = ask.reply(ask.open_parts(run.path, []), question)
    found = run.search(question)
    assert found["score"].tolist() == [score for score, _ in expected.passages]
    assert found["id"].tolist() == [passage.id for _, passage in expected.passages]
    assert found.index.tolist() == [1, 2, 3, 4]
    assert run.search(question, k=2)["id"].tolist() == found["id"].tolist()[:2]
    assert run.ask(question) == expected
    capsys.readouterr()
    assert ask.start([f"run={run.path}", question]) == 0
    printed = capsys.readouterr().out
    assert [f"{score:.4f}  {key}" in printed for score, key in zip(found["score"], found["id"], strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize("call", [lambda r: r.search(" "), lambda r: r.ask(""), lambda r: r.encoder and r.ask("\n")])
def test_an_empty_question_is_refused(run, call):
    with pytest.raises(rag.RequestError, match="the question is empty"):
        call(run)


@pytest.mark.parametrize("k", [0, 41])
def test_k_that_the_corpus_does_not_have_is_refused(run, k):
    with pytest.raises(rag.RequestError, match=f"k={k} is not between 1 and 40"):
        run.search("where", k=k)


def test_the_encoder_gives_the_scores_of_the_search(run):
    found = run.search("where is the dog", k=3)
    passages = [row["title"] + "\n" + row["text"] for _, row in found.iterrows()]
    queries_QD, passages_PD = run.encoder.encode("where is the dog"), run.encoder.encode_passages(passages)
    assert queries_QD.shape == (1, 32)
    np.testing.assert_allclose(run.encoder.similarity(queries_QD, passages_PD)[0], found["score"], rtol=1e-5)
    assert run.encoder.encode(["a", "b"]).shape == (2, 32)
    assert run.encoder.component is run.model
    with pytest.raises(rag.RequestError, match="no reader; it trained: encoder"):
        run.reader  # noqa: B018


def test_opened_with_another_retriever(run):
    words = rag.open_run(run.path, {"retriever": "hybrid", "retriever.k": 2})
    assert words.ask("where is the red cat one") == ask.reply(
        ask.open_parts(run.path, ["retriever=hybrid", "retriever.k=2"]), "where is the red cat one"
    )
    with pytest.raises(rag.RequestError, match=r"model\.path made the model"):
        rag.open_run(run.path, "model.path=x").search("where")


def test_evaluate_gives_what_the_command_writes(run, capsys):
    assert evaluate.start([f"run={run.path}", "name=typed", "retriever=hybrid", "evaluation.splits=[test]"]) == 0
    assert "in the run" in capsys.readouterr().out
    figures = run.evaluate({"retriever": "hybrid", "evaluation.splits": ["test"]}, name="called")
    assert "in the run" not in capsys.readouterr().out
    typed_one, called = (rag.open_run(run.path / "evaluations" / name) for name in ("typed", "called"))
    assert measured(figures) == measured(called.metrics) == measured(typed_one.metrics)
    assert called.status["evaluation_of"] == str(run.path)
    words = ["-m rag_experiments.evaluate", f"run={run.path}", "name=called", "retriever=hybrid"]
    assert all(word in called.status["command"] for word in words)
    assert called.predictions("test").drop(columns="query", errors="ignore").equals(typed_one.predictions("test"))


def test_export_writes_what_the_command_writes(run, tmp_path):
    from rag_experiments import export

    assert run.export(tmp_path / "called") == tmp_path / "called"
    assert export.start([f"run={run.path}", str(tmp_path / "typed")]) == 0
    names = [{file.relative_to(tmp_path / one) for file in (tmp_path / one).rglob("*")} for one in ("called", "typed")]
    assert names[0] == names[1]
    with pytest.raises(rag.RequestError, match="not an empty folder"):
        run.export(tmp_path / "called")


def test_no_run_is_the_sentence_of_the_command(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(SystemExit):
            command_line.exit_with(ask.start, [f"run={tmp_path / name}", "who"])
        with pytest.raises(rag.RequestError) as refused:
            rag.open_run(tmp_path / name)
        assert capsys.readouterr().err == f"error: {refused.value}\n"


# -- compare -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(place: Path, tiny_bert: Path) -> rag.Run:
    """Trained with other keys."""
    more = ("trainer.max_steps=12", "algorithm.temperature=0.2")
    return rag.Run(run_at(place / "other", typed(tiny_bert, place / "data", place, *more)).path)


def test_compare_gives_the_figures_of_the_command(run, other, tmp_path):
    file = tmp_path / "table.json"
    words = [str(other.path), "--metric", "recall@1,mrr@10", "--baseline", str(run.path), "--output", str(file)]
    assert compare.start(words) == 0
    table = json.loads(file.read_text(encoding="utf-8"))
    frame = rag.compare([other], metric=["recall@1", "mrr@10"], baseline=run)
    assert len(frame) == 4
    assert frame.attrs["notes"] == [*table["notes"], *table["verdict_notes"]]
    assert {v["metric"] for v in table["verdicts"]} == {"test/recall@1", "test/mrr@10"}
    for verdict in table["verdicts"]:
        (row,) = frame[(frame["metric"] == verdict["metric"]) & (frame["verdict"] != "baseline")].to_dict("records")
        assert row["paths"] == verdict["candidate"] == [str(other.path)]
        assert (row["mean"], row["difference"]) == (verdict["candidate_mean"], verdict["difference"])
        of_questions = verdict["questions"]
        assert [row[name] for name in ("low", "high", "p", "questions")] == [
            of_questions[name] for name in ("low", "high", "p_holm", "questions")
        ]
        assert row["verdict"] == {"same": "no relevant difference"}.get(verdict["outcome"], verdict["outcome"])
    base = frame[frame["verdict"] == "baseline"]
    assert base["paths"].tolist() == [[str(run.path)]] * 2
    assert base["difference"].isna().all()


def test_compare_without_a_baseline_ranks(run, other):
    frame = rag.compare([run, other.path], metric="mrr@10")
    assert frame["mean"].tolist() == sorted([run.metrics["test/mrr@10"], other.metrics["test/mrr@10"]], reverse=True)
    assert frame["verdict"].isna().all()
    assert len(rag.compare(run.path)) == 1


def test_a_wrong_comparison_is_the_sentence_of_the_command(run, capsys):
    cases: list[tuple[list[str], dict[str, Any]]] = [
        (["--metric", "recal@1"], {"metric": "recal@1"}),
        (["--baseline", "/nowhere"], {"baseline": "/nowhere"}),
        (["--where", "seed=9"], {"where": "seed=9"}),
    ]
    for words, keywords in cases:
        with pytest.raises(SystemExit):
            command_line.exit_with(compare.start, [str(run.path), *words])
        with pytest.raises(rag.RequestError) as refused:
            rag.compare(run, **keywords)
        assert capsys.readouterr().err == f"error: {refused.value}\n"
