"""Teacher scores over an answer's positions, against the attention of one plain forward over everything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from rag_experiments.models.fid.fid_attention import passage_scores
from rag_experiments.models.fid.fid_reader import FidReader
from tests.examples import PASSAGES, QUESTION
from tests.models.test_fid import block_mask_llama, fid_config


@pytest.mark.parametrize("kind", ["adist", "adist_peak"])
@torch.no_grad()
def test_a_decoders_score_is_of_the_positions_that_predict_the_answer(kind, tiny_llama):
    """In float64, layer by layer: attention times the norm of the values, over every position but the answer's last."""
    reader = FidReader.load(fid_config(tiny_llama, "llama"), device="cpu")
    reader.module.double().eval()
    prompt, answer = reader.prompts.for_question(QUESTION, PASSAGES), "a star"
    other = reader.prompts.for_question(QUESTION, PASSAGES[:1])  # a longer answer beside it is padding for this one
    (found, _), _ = passage_scores(reader, [prompt, other], kind, [answer, "a star and a river"])
    target = reader.answer_ids(answer)
    weights, values = [], []
    softmax = torch.nn.functional.softmax

    def spy(given, *args, **kwargs):
        weights.append(softmax(given.double(), dim=-1))
        return softmax(given, *args, **kwargs)

    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, out: values.append(out[0]))
        for layer in reader.bare.model.layers
    ]
    reader.bare.set_attn_implementation("eager")
    torch.nn.functional.softmax = spy
    try:
        block_mask_llama(reader.bare, prompt, target)
    finally:
        torch.nn.functional.softmax = softmax
        for hook in hooks:
            hook.remove()
    config = reader.bare.config
    width = config.hidden_size // config.num_attention_heads
    served = config.num_attention_heads // config.num_key_value_heads
    start, expected = len(prompt.head), []
    for part in prompt.passages:
        total = 0.0
        for layer, value in zip(weights, values, strict=True):
            norm = value.view(len(value), -1, width).norm(dim=-1)
            heads = [
                sum(
                    float(layer[0, head, -1 - back, s] * norm[s, head // served])
                    for back in range(1, len(target) + 1)
                    for s in range(start, start + len(part))
                )
                for head in range(config.num_attention_heads)
            ]
            total += max(heads) if kind == "adist_peak" else sum(heads) / len(heads)
        expected.append(total)
        start += len(part)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_an_encoder_decoder_that_opens_its_texts_is_asked_after_the_opening(tiny_t5, tmp_path):
    """As BART's: the first position that counts has read the start token and what opens every text."""
    from tokenizers import processors

    folder = Path(shutil.copytree(tiny_t5, tmp_path / "m"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    tokenizer.save_pretrained(folder)
    reader = FidReader.load(fid_config(folder, "t5"), device="cpu")
    reader.module.eval()
    model = reader.bare
    for block in model.decoder.block:
        block.layer[1].EncDecAttention.q.weight.data.mul_(0.1)
    assert reader.prompts.answer_starts == (1,)
    prompt = reader.prompts.for_question(QUESTION, PASSAGES)
    states = torch.cat([model.get_encoder()(torch.tensor([part])).last_hidden_state for part in prompt.passages], dim=1)
    answer = reader.answer_ids("a star")
    model.set_attn_implementation("eager")
    out = model(
        encoder_outputs=(states,),
        decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id, *answer[:-1]]]),
        output_attentions=True,
        use_cache=True,
    )
    lengths = [len(part) for part in prompt.passages]
    rows = torch.stack(out.cross_attentions)[:, 0, :, 1].log().mean(dim=(0, 1))
    expected = torch.stack([part.mean() for part in rows.split(lengths)])
    (found,), _ = passage_scores(reader, [prompt], "cross_attention")
    torch.testing.assert_close(found - found.mean(), expected - expected.mean(), atol=1e-4, rtol=0)
    total = torch.zeros(3)
    for attention, layer in zip(out.cross_attentions, out.past_key_values.cross_attention_cache.layers, strict=True):
        weighted = attention[0, :, 1:].sum(dim=1) * layer.values[0].norm(dim=-1)
        total += torch.stack([part.sum(dim=1).mean() for part in weighted.split(lengths, dim=1)])
    (found,), _ = passage_scores(reader, [prompt], "adist", ["a star"])
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-5)
