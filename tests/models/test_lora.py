"""Adapters on a reader: trained and saved alone, opened again, wherever they were saved."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
import torch

from rag_experiments.config.schema import LoraConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.model_files.sources import kind_of, resolve
from rag_experiments.models.reader.answer_tokens import base_module
from rag_experiments.models.reader.reader import Reader
from rag_experiments.models.sizes import sizes
from tests.examples import PASSAGES, QUESTION
from tests.numeric import assert_near

TEXTS = ["in the house", "no", "a star and a river"]


def config(folder: Path, **more) -> ReaderConfig:
    return ReaderConfig(path=str(folder), precision="fp32", max_new_tokens=8, **more)


@pytest.fixture
def adapted(tiny_llama) -> Reader:
    """A reader with adapters that were moved away from doing nothing."""
    torch.manual_seed(0)
    made = Reader.load(config(tiny_llama, lora=LoraConfig(r=4, dropout=0.0)), device="cpu")
    for name, parameter in made.module.named_parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
            assert "lora" in name
    return made


def test_only_adapters_train_and_are_saved(adapted, tmp_path):
    base = base_module(adapted.module)
    trainable = sum(p.numel() for p in adapted.module.parameters() if p.requires_grad)
    assert 0 < trainable < sum(p.numel() for p in base.parameters()) / 2
    adapted.save(tmp_path / "m")
    files = {file.name for file in (tmp_path / "m").iterdir()}
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files


def test_adapters_opened_again_to_read_to_judge_and_to_train(adapted, tiny_llama, tmp_path):
    prompts = [adapted.prompts.for_question(QUESTION, PASSAGES[:n]) for n in (1, 3)]
    run = tmp_path / "run"
    adapted.save(run / "model")
    asked = ReaderConfig(path=f"run://{run}", precision="fp32", max_new_tokens=8)
    wanted = adapted.score(prompts, TEXTS[:2])
    plain = Reader.load(config(tiny_llama), device="cpu").score(prompts, TEXTS[:2])
    assert not torch.allclose(wanted.sum_N, plain.sum_N, atol=0.1), "the adapters do nothing, so nothing is tested"
    reading, judging = Reader.load(asked, device="cpu"), Reader.load(asked, device="cpu", frozen=True)
    assert reading.generate(prompts) == adapted.generate(prompts) == judging.generate(prompts)
    assert_near(judging.score(prompts, TEXTS[:2]).sum_N, wanted.sum_N)
    assert not hasattr(judging.module, "peft_config"), "a frozen reader's adapters are merged"
    assert any(p.requires_grad for p in reading.module.parameters())
    assert reading.config.lora.r == 4
    asked_again = dataclasses.replace(reading.config, lora=None)
    unsaid = Reader(reading.module, reading.tokenizer, asked_again, reading.base)
    assert unsaid.fingerprint() == reading.fingerprint(), "adapters count as the weights that they are"
    reading.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "rag_experiments.json").read_text())["config"]["path"] == str(tiny_llama)


def test_adapters_are_put_on_without_a_warning(tiny_llama, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reader.load(config(tiny_llama, lora=LoraConfig(r=2)), device="cpu").save(tmp_path / "m")
        Reader.load(config(tmp_path / "m"), device="cpu")


def test_adapters_that_peft_saved_alone(adapted, tiny_llama, tmp_path):
    folder = tmp_path / "alone"
    adapted.module.save_pretrained(folder)
    peft_config = json.loads((folder / "adapter_config.json").read_text())
    assert peft_config["base_model_name_or_path"] == str(tiny_llama)
    assert not (folder / "config.json").exists()
    prompts = [adapted.prompts.for_question(QUESTION, PASSAGES)]
    opened = Reader.load(config(folder), device="cpu")
    assert opened.generate(prompts) == adapted.generate(prompts)
    assert kind_of(str(folder)) == "decoder"
    assert sizes(config(folder), True, torch.device("cpu")).trained == sum(
        p.numel() for p in adapted.module.parameters() if p.requires_grad
    )
    peft_config["base_model_name_or_path"] = "/no/such/base"
    (folder / "adapter_config.json").write_text(json.dumps(peft_config))
    with pytest.raises(RequestError, match=r"the base of the adapters in .* is missing: .*'/no/such/base'"):
        resolve(str(folder))


def test_adapter_weights_are_taken_back_in_place(adapted, tmp_path):
    before = adapted.fingerprint()
    adapted.save(tmp_path / "m")
    for parameter in adapted.module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(1.0)
    adapted.load_weights(tmp_path / "m")
    assert adapted.fingerprint() == before
