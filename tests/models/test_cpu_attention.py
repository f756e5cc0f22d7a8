"""Attention with dropout on a CPU: transformers' own but for the draws."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.models.encoder import cpu_attention
from rag_experiments.models.encoder.cpu_attention import NAME, attention_forward
from rag_experiments.models.encoder.encoder import Encoder
from tests.numeric import assert_near

BIDIRECTIONAL = SimpleNamespace(is_causal=False)


def parts(texts=5, heads=2, length=7, width=4, seed=0):
    torch.manual_seed(seed)
    states = [torch.randn(texts, heads, length, width, requires_grad=True) for _ in range(3)]
    mask = torch.ones(texts, 1, 1, length, dtype=torch.bool)
    for text in range(texts):
        mask[text, ..., length - text :] = text == 0
    return states, mask.expand(texts, 1, length, length)


@pytest.mark.parametrize("masked", [True, False])
def test_with_hardly_any_dropout_it_is_transformers_own(masked, monkeypatch):
    """Values and gradients, in several pieces, the last of them smaller."""
    monkeypatch.setattr(cpu_attention, "_SCORES_AT_A_TIME", 2 * 2 * 7 * 7)
    (states, mask), share = parts(), 1e-9
    given = mask if masked else None
    ours = attention_forward(BIDIRECTIONAL, *states, given, dropout=share)[0]
    theirs = sdpa_attention_forward(BIDIRECTIONAL, *states, given)[0]
    assert_near(ours, theirs, share=1e-4)  # one weight in 65,536 is dropped even so
    weight = torch.randn(ours.shape)
    for got, want in zip(
        torch.autograd.grad((ours * weight).sum(), states), torch.autograd.grad((theirs * weight).sum(), states),
        strict=True,
    ):  # fmt: skip
        assert_near(got, want, share=1e-3)


def test_the_share_that_is_dropped_and_the_mean_that_stays():
    torch.manual_seed(0)
    weights = torch.ones(1000, 999)
    dropped = cpu_attention._Dropout.apply(weights, 0.1)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=2e-3)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=2e-3)
    assert dropped.unique().numel() == 2
    by_row = (dropped == 0).float().mean(0)
    assert float(by_row.std()) == pytest.approx((0.09 / 1000) ** 0.5, rel=0.1), "draws of a column are independent"


def test_the_gradient_flows_through_the_kept_weights_alone():
    weights = torch.ones(50, 50, requires_grad=True)
    dropped = cpu_attention._Dropout.apply(weights, 0.3)
    dropped.sum().backward()
    assert torch.equal(weights.grad, dropped.detach())


def test_recomputed_activations_draw_the_same():
    states, mask = parts()
    run = lambda *given: attention_forward(BIDIRECTIONAL, *given, mask, dropout=0.4)[0].square().sum()  # noqa: E731
    torch.manual_seed(3)
    plain = torch.autograd.grad(run(*states), states)
    torch.manual_seed(3)
    again = torch.autograd.grad(checkpoint(run, *states, use_reentrant=False), states)
    for one, other in zip(plain, again, strict=True):
        assert_near(other, one)


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (BIDIRECTIONAL, {"dropout": 0.0}),
        (SimpleNamespace(is_causal=True), {"attention_mask": None}),
        (SimpleNamespace(), {"attention_mask": None}),
        (BIDIRECTIONAL, {"attention_mask": torch.zeros(5, 1, 7, 7)}),
        (BIDIRECTIONAL, {"position_bias": torch.zeros(1, 2, 7, 7)}),
        (SimpleNamespace(is_causal=False, num_key_value_groups=2), {"grouped": True}),
    ],
    ids=["no dropout", "causal", "causal by default", "additive mask", "position bias", "grouped heads"],
)
def test_what_it_is_not_made_for_goes_to_transformers(module, change, monkeypatch):
    (query, key, value), mask = parts()
    if change.pop("grouped", False):
        key, value = key[:, :1], value[:, :1]
    seen = []
    monkeypatch.setattr(
        cpu_attention, "sdpa_attention_forward", lambda *args, **kwargs: seen.append(kwargs) or "theirs"
    )
    given = {"attention_mask": mask, "dropout": 0.1, **change}
    assert attention_forward(module, query, key, value, **given) == "theirs"
    assert seen[0]["dropout"] == given["dropout"]


def test_an_encoder_trains_with_it_and_embeds_as_without(tiny_bert, tmp_path, monkeypatch):
    ours = Encoder.load(EncoderConfig(path=str(tiny_bert), precision="fp32"), "cpu")
    assert ours.backbone.config._attn_implementation == NAME
    monkeypatch.setattr("rag_experiments.models.encoder.encoder.use_cpu_attention", lambda model: None)
    plain = Encoder.load(EncoderConfig(path=str(tiny_bert), precision="fp32"), "cpu")
    assert plain.backbone.config._attn_implementation == "sdpa"
    texts = ["a cat", "the dog sleeps in the house"]
    assert (ours.embed_passages(texts) == plain.embed_passages(texts)).all()
    assert ours.fingerprint() == plain.fingerprint()
    calls = []
    monkeypatch.setattr(cpu_attention._Dropout, "apply", lambda weights, share: calls.append(share) or weights)
    ours.train()(**ours.pad(ours.tokenize_passages(texts)))
    assert calls
    ours.save(tmp_path / "saved")
    assert NAME not in "".join(file.read_text() for file in (tmp_path / "saved").glob("*.json"))
