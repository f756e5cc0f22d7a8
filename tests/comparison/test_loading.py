"""Records out of directories, and the cache that must never change what they say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rag_experiments.compare import start
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import ranked_row, rows_with, write_run


def test_runs_are_found_at_any_depth_once_with_short_names(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "deep" / "one", {"test": rows_with(0.5)})
    write_run(tmp_path / "a" / "two", {"test": rows_with(0.5)})
    (tmp_path / "link").symlink_to(tmp_path / "a" / "two")
    runs = load_runs([tmp_path / "a", tmp_path / "a" / "two", tmp_path / "link"])
    assert [run.name for run in runs] == ["deep/one", "two"]
    assert runs[0].flat["trainer.learning_rate"] == 1e-4
    assert runs[0].metrics["test/recall@1"] == 0.5
    assert runs[0].stages["test"].questions == 100


def test_a_run_beside_its_own_evaluation_has_a_name(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"test": rows_with(0.5)})
    inside = write_run(run / "evaluations" / "bm25", {"test": rows_with(0.4)}, {"retriever.type": "bm25"})
    assert [one.name for one in load_runs([run, inside])] == ["run", "run/evaluations/bm25"]


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_nothing_to_compare_is_said(tmp_path: Path, what: str) -> None:
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(RequestError, match=what):
        load_runs([folder])


def test_cache_gives_the_same_and_sees_changes(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"test": rows_with(0.5)}, choices={"model": "minilm", "hydra/launcher": "basic"})
    cold, warm = load_runs([path])[0], load_runs([path])[0]
    assert cold == warm
    assert warm.choices == {"model": "minilm"}
    metrics = path / "metrics.json"
    before = metrics.stat()
    metrics.write_text(metrics.read_text().replace("0.5", "0.7"))
    os.utime(metrics, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert load_runs([path])[0].metrics["test/recall@1"] == 0.7


def test_warm_loading_opens_no_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "run", {"test": rows_with(0.5)})
    load_runs([path])
    reader = "rag_experiments.comparison.records.run_records.read_rows"
    monkeypatch.setattr(reader, lambda file: pytest.fail(f"{file} was read"))
    assert load_runs([path])[0].stages["test"].questions == 100


def test_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "run", {"test": rows_with(0.5)})
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RAG_EXPERIMENTS_CACHE", str(tmp_path / "file"))
    assert load_runs([path])[0].metrics
    broken = tmp_path / "cache" / "compare"
    broken.mkdir(parents=True)
    (broken / "runs-v1.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 40)
    monkeypatch.setenv("RAG_EXPERIMENTS_CACHE", str(tmp_path / "cache"))
    assert load_runs([path])[0].metrics


def test_digest_is_of_the_questions_not_of_the_answers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": [ranked_row("1", 1), ranked_row("2", 3)]})
    write_run(tmp_path / "b", {"test": [ranked_row("2", 1), ranked_row("1", 6)]})  # other order, other figures
    write_run(tmp_path / "c", {"test": [ranked_row("1", 1), ranked_row("2", 3, question="another")]})
    write_run(tmp_path / "d", {"test": [ranked_row("1", 1), ranked_row("2", 3, gold=("else",))]})
    keys = [run.comparable_key("test") for run in load_runs([tmp_path])]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_broken_runs_are_shown_not_fatal(tmp_path: Path) -> None:
    write_run(tmp_path / "good", {"test": rows_with(0.5)})
    bad = write_run(tmp_path / "bad", {"test": rows_with(0.5)})
    (bad / "config.yaml").write_text("a: [1")
    torn = write_run(tmp_path / "torn", {"test": rows_with(0.5)})
    (torn / "status.json").write_text('{"state": "comp')
    lines = write_run(tmp_path / "wrong_lines", {"test": rows_with(0.5)})
    (lines / "predictions" / "test.jsonl").write_text('{"no_id": 1}\n')
    states = {run.name: (run.state, run.problem) for run in load_runs([tmp_path])}
    assert states["good"] == ("completed", None)
    for name, file in [("bad", "config.yaml"), ("torn", "status.json"), ("wrong_lines", "predictions/test.jsonl")]:
        assert states[name][0] == "unreadable"
        assert file in states[name][1]


ROW = ranked_row("q", 1)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("status.json", "[1]", "no mapping"),
        ("status.json", '{"state": 5}', "state is not one of running, completed"),
        ("status.json", '{"state": "failed", "error": "boom"}', "error is not a mapping"),
        ("status.json", '{"state": "completed", "data_hash": [1]}', "data_hash is not text"),
        ("config.yaml", "hello", "no mapping"),
        ("config.yaml", "algorithm: 3", "algorithm is not a mapping"),
        ("config.yaml", "seed: [1]", "seed is not a number"),
        ("config.yaml", "retriever: {k: many}", "retriever.k"),
        ("metrics.json", "[]", "no mapping"),
        ("metrics.json", "[" * 100_000, "metrics.json"),
        ("predictions/test.jsonl", json.dumps(ROW) + '\n{"id": "q1", "ques', "line 2"),
        ("predictions/test.jsonl", "[1]", "line 1: a line is not a mapping"),
        ("predictions/test.jsonl", json.dumps({"id": "q", "question": "?"}), "question q has no figures"),
        ("predictions/test.jsonl", json.dumps({**ROW, "gold_ids": [["x"]]}), "no list of gold_ids"),
        ("predictions/test.jsonl", json.dumps({**ROW, "metrics": {"f1": "high"}}), "no figures"),
    ],
)
def test_what_a_file_should_not_hold_is_said(tmp_path: Path, file: str, text: str, says: str, capsys) -> None:
    write_run(tmp_path / "good", {"test": rows_with(0.5)})
    path = write_run(tmp_path / "odd", {"test": rows_with(0.7)}, {"trainer.learning_rate": 1.0})
    (path / file).write_text(text, encoding="utf-8")
    runs = {run.name: run for run in load_runs([tmp_path])}
    assert runs["odd"].state == "unreadable"
    assert file in (runs["odd"].problem or "")
    assert says in (runs["odd"].problem or "")
    assert start([str(tmp_path), "--baseline", str(tmp_path / "good")]) == 0
    assert start([str(path)]) == 0
    assert says in capsys.readouterr().out


def test_a_figure_that_is_no_number_is_no_figure(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"test": rows_with(0.5)})
    (path / "metrics.json").write_text('{"test/recall@1": NaN, "test/recall@4": 0.5, "test/f1": "x"}')
    assert load_runs([path])[0].metrics == {"test/recall@4": 0.5}


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"test": rows_with(0.5)})
    (path / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch " + str(tmp_path / "owned") + "']")
    assert load_runs([path])[0].state == "unreadable"
    assert not (tmp_path / "owned").exists()


def test_a_dead_process_is_no_running_run(tmp_path: Path) -> None:
    alive = {"pid": os.getpid(), "host": os.uname().nodename, "pid_started": None}
    write_run(tmp_path / "alive", {}, state="running", status=alive)
    write_run(tmp_path / "dead", {}, state="running", status={**alive, "pid": 2**22 + 1})
    assert [run.state for run in load_runs([tmp_path])] == ["running", "interrupted"]


def test_predictions_and_history(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"zero_shot/test": [ranked_row("1", 1)]})
    run = load_runs([path])[0]
    assert run.predictions("zero_shot/test")["1"]["metrics"]["recall@1"] == 1
    assert run.predictions("dev") == {}
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "train/loss": 2.0}) + '\n{"step"')
    assert run.history() == [{"step": 1, "train/loss": 2.0}]
