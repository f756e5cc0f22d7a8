"""Whole writes, and names that can be typed back."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from rag_experiments.core import files
from rag_experiments.core.files import atomic_directory, atomic_write_json, atomic_write_jsonl, safe_name


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "metrics.json"
    atomic_write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        atomic_write_json(file, {"a": object()})

    def rows():
        yield {"a": 2}
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        atomic_write_jsonl(file, rows())
    assert json.loads(file.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_json_is_strict_utf8_and_takes_numpy(tmp_path):
    file = tmp_path / "x.json"
    atomic_write_json(file, {"n": np.float32(0.5), "i": np.int64(3), "nan": float("nan"), "v": np.ones(2), "s": "é"})
    text = file.read_text(encoding="utf-8")
    assert json.loads(text) == {"n": 0.5, "i": 3, "nan": None, "v": [1.0, 1.0], "s": "é"}
    assert "é" in text
    assert "NaN" not in text


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(FileNotFoundError), atomic_directory(target) as folder:
        (folder / "no such" / "file").write_bytes((folder / "a").write_text("half").to_bytes())
    assert os.listdir(tmp_path) == []
    for text in ("one", "two"):
        with atomic_directory(target) as folder:
            (folder / "a").write_text(text)
            assert not (target / "a").exists() or (target / "a").read_text() == "one"
    assert (target / "a").read_text() == "two"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("text", ["algorithm=ctl,lr=1e-5", "ünï/cødé: x", "..", "", "a" * 300, "日本語", "-x-"])
def test_safe_names_can_be_typed_back(text):
    name = safe_name(text)
    assert name
    assert len(name) <= 100
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name not in (".", "..")
    assert not name.startswith("-")


def test_long_names_that_differ_at_the_end_stay_apart():
    assert safe_name("a" * 300 + "1") != safe_name("a" * 300 + "2")


def test_empty_folders_are_removed_up_to_what_was_there(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    assert files.nearest_existing(deep) == tmp_path
    deep.mkdir(parents=True)
    files.remove_empty_folders(deep, tmp_path)
    assert list(tmp_path.iterdir()) == []
    deep.mkdir(parents=True)
    (tmp_path / "a" / "kept").touch()
    files.remove_empty_folders(deep, tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_the_size_that_a_safetensors_header_promises(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({"a": np.zeros((3, 5), np.float32), "b": np.zeros(0, np.float16)}, file, {"format": "np"})
    assert files.safetensors_size(file) == file.stat().st_size
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match="cut short"):
        files.safetensors_size(file)
