"""Losses as other people's programs compute them: `python make_losses.py > losses.json`.

Inputs are drawn once by numpy, rounded to six digits and written beside what came out, so that a test needs none of
the programs:

- sentence-transformers (made with 6.2.0): `MultipleNegativesRankingLoss`, its cached and symmetric forms, around them
  `MatryoshkaLoss`; `DistillKLDivLoss`.
- TRL (made with 1.16.0): its collator's batches and, in two micro-batches, the loss that its SFTTrainer takes from a
  model; `generalized_jsd_loss` of its GKDTrainer (beta 0: KL(teacher ‖ student), beta 1: the other way).
- numpy alone, from the papers' equations: RPG's objectives with empty places and answers of unlike length, and the
  cross-attention score of FiD-KD and Atlas's from given attentions.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import nn

DRAW = np.random.default_rng(21)


def drawn(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return DRAW.uniform(low, high, shape).round(6)


# -- sentence-transformers -------------------------------------------------------------------------


class Given(nn.Module):
    """A model whose vectors are given."""

    def forward(self, features: dict) -> dict:
        return {"sentence_embedding": features["given"]}

    def get_embedding_dimension(self) -> int:
        return 6


def sentence_transformers() -> dict:
    from sentence_transformers import losses as peer

    columns = [drawn(4, 6) for _ in range(3)]  # questions, their passages, a hard negative each
    features = [{"given": torch.tensor(column)} for column in columns]

    def of(loss: nn.Module, *given: int) -> float:
        return loss([dict(features[column]) for column in given], torch.zeros(4)).item()

    model = Given()
    plain = peer.MultipleNegativesRankingLoss(model, scale=20.0)
    found = {
        "ranking": of(plain, 0, 1, 2),
        "ranking_without_negatives": of(plain, 0, 1),
        "ranking_scale_2": of(peer.MultipleNegativesRankingLoss(model, scale=2.0), 0, 1, 2),
        "symmetric": of(peer.MultipleNegativesSymmetricRankingLoss(model, scale=20.0), 0, 1),
        "matryoshka_6_3_2": of(
            peer.MatryoshkaLoss(model, peer.MultipleNegativesRankingLoss(model, scale=20.0), [6, 3, 2]), 0, 1, 2
        ),
    }
    teacher = drawn(4, 3, low=0, high=4)
    candidates = [drawn(4, 6) for _ in range(3)]
    distil = peer.DistillKLDivLoss(model, student_temperature=0.5, teacher_temperature=2.0)
    given = [features[0], *({"given": torch.tensor(column)} for column in candidates)]
    return {
        "queries": columns[0].tolist(),
        "passages": columns[1].tolist(),
        "negatives": columns[2].tolist(),
        "losses": found,
        "distil": {
            "candidates": np.stack(candidates, axis=1).tolist(),
            "teacher": teacher.tolist(),
            "student_temperature": 0.5,
            "teacher_temperature": 2.0,
            "loss": distil(given, torch.tensor(teacher)).item(),
        },
    }


# -- TRL -------------------------------------------------------------------------------------------


def trl() -> dict:
    from transformers.loss.loss_utils import ForCausalLMLoss
    from trl.experimental.gkd import GKDTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    vocabulary = 7
    table = drawn(vocabulary, vocabulary, low=-3, high=3)  # the logits after each token
    prompts = [[1, 2, 3], [4], [5, 6], [1]]
    answers = [[4, 0], [2, 2, 6, 0], [3, 0], [0]]
    rows = [
        {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    collator = DataCollatorForLanguageModeling(pad_token_id=0)
    items = sum(map(len, answers))
    micro_batches = []
    for part in (rows[:2], rows[2:]):
        batch = collator(part)
        logits = torch.tensor(table)[batch["input_ids"]]
        loss = ForCausalLMLoss(logits, batch["labels"], vocabulary, num_items_in_batch=items)
        micro_batches.append({**{name: tensor.tolist() for name, tensor in batch.items()}, "loss": loss.item()})
    student, teacher = drawn(3, 5), drawn(3, 5, low=-2, high=2)
    kl = [
        GKDTrainer.generalized_jsd_loss(
            torch.tensor(student), torch.tensor(teacher), beta=beta, temperature=0.5, reduction="batchmean"
        ).item()
        for beta in (0, 1)
    ]
    return {
        "table": table.tolist(),
        "prompts": prompts,
        "answers": answers,
        "micro_batches": micro_batches,
        "student": student.tolist(),
        "teacher": teacher.tolist(),
        "temperature": 0.5,
        "kl_teacher_student": kl[0],
        "kl_student_teacher": kl[1],
    }


# -- the papers' equations, numpy alone --------------------------------------------------------------


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sum(p * (np.log(p) - np.log(q))))


def rpg() -> dict:
    scores, tokens = drawn(4, 5), drawn(4, 5, 3, low=-4, high=-0.1)
    present, lengths = [5, 3, 1, 4], [3, 1, 2, 3]
    gamma, beta = 0.3, 0.7
    losses: dict[str, float] = {}
    for objective in ("replug", "pdist", "loop", "emdr2"):
        for target in ("mean", "sum", "probability"):
            total = 0.0
            for b in range(4):
                p = softmax(scores[b, : present[b]] / gamma)
                log = tokens[b, : present[b], : lengths[b]]
                if objective == "emdr2":
                    total -= float(np.log((p[:, None] * np.exp(log)).sum(0)).mean())
                    continue
                value = {"mean": log.mean(1), "sum": log.sum(1), "probability": np.exp(log.sum(1))}[target]
                q = softmax((-value if objective == "loop" else value) / beta)
                total += kl(p, q) if objective == "replug" else kl(q, p)
            losses[f"{objective} {target}"] = total / 4
    return {
        "scores": scores.tolist(), "tokens": tokens.tolist(), "present": present, "lengths": lengths,
        "retriever_temperature": gamma, "target_temperature": beta, "losses": losses,
    }  # fmt: skip


def attention() -> dict:
    """Two layers, four heads over two value heads, two answer positions, eight positions of three passages."""
    segment = [[-1, 0, 0, 0, 1, 2, 2, -1], [0, 1, 1, 2, 2, 2, 2, 2]]
    raw = drawn(2, 2, 4, 2, 8, low=-2, high=2)  # layer, question, head, answer position, position
    weights = np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)
    weights = weights.round(9)
    values = drawn(2, 2, 2, 8, 3)
    counts = [[1, 1], [1, 0]]
    found: dict[str, list] = {"cross_attention": [], "adist": [], "adist_peak": []}
    for b in range(2):
        own = [[s for s in range(8) if segment[b][s] == k] for k in range(3)]
        logs = np.log(weights[:, b, :, 0])  # the first decoded position
        found["cross_attention"].append([float(np.mean([logs[:, :, s] for s in part])) for part in own])
        mean, peak = [0.0] * 3, [0.0] * 3
        for layer in range(2):
            for k, part in enumerate(own):
                heads = [
                    sum(
                        weights[layer, b, head, t, s] * np.linalg.norm(values[layer, b, head // 2, s])
                        for t in range(2)
                        if counts[b][t]
                        for s in part
                    )
                    for head in range(4)
                ]
                mean[k] += float(np.mean(heads))
                peak[k] += float(np.max(heads))
        found["adist"].append(mean)
        found["adist_peak"].append(peak)
    return {
        "segment": segment, "weights": weights.tolist(), "values": values.tolist(), "counts": counts, "scores": found,
    }  # fmt: skip


if __name__ == "__main__":
    made = {"sentence_transformers": sentence_transformers(), "trl": trl(), "rpg": rpg(), "attention": attention()}
    json.dump(made, sys.stdout, indent=None, separators=(",", ":"))
    sys.stdout.write("\n")
