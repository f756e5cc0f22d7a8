"""Fusion-in-Decoder against the published architecture (and, over a decoder, the block mask) written out plainly."""

from __future__ import annotations

import dataclasses
import inspect
import random
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from rag_experiments.config.schema import FidSettings, LoraConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage
from rag_experiments.models.component import load_model
from rag_experiments.models.fid import fid_states
from rag_experiments.models.fid.fid_batch import state_batch, to_device
from rag_experiments.models.fid.fid_reader import FidReader, KeptStates, saved_settings
from rag_experiments.models.reader.answer_tokens import answer_logits, decoder_batch, encoder_decoder_batch
from rag_experiments.models.reader.key_value_cache import CACHE, keys_and_values
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.models.reader.reader import Reader
from tests.examples import PASSAGES, QUESTION
from tests.numeric import assert_near

KINDS = ["llama", "llama-plain", "t5"]
TEXTS = ["in the house", "no", "a star and a river"]


def fid_config(folder: Path, kind: str, **more) -> ReaderConfig:
    settings = FidSettings(question_with_passage=kind != "llama-plain", sub_batch_size=2, passage_tokens=120)
    which = {"kind": "encoder_decoder", "max_input_length": 256} if kind == "t5" else {}
    return ReaderConfig(path=str(folder), precision="fp32", max_new_tokens=8, fid=settings, **which, **more)


@pytest.fixture(params=KINDS)
def fid(request, tiny_llama, tiny_t5) -> FidReader:
    folder = tiny_t5 if request.param == "t5" else tiny_llama
    reader = FidReader.load(fid_config(folder, request.param), device="cpu")
    reader.module.eval().double()
    return reader


@pytest.fixture
def prompts(fid) -> list[Prompt]:
    """One, three, two passages."""
    return [fid.prompts.for_question(QUESTION, PASSAGES[:count]) for count in (1, 3, 2)]


def targets_of(reader: Reader, texts=TEXTS) -> list[list[int]]:
    return [reader.answer_ids(text) for text in texts]


def published_t5(model, prompt: Prompt, target: list[int]) -> torch.Tensor:
    """Encode each input by itself, concatenate, decode: logits at the answer."""
    states = torch.cat([model.get_encoder()(torch.tensor([part])).last_hidden_state for part in prompt.passages], dim=1)
    return model(encoder_outputs=BaseModelOutput(states), labels=torch.tensor([target])).logits[0]


def block_mask_llama(model, prompt: Prompt, target: list[int]) -> torch.Tensor:
    """One forward over prefix, passages, tail and answer, with a 4-D mask and restarted positions."""
    parts = [list(prompt.head), *map(list, prompt.passages), [*prompt.tail, *target]]
    ids = [token for part in parts for token in part]
    owner = torch.tensor([place for place, part in enumerate(parts) for _ in part])
    last = len(parts) - 1
    position = list(range(len(prompt.head)))
    for part in prompt.passages:
        position += range(len(prompt.head), len(prompt.head) + len(part))
    start = len(prompt.head) + max(map(len, prompt.passages), default=0)
    position += range(start, start + len(parts[-1]))
    causal = torch.ones(len(ids), len(ids)).tril().bool()
    may = (owner[:, None] == owner[None]) | (owner[None] == 0) | (owner[:, None] == last)
    lowest = torch.finfo(model.dtype).min  # in the model's own type: in float64 another's gives other logits
    mask = torch.zeros(1, 1, len(ids), len(ids), dtype=model.dtype).masked_fill(~(causal & may), lowest)
    out = model(torch.tensor([ids]), attention_mask=mask, position_ids=torch.tensor([position]))
    return out.logits[0, -len(target) - 1 : -1]


def reference(fid: FidReader, prompt: Prompt, target: list[int]) -> torch.Tensor:
    make = published_t5 if fid.kind == "encoder_decoder" else block_mask_llama
    return make(fid.bare, prompt, target)


def test_no_question_is_no_answer(fid):
    assert fid.answer([], [])[0] == []


