"""What each token of a Fusion-in-Decoder batch may see, where prefixes, passages and answers differ in length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, Qwen2Config

from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from rag_experiments.models.fid import fid_states
from rag_experiments.models.fid.fid_batch import NO_PASSAGE, blocks_of, state_batch, tail_batch, training_batch
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.prompts import Prompt
from tests.examples import PASSAGES
from tests.models.test_fid import fid_config, reference

ASKED = [
    Question("a", "Who?"),
    Question("b", "Where does the large animal that sleeps in the house go when it runs?"),
    Question("c", "What is red?"),
]


@pytest.fixture(params=["llama", "llama-plain", "t5"])
def reader(request, tiny_llama, tiny_t5) -> FidReader:
    made = FidReader.load(fid_config(tiny_t5 if request.param == "t5" else tiny_llama, request.param), device="cpu")
    made.module.double().eval()
    return made


@torch.no_grad()
def test_a_batch_of_unlike_questions_is_each_alone(reader):
    """In float64 against the architecture written plainly: no token sees the padding of a longer prefix or passage."""
    counts = (3, 1, 2)
    prompts = [reader.prompts.for_question(q, PASSAGES[:n]) for q, n in zip(ASKED, counts, strict=True)]
    targets = [reader.answer_ids(text) for text in ("no", "a star and a river", "in the house")]
    if reader.kind == "decoder" and reader.settings.question_with_passage:
        assert len({len(prompt.head) for prompt in prompts}) == 3, "prefixes of one length would show nothing"
    found, tokens = reader.answer_logits(reader.training_batch(prompts, targets))
    expected = torch.cat([reference(reader, p, t) for p, t in zip(prompts, targets, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert tokens.tolist() == [token for target in targets for token in target]


@torch.no_grad()
def test_generation_from_a_batch_of_unlike_questions_is_each_alone(reader):
    prompts = [reader.prompts.for_question(q, PASSAGES[:n]) for q, n in zip(ASKED, (3, 1, 2), strict=True)]
    alone = [reader.generate([prompt], max_new_tokens=4)[0] for prompt in prompts]
    assert reader.generate(prompts, max_new_tokens=4, batch_size=3) == alone
    assert reader.generate(prompts, max_new_tokens=4, batch_size=3, num_beams=2) == [
        reader.generate([prompt], max_new_tokens=4, num_beams=2)[0] for prompt in prompts
    ]


# -- decoders that do not attend to everything ------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        (MistralConfig(sliding_window=16, num_hidden_layers=2), True),
        (MistralConfig(sliding_window=None, num_hidden_layers=2), False),
        (Qwen2Config(use_sliding_window=False, sliding_window=16, num_hidden_layers=2), False),
        (Qwen2Config(use_sliding_window=True, sliding_window=16, max_window_layers=1, num_hidden_layers=2), True),
        (Qwen2Config(layer_types=["full_attention", "linear_attention"], num_hidden_layers=2), True),
    ],
    ids=["window", "none", "window not used", "window in some layers", "another kind of layer"],
)
def test_a_decoder_with_windows_is_refused(config, refused):
    class Model:
        pass

    model = Model()
    model.config = config
    if refused:
        with pytest.raises(RequestError, match="needs full attention in every layer"):
            fid_states.check_decoder(model)
    else:
        fid_states.check_decoder(model)


def test_a_decoder_with_windows_is_refused_when_it_is_opened(tiny_llama, tmp_path):
    from transformers import AutoTokenizer, MistralForCausalLM

    size = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = MistralConfig(**size, num_attention_heads=2, num_key_value_heads=1, sliding_window=16)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="sliding"):
        FidReader.load(fid_config(tmp_path, "llama"), device="cpu")


# -- batches against loops --------------------------------------------------------------------------

IDS = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
PROMPTS = st.lists(
    st.builds(
        Prompt,
        head=st.one_of(st.just(()), IDS),
        passages=st.lists(IDS, max_size=3).map(tuple),
        tail=IDS,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(prompts=PROMPTS, size=st.integers(1, 3), known_every=st.sampled_from([0, 2, 3]))
def test_state_batch_points_at_each_prompts_own_tokens(prompts, size, known_every):
    """The bank is made of (block, place) pairs as the encoder fills it; each row then reads back its prompt."""
    blocks = blocks_of(prompts)
    known = [block for place, block in enumerate(blocks) if known_every and place % known_every == 0]
    batch = state_batch(prompts, 0, size, known)
    heads = list(dict.fromkeys(prompt.head for prompt in prompts))
    bank: list[tuple] = []
    if any(heads):
        for ids, mask in zip(batch["prefixes"]["input_ids"], batch["prefixes"]["attention_mask"], strict=True):
            head = tuple(ids[mask.bool()].tolist())
            bank += [("prefix", head, place) for place in range(len(head))]
    else:
        assert "prefixes" not in batch
    bank += [(*block, place) for block in blocks if block in known for place in range(len(block[1]))]
    met = []
    for chunk in batch["chunks"]:
        assert 1 <= len(chunk["input_ids"]) <= size
        for ids, mask, prefix in zip(chunk["input_ids"], chunk["attention_mask"], chunk["prefix_N"], strict=True):
            part = tuple(ids[mask.bool()].tolist())
            assert mask.tolist() == [1] * len(part) + [0] * (len(mask) - len(part))
            met.append((heads[prefix], part))
            bank += [(heads[prefix], part, place) for place in range(len(part))]
    assert met == [block for block in blocks if block not in known], "each once, none that is known"
    assert [len(part) for _, part in met] == sorted(len(part) for _, part in met)
    for row, prompt in enumerate(prompts):
        wanted = [("prefix", prompt.head, place) for place in range(len(prompt.head))]
        segments = [NO_PASSAGE] * len(prompt.head)
        for number, part in enumerate(prompt.passages):
            wanted += [(prompt.head, part, place) for place in range(len(part))]
            segments += [number] * len(part)
        here = batch["mask_BS"][row].bool()
        assert here.tolist() == [True] * len(wanted) + [False] * (len(here) - len(wanted))
        assert [bank[index] for index in batch["index_BS"][row][here].tolist()] == wanted
        assert batch["segment_BS"][row][here].tolist() == segments
        assert (batch["segment_BS"][row][~here] == NO_PASSAGE).all()
        assert batch["start_B"][row] == len(prompt.head) + max([len(part) for part in prompt.passages] or [0])


@settings(max_examples=30, deadline=None)
@given(prompts=PROMPTS, answers=st.lists(IDS, min_size=4, max_size=4))
def test_tails_and_labels_by_loops(prompts, answers):
    answers = [list(answer) for answer in answers[: len(prompts)]]
    batch, left = training_batch(prompts, answers, 0, "decoder", 2), tail_batch(prompts, 0)
    encoded = training_batch(prompts, answers, 0, "encoder_decoder", 2)
    assert "tail_ids" not in encoded
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = [*prompt.tail, *answer]
        fill = batch["tail_ids"].shape[1] - len(whole)
        assert batch["tail_ids"][row].tolist() == whole + [0] * fill
        assert batch["tail_mask"][row].tolist() == [1] * len(whole) + [0] * fill
        assert batch["labels"][row].tolist() == [-100] * len(prompt.tail) + answer + [-100] * fill
        assert encoded["labels"][row].tolist() == answer + [-100] * (encoded["labels"].shape[1] - len(answer))
        fill = left["tail_ids"].shape[1] - len(prompt.tail)
        assert left["tail_ids"][row].tolist() == [0] * fill + list(prompt.tail)
        assert left["tail_mask"][row].tolist() == [0] * fill + [1] * len(prompt.tail)
        # The tail goes on where the longest passage ends, whichever side is padded.
        start = int(batch["start_B"][row])
        for given_batch in (batch, {**batch, **left}):
            positions = fid_states.tail_positions(given_batch)[row]
            there = given_batch["tail_mask"][row].bool()
            assert positions[there].tolist() == list(range(start, start + int(there.sum())))
