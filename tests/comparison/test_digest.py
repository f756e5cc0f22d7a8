"""What makes two runs comparable: the digest of their questions, and the stamps by which a record is known again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.records.record_cache import RecordCache
from rag_experiments.comparison.records.run_records import (
    RunRecord,
    load_record,
    load_runs,
    read_config,
    read_rows,
    short_names,
)
from tests.comparison.conftest import ranked_row, rows_with, write_run

ROWS = [ranked_row("1", 1, ("a", "b"), references=["x", "y"]), ranked_row("2", 2, ("c",))]


def key_of(path: Path, rows: list[dict[str, Any]], **status: Any) -> tuple[str, str]:
    (run,) = load_runs([write_run(path, {"test": rows}, status=status)])
    return run.comparable_key("test")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "3"},
        {"question": "another"},
        {"gold_ids": ["a", "other"]},
        {"gold_ids": ["a"]},
        {"gold_ids": []},
        {"references": ["x", "another"]},
        {"references": ["x"]},
        {"references": []},
    ],
    ids=str,
)
def test_every_part_of_a_question_is_in_its_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    changed = [ROWS[0] | change, ROWS[1]]
    assert key_of(tmp_path / "a", ROWS) != key_of(tmp_path / "b", changed)


def test_gold_passages_are_what_they_are_hashed_as(tmp_path: Path) -> None:
    """So a run is compared with one that was made from another form of the files, or named them by their hash."""
    shown = {"gold_ids": ["t.csv:2", "b"], "retrieved_ids": ["t.csv:2"], "hashed_as": {"t.csv:2": "a"}}
    elsewhere = {"gold_ids": ["t.parquet[1]", "b"], "hashed_as": {"t.parquet[1]": "a"}}
    key = key_of(tmp_path / "a", ROWS)
    for name, change in (("b", shown), ("c", elsewhere)):
        assert key_of(tmp_path / name, [ROWS[0] | change, ROWS[1]]) == key
    assert key_of(tmp_path / "d", [ROWS[0] | shown | {"hashed_as": {"t.csv:2": "other"}}, ROWS[1]]) != key


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "something"},
        {"retrieved_ids": ["z"], "retrieved_scores": [1.0]},
        {"metrics": {"f1": 0.5}},
        {"gold_ids": ["b", "a"]},
    ],
    ids=str,
)
def test_what_a_run_made_of_a_question_is_not(tmp_path: Path, change: dict[str, Any]) -> None:
    changed = [ROWS[1], ROWS[0] | change]  # in another order, too
    assert key_of(tmp_path / "a", ROWS) == key_of(tmp_path / "b", changed)


def test_a_question_asked_twice_is_not_asked_once(tmp_path: Path) -> None:
    assert key_of(tmp_path / "a", ROWS) != key_of(tmp_path / "b", [*ROWS, ROWS[1]])
    assert key_of(tmp_path / "c", ROWS) != key_of(tmp_path / "d", ROWS[:1])


def test_the_corpus_counts_and_the_training_data_only_where_questions_are_unknown(tmp_path: Path) -> None:
    one = key_of(tmp_path / "a", ROWS)
    assert key_of(tmp_path / "b", ROWS, corpus_hash="other") != one
    assert key_of(tmp_path / "c", ROWS, data_hash="other") == one
    (run,) = load_runs([tmp_path / "a"])
    assert run.comparable_key("dev") == ("c", "unknown:d")
    assert load_runs([tmp_path / "c"])[0].comparable_key("dev") == ("c", "unknown:other")


def look(path: Path, cache: Path) -> RunRecord:
    return load_runs([path], cache=cache)[0]


def test_each_part_of_a_stamp_makes_a_record_anew(tmp_path: Path) -> None:
    """Time, size and inode: a file that keeps two of them and changes the third is read again."""
    path, cache = write_run(tmp_path / "run", {"test": rows_with(0.5)}), tmp_path / "cache"
    file = path / "metrics.json"
    text, times = file.read_text(), file.stat()
    assert look(path, cache).metrics["test/recall@1"] == 0.5
    file.write_text(text.replace("0.5", "0.6"))  # another time alone
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert look(path, cache).metrics["test/recall@1"] == 0.6
    file.write_text(text.replace("0.5", "0.75"))  # another size alone
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert look(path, cache).metrics["test/recall@1"] == 0.75
    fresh = path / "fresh"
    fresh.write_text(text.replace("0.5", "0.85"))  # another inode alone
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    os.replace(fresh, file)
    assert look(path, cache).metrics["test/recall@1"] == 0.85


@pytest.mark.parametrize("file", ["status.json", "config.yaml", "metrics.json", "predictions/test.jsonl"])
def test_every_file_of_a_record_is_in_its_stamp(tmp_path: Path, file: str) -> None:
    path, cache = write_run(tmp_path / "run", {"test": rows_with(0.5)}), tmp_path / "cache"
    assert look(path, cache).problem is None
    (path / file).write_text("{ this is : no [ good")
    assert file in (look(path, cache).problem or "")


def test_predictions_that_come_later_are_seen(tmp_path: Path) -> None:
    path, cache = write_run(tmp_path / "run", {"test": rows_with(0.5)}), tmp_path / "cache"
    assert list(look(path, cache).stages) == ["test"]
    source = path / "predictions" / "test.jsonl"
    (path / "predictions" / "zero_shot").mkdir()
    (path / "predictions" / "zero_shot" / "dev.jsonl").write_text(source.read_text())
    (path / "predictions" / ".test.jsonl").write_text("half writ")  # as a file being written is called
    (path / "predictions" / "notes.txt").write_text("no stage")
    found = look(path, cache)
    assert set(found.stages) == {"test", "zero_shot/dev"}
    assert found.problem is None


def test_choices_that_come_later_are_seen(tmp_path: Path) -> None:
    path, cache = write_run(tmp_path / "run", {}), tmp_path / "cache"
    assert look(path, cache).choices == {}
    (path / ".hydra").mkdir()
    choices = "      a: b\n      model: 'minilm'\n      hydra/launcher: basic\n      data: null\n"
    text = f"hydra:\n  runtime:\n    choices:\n{choices}    a_key_after_them: /\n"
    (path / ".hydra" / "hydra.yaml").write_text(text)
    assert look(path, cache).choices == {"a": "b", "model": "minilm", "data": "null"}


def test_two_runs_of_one_cache_keep_their_own_records(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for share in (0.25, 0.75):
        write_run(tmp_path / "runs" / str(share), {"test": rows_with(share)})
    for _ in range(2):
        runs = load_runs([tmp_path / "runs"], cache=cache)
        assert [run.metrics["test/recall@1"] for run in runs] == [0.25, 0.75]
    with RecordCache(cache) as store:
        one = load_record(tmp_path / "runs" / "0.25", "mine", store)
    assert (one.name, one.metrics["test/recall@1"]) == ("mine", 0.25)
    assert list(cache.rglob("*.sqlite"))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/out/a/one"], ["one"]),
        (["/out/a/one", "/out/a/two"], ["one", "two"]),
        (["/out/a/one", "/out/b/one"], ["a/one", "b/one"]),
        (["/out/run", "/out/run/evaluations/x"], ["run", "run/evaluations/x"]),
        (["/out/run", "/out/run2"], ["run", "run2"]),
        (["/one", "/two"], ["one", "two"]),
    ],
)
def test_names_are_paths_below_what_all_share(paths: list[str], names: list[str]) -> None:
    assert short_names(paths) == names


def test_small_readers(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "gone.jsonl") == []
    assert read_config(tmp_path / "gone.yaml") == {}
    file = tmp_path / "config.yaml"
    file.write_text("[1, 2]")
    assert read_config(file) == {}
    file.write_text("a: {b: ünï}", encoding="utf-8")
    assert read_config(file) == {"a": {"b": "ünï"}}
    lines = tmp_path / "rows.jsonl"
    text = '\n{"id": 7, "question": "é", "retrieved_ids": [], "metrics": {}}\n\n{"id": "x"}\n'
    lines.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="line 4: a line has no id"):
        read_rows(lines)
    lines.write_text(text.replace('{"id": "x"}', ""), encoding="utf-8")
    assert [row["question"] for row in read_rows(lines)] == ["é"]


def test_a_config_is_flat_by_dotted_keys(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {}, {"model.fid.layers": 2, "data.extra": {}, "data.list": [1, {"a": 2}]})
    flat = load_runs([path])[0].flat
    assert flat["model.fid.layers"] == 2
    assert flat["data.extra"] == {}
    assert flat["data.list"] == [1, {"a": 2}]
    assert "model.fid" not in flat


def test_rows_are_by_id_as_text_and_kept(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"test": [ranked_row("1", 1) | {"id": 1}]})
    (run,) = load_runs([path])
    assert list(run.predictions("test")) == ["1"]
    (path / "predictions" / "test.jsonl").unlink()
    assert list(run.predictions("test")) == ["1"]
