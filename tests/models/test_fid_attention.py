"""Teacher scores against pre-softmax scores computed inside hooked models, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rag_experiments.models.fid.fid_attention import attention_value_scores, log_attention_scores, passage_scores
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.prompts import Prompt
from tests.examples import PASSAGES, QUESTION
from tests.models.test_fid import block_mask_llama, fid_config
from tests.numeric import assert_near


@pytest.fixture
def t5(tiny_t5) -> FidReader:
    reader = FidReader.load(fid_config(tiny_t5, "t5"), device="cpu")
    reader.module.eval().double()
    for block in reader.bare.decoder.block:  # random weights give scores hundreds apart, which no trained T5 has
        block.layer[1].EncDecAttention.q.weight.data.mul_(0.1)
    return reader


@pytest.fixture(params=["llama", "llama-plain"])
def llama(request, tiny_llama) -> FidReader:
    reader = FidReader.load(fid_config(tiny_llama, request.param), device="cpu")
    reader.module.eval().double()
    return reader


def centred(scores: torch.Tensor) -> torch.Tensor:
    return scores - scores.mean()


def hooked_t5_scores(reader: FidReader, prompt: Prompt) -> torch.Tensor:
    """Queries times keys of every cross-attention, taken inside the forward by hooks on the projections."""
    model, queries, keys = reader.bare, [], []
    hooks = []
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        hooks.append(attention.q.register_forward_hook(lambda _, __, out: queries.append(out)))
        hooks.append(attention.k.register_forward_hook(lambda _, __, out: keys.append(out)))
    states = torch.cat([model.get_encoder()(torch.tensor([part])).last_hidden_state for part in prompt.passages], dim=1)
    model(encoder_outputs=(states,), decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id]]))
    for hook in hooks:
        hook.remove()
    heads, width = model.config.num_heads, model.config.d_kv
    scores_S = torch.zeros(states.shape[1], dtype=states.dtype)
    for query, key in zip(queries, keys, strict=True):  # T5 does not scale
        products = torch.einsum("hd,shd->hs", query[0, 0].view(heads, width), key[0].view(-1, heads, width))
        scores_S += products.mean(0)
    parts = (scores_S / len(queries)).split([len(part) for part in prompt.passages])
    return torch.stack([part.mean() for part in parts])


@torch.no_grad()
def test_published_score_equals_the_pre_softmax_score_inside_a_t5(t5):
    prompts = [t5.prompts.for_question(QUESTION, PASSAGES[:count]) for count in (3, 2)]
    found, underflowed = passage_scores(t5, prompts, "cross_attention")
    assert underflowed == 0
    for prompt, scores in zip(prompts, found, strict=True):
        expected = hooked_t5_scores(t5, prompt)
        assert centred(expected).abs().max() > 1e-3, "scores that are all alike show nothing"
        assert_near(centred(scores), centred(expected))


@torch.no_grad()
def test_decoder_score_equals_the_pre_softmax_score_of_one_plain_forward(llama):
    """Against the whole block-masked forward, eager, with the scores taken at the softmax's entrance."""
    prompt = llama.prompts.for_question(QUESTION, PASSAGES)
    scores, _ = passage_scores(llama, [prompt, llama.prompts.for_question(QUESTION, PASSAGES[:1])], "cross_attention")
    entered = []
    softmax = torch.nn.functional.softmax

    def spy(given: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        entered.append(given)
        return softmax(given, *args, **kwargs)

    llama.bare.set_attn_implementation("eager")
    torch.nn.functional.softmax = spy
    try:
        # With an empty answer the last position is the one that predicts the first answer token.
        block_mask_llama(llama.bare, prompt, [])
    finally:
        torch.nn.functional.softmax = softmax
    row_S = torch.stack([layer[0, :, -1] for layer in entered]).mean(dim=(0, 1))
    start, expected = len(prompt.head), []
    for part in prompt.passages:
        expected.append(row_S[start : start + len(part)].mean())
        start += len(part)
    assert len(entered) == 2
    assert_near(centred(scores[0]), centred(torch.stack(expected)))


@pytest.mark.parametrize("kind", ["cross_attention", "adist", "adist_peak"])
def test_order_and_batch_change_no_score(t5, llama, kind):
    for reader in (t5, llama):
        orders = [[0, 1, 2], [2, 0, 1]]
        prompts = [reader.prompts.for_question(QUESTION, [PASSAGES[i] for i in order]) for order in orders]
        prompts.append(reader.prompts.for_question(QUESTION, PASSAGES[:2]))
        together, _ = passage_scores(reader, prompts, kind, ["a star"] * 3)
        for prompt, scores in zip(prompts, together, strict=True):
            alone, _ = passage_scores(reader, [prompt], kind, ["a star"])
            assert_near(scores, alone[0])
            assert len(scores) == len(prompt.passages)
        assert_near(together[1], together[0][orders[1]])


def test_kept_states_change_no_score(tiny_llama):
    reader = FidReader.load(fid_config(tiny_llama, "llama-plain"), device="cpu")
    reader.module.double()
    prompts = [reader.prompts.build(question, PASSAGES) for question in ("who runs", "what is red")]
    kept = reader.kept_states()
    with_states = [passage_scores(reader, [prompt], "cross_attention", state_cache=kept)[0][0] for prompt in prompts]
    assert kept.hits == 3
    fresh, _ = passage_scores(reader, prompts, "cross_attention")
    for kept_scores, scores in zip(with_states, fresh, strict=True):
        assert_near(kept_scores, scores)


def test_attention_implementation_is_put_back(llama):
    before = llama.bare.config._attn_implementation
    passage_scores(llama, [llama.prompts.for_question(QUESTION, PASSAGES)], "cross_attention")
    assert before != "eager"
    assert llama.bare.config._attn_implementation == before


def test_published_score_by_hand():
    """Two heads, one layer, five positions: prefix, two of passage 0, one of passage 1, padding."""
    segment = torch.tensor([[-1, 0, 0, 1, -1]])
    attention = torch.tensor([[[0.1, 0.2, 0.4, 0.3, 0.0], [0.2, 0.1, 0.1, 0.6, 0.0]]])
    scores, underflowed = log_attention_scores([attention], segment, 2)
    first = (math.log(0.2) + math.log(0.4) + 2 * math.log(0.1)) / 4
    second = (math.log(0.3) + math.log(0.6)) / 2
    assert scores.tolist() == [pytest.approx([first, second])]
    assert underflowed == 0


def test_attention_of_half_precision_is_summed_in_single():
    """Forty layers of logarithms in bf16 would round the sum to two digits."""
    attention = torch.tensor([[[0.1, 0.2, 0.4, 0.3]]]).bfloat16()
    segment = torch.tensor([[0, 0, 1, 1]])
    scores, _ = log_attention_scores([attention] * 40, segment, 2)
    exact, _ = log_attention_scores([attention.float()], segment, 2)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact)


