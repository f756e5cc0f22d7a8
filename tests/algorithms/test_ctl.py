"""CTL against hand-computed values, the plain batch, and sentence-transformers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rag_experiments.algorithms.base import EpochsOrder, Examples
from rag_experiments.algorithms.ctl import CTLConfig, CTLTrainer, ctl_loss, known_positives, repeats
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.algorithms.shared.multiple_positives import ContrastiveExample
from rag_experiments.config.schema import EncoderConfig
from rag_experiments.data.records import Question
from rag_experiments.models.encoder.encoder import Encoder
from tests.numeric import assert_all_near, assert_near

TEXTS = [
    "the red cat sleeps in house one",
    "blue dog runs",
    "the small green fish eats in the old river two three",
    "stone",
    "who is the large animal",
    "sun moon star four five six seven",
    "a new tree",
    "where is the dog",
]


def encoder_at(folder, **settings) -> Encoder:
    return Encoder.load(EncoderConfig(path=str(folder), precision="fp32", pooling="mean", **settings))


def none_excluded(scores: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(scores, dtype=torch.bool)


def test_loss_of_two_questions_by_hand():
    scores = torch.tensor([[0.8, 0.2], [0.1, 0.5]], dtype=torch.float64)
    first = -math.log(math.exp(0.8 / 0.5) / (math.exp(0.8 / 0.5) + math.exp(0.2 / 0.5)))
    second = -math.log(math.exp(0.5 / 0.5) / (math.exp(0.1 / 0.5) + math.exp(0.5 / 0.5)))
    loss = ctl_loss(scores, torch.tensor([0, 1]), none_excluded(scores), temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-12)


def test_hard_negatives_stand_in_every_denominator():
    scores = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.9]], dtype=torch.float64)
    expected = [
        -math.log(math.exp(1) / (math.exp(1) + math.exp(0) + math.exp(0.5))),
        -math.log(math.exp(1) / (math.exp(0) + math.exp(1) + math.exp(0.9))),
    ]
    loss = ctl_loss(scores, torch.tensor([0, 1]), none_excluded(scores), temperature=1.0)
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-12)


def test_excluded_passages_leave_the_denominator_and_the_target_stays():
    scores = torch.tensor([[0.8, 0.7], [0.1, 0.5]], dtype=torch.float64)
    excluded = torch.tensor([[True, True], [False, False]])  # both are known positives of question 0
    second = -math.log(math.exp(0.5) / (math.exp(0.1) + math.exp(0.5)))
    loss = ctl_loss(scores, torch.tensor([0, 1]), excluded, temperature=1.0)
    assert loss.item() == pytest.approx((0.0 + second) / 2, abs=1e-12)


def test_known_positives_ignore_padding():
    mask = known_positives(torch.tensor([5, 7, 9]), torch.tensor([[5, 9], [7, -1]]))
    assert mask.tolist() == [[True, False, True], [False, True, False]]


def test_a_passage_that_two_processes_drew_counts_once():
    rows = torch.tensor([5, 7, 9, 7, 5])  # 5, 7, 9 of one process; 7, 5 of another
    mask = repeats(rows, torch.tensor([2, 3, 4]))
    assert mask.tolist() == [
        [False, False, False, True, True],  # the first of each
        [False, True, False, True, True],  # the third column is its target, which the loss keeps
        [True, False, False, True, True],
    ]
    scores = torch.tensor([[0.1, 0.2, 0.7, 0.2, 0.1]], dtype=torch.float64)
    expected = -math.log(math.exp(0.7) / (math.exp(0.1) + math.exp(0.2) + math.exp(0.7)))
    assert ctl_loss(scores, torch.tensor([2]), mask[:1], 1.0).item() == pytest.approx(expected, abs=1e-12)


def loss_of(encoder: Encoder, features: list[dict], config: CTLConfig, texts=TEXTS) -> torch.Tensor:
    """A trainer's own collate and compute_loss without the rest of a Trainer."""
    store = SimpleNamespace(full_texts=lambda rows: [texts[row] for row in rows])
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = config
    trainer.components = SimpleNamespace(model=encoder, data=SimpleNamespace(passages=store))
    trainer.record = lambda name, value: None
    return trainer.compute_loss(encoder, trainer.collate(features))


