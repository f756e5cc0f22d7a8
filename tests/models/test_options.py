"""Each option of a model changes what it should, and only that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rag_experiments.config.schema import EncoderConfig, FidSettings, LoraConfig, ReaderConfig
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.encoder.pooling import pool
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.reader import Reader
from tests.examples import PASSAGES, QUESTION

TEXTS = ["the red cat sleeps in the house", "blue dog", "who runs to the river and eats the fish one two three"]


def encoder(folder, **fields) -> Encoder:
    return Encoder.load(EncoderConfig(path=str(folder), **{"precision": "fp32", "pooling": "mean", **fields}))


@pytest.mark.parametrize(
    ("change", "queries", "passages"),
    [
        ({"pooling": "cls"}, True, True),
        ({"pooling": "last"}, True, True),
        ({"query_prefix": "what "}, True, False),
        ({"passage_prefix": "the "}, False, True),
        ({"max_query_length": 5}, True, False),
        ({"max_passage_length": 5}, False, True),
        ({"dimension": 8}, True, True),
        ({"similarity": "dot"}, True, True),
        ({"batch_size": 1}, False, False),
        ({"padding_side": "left"}, False, False),
    ],
    ids=str,
)
def test_an_encoders_options_change_these_vectors(change, queries, passages, tiny_bert):
    plain, changed = encoder(tiny_bert, similarity="cosine"), encoder(tiny_bert, **{"similarity": "cosine", **change})
    assert changed.config == dataclasses.replace(plain.config, **change)
    for name, changes in (("embed_queries", queries), ("embed_passages", passages)):
        before, after = getattr(plain, name)(TEXTS), getattr(changed, name)(TEXTS)
        same = before.shape == after.shape and np.allclose(before, after, atol=1e-5)
        assert same is not changes, name


@pytest.mark.parametrize(("size", "given"), [(2, None), (64, 2), (64, None)])
def test_texts_a_forward_are_batch_size(size, given, tiny_bert):
    made = encoder(tiny_bert, batch_size=size)
    sizes = []
    made.backbone.register_forward_hook(lambda module, inputs, out: sizes.append(len(out.last_hidden_state)))
    made.embed_passages(TEXTS + TEXTS[:2], batch_size=given)
    assert sizes == ([5] if (given or size) == 64 else [2, 2, 1])


def test_vectors_have_unit_length_only_where_the_similarity_is_cosine(tiny_bert):
    for similarity, unit in (("cosine", True), ("dot", False)):
        for dimension in (None, 8):
            made = encoder(tiny_bert, similarity=similarity, dimension=dimension)
            lengths = np.linalg.norm(made.embed_passages(TEXTS), axis=1)
            assert np.allclose(lengths, 1, atol=1e-5) is unit


def test_a_mean_in_bf16_is_summed_in_fp32():
    hidden = torch.full((1, 500, 1), 1.0) + torch.arange(500)[None, :, None] / 500
    found = pool(hidden.bfloat16(), torch.ones(1, 500), "mean")
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(hidden.bfloat16().double().mean().item(), rel=1e-6)


def test_settings_of_adapters_are_pefts(tiny_llama):
    wanted = LoraConfig(r=3, alpha=7, dropout=0.25, target_modules=["q_proj", "down_proj"])
    reader = Reader.load(ReaderConfig(path=str(tiny_llama), precision="fp32", lora=wanted), device="cpu")
    made = reader.module.peft_config["default"]
    assert (made.r, made.lora_alpha, made.lora_dropout) == (3, 7, 0.25)
    assert made.task_type == "CAUSAL_LM"
    adapted = {
        name.split(".lora_A")[0].rsplit(".", 1)[1] for name, _ in reader.module.named_parameters() if "lora_A" in name
    }
    assert adapted == {"q_proj", "down_proj"}
    module = next(module for name, module in reader.module.named_modules() if name.endswith("0.self_attn.q_proj"))
    assert module.scaling["default"] == pytest.approx(7 / 3)
    assert module.lora_dropout["default"].p == 0.25
    assert module.lora_A["default"].weight.shape[0] == 3
    everywhere = Reader.load(ReaderConfig(path=str(tiny_llama), precision="fp32", lora=LoraConfig()), device="cpu")
    names = {
        name.split(".lora_A")[0].rsplit(".", 1)[1]
        for name, _ in everywhere.module.named_parameters()
        if "lora_A" in name
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def fid(folder, **settings) -> FidReader:
    config = ReaderConfig(
        path=str(folder), precision="fp32", max_new_tokens=4, max_input_length=900, fid=FidSettings(**settings)
    )
    return FidReader.load(config, device="cpu")


def test_options_of_reading_apart(tiny_llama):
    """`sub_batch_size` and `reuse_mb` change the work and no figure; the others change what is read."""
    plain = fid(tiny_llama)
    prompt = plain.prompts.for_question(QUESTION, PASSAGES)
    short = fid(tiny_llama, passage_tokens=7).prompts.for_question(QUESTION, PASSAGES)
    assert [len(part) for part in short.passages] == [7] * 3
    assert max(map(len, prompt.passages)) > 7
    without = fid(tiny_llama, question_with_passage=False)
    assert len(without.prompts.for_question(QUESTION, PASSAGES).head) < len(prompt.head)
    batch = fid(tiny_llama, sub_batch_size=2).training_batch([prompt], [[1]])
    assert [len(chunk["input_ids"]) for chunk in batch["chunks"]] == [2, 1]
    assert len(plain.training_batch([prompt], [[1]])["chunks"]) == 1
    assert without.kept_states().limit == 1024 * 2**20
    assert fid(tiny_llama, question_with_passage=False, reuse_mb=3).kept_states().limit == 3 * 2**20
    assert fid(tiny_llama, reuse_mb=3).kept_states().limit == 0, "nothing is shared where each sees its own question"
    prints = [
        fid(tiny_llama, **change).fingerprint()
        for change in ({}, {"passage_tokens": 7}, {"question_with_passage": False})
    ]
    assert len({*prints, Reader.load(plain.config, device="cpu").fingerprint()}) == 4
    for same in ({"sub_batch_size": 2}, {"reuse_mb": 3}):
        assert fid(tiny_llama, **same).fingerprint() == prints[0]


def test_states_that_are_kept_are_the_last_used():
    from rag_experiments.models.fid.fid_reader import KeptStates

    kept = KeptStates(limit=3 * 16)  # three tokens of four floats
    blocks = [((), (number,)) for number in range(4)]
    for block in blocks[:3]:
        kept.keep(block, torch.full((1, 1, 2, 2), float(block[1][0])))
    assert kept[blocks[0]].unique().tolist() == [0.0]  # used again, so the second is the oldest
    kept.keep(blocks[3], torch.full((1, 1, 2, 2), 3.0))
    assert [block in kept for block in blocks] == [True, False, True, True]
    assert kept.used == 3 * 16
    assert kept.hits == 1
    whole = torch.zeros(2, 1, 2, 2)
    kept.keep(((), (9,)), whole[:1])
    assert kept[((), (9,))].untyped_storage().nbytes() == 16, "a copy, not the chunk that it was cut from"


# -- fingerprints: every field of a model's configuration is either part of one or named here as changing no figure ----

CHANGES_NO_VECTOR = {"path", "revision", "attn_implementation", "init", "architecture", "batch_size", "kind", "lora"}
OTHER_VECTORS = {
    "precision": "bf16", "pooling": "cls", "similarity": "dot", "query_prefix": "q", "passage_prefix": "p",
    "max_query_length": 9, "max_passage_length": 9, "padding_side": "left", "append_eos": True, "dimension": 8,
}  # fmt: skip
CHANGES_NO_ANSWER = {
    "path", "revision", "attn_implementation", "init", "architecture", "batch_size", "lora", "load_in_4bit", "fid",
    "template_date",  # of a template that shows no date; below, of one that does
}  # fmt: skip
OTHER_ANSWERS = {
    "precision": "bf16", "kind": "encoder_decoder", "max_input_length": 99, "max_new_tokens": 99,
    "chat_template": "none", "instruction": "Go.",
}  # fmt: skip


def test_an_encoders_fingerprint_holds_every_field_that_changes_a_vector(tiny_bert):
    made = encoder(tiny_bert, similarity="cosine")
    given, base = made.config, made.fingerprint()
    assert {field.name for field in dataclasses.fields(given)} == CHANGES_NO_VECTOR | OTHER_VECTORS.keys()
    found = {base}
    for name, value in OTHER_VECTORS.items():
        assert getattr(given, name) != value, name
        made.config = dataclasses.replace(given, **{name: value})
        found.add(made.fingerprint())
    assert len(found) == 1 + len(OTHER_VECTORS)
    made.config = dataclasses.replace(given, batch_size=1)
    assert made.fingerprint() == base
    made._tokenizer_hash = "another tokenizer"
    assert made.fingerprint() not in found
    with torch.no_grad():
        list(made.parameters())[-1].view(-1)[-1] += 1e-3
    found.add(made.fingerprint())
    made._tokenizer_hash = "x"
    assert made.fingerprint() not in found


def test_a_readers_fingerprint_holds_every_field_that_changes_an_answer(tiny_llama):
    config = ReaderConfig(path=str(tiny_llama), precision="fp32", max_new_tokens=8, max_input_length=500)
    made = Reader.load(config, device="cpu")
    parts = (made.module, made.tokenizer)
    assert {field.name for field in dataclasses.fields(config)} == CHANGES_NO_ANSWER | OTHER_ANSWERS.keys()
    found = {made.fingerprint()}
    for name, value in OTHER_ANSWERS.items():
        found.add(Reader(*parts, dataclasses.replace(config, **{name: value}), "base").fingerprint())
    assert len(found) == 1 + len(OTHER_ANSWERS)
    assert Reader(*parts, dataclasses.replace(config, batch_size=3), "base").fingerprint() == made.fingerprint()
    made.tokenizer.chat_template += " "
    found.add(made.fingerprint())
    with torch.no_grad():
        list(made.module.parameters())[-1].view(-1)[-1] += 1e-3
    found.add(made.fingerprint())
    assert len(found) == 3 + len(OTHER_ANSWERS)
    made.tokenizer.chat_template += "{# strftime_now #}"
    days = [dataclasses.replace(config, template_date=day) for day in ("2024-01-02", "2024-01-03")]
    assert len({Reader(*parts, day, "base").fingerprint() for day in days}) == 2
