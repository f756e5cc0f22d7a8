"""Every reader preset: complete, cited, and its architecture trains and answers small with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rag_experiments.config.schema import ReaderConfig
from rag_experiments.models.reader.answer_tokens import answer_logits, base_module, keeps_positions
from rag_experiments.models.reader.reader import Reader
from tests.examples import PASSAGES, QUESTION
from tests.tiny_readers import byte_tokenizer

CONF = Path(__file__).parents[2] / "conf" / "model"
ARCHITECTURES = {
    "smollm2_135m": "llama",
    "smollm2_360m": "llama",
    "smollm2_1_7b": "llama",
    "llama3_1b": "llama",
    "llama3_3b": "llama",
    "llama3_8b": "llama",
    "mistral_7b": "mistral",
    "qwen3_0_6b": "qwen3",
    "qwen3_1_7b": "qwen3",
    "qwen3_4b": "qwen3",
    "qwen3_8b": "qwen3",
    "flan_t5_small": "t5",
    "flan_t5_base": "t5",
    "flan_t5_large": "t5",
    "flan_t5_xl": "t5",
    "bart_base": "bart",
    "bart_large": "bart",
    "mt5_small": "mt5",
    "mt5_base": "mt5",
}
"""The model type in each released model's config.json."""
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL = {
    "llama": DECODER,
    "mistral": DECODER,
    "qwen3": {**DECODER, "head_dim": 8},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "mt5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    },
}  # fmt: skip


def presets() -> dict[str, dict]:
    """Reader presets, a LoRA variant's base merged in as Hydra does."""
    found = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(CONF.glob("*.yaml"))}
    found = {name: values for name, values in found.items() if values["kind"] in ("decoder", "encoder_decoder")}
    for values in found.values():
        for base in values.pop("defaults", []):
            values.update({**found[base], **values})
    return {name: values for name, values in found.items() if values.get("init") != "random"}


def test_every_reader_preset_is_listed_here():
    plain = {name for name in presets() if not name.endswith("_lora")}
    assert plain == set(ARCHITECTURES)
    assert {name.removesuffix("_lora") for name in presets() if name.endswith("_lora")} <= plain


@pytest.mark.parametrize("name", sorted(presets()))
def test_it_says_everything_and_cites_its_card(name):
    config = TypeAdapter(ReaderConfig).validate_python(presets()[name])
    text = (CONF / f"{name.removesuffix('_lora')}.yaml").read_text(encoding="utf-8")
    assert "https://huggingface.co/" in text
    assert config.max_input_length
    assert (config.lora is not None) == name.endswith("_lora")


@pytest.mark.parametrize("name", sorted(presets()))
def test_it_runs_small(name, tmp_path):
    model_type = ARCHITECTURES[name.removesuffix("_lora")]
    config = dataclasses.replace(
        TypeAdapter(ReaderConfig).validate_python(presets()[name]),
        path=str(write_small(model_type, tmp_path)), precision="fp32", max_input_length=400,
    )  # fmt: skip
    reader = Reader.load(config, device="cpu")
    prompts = [reader.prompts.for_question(QUESTION, PASSAGES[:n]) for n in (1, 2)]
    assert reader.generate(prompts, max_new_tokens=4) == [reader.generate([p], max_new_tokens=4)[0] for p in prompts]
    batch = reader.batch([(p.ids, reader.answer_ids("yes")) for p in prompts])
    logits_NV, targets_N = answer_logits(reader.module, batch, reader.kind)
    torch.nn.functional.cross_entropy(logits_NV, targets_N).backward()
    trained = {n for n, p in reader.module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained
    assert all("lora" in parameter for parameter in trained) == (config.lora is not None)
    if reader.kind == "decoder":
        assert keeps_positions(type(base_module(reader.module)).forward), "all its logits would be computed"


def write_small(model_type: str, folder: Path) -> Path:
    """The released model's architecture with two layers and a tokenizer of bytes."""
    tokenizer = byte_tokenizer(
        chat=model_type in ("llama", "mistral", "qwen3"), ends=model_type in ("t5", "mt5", "bart")
    )
    torch.manual_seed(0)
    made = AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer), eos_token_id=2, pad_token_id=0, bos_token_id=1, **SMALL[model_type]
    )
    auto = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    auto.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
