"""Adapters on encoders and rerankers: trained and saved alone, and the same model here and in sentence-transformers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

from rag_experiments.config.schema import CrossEncoderConfig, EncoderConfig, LoraConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.model_files import sources
from rag_experiments.model_files.sources import kind_of
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.shared.adapter_folder import has_adapters
from rag_experiments.models.sizes import Sizes, sizes
from tests.models.test_cross_encoder import PASSAGES, QUERIES, judge  # noqa: F401 - a fixture
from tests.models.test_sizes import of_module

CPU = torch.device("cpu")
LORA = LoraConfig(r=3, dropout=0.0)
Model = Encoder | CrossEncoder


def moved(model: Model) -> Model:
    """Everything that learns away from where it began."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    return model


def encoder(folder: Path, **fields: Any) -> EncoderConfig:
    return EncoderConfig(**{"path": str(folder), "precision": "fp32", "lora": LORA, **fields})


def reranker(folder: Path, **fields: Any) -> CrossEncoderConfig:
    return CrossEncoderConfig(**{"path": str(folder), "precision": "fp32", "lora": LORA, **fields})


def load(config: EncoderConfig | CrossEncoderConfig, frozen: bool = False) -> Model:
    torch.manual_seed(0)
    if isinstance(config, EncoderConfig):
        return Encoder.load(config, "cpu", frozen=frozen)
    return CrossEncoder.load(config, frozen, "cpu")


def computed(model: Model, texts: list[str]) -> np.ndarray:
    """Vectors of texts, or scores of pairs."""
    return model.embed_passages(texts) if isinstance(model, Encoder) else model.score(QUERIES, PASSAGES)


def theirs(model: Model, folder: Path, texts: list[str]) -> np.ndarray:
    """The same of the folder by sentence-transformers."""
    if isinstance(model, Encoder):
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(
            texts, prompt_name="document"
        )
    return sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(
        list(zip(QUERIES, PASSAGES, strict=True))
    )


ENCODERS = ["bert", "mpnet", "modernbert", "qwen3", "t5", "distilbert", "xlm-roberta"]
RERANKERS = ["bert", "mpnet", "modernbert", "distilbert", "xlm-roberta", "yes_no", "trained"]


@pytest.fixture
def config_of(make_folder: Callable[..., Path], request: pytest.FixtureRequest) -> Callable[[str], Any]:
    def make(name: str) -> EncoderConfig | CrossEncoderConfig:
        kind, _, architecture = name.partition(" ")
        if kind == "encoder":
            prefix = {"passage_prefix": "passage : ", "pooling": "last" if architecture == "qwen3" else "mean"}
            return encoder(make_folder(architecture, ends=architecture != "qwen3"), **prefix)
        if architecture == "yes_no":
            return reranker(request.getfixturevalue("judge"), max_length=700)
        if architecture == "trained":
            base = make_folder("bert")
            load(reranker(base, lora=None)).save(base.parent / "trained")
            return reranker(base.parent / "trained")
        return reranker(make_folder(architecture))

    return make


ALL = [*(f"encoder {name}" for name in ENCODERS), *(f"reranker {name}" for name in RERANKERS)]