@torch.no_grad()
def test_forward_equals_the_published_architecture_with_uneven_passage_counts(fid, prompts):
    targets = targets_of(fid)
    logits, tokens = fid.answer_logits(fid.training_batch(prompts, targets))
    expected = torch.cat([reference(fid, p, t) for p, t in zip(prompts, targets, strict=True)])
    assert_near(logits, expected)
    assert tokens.tolist() == [token for target in targets for token in target]


@torch.no_grad()
def test_one_passage_is_plain_reading(fid):
    """FiD's logits with one passage are those of the same token ids read in one piece by the plain model."""
    prompt, target = fid.prompts.for_question(QUESTION, PASSAGES[:1]), fid.answer_ids("a star")
    logits, _ = fid.answer_logits(fid.training_batch([prompt], [target]))
    make = encoder_decoder_batch if fid.kind == "encoder_decoder" else decoder_batch
    plain, _ = answer_logits(fid.module, make([prompt.ids], [target], fid.pad_id), fid.kind)
    assert_near(logits, plain)


def test_without_the_question_before_it_one_passage_is_the_ordinary_prompt(tiny_llama):
    fid = FidReader.load(fid_config(tiny_llama, "llama-plain"), device="cpu")
    plain = Reader.load(ReaderConfig(path=str(tiny_llama), precision="fp32", max_new_tokens=8), device="cpu")
    for passages in ([], PASSAGES[:1]):
        assert fid.prompts.for_question(QUESTION, passages).ids == plain.prompts.for_question(QUESTION, passages).ids


@torch.no_grad()
def test_generation_follows_the_published_architecture_greedily(fid, prompts):
    wanted = []
    for prompt in prompts:
        written: list[int] = []
        while len(written) < 8:
            token = int(reference(fid, prompt, [*written, 0])[len(written)].argmax())
            written.append(token)
            if token == fid.prompts.end_id:
                break
        wanted.append(fid.tokenizer.decode(written, skip_special_tokens=True).strip())
    assert fid.generate(prompts, batch_size=3) == wanted
    assert fid.generate(prompts, batch_size=1) == wanted
    assert len(set(wanted)) > 1, "three prompts that all get one answer show nothing"


@torch.no_grad()
def test_beam_search_of_one_batch_equals_one_by_one(fid, prompts):
    together = fid.generate(prompts, num_beams=3, batch_size=3)
    assert together == [fid.generate([prompt], num_beams=3)[0] for prompt in prompts]


@torch.no_grad()
def test_order_and_repetition_of_passages_change_nothing(fid):
    target = [fid.answer_ids("a star and a river")]
    shuffled = [PASSAGES[2], PASSAGES[0], PASSAGES[1]]
    variants = [PASSAGES[:3], shuffled, [*PASSAGES[:3], PASSAGES[0], PASSAGES[2]]]
    found = [
        fid.answer_logits(fid.training_batch([fid.prompts.for_question(QUESTION, passages)], target))[0]
        for passages in variants
    ]
    assert_near(found[1], found[0])
    assert torch.equal(found[0], found[2])
    fewer, _ = fid.answer_logits(fid.training_batch([fid.prompts.for_question(QUESTION, PASSAGES[:2])], target))
    assert not torch.allclose(found[0], fewer, atol=1e-3), "a passage that is taken away must change something"


