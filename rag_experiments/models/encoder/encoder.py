"""A text encoder: any Hugging Face transformer, pooled to one vector, with the similarity it was trained for.

A plain `nn.Module` with `forward(input_ids, attention_mask)`, so that `transformers.Trainer` trains it. One object
answers for training, index, evaluation and what is saved: they cannot disagree on prefixes, lengths or similarity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.core.digest import without
from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import Query, shortened
from rag_experiments.model_files.metadata import write_facts
from rag_experiments.model_files.sentence_transformers_format import FolderFacts, read_folder, write_folder
from rag_experiments.models.encoder import encoder_files
from rag_experiments.models.encoder.cpu_attention import use_cpu_attention
from rag_experiments.models.encoder.left_padding import needs_positions, text_positions
from rag_experiments.models.encoder.pooling import PoolingMode, pool
from rag_experiments.models.shared.adapter_folder import model_folders
from rag_experiments.models.shared.precision import autocast, default_device, precision_name, resolve_precision
from rag_experiments.models.shared.quiet import without_bars
from rag_experiments.models.shared.weights_digest import architecture_of, tokenizer_hash, weights_digest
from rag_experiments.models.shared.wrapped import WrappedTransformer

_SAVED_SETTINGS = (
    "pooling", "similarity", "query_prefix", "passage_prefix", "max_query_length", "max_passage_length",
    "padding_side", "append_eos", "dimension",
)  # fmt: skip

NOT_IN_A_VECTOR = {
    **dict.fromkeys(
        ("path", "revision", "init", "architecture"), "what they make of the weights is seen in the weights"
    ),
    "kind": "there is one",
    "lora": "adapters are weights",
    **dict.fromkeys(("attn_implementation", "batch_size"), "the same numbers but for rounding"),
}
"""Keys of the model that do not decide its vectors, and why."""


class Encoder(WrappedTransformer):
    """Texts to vectors `[N, D]`, fp32. `config` is fully resolved: no `auto` is left in what decides a vector."""

    kind = "encoder"

    def __init__(
        self, config: EncoderConfig, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, dense: nn.ModuleList
    ) -> None:
        super().__init__()
        if config.pooling == "auto" or config.similarity == "auto":
            raise ValueError("an Encoder takes a resolved configuration; Encoder.load makes one")
        self.config = config
        self._pooling: PoolingMode = config.pooling
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.dense = dense
        width = self._width()
        if config.dimension is not None and config.dimension > width:
            raise RequestError(
                f"model.dimension: {config.dimension} is more than the {width} this model's vectors have."
            )
        self.dimension: int = config.dimension or width
        # Padding on the left may otherwise shift a text's positions by the length of its neighbours.
        self._gives_positions = False
        # Hashed before the first call: a fast tokenizer keeps the last call's truncation in its own state.
        self._tokenizer_hash = tokenizer_hash(tokenizer)

    @classmethod
    def load(cls, config: EncoderConfig, device: torch.device | str | None = None, *, frozen: bool = False) -> Encoder:
        """Read the encoder that `config` describes: weights in fp32, eval mode, on `device` (default: accelerate's).

        `frozen`: it will not be trained, so adapters are merged into its weights.

        Raises `RequestError` for a source that is missing, unreadable, or of another kind.
        """
        folders = model_folders(config)
        facts = read_folder(folders.settings) if config.architecture is None else FolderFacts()
        tokenizer = encoder_files.load_tokenizer(folders.tokenizer)
        model_config = encoder_files.load_model_config(config, folders.weights, tokenizer)
        resolved = encoder_files.resolve_config(config, facts, model_config, tokenizer)
        device = device or default_device()
        dtype = resolve_precision(config.precision, device)
        resolved = dataclasses.replace(resolved, precision=precision_name(dtype))
        tokenizer.padding_side = resolved.padding_side or "right"
        if resolved.append_eos:
            encoder_files.ensure_eos(tokenizer)
        backbone = encoder_files.load_backbone(resolved, folders.weights, model_config)
        dense = encoder_files.load_dense(folders.settings, facts, resolved)
        encoder = cls(resolved, tokenizer, backbone, dense).to(device).eval()
        encoder.folders = folders
        use_cpu_attention(backbone)
        if resolved.padding_side == "left":
            probe = tokenizer("which tokens these are does not matter")["input_ids"]
            encoder._gives_positions = needs_positions(backbone, probe, tokenizer.pad_token_id or 0)
        encoder.put_on_adapters(frozen)
        return encoder.eval()

    @property
    def module(self) -> Encoder:
        """What a trainer trains."""
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask `[B, L]` to vectors `[B, D]`, fp32; unit length where the similarity is cosine."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._gives_positions:
            inputs["position_ids"] = text_positions(attention_mask)
        hidden_BLD = self.backbone(**inputs).last_hidden_state
        vectors_BD = pool(hidden_BLD, attention_mask, self._pooling)
        for layer in self.dense:
            vectors_BD = layer(vectors_BD).float()
        vectors_BD = vectors_BD[:, : self.dimension]
        if self.config.similarity == "cosine":
            vectors_BD = functional.normalize(vectors_BD, dim=-1)
        return vectors_BD

    def similarity(self, queries_QD: Tensor, passages_PD: Tensor) -> Tensor:
        """Scores `[Q, P]` of vectors from `forward`: their inner product (cosine: they have unit length already).

        In fp32 at least, autocast or not: bf16 would round a cosine to three digits, and losses divide it by 0.05.
        """
        with autocast(queries_QD.device, torch.float32):
            return _fp32_at_least(queries_QD) @ _fp32_at_least(passages_PD).T

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids a question, prefix in front, at most `max_query_length`, not padded.

        A query too long loses its oldest turns; a question that is too long alone loses its end.
        """
        fitting = texts
        if any(isinstance(text, Query) and text.turns for text in texts):  # else there is nothing to drop
            fitting = shortened(texts, self._too_long)
        return self._tokenize(fitting, self.config.query_prefix or "", self.config.max_query_length)

    def queries_cut(self, texts: Sequence[str]) -> int:
        """How many of these queries are too long, and lose turns or the end of the question."""
        return sum(self._too_long(list(texts)))

    def tokenize_passages(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids a passage, prefix in front, cut to `max_passage_length`, not padded."""
        return self._tokenize(texts, self.config.passage_prefix or "", self.config.max_passage_length)

    def pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` `[B, L]` with L the longest of the batch, on the CPU."""
        longest = max((len(row) for row in ids), default=0)
        input_ids = np.full((len(ids), longest), self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for i, row in enumerate(ids):
            where = slice(longest - len(row), longest) if self.config.padding_side == "left" else slice(0, len(row))
            input_ids[i, where] = row
            mask[i, where] = 1
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}

    def embed_queries(self, texts: Sequence[str], batch_size: int | None = None, progress: bool = False) -> np.ndarray:
        """Vectors `[N, D]`, fp32, in the order of `texts`.

        Computed in fp32 whatever `precision`: questions are short and few, and in bf16 a question's vector, hence the
        rank of near passages, would depend on the questions it shares a batch with.
        """
        return self._embed(self.tokenize_queries(texts), batch_size, progress, "questions", torch.float32)

    def embed_passages(self, texts: Sequence[str], batch_size: int | None = None, progress: bool = False) -> np.ndarray:
        """Vectors `[N, D]`, fp32, in the order of `texts`."""
        dtype = resolve_precision(self.config.precision, self.device)
        return self._embed(self.tokenize_passages(texts), batch_size, progress, "passages", dtype)

    def save(self, folder: Path | str) -> None:
        """Write the model into `folder`, for `Encoder.load` and for `SentenceTransformer(folder)` alike."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        adapters = self.save_adapters(folder)
        if not adapters:
            with without_bars():
                self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        dense = encoder_files.save_dense(self.dense, folder, width=self._width(), dimension=self.config.dimension)
        write_folder(folder, self.config, hidden_size=self.backbone.config.hidden_size, dense=dense)
        write_facts(folder, self.kind, {name: getattr(self.config, name) for name in _SAVED_SETTINGS} | adapters)

    def load_weights(self, folder: Path | str) -> None:
        """Take the weights (or adapters) that `save` wrote, in place; settings stay."""
        folder = Path(folder)
        if self.load_adapters(folder):
            return
        saved = dataclasses.replace(self.config, path=str(folder), init="pretrained", architecture=None, revision=None)
        backbone = encoder_files.load_backbone(saved, folder, self.backbone.config)
        self.backbone.load_state_dict(backbone.state_dict())
        self.dense.load_state_dict(encoder_files.load_dense(folder, read_folder(folder), saved).state_dict())

    def fingerprint(self) -> str:
        """A hash of the weights and of all else that decides a vector: equal fingerprints mean equal vectors."""
        settings = without(self.config, NOT_IN_A_VECTOR)
        return weights_digest(self, self._tokenizer_hash, settings, architecture_of(self.transformer.config))

    def _width(self) -> int:
        """Dimension before truncation."""
        last: Any = self.dense[-1] if len(self.dense) else None
        return int(self.backbone.config.hidden_size if last is None else last.linear.out_features)

    def _too_long(self, texts: list[str]) -> list[bool]:
        limit = self.config.max_query_length or self.tokenizer.model_max_length
        ids = self._tokenize(texts, self.config.query_prefix or "", None, whole=True)
        return [len(row) > limit for row in ids]

    def _tokenize(self, texts: Sequence[str], prefix: str, length: int | None, whole: bool = False) -> list[list[int]]:
        if not len(texts):
            return []
        encoded = self.tokenizer(
            [prefix + text for text in texts],
            truncation=not whole,
            max_length=length,
            padding=False,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return encoded["input_ids"]

    def _embed(
        self, ids: list[list[int]], batch_size: int | None, progress: bool, what: str, dtype: torch.dtype
    ) -> np.ndarray:
        """Vectors of tokenised texts in their order, computed longest first: little padding, and the largest batch
        (the one that runs out of memory) comes at once."""
        batch_size = batch_size or self.config.batch_size
        order = np.argsort([-len(row) for row in ids], kind="stable")
        vectors_ND = np.empty((len(ids), self.dimension), dtype=np.float32)
        device = self.device
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), autocast(device, dtype), tqdm(total=len(ids), desc=what, disable=not progress) as bar:
                for start in range(0, len(order), batch_size):
                    rows = order[start : start + batch_size]
                    batch = {k: v.to(device, non_blocking=True) for k, v in self.pad([ids[i] for i in rows]).items()}
                    # The class's own: a trainer wraps the instance's in the autocast of the training.
                    vectors_ND[rows] = Encoder.forward(self, **batch).float().cpu().numpy()
                    bar.update(len(rows))
        finally:
            self.train(was_training)
            # Casts cached here carry no gradient; inside a trainer's own autocast the next forward would reuse them.
            torch.clear_autocast_cache()
        return vectors_ND


def _fp32_at_least(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()