def test_underflow_is_clamped_and_counted():
    attention = torch.tensor([[[0.0, 1.0, 0.0]]])
    scores, underflowed = log_attention_scores([attention], torch.tensor([[0, 1, -1]]), 2)
    assert underflowed == 1
    assert scores.isfinite().all()
    assert scores[0, 0] < -80


def test_value_weighted_score_by_hand():
    """Two query heads share one value head; norms 5 and 2; the second answer row does not count for question 0."""
    segment = torch.tensor([[0, 1]])
    values = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]]]])
    attention = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]], [[0.1, 0.9], [0.0, 1.0]]]])
    scores = attention_value_scores([attention, attention], [values, values], torch.tensor([[1, 0]]), segment, 2)
    assert scores.tolist() == [pytest.approx([2 * 5 * (0.5 + 0.1) / 2, 2 * 2 * (0.5 + 0.9) / 2])]
    peak = attention_value_scores(
        [attention, attention], [values, values], torch.tensor([[1, 0]]), segment, 2, peak=True
    )
    assert peak.tolist() == [pytest.approx([2 * 5 * 0.5, 2 * 2 * 0.9])]


def test_the_peak_is_of_a_whole_passage_not_of_a_token():
    """One head spreads 0.3 + 0.3 over passage 0, the other puts 0.4 on one of its tokens: 0.6 counts."""
    attention = torch.tensor([[[[0.3, 0.3, 0.4]], [[0.4, 0.0, 0.6]]]])
    values = torch.ones(1, 1, 3, 1)
    segment = torch.tensor([[0, 0, 1]])
    scores = attention_value_scores([attention], [values], torch.tensor([[1]]), segment, 2, peak=True)
    assert scores.tolist() == [pytest.approx([0.6, 0.6])]