def test_recomputed_passages_give_the_same_gradients(fid, prompts):
    gradients = []
    for recompute in (False, True):
        fid.module.zero_grad()
        logits, tokens = fid.answer_logits(fid.training_batch(prompts, targets_of(fid)), recompute=recompute)
        torch.nn.functional.cross_entropy(logits, tokens).backward()
        gradients.append({name: p.grad.clone() for name, p in fid.module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_near(gradients[1][name], gradient, what=name)


def test_gradients_reach_passages_through_every_layer(fid, prompts):
    """All parameters move but those that cannot: here none is left without a gradient."""
    logits, tokens = fid.answer_logits(fid.training_batch(prompts, targets_of(fid)))
    torch.nn.functional.cross_entropy(logits, tokens).backward()
    still = [name for name, p in fid.module.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # T5's encoder shares its embedding; nothing else may be still.
    assert not still


def test_score_equals_the_training_logits(fid, prompts):
    scored = fid.score(prompts, TEXTS, include_end=True, batch_size=2)
    for prompt, text, tokens in zip(prompts, TEXTS, scored.tokens, strict=True):
        target = fid.answer_ids(text)
        with torch.no_grad():
            expected = reference(fid, prompt, target).log_softmax(-1)[range(len(target)), target]
        assert_near(tokens, expected)


def test_states_are_kept_and_used_again(tiny_llama):
    fid = FidReader.load(fid_config(tiny_llama, "llama-plain"), device="cpu")
    fid.module.eval().double()
    prompts = [fid.prompts.build(question, PASSAGES[:2]) for question in ("what is red", "who runs", "where")]
    kept = fid.kept_states()
    with torch.no_grad():
        _, first = fid.passage_states(prompts[:1], kept)
        assert kept.hits == 0
        batch, again = fid.passage_states(prompts[1:], kept)
    assert kept.hits == 2
    assert not batch["chunks"]
    assert_near(again[0], first[0])
    assert_near(again[1], first[0])


def test_kept_states_stay_within_their_limit():
    kept = KeptStates(limit=4 * 4 * 10)  # ten tokens of 4 floats
    for number in range(6):
        kept.keep(((), (number,)), torch.zeros(3, 1, 2, 2))
    assert [number for number in range(6) if ((), (number,)) in kept] == [3, 4, 5]
    kept.keep(((), (9,)), torch.zeros(100, 1, 2, 2))
    assert ((), (9,)) not in kept


def test_a_question_without_passages_can_be_answered(fid):
    assert len(fid.generate([fid.prompts.for_question(QUESTION, [])])) == 1


def test_batches_hold_every_distinct_input_once_sorted_by_length():
    prompts = [
        Prompt(head=(1, 2), passages=((5, 5, 5), (6,)), tail=(9,)),
        Prompt(head=(1, 2), passages=((6,), (7, 7)), tail=(9, 9)),
        Prompt(head=(3,), passages=((6,),), tail=(9,)),
    ]
    batch = state_batch(prompts, pad_id=0, sub_batch_size=2)
    assert [chunk["input_ids"].tolist() for chunk in batch["chunks"]] == [[[6], [6]], [[7, 7, 0], [5, 5, 5]]]
    assert batch["chunks"][0]["prefix_N"].tolist() == [0, 1]
    # The bank: 1 2 | 3 | 6 | 6' | 7 7 | 5 5 5
    assert batch["index_BS"].tolist() == [[0, 1, 7, 8, 9, 3], [0, 1, 3, 5, 6, 0], [2, 4, 0, 0, 0, 0]]
    assert batch["mask_BS"].tolist() == [[1] * 6, [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]
    assert batch["segment_BS"].tolist() == [[-1, -1, 0, 0, 0, 1], [-1, -1, 0, 1, 1, -1], [-1, 0, -1, -1, -1, -1]]
    assert batch["start_B"].tolist() == [5, 4, 2]


def test_published_input_of_an_encoder_decoder(tiny_t5):
    fid = FidReader.load(fid_config(tiny_t5, "t5"), device="cpu")
    passage = Passage(id="p", text="the red cat sleeps", title="house")
    prompt = fid.prompts.build("who sleeps", [passage, passage])
    assert len(prompt.passages) == 1
    text = fid.tokenizer.decode(prompt.passages[0], skip_special_tokens=True)
    words = fid.tokenizer.decode(
        fid.tokenizer("question: who sleeps title: house context: the red cat sleeps")["input_ids"],
        skip_special_tokens=True,
    )
    assert text == words


def test_long_passages_are_cut_and_questions_never(fid):
    long = Passage(id="p", text="star " * 400)
    prompt = fid.prompts.for_question(QUESTION, [long, PASSAGES[0]])
    assert prompt.passages_shortened == (2 if fid.kind == "encoder_decoder" else 1)  # there with the question
    longest = max(map(len, prompt.passages))
    assert longest <= 120
    with pytest.raises(RequestError, match="never cut"):
        fid.prompts.build("star " * 5000, [long])


def test_saved_with_its_settings_and_opened_by_the_plain_loader(fid, tmp_path):
    fid.module.float()
    fid.save(tmp_path / "model")
    assert saved_settings(str(tmp_path / "model")) == fid.settings
    config = dataclasses.replace(fid.config, path=str(tmp_path / "model"), fid=None)
    again = FidReader.load(config, device="cpu")
    assert again.settings == fid.settings
    assert again.fingerprint() == fid.fingerprint()
    plain = load_model(config, tmp_path)
    assert type(plain) is Reader
    assert type(load_model(dataclasses.replace(config, fid=FidSettings()), tmp_path)) is FidReader
    assert fid.fingerprint() != plain.fingerprint()


def test_adapters_train_the_same_way(tiny_llama):
    fid = FidReader.load(fid_config(tiny_llama, "llama", lora=LoraConfig(r=4, dropout=0.0)), device="cpu")
    prompts = [fid.prompts.for_question(QUESTION, PASSAGES[:2])]
    logits, tokens = fid.answer_logits(fid.training_batch(prompts, targets_of(fid, ["a star"])))
    torch.nn.functional.cross_entropy(logits, tokens).backward()
    trained = {name for name, p in fid.module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained
    assert all("lora" in name for name in trained)


def test_sliding_windows_are_refused(tiny_llama):
    fid = FidReader.load(fid_config(tiny_llama, "llama"), device="cpu")
    fid.bare.config.layer_types = ["sliding_attention", "full_attention", "chunked_attention", "linear_attention"]
    with pytest.raises(RequestError, match="chunked_attention, linear_attention, sliding_attention;"):
        fid_states.check_decoder(fid.bare)


def test_passages_behind_nothing_are_read_as_they_stand(tiny_llama):
    model = FidReader.load(fid_config(tiny_llama, "llama-plain"), device="cpu").bare
    batch = state_batch([Prompt(head=(), passages=((5, 6), (7,)), tail=(8,))], pad_id=0, sub_batch_size=2)
    assert fid_states.encode_prefixes(model, batch) is None
    with torch.no_grad():
        states = fid_states.encode_passages(model, batch)[0]
        alone = [keys_and_values(model(torch.tensor([ids]), use_cache=True)[CACHE]) for ids in ([5, 6], [7])]
    for layer in range(len(alone[0])):
        for part in (0, 1):
            expected = torch.cat([passage[layer][part][0].transpose(0, 1) for passage in alone])
            assert_near(states[:, 2 * layer + part], expected)


def test_the_cache_is_named_as_models_of_this_version_name_it(tiny_llama):
    model = FidReader.load(fid_config(tiny_llama, "llama"), device="cpu").bare
    assert CACHE in inspect.signature(model.forward).parameters


def test_what_is_no_tensor_stays_as_it_is_on_the_way_to_a_device():
    batch = {"ids": [torch.zeros(1), {"mask": torch.ones(2)}], "count": 3, "names": ["a"], "nothing": None}
    moved = to_device(batch, torch.device("meta"))
    assert (moved["count"], moved["names"], moved["nothing"]) == (3, ["a"], None)
    assert moved["ids"][0].is_meta
    assert moved["ids"][1]["mask"].is_meta


def test_memory_of_states_grows_with_the_number_of_passages_not_its_square():
    """The inputs of a chunk never depend on how many passages a question has."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ).eval()
    draws = random.Random(0)
    parts = tuple(tuple(draws.randrange(1, 40) for _ in range(draws.randrange(3, 9))) for _ in range(32))
    batch = to_device(state_batch([Prompt((), parts, ())], 0, 4), torch.device("cpu"))
    assert {len(chunk["input_ids"]) for chunk in batch["chunks"]} == {4}
    assert fid_states.encode_inputs(model, batch).shape == (1, sum(map(len, parts)), 16)
    assert isinstance(fid_states.cache_of(torch.zeros(1, 5, 4, 2, 8)), DynamicCache)
