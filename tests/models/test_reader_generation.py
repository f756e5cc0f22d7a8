"""How a reader writes: greedily whatever the folder says, until the template's end token or the model's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig, T5Config

from rag_experiments.config.schema import ReaderConfig
from rag_experiments.models.reader.decoding import decoding_values
from rag_experiments.models.reader.prompts import PromptBuilder
from rag_experiments.models.reader.reader import LONGEST_DEFAULT, Reader, batches
from tests.examples import PASSAGES, QUESTION

SAMPLING = {
    "do_sample": True, "temperature": 3.0, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.9,
    "no_repeat_ngram_size": 1, "length_penalty": -4.0, "early_stopping": True,
}  # fmt: skip


def folder_with(folder: Path, to: Path, **generation) -> Path:
    """A copy of a model's folder with other defaults of generation."""
    copied = Path(shutil.copytree(folder, to))
    file = copied / "generation_config.json"
    given = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**given, **generation}))
    return copied


def opened(folder: Path, **more) -> Reader:
    return Reader.load(ReaderConfig(path=str(folder), precision="fp32", **{"max_new_tokens": 8, **more}), device="cpu")


@pytest.mark.parametrize(("own", "start"), [(None, 7), (3, 3), (0, 0)])
def test_the_decoder_starts_with_the_generation_settings_token_or_else_the_models(own, start):
    """A folder's generation_config.json may leave it out, which the model's own config.json has."""
    tokenizer = SimpleNamespace(pad_token_id=None, eos_token_id=5, bos_token_id=None)
    config = T5Config(decoder_start_token_id=7)
    values = decoding_values(GenerationConfig(decoder_start_token_id=own), config, tokenizer, 4, 8, 1)
    assert values["decoder_start_token_id"] == start
    assert values["pad_token_id"] == 5
    assert values["eos_token_id"] == [4]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_a_folders_sampling_defaults_change_no_answer(kind, beams, tiny_llama, tiny_t5, tmp_path):
    plain = tiny_t5 if kind == "encoder_decoder" else tiny_llama
    reader, sampling = opened(plain, kind=kind), opened(folder_with(plain, tmp_path / "m", **SAMPLING), kind=kind)
    assert sampling.module.generation_config.do_sample, "the folder's defaults were not read: nothing is tested"
    prompts = [reader.prompts.for_question(QUESTION, PASSAGES[:n]) for n in (1, 3, 0)]
    torch.manual_seed(0)
    assert sampling.generate(prompts, num_beams=beams) == reader.generate(prompts, num_beams=beams)


def says_always(reader: Reader, token: int) -> list[int]:
    """Make the model's likeliest next token always `token`; returns a list that grows by one a step it writes."""
    steps: list[int] = []

    def likeliest(module, given, logits):
        steps.append(1)
        logits[..., token] += 1e4
        return logits

    reader.module.lm_head.register_forward_hook(likeliest)
    return steps


def test_an_answer_ends_with_the_templates_end_token_or_the_models_own(tiny_llama, tmp_path):
    """The template ends a turn with <|im_end|>; the folder names other tokens, alone or several."""
    for number, own in enumerate((7, [7, 9])):
        folder = folder_with(tiny_llama, tmp_path / f"m{number}", eos_token_id=own)
        prompts = [opened(folder).prompts.build("Why?")]
        end = opened(folder).prompts.end_id
        assert end not in (7, 9)
        for token in (end, *(own if isinstance(own, list) else [own])):
            reader = opened(folder)
            steps = says_always(reader, token)
            reader.generate(prompts)
            assert len(steps) == 1, f"token {token} is an end"
        reader = opened(folder)
        steps = says_always(reader, 11)
        reader.generate(prompts)
        assert len(steps) == 8, "another token is none"


def test_as_many_tokens_as_asked_and_no_more(tiny_llama):
    reader = opened(tiny_llama)
    steps = says_always(reader, 11)
    for asked, wanted in ((3, 3), (None, 8)):
        steps.clear()
        reader.generate([reader.prompts.build("Why?")], max_new_tokens=asked)
        assert len(steps) == wanted
    longer = opened(tiny_llama, max_new_tokens=5)
    steps = says_always(longer, 11)
    longer.generate([longer.prompts.build("Why?")])
    assert len(steps) == 5


def test_batches_are_as_large_as_asked_longest_first():
    rows = [[0] * length for length in (3, 9, 1, 9, 5)]
    assert list(batches(rows, 2, False, "")) == [[1, 3], [4, 0], [2]]
    assert list(batches([], 2, False, "")) == []


@pytest.mark.parametrize("work", ["generate", "score"])
def test_prompts_a_forward_are_batch_size(work, tiny_llama):
    reader = opened(tiny_llama, batch_size=2)
    prompts = [reader.prompts.build("Why?" * (1 + place)) for place in range(5)]
    sizes: list[int] = []
    reader.module.model.register_forward_hook(lambda module, given, out: sizes.append(len(out.last_hidden_state)))
    for size, largest in ((None, 2), (4, 4), (1, 1)):
        sizes.clear()
        if work == "generate":
            reader.generate(prompts, max_new_tokens=1, batch_size=size)
        else:
            reader.score(prompts, ["no"] * 5, batch_size=size)
        assert max(sizes) == largest
        assert sum(sizes) == 5


def test_room_is_the_models_own_limit_and_2048_at_most(tiny_llama, tmp_path):
    """`max_position_embeddings` is 1,024 in the folder, and the tokenizer's limit 4,096."""
    assert opened(tiny_llama).config.max_input_length == opened(tiny_llama).prompts.max_length == 1024
    assert opened(tiny_llama, max_input_length=700).prompts.max_length == 700
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "m"))
    for limit, tokenizer_limit, wanted in ((100_000, 4096, LONGEST_DEFAULT), (100_000, 99, 99)):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": limit}))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": tokenizer_limit}))
        reader = opened(folder, max_new_tokens=1, instruction="")
        assert reader.config.max_input_length == wanted


def test_settings_of_the_configuration_reach_the_prompts(tiny_llama):
    """Each changes what it should: room, template, instruction, room for the answer."""
    made = opened(tiny_llama, max_new_tokens=5, instruction="Go.", chat_template="none", max_input_length=321)
    builder: PromptBuilder = made.prompts
    assert (builder.reserve, builder.instruction, builder.chat, builder.max_length) == (5, "Go.", False, 321)
    assert opened(tiny_llama).prompts.chat
    assert opened(tiny_llama).prompts.reserve == 8
