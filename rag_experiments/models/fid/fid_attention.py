r"""How much a FiD reader attends to each passage: the teacher of DCA (Izacard & Grave 2020b, arXiv 2012.04584).

Published score, `cross_attention`: the mean over heads, layers and a passage's tokens of the *pre-softmax* score of
the first decoded position. Taken from the attentions that the model returns, which are post-softmax: the logarithm
of an attention is the score less a constant of (question, layer, head), so a mean over the same heads and layers
for every passage is the published score less one constant for each question, which a softmax over passages does not
see. The logarithm needs range: attentions that underflowed are clamped to the smallest normal number and counted.

Atlas's score, `adist` (Izacard et al. 2022, arXiv 2208.03299): attention times the norm of the value vectors, mean over
heads, summed over layers, answer positions and the passage's tokens.

`adist_peak`, ours: the same, but of each layer the head that attends to the passage most, instead of the mean. In a
decoder LM few heads carry words from a passage into the answer (retrieval heads: Wu et al. 2024, arXiv 2404.15574);
the others follow a passage's length and drown them. Measured with SmolLM2-135M after 60 FiD steps on `pydocs`: how
often the gold passage has the highest score, of questions with it among 8 candidates (chance: 12 %).

    data                        cross_attention   adist   adist_peak
    pydocs, 90 questions              6 %          49 %      74 %
    COVID-QA, 45 questions           16 %          78 %      84 %

An encoder-decoder's cross-attention is over its inputs' states (each with its question). A decoder LM's is the last
row of its attention: the states are prefilled by the fast kernels, then only the position that predicts the first
answer token (and, for `adist`, the answer's) is run with attentions returned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rag_experiments.models.fid import fid_states
from rag_experiments.models.fid.fid_batch import state_batch, tail_batch, to_device
from rag_experiments.models.fid.fid_reader import FidReader, KeptStates
from rag_experiments.models.reader.answer_tokens import lengths_mask, pad_right
from rag_experiments.models.reader.key_value_cache import CACHE, keys_and_values
from rag_experiments.models.reader.prompts import Prompt

TeacherScore = Literal["cross_attention", "adist", "adist_peak"]


def log_attention_scores(attentions: Sequence[Tensor], segment_BS: Tensor, passages: int) -> tuple[Tensor, int]:
    """Published scores `[B, K]` up to a constant of each row, and how many attentions had underflowed.

    Args:
        attentions: of each layer, post-softmax, `[B, H, S]` of the first decoded position.
        segment_BS: which passage a position belongs to; -1: none.
        passages: K. A passage without tokens scores 0.
    """
    tiny = torch.finfo(torch.float32).tiny
    own_BS = segment_BS >= 0
    total_BS = torch.zeros(segment_BS.shape, device=segment_BS.device)
    underflowed = 0
    for attention_BHS in attentions:
        attention_BHS = attention_BHS[..., : segment_BS.shape[1]].float()
        underflowed += int(((attention_BHS < tiny) & own_BS[:, None]).sum())
        total_BS += attention_BHS.clamp(min=tiny).log().mean(dim=1)
    mean_BS = total_BS / len(attentions)
    owner_BSK = _owners(segment_BS, passages)
    mean_BK = torch.einsum("bs,bsk->bk", mean_BS, owner_BSK) / owner_BSK.sum(dim=1).clamp(min=1)
    return mean_BK, underflowed


def attention_value_scores(
    attentions: Sequence[Tensor],
    values: Sequence[Tensor],
    rows_BT: Tensor,
    segment_BS: Tensor,
    passages: int,
    peak: bool = False,
) -> Tensor:
    """Atlas's scores `[B, K]`.

    Args:
        attentions: of each layer, post-softmax, `[B, H, T, S]`.
        values: of each layer, `[B, H', S, d]`; with fewer heads than attentions, each serves several.
        rows_BT: 1 at the answer positions that count.
        peak: of each layer and passage the largest head, instead of the mean over heads.
    """
    length = segment_BS.shape[1]
    owner_BSK = _owners(segment_BS, passages)
    total_BK = torch.zeros(len(segment_BS), passages, device=segment_BS.device)
    for attention_BHTS, value_BHSd in zip(attentions, values, strict=True):
        norm_BHS = value_BHSd[:, :, :length].float().norm(dim=-1)
        norm_BHS = norm_BHS.repeat_interleave(attention_BHTS.shape[1] // norm_BHS.shape[1], dim=1)
        read_BHS = torch.einsum("bhts,bt->bhs", attention_BHTS[..., :length].float(), rows_BT.float()) * norm_BHS
        read_BHK = torch.einsum("bhs,bsk->bhk", read_BHS, owner_BSK)
        total_BK += read_BHK.amax(dim=1) if peak else read_BHK.mean(dim=1)
    return total_BK


def _owners(segment_BS: Tensor, passages: int) -> Tensor:
    """1 where position s belongs to passage k, `[B, S, K]`."""
    return (segment_BS[:, :, None] == torch.arange(passages, device=segment_BS.device)).float()


@torch.no_grad()
def passage_scores(
    reader: FidReader,
    prompts: Sequence[Prompt],
    kind: TeacherScore,
    answers: Sequence[str] | None = None,
    state_cache: KeptStates | None = None,
) -> tuple[list[Tensor], int]:
    """The scores of each prompt's passages, in its order, fp32 on the CPU; and how many attentions underflowed.

    Args:
        answers: one a prompt; `adist` and `adist_peak` need them.
        state_cache: passage states to use and to fill, for a decoder that reads passages without their question.
    """
    written: list[list[int]] = [[] for _ in prompts]
    if kind != "cross_attention":
        assert answers is not None
        written = [reader.answer_ids(answer) for answer in answers]
    if reader.kind == "encoder_decoder":
        segment_BS, attentions, values, rows_BT = _encoder_decoder_attentions(reader, prompts, written)
    else:
        state_cache = state_cache if state_cache is not None else KeptStates(0)
        segment_BS, attentions, values, rows_BT = _decoder_attentions(reader, prompts, written, state_cache)
    passages = max((len(prompt.passages) for prompt in prompts), default=0)
    underflowed = 0
    if kind == "cross_attention":
        first = rows_BT.argmax(dim=1)  # the first row that counts predicts the first token the answer says
        places = torch.arange(len(prompts), device=first.device)
        picked = [attention[places, :, first] for attention in attentions]
        scores_BK, underflowed = log_attention_scores(picked, segment_BS, passages)
    else:
        scores_BK = attention_value_scores(attentions, values, rows_BT, segment_BS, passages, kind == "adist_peak")
    return [row[: len(p.passages)].cpu() for row, p in zip(scores_BK, prompts, strict=True)], underflowed


def _encoder_decoder_attentions(
    reader: FidReader, prompts: Sequence[Prompt], written: Sequence[Sequence[int]]
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor], Tensor]:
    """`segment_BS`, cross-attentions `[B, H, T, S]` and values `[B, H, S, d]` of each layer, `rows_BT`.

    Decoder inputs are the start token, what the tokenizer puts before every text, and the answer but its last.
    """
    model = reader.bare
    batch = to_device(state_batch(prompts, reader.pad_id, reader.settings.sub_batch_size), reader.device)
    states_BSD = fid_states.encode_inputs(model, batch)
    starts = [model.config.decoder_start_token_id, *reader.prompts.answer_starts]
    rows = [[*starts, *answer[len(starts) - 1 : -1]] for answer in written]
    counts = [[0] * (len(starts) - 1) + [1] * (len(row) - len(starts) + 1) for row in rows]
    with _eager(model):
        out = model(
            **fid_states.cross_attention_inputs(batch, states_BSD),
            decoder_input_ids=pad_right(rows, reader.pad_id).to(reader.device),
            output_attentions=True,
            use_cache=True,
        )
    values = [layer.values for layer in getattr(out, CACHE).cross_attention_cache.layers]
    return batch["segment_BS"], out.cross_attentions, values, pad_right(counts, 0).to(reader.device)


def _decoder_attentions(
    reader: FidReader, prompts: Sequence[Prompt], written: Sequence[Sequence[int]], state_cache: KeptStates
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor], Tensor]:
    """The same of a decoder LM: rows are the last position before the answer, and the answer's but its last."""
    model = reader.bare
    batch, states = reader.passage_states(prompts, state_cache)
    tails = to_device(tail_batch(prompts, reader.pad_id), reader.device)
    positions_BT = fid_states.tail_positions(batch | tails)
    cache = fid_states.cache_of(states)
    before = torch.cat([batch["mask_BS"], tails["tail_mask"][:, :-1]], dim=1)
    if tails["tail_ids"].shape[1] > 1:
        model.base_model(
            input_ids=tails["tail_ids"][:, :-1],
            attention_mask=before,
            position_ids=positions_BT[:, :-1],
            use_cache=True,
            **{CACHE: cache},
        )
    rows = [[prompt.tail[-1], *answer[:-1]] for prompt, answer in zip(prompts, written, strict=True)]
    rows_BT = lengths_mask(rows).to(reader.device)
    steps_T = torch.arange(rows_BT.shape[1], device=reader.device)
    with _eager(model):
        out = model.base_model(
            input_ids=pad_right(rows, reader.pad_id).to(reader.device),
            attention_mask=torch.cat([before, rows_BT], dim=1),
            position_ids=positions_BT[:, -1:] + steps_T,
            use_cache=True,
            output_attentions=True,
            **{CACHE: cache},
        )
    return batch["segment_BS"], out.attentions, [values for _, values in keys_and_values(cache)], rows_BT


@contextlib.contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention that returns its weights, within; what was set before, after."""
    before: Any = model.config._attn_implementation
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