def feature(query: str, target: int, positives: list[int] | None = None, negatives: list[int] | None = None) -> dict:
    positives = positives or [target]
    return {
        "query": query,
        "targets": [target],
        "positives": positives,
        "grades": [1.0] * len(positives),
        "negatives": negatives or [],
        "weight": 1.0,
    }


@pytest.mark.parametrize(
    ("second_positives", "differs"), [([1], False), ([1, 0], True)], ids=["no passage shared", "passage 0 shared"]
)
def test_masking_changes_the_loss_exactly_where_a_passage_is_shared(tiny_bert, second_positives, differs):
    encoder = encoder_at(tiny_bert).double()
    batch = [feature("who is red", 0), feature("what runs", 1, positives=second_positives)]
    masked = loss_of(encoder, batch, CTLConfig(mask_known_positives=True))
    unmasked = loss_of(encoder, batch, CTLConfig(mask_known_positives=False))
    assert (masked.item() != unmasked.item()) is differs


def test_two_questions_on_one_passage_do_not_meet_it_as_a_negative(tiny_bert):
    encoder = encoder_at(tiny_bert).double()
    both = loss_of(encoder, [feature("who is red", 0), feature("what sleeps", 0)], CTLConfig())
    assert both.item() == pytest.approx(0.0, abs=1e-12)  # the only candidate is gold for both


@pytest.mark.parametrize("size", [1, 3, 8])
def test_cached_gradients_equal_the_plain_batch(tiny_bert, size):
    batch = [feature(TEXTS[(i + 4) % 8], i, negatives=[(i + 1) % 8]) for i in range(8)]
    gradients = []
    for config in (CTLConfig(), CTLConfig(mini_batch_size=size)):
        encoder = encoder_at(tiny_bert).double().train()
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss_of(encoder, batch, config).backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    plain, cached = gradients
    assert plain
    assert_all_near(cached, plain)


def test_cached_passes_draw_the_same_dropout(tiny_bert):
    """Recomputed with another random state, the surrogate's gradient would not be the loss's."""
    encoder = encoder_at(tiny_bert).double().train()
    chunks = length_sorted_chunks(encoder, encoder.tokenize_passages(TEXTS), 3)
    gradients = []
    for recompute in (False, True):
        encoder.zero_grad()
        torch.manual_seed(3)
        encode_chunks(encoder, chunks, recompute=recompute).square().sum(dim=0).prod().backward()
        gradients.append(encoder.backbone.embeddings.word_embeddings.weight.grad.clone())
    assert_near(gradients[1], gradients[0])


def test_chunks_come_back_in_order(tiny_bert):
    encoder = encoder_at(tiny_bert).double().eval()
    chunks = length_sorted_chunks(encoder, encoder.tokenize_passages(TEXTS), 3)
    with torch.no_grad():
        together = encode_chunks(encoder, chunks)
        apart = torch.cat([encoder(**encoder.pad(encoder.tokenize_passages([text]))) for text in TEXTS])
    assert_near(together, apart)


