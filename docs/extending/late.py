"""Late interaction (Khattab & Zaharia 2020, ColBERT): a new kind of model, a retriever for it, and what trains it.

s(q, p) = Σ_{i ∈ q} max_{j ∈ p} q_i · p_j        over the unit vectors of the texts' tokens
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.config.kinds import ModelKind, RetrieverKind
from rag_experiments.config.schema import ModelConfig, PositiveFloat, PositiveInt
from rag_experiments.core.digest import digest
from rag_experiments.model_files.metadata import write_facts
from rag_experiments.model_files.sources import fetch, resolve
from rag_experiments.retrieval.retriever import Retriever, SearchResult

# -- the kind of model ----------------------------------------------------------------------------


@dataclass(kw_only=True)
class LateConfig(ModelConfig):
    """Keys under `model:`."""

    kind: Literal["late_interaction"] = "late_interaction"
    max_length: PositiveInt = 64
    """A longer text is cut to so many tokens."""
    batch_size: PositiveInt = 32
    """Texts are embedded so many at a time."""


class LateEncoder(nn.Module):
    """Texts to a vector per token, of unit length."""

    def __init__(self, config, tokenizer, backbone):
        super().__init__()
        self.config, self.tokenizer, self.backbone = config, tokenizer, backbone

    @property
    def module(self):
        return self

    def forward(self, input_ids, attention_mask):
        """Token ids `[B, L]` to vectors `[B, L, D]`, zero at padding."""
        hidden_BLD = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(hidden_BLD, dim=-1) * attention_mask[:, :, None]

    def batch(self, texts):
        """`input_ids` and `attention_mask` of some texts."""
        return dict(
            self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.config.max_length, return_tensors="pt",
                return_token_type_ids=False,
            )
        )  # fmt: skip

    def save(self, folder: Path):
        self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_facts(folder, self.config.kind, {"max_length": self.config.max_length})

    def load_weights(self, folder: Path):
        self.backbone.load_state_dict(AutoModel.from_pretrained(folder).state_dict())

    def fingerprint(self):
        weights = [(name, tensor.numpy().tobytes()) for name, tensor in sorted(self.state_dict().items())]
        return digest(self.config.max_length, weights)


def load_late(config: LateConfig, cache, frozen=False):
    """The `LateEncoder` of a folder or hub id."""
    folder = fetch(resolve(config.path, config.revision))
    return LateEncoder(config, AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)).eval()


LATE = ModelKind(
    name="late_interaction",
    config=LateConfig,
    role="late_encoder",
    load="late:load_late",
    evaluator="rag_experiments.evaluation.retrieval_evaluator:RetrievalEvaluator",
)

# -- the retriever --------------------------------------------------------------------------------


def late_scores(queries_BLD, passages_PMD):
    """s(q, p) `[B, P]`."""
    return torch.einsum("bld,pmd->bplm", queries_BLD, passages_PMD).amax(dim=3).sum(dim=2)


class LateRetriever(Retriever):
    """Every passage against every question: exact, and only for small corpora."""

    def __init__(self, config, passages, encoder, cache):
        self.config, self.passages, self.encoder = config, passages, encoder
        self.vectors = None

    def refresh(self, persist=False):
        self.vectors = None

    def _embed(self, texts):
        was_training = self.encoder.training
        self.encoder.eval()
        with torch.no_grad():
            size = self.encoder.config.batch_size
            parts = [self.encoder(**self.encoder.batch(texts[i : i + size])) for i in range(0, len(texts), size)]
        self.encoder.train(was_training)
        longest = max(part.shape[1] for part in parts)
        return torch.cat([nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])

    def search(self, queries, k):
        if self.vectors is None:
            self.vectors = self._embed(self.passages.full_texts(list(range(len(self.passages)))))
        scores_QP = late_scores(self._embed(list(queries)), self.vectors)
        best = scores_QP.topk(min(k, len(self.passages)), dim=1)
        return SearchResult(best.indices.numpy().astype(np.int64), best.values.numpy().astype(np.float32))

    def fingerprint(self):
        return digest("late", self.passages.content_hash, self.encoder.fingerprint())

    def save(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.search([""], 1)
        np.save(folder / "vectors.npy", self.vectors.numpy())


def build_late(config, passages, encoder, cache):
    """The retriever of a run."""
    return LateRetriever(config, passages, encoder, cache)


LATE_RETRIEVER = RetrieverKind(name="late", build="late:build_late", encoder_role="late_encoder")

# -- what trains it -------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LateTrainingConfig:
    """Keys under `algorithm:`."""

    name: str = "late"
    """The algorithm's name, which stands in the run's path."""
    temperature: PositiveFloat = 1.0
    """The scores are divided by it."""


class LateTrainer(AlgorithmTrainer):
    """Contrastive training on in-batch negatives."""

    Config = LateTrainingConfig
    trains = frozenset({"late_encoder"})
    required_fields = frozenset({"positive_ids"})

    def training_examples(self):
        return Examples(self.components.data.splits["train"])

    def collate(self, questions):
        encoder, store = self.components.model, self.components.data.passages
        rows = [int(store.rows(question.positive_ids[:1])[0]) for question in questions]
        return {
            "queries": encoder.batch([question.question for question in questions]),
            "passages": encoder.batch(store.full_texts(rows)),
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores_BB = late_scores(model(**inputs["queries"]), model(**inputs["passages"])) / self.config.temperature
        return nn.functional.cross_entropy(scores_BB, torch.arange(len(scores_BB), device=scores_BB.device))