@pytest.mark.parametrize("name", ALL)
def test_it_is_one_model_alone_merged_opened_again_and_in_sentence_transformers(
    name: str, config_of: Callable[[str], Any], texts: list[str], tmp_path: Path
) -> None:
    config = config_of(name)
    base = computed(load(dataclasses.replace(config, lora=None)), texts)
    made = moved(load(config))
    wanted = computed(made, texts)
    assert np.abs(wanted - base).max() > 1e-2, "the adapters do nothing, so nothing is tested"
    made.save(tmp_path / "alone")
    files = {file.name for file in (tmp_path / "alone").iterdir()}
    assert "adapter_model.safetensors" in files
    assert not {"model.safetensors", "config.json"} & files
    assert kind_of(str(tmp_path / "alone")) == config.kind
    again = dataclasses.replace(config, path=str(tmp_path / "alone"), lora=None)
    training, frozen = load(again), load(again, frozen=True)
    assert training.fingerprint() == made.fingerprint()
    assert has_adapters(training.backbone)
    assert not has_adapters(frozen.backbone)
    assert training.config.lora is not None
    assert training.config.lora.r == 3
    for model in (training, frozen):
        np.testing.assert_allclose(computed(model, texts), wanted, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(theirs(made, tmp_path / "alone", texts), wanted, atol=1e-5, rtol=1e-4)
    assert made.merge_adapters()
    assert not made.merge_adapters()
    made.save(tmp_path / "whole")
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    np.testing.assert_allclose(theirs(made, tmp_path / "whole", texts), wanted, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(
        computed(load(dataclasses.replace(again, path=str(tmp_path / "whole"))), texts), wanted, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ALL)
def test_only_adapters_and_a_head_learn_and_each_of_them_does(
    name: str, config_of: Callable[[str], Any], texts: list[str]
) -> None:
    config = config_of(name)
    made = moved(load(config))
    learning = {key for key, parameter in made.named_parameters() if parameter.requires_grad}
    heads = {key for key in learning if "lora_" not in key}
    assert len(heads) < len(learning)
    whole_model = load(dataclasses.replace(config, lora=None))
    inner = f"{whole_model.backbone.base_model_prefix}."
    own = {
        key.removeprefix("backbone.")
        for key, _ in whole_model.named_parameters()
        if not key.startswith(f"backbone.{inner}") or "pooler" in key
    }
    wanted = own if config.kind == "cross_encoder" and whole_model.config.form == "head" else set()
    named = {key.split("base_model.model.")[1].replace("modules_to_save.default.", "") for key in heads}
    assert named == wanted
    if isinstance(made, Encoder):
        out = made(**made.pad(made.tokenize_passages(texts)))
    else:
        out = made(**made.pad(made.tokenize_pairs(QUERIES, PASSAGES)))
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    for key, parameter in made.named_parameters():
        assert (parameter.grad is not None) == (key in learning), key


@pytest.mark.parametrize("name", ALL)
def test_a_plan_knows_what_learns(name: str, config_of: Callable[[str], Any], tmp_path: Path) -> None:
    config = config_of(name)
    made = load(config)
    everything, learning, memory = of_module(made, True)
    found = sizes(config, True, CPU)
    assert found is not None
    assert (found.trained, found.memory) == (learning, memory)
    made.save(tmp_path / "alone")
    assert sizes(dataclasses.replace(config, path=str(tmp_path / "alone"), lora=None), True, CPU) == found
    assert found.parameters <= everything


def test_a_plan_of_an_encoder_of_half_a_billion_fits_a_small_gpu(make_folder: Callable[..., Path]) -> None:
    """Qwen3-Embedding-0.6B by its published shape: fp32 weights, and an optimiser of the adapters alone."""
    fields = {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_669, "model_type": "qwen3",
    }  # fmt: skip
    config = encoder(make_folder("qwen3", ends=False), architecture=fields, lora=LoraConfig(r=16))
    found = sizes(config, True, CPU)
    assert found is not None
    assert found.parameters == pytest.approx(595_776_512, rel=1e-3)
    assert found.trained == 28 * 16 * (2 * (1024 + 2048) + 2 * (1024 + 1024) + 3 * (1024 + 3072))
    assert found.memory < 4 * 2**30
    whole = sizes(dataclasses.replace(config, lora=None), True, CPU)
    assert whole is not None
    assert whole.memory > 8 * 2**30


@pytest.mark.parametrize("name", ["encoder bert", "encoder t5", "reranker bert", "reranker yes_no"])
def test_weights_are_taken_back_in_place(name: str, config_of: Callable[[str], Any], tmp_path: Path) -> None:
    made = moved(load(config_of(name)))
    before = made.fingerprint()
    made.save(tmp_path / "saved")
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data.add_(1.0)
    assert made.fingerprint() != before
    made.load_weights(tmp_path / "saved")
    assert made.fingerprint() == before
    shutil.rmtree(tmp_path / "saved")
    with pytest.raises(RequestError, match=r"adapter_model\.safetensors"):
        made.load_weights(tmp_path / "saved")


@pytest.mark.parametrize("name", ["encoder modernbert", "encoder qwen3", "reranker bert"])
def test_recomputed_activations_give_the_same_gradients(
    name: str, config_of: Callable[[str], Any], texts: list[str]
) -> None:
    gradients, config = [], config_of(name)
    for recompute in (False, True):
        made = moved(load(config))
        made.train()
        if recompute:
            made.activation_checkpointing_enable()
        batch = (
            made.pad(made.tokenize_passages(texts))
            if isinstance(made, Encoder)
            else made.pad(made.tokenize_pairs(QUERIES, PASSAGES))
        )
        torch.manual_seed(0)
        made(**batch).square().sum().backward()
        gradients.append({key: value.grad for key, value in made.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient)


def test_adapters_that_peft_saved_alone(make_folder: Callable[..., Path], texts: list[str], tmp_path: Path) -> None:
    made = moved(load(encoder(make_folder("bert"))))
    assert isinstance(made, Encoder)
    made.backbone.save_pretrained(str(tmp_path / "peft"))
    assert not (tmp_path / "peft" / "tokenizer.json").exists()
    opened = load(encoder(tmp_path / "peft", lora=None))
    np.testing.assert_allclose(computed(opened, texts), computed(made, texts), atol=1e-5)
    peft_config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    peft_config["base_model_name_or_path"] = str(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(peft_config))
    with pytest.raises(RequestError, match="which are adapters themselves"):
        load(encoder(tmp_path / "peft", lora=None))


def test_an_adapted_encoder_gets_a_head(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Its adapters are merged below the head, which then trains whole; adapters on adapters are refused."""
    adapted = moved(load(encoder(make_folder("bert"))))
    adapted.save(tmp_path / "adapted")
    adapted.merge_adapters()
    made = load(reranker(tmp_path / "adapted", lora=None))
    assert not has_adapters(made.backbone)
    inner = getattr(made.backbone, made.backbone.base_model_prefix).state_dict()
    for key, tensor in adapted.backbone.state_dict().items():
        if "pooler" not in key:
            torch.testing.assert_close(inner[key], tensor)
    assert all(parameter.requires_grad for parameter in made.parameters())
    found = sizes(reranker(tmp_path / "adapted", lora=None), True, CPU)
    assert found == Sizes(*of_module(made, True))
    made.save(tmp_path / "whole")
    np.testing.assert_allclose(
        computed(load(reranker(tmp_path / "whole", lora=None), frozen=True), []), computed(made, []), atol=1e-6
    )
    with pytest.raises(RequestError, match=r"model\.lora: .* holds an encoder's adapters.*rag-export"):
        load(reranker(tmp_path / "adapted"))
    with pytest.raises(RequestError, match="without a head that scores"):
        load(reranker(tmp_path / "adapted", lora=None), frozen=True)


def test_a_layer_that_is_not_there_is_refused(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(RequestError, match=r"model\.lora\.target_modules=\['nothing'\]"):
        load(encoder(make_folder("bert"), lora=LoraConfig(target_modules=["nothing"])))


def test_adapters_stand_on_the_layers_that_are_named(make_folder: Callable[..., Path]) -> None:
    made = load(encoder(make_folder("bert"), lora=LoraConfig(r=2, target_modules=["query", "value"])))
    layers = {name.split(".lora_A")[0].rsplit(".", 1)[1] for name, _ in made.named_parameters() if "lora_A" in name}
    assert layers == {"query", "value"}


def test_transformers_alone_opens_the_adapters(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    made = moved(load(encoder(make_folder("bert"), pooling="cls", similarity="dot")))
    assert isinstance(made, Encoder)
    made.save(tmp_path / "alone")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "alone")
    model = transformers.AutoModel.from_pretrained(tmp_path / "alone").eval()
    batch = tokenizer(["the red fox"], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        vector = model(**batch).last_hidden_state[:, 0]
    np.testing.assert_allclose(vector.numpy(), made.embed_passages(["the red fox"]), atol=1e-5)


def test_a_plan_reads_the_shape_of_a_model_on_the_hub(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `config.json` alone is fetched."""
    folder = make_folder("bert")
    source = sources.ResolvedSource("hub", "me/bert", hub_id="me/bert")
    monkeypatch.setattr(sources, "resolve", lambda *_, **__: source)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, **__: str(folder / name))
    config = EncoderConfig(path="me/bert", precision="fp32", lora=LORA)
    found = sizes(config, True, CPU)
    assert found is not None
    assert 0 < found.trained < found.parameters

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    assert sizes(config, True, CPU) is None
