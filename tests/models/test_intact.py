"""A model's folder that lacks something, or holds something that is cut short, is refused before anything is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rag_experiments.core.errors import RequestError
from rag_experiments.model_files import integrity, sources


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        sources.resolve(str(folder))


def test_a_whole_folder_passes(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"")
    integrity.check_folder("model", folder, weights=True)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_weights_cut_short(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder, r"model\.safetensors: (is not a whole safetensors file|has [\d,]+ bytes where)")
    assert sources.resolve(str(folder), weights=False).local == folder


@pytest.mark.parametrize("header", [b"{oops", b"[1, 2]", b'{"w": {"dtype": "F32"}}', b"\xff\xfe"])
def test_a_header_that_is_none(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refused(folder, "is not a whole safetensors file")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_git_lfs_pointers(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    refused(folder, "git lfs pull")


def test_forms_of_the_weights_that_are_not_read_may_be_missing(folder: Path) -> None:
    """As a download without `*.bin` leaves them."""
    (folder / "pytorch_model.bin").write_text(POINTER)
    for name in ("pytorch_model.bin.index.json", "flax_model.msgpack.index.json"):
        (folder / name).write_text(json.dumps({"weight_map": {"a": "gone-1"}}))
    assert sources.resolve(str(folder)).local == folder


def test_gguf(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"<!doctype html>")
    refused(file, "is no GGUF file")
    file.write_bytes(b"GGUF\x03\0\0\0")
    assert sources.resolve(str(file)).local == file


def test_what_is_no_file_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "training_args.bin")
    refused(folder, "has no weights")
    refused(folder / "config.json", "is a file, and not one of weights")


def test_a_shard_that_is_missing(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    refused(folder, r"has no model-2\.safetensors, which model\.safetensors\.index\.json names")
    index.write_text("{}")
    refused(folder, "has no 'weight_map'")


@pytest.mark.parametrize("name", ["config.json", "modules.json", "tokenizer_config.json"])
def test_json_that_is_broken(folder: Path, name: str) -> None:
    (folder / name).write_text("{oops")
    refused(folder, f"{name}: not valid JSON")


def test_a_folder_without_a_vocabulary_is_refused_before_transformers_makes_one_up(folder: Path) -> None:
    for file in folder.glob("*token*"):  # as where only the model was saved
        file.unlink()
    refused(folder, r"has no tokenizer \(tokenizer\.json\)")
    made_up = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(RequestError, match="has no tokenizer"):
        integrity.check_tokenizer(made_up, folder)
    (folder / "vocab.txt").write_text("")
    assert sources.resolve(str(folder)).local == folder


def test_a_tokenizer_of_bytes_needs_no_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert sources.resolve(str(folder)).local == folder
    integrity.check_tokenizer(AutoTokenizer.from_pretrained(folder), folder)