def test_same_loss_as_sentence_transformers(tiny_bert, tmp_path):
    """MultipleNegativesRankingLoss, same model, pairs, order and scale, float64, dropout off."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    encoder = encoder_at(tiny_bert, similarity="cosine").double().eval()
    encoder.save(tmp_path)
    peer = SentenceTransformer(str(tmp_path), device="cpu").double().eval()
    queries, passages, negatives = TEXTS[:3], TEXTS[3:6], TEXTS[5:8]
    negatives = [TEXTS[6], TEXTS[7], "ten nine"]
    texts = passages + negatives
    peer_loss = MultipleNegativesRankingLoss(peer, scale=1 / 0.05)
    features = [peer.preprocess(column) for column in (queries, passages, negatives)]
    expected = peer_loss(features, torch.zeros(3))
    ours = loss_of(
        encoder, [feature(queries[i], i, negatives=[3 + i]) for i in range(3)], CTLConfig(temperature=0.05), texts
    )
    assert [peer.tokenizer.decode(row) for row in features[1]["input_ids"]] == [
        encoder.tokenizer.decode(encoder.pad(encoder.tokenize_passages(passages))["input_ids"][i]) for i in range(3)
    ]
    assert_near(ours, expected, share=1e-5)  # similarities are float32


def test_symmetric_loss_by_hand(tiny_bert):
    encoder = encoder_at(tiny_bert).double()
    batch = [feature("who is red", 0), feature("what runs", 1)]
    config = CTLConfig(symmetric=True, temperature=0.5)
    with torch.no_grad():
        q = torch.cat([encoder(**encoder.pad(encoder.tokenize_queries([f["query"]]))) for f in batch])
        p = torch.cat([encoder(**encoder.pad(encoder.tokenize_passages([TEXTS[i]]))) for i in range(2)])
        scores = q @ p.T / 0.5
        labels = torch.arange(2)
        expected = (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
        assert_near(loss_of(encoder, batch, config), expected, share=1e-5)


def test_matryoshka_is_the_mean_over_dimensions(tiny_bert):
    encoder = encoder_at(tiny_bert, similarity="cosine").double()
    batch = [feature("who is red", 0), feature("what runs", 1)]
    with torch.no_grad():
        q = torch.cat([encoder(**encoder.pad(encoder.tokenize_queries([f["query"]]))) for f in batch])
        p = torch.cat([encoder(**encoder.pad(encoder.tokenize_passages([TEXTS[i]]))) for i in range(2)])
        losses = []
        for dim in (32, 8):
            scores = F.normalize(q[:, :dim], dim=-1) @ F.normalize(p[:, :dim], dim=-1).T
            losses.append(ctl_loss(scores, torch.arange(2), none_excluded(scores), 0.05))
        got = loss_of(encoder, batch, CTLConfig(matryoshka_dims=[8]))
    assert_near(got, torch.stack(losses).mean(), share=1e-5)


def test_draws_depend_on_seed_question_and_epoch_alone():
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(hard_negatives=2)
    trainer.components = SimpleNamespace(config=SimpleNamespace(seed=3, data=SimpleNamespace(query_history="none")))
    rows = (1, 2, 3)
    item = ContrastiveExample(Question(id="q", question="who"), rows, rows, (1.0, 1.0, 1.0), tuple(range(10, 30)))
    examples = Examples([item], trainer._draw)
    first = examples[0]
    assert examples[0] == first
    draws = []
    for epoch in range(8):
        examples.set_epoch(epoch)
        draws.append((*examples[0]["targets"], tuple(examples[0]["negatives"])))
    assert len(set(draws)) > 4
    assert len(first["negatives"]) == 2
    assert set(first["positives"]) == {1, 2, 3}


@pytest.mark.parametrize(("processes", "skipped"), [(1, 0), (1, 3), (2, 0), (2, 3)])
def test_examples_and_order_are_told_the_epoch_however_the_loader_is_wrapped(processes, skipped):
    """As accelerate nests them for one process's share, and for a run resumed within an epoch."""
    from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler, SkipBatchSampler
    from torch.utils.data import BatchSampler

    examples = Examples(range(16), lambda item, epoch: (item, epoch))
    sampler = SeedableRandomSampler(examples, data_seed=0)
    batches = BatchSampler(sampler, 2, drop_last=False)
    if processes > 1:
        batches = BatchSamplerShard(batches, num_processes=processes, process_index=1)
    if skipped:
        batches = SkipBatchSampler(batches, skipped)
    loader = SimpleNamespace(batch_sampler=batches, dataset=examples)
    EpochsOrder().on_epoch_begin(None, SimpleNamespace(epoch=2.4), None, train_dataloader=loader)
    assert examples[5] == (5, 2)
    assert sampler.epoch == 2
