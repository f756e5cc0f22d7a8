"""Our losses against other people's programs, whose figures are kept in tests/oracles (make_losses.py made them)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rag_experiments.algorithms.ctl import CTLConfig, CTLTrainer
from rag_experiments.algorithms.dca import dca_loss
from rag_experiments.algorithms.rpg import pdist_loss, replug_loss, rpg_loss
from rag_experiments.algorithms.sft import answer_loss
from rag_experiments.models.fid.fid_attention import attention_value_scores, log_attention_scores
from rag_experiments.models.reader.answer_tokens import answer_log_probs, answer_logits, decoder_batch
from tests.algorithms.plain_encoder import TableEncoder

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "losses.json").read_text(encoding="utf-8"))


def exactly(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -- CTL and sentence-transformers -----------------------------------------------------------------


def ctl(negatives: bool, **options) -> float:
    """CTL's collate and compute_loss on the oracle's vectors: passage i is question i's, negative i is row 4 + i."""
    given = ORACLE["sentence_transformers"]
    encoder = TableEncoder(width=6)
    with torch.no_grad():
        encoder.table[:4] = exactly(given["queries"])
        encoder.table[TableEncoder.SHIFT : TableEncoder.SHIFT + 8] = exactly(given["passages"] + given["negatives"])
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(**options)
    store = SimpleNamespace(full_texts=lambda rows: [str(row) for row in rows])
    trainer.components = SimpleNamespace(model=encoder, data=SimpleNamespace(passages=store))
    trainer.record = lambda name, value: None
    features = [
        {
            "query": str(i),
            "targets": [i],
            "positives": [i],
            "grades": [1.0],
            "negatives": [4 + i] if negatives else [],
            "weight": 1.0,
        }
        for i in range(4)
    ]
    return trainer.compute_loss(encoder, trainer.collate(features)).item()


@pytest.mark.parametrize(
    ("name", "negatives", "options", "times"),
    [
        ("ranking", True, {"temperature": 1 / 20}, 1),
        ("ranking", True, {"temperature": 1 / 20, "mini_batch_size": 3}, 1),
        ("ranking_without_negatives", False, {"temperature": 1 / 20}, 1),
        ("ranking_scale_2", True, {"temperature": 1 / 2}, 1),
        ("symmetric", False, {"temperature": 1 / 20, "symmetric": True}, 1),
        # Theirs is the sum over the dimensions, ours the mean.
        ("matryoshka_6_3_2", True, {"temperature": 1 / 20, "matryoshka_dims": [3, 2]}, 3),
    ],
)
def test_ctl_is_sentence_transformers_loss(name, negatives, options, times):
    expected = ORACLE["sentence_transformers"]["losses"][name]
    assert ctl(negatives, **options) * times == pytest.approx(expected, rel=1e-9)


def test_dca_is_sentence_transformers_distillation():
    """Theirs is multiplied by the square of the student's temperature."""
    given = ORACLE["sentence_transformers"]
    distil = given["distil"]
    scores = torch.einsum("bd,bkd->bk", exactly(given["queries"]), exactly(distil["candidates"]))
    student, teacher = distil["student_temperature"], distil["teacher_temperature"]
    loss = dca_loss(scores, exactly(distil["teacher"]), student, teacher).item()
    assert loss * student**2 == pytest.approx(distil["loss"], rel=1e-9)


def test_both_directions_of_kl_are_trls():
    given, temperature = ORACLE["trl"], ORACLE["trl"]["temperature"]
    student, teacher = (F.log_softmax(exactly(given[name]) / temperature, 1) for name in ("student", "teacher"))
    assert pdist_loss(student, teacher).item() == pytest.approx(given["kl_teacher_student"], rel=1e-9)
    assert replug_loss(student, teacher).item() == pytest.approx(given["kl_student_teacher"], rel=1e-9)
    found = dca_loss(exactly(given["student"]), exactly(given["teacher"]), temperature, temperature)
    assert found.item() == pytest.approx(given["kl_teacher_student"], rel=1e-9)


# -- SFT and TRL -----------------------------------------------------------------------------------


class Bigrams(nn.Module):
    """A causal language model: the next token's logits depend on the last token alone."""

    def __init__(self, table: list):
        super().__init__()
        self.table = exactly(table)

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.mark.parametrize("part", [0, 1])
def test_sft_is_trls_batch_and_loss(part):
    """Micro-batches of a step with seven answer tokens more or less: each is its share of the step's mean."""
    given = ORACLE["trl"]
    rows = slice(2 * part, 2 * part + 2)
    batch = decoder_batch(given["prompts"][rows], given["answers"][rows], pad_id=0)
    theirs = given["micro_batches"][part]
    for name in ("input_ids", "attention_mask", "labels"):
        assert batch[name].tolist() == theirs[name], name
    logits_NV, targets_N = answer_logits(Bigrams(given["table"]), batch, "decoder")
    items = sum(map(len, given["answers"]))
    assert answer_loss(logits_NV, targets_N, items).item() == pytest.approx(theirs["loss"], rel=1e-6)
    scored = answer_log_probs(Bigrams(given["table"]), batch, "decoder")
    assert [len(row) for row in scored] == [len(answer) for answer in given["answers"][rows]]
    assert -sum(row.sum().item() for row in scored) / items == pytest.approx(theirs["loss"], rel=1e-6)


# -- the papers' equations in numpy -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ORACLE["rpg"]["losses"]))
def test_rpg_objectives_are_the_papers(name):
    given = ORACLE["rpg"]
    objective, target = name.split()
    mask = torch.tensor([[t < length for t in range(3)] for length in given["lengths"]])
    present = torch.tensor([[k < count for k in range(5)] for count in given["present"]])
    tokens = exactly(given["tokens"]) * mask[:, None] * present[:, :, None]
    loss = rpg_loss(
        exactly(given["scores"]),
        tokens,
        mask,
        objective,
        target,
        given["retriever_temperature"],
        given["target_temperature"],
        present,
    )
    assert loss.item() == pytest.approx(given["losses"][name], abs=1e-9)


@pytest.mark.parametrize("name", ["cross_attention", "adist", "adist_peak"])
def test_teacher_scores_are_the_papers(name):
    given = ORACLE["attention"]
    segment, weights, values = torch.tensor(given["segment"]), exactly(given["weights"]), exactly(given["values"])
    if name == "cross_attention":
        found, underflowed = log_attention_scores(list(weights[:, :, :, 0]), segment, 3)
        assert underflowed == 0
    else:
        found = attention_value_scores(
            list(weights), list(values), torch.tensor(given["counts"]), segment, 3, peak=name == "adist_peak"
        )
    torch.testing.assert_close(found.double(), exactly(given["scores"][name]), rtol=1e-5, atol=1e-6)
