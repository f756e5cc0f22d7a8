"""A reranker: a transformer that reads question and passage together and gives the pair one logit.

A plain `nn.Module`, so that `transformers.Trainer` trains it. One object answers for training, reranking and what is
saved. Where the logit comes from is `model.form`: a head on an encoder (Nogueira & Cho 2019), or a language model's
logit of `yes` less that of `no` (Qwen3-Reranker).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core.digest import without
from rag_experiments.core.errors import RequestError
from rag_experiments.model_files.metadata import write_facts
from rag_experiments.models.cross_encoder import cross_encoder_files as files
from rag_experiments.models.cross_encoder.pair_tokens import ANSWERS, HeadPairs, PairIds, YesNoPairs, padded
from rag_experiments.models.encoder import encoder_files
from rag_experiments.models.encoder.cpu_attention import use_cpu_attention
from rag_experiments.models.encoder.left_padding import text_positions
from rag_experiments.models.shared.adapter_folder import model_folders
from rag_experiments.models.shared.precision import autocast, default_device, precision_name, resolve_precision
from rag_experiments.models.shared.weights_digest import architecture_of, tokenizer_hash, weights_digest
from rag_experiments.models.shared.wrapped import WrappedTransformer

NOT_IN_A_SCORE = {
    **dict.fromkeys(
        ("path", "revision", "init", "architecture"), "what they make of the weights is seen in the weights"
    ),
    "kind": "there is one",
    "lora": "adapters are weights",
    **dict.fromkeys(("attn_implementation", "batch_size"), "the same numbers but for rounding"),
}
"""Keys of the model that do not decide its scores, and why."""


class CrossEncoder(WrappedTransformer):
    """Pairs of texts to logits, fp32. `config` is fully resolved."""

    kind = "cross_encoder"

    def __init__(
        self, config: CrossEncoderConfig, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel
    ) -> None:
        """Raises `RequestError` where the tokenizer knows no `yes` and `no`, or the prompt is longer than a pair."""
        super().__init__()
        if config.form == "auto" or config.max_length is None:
            raise ValueError("a CrossEncoder takes a resolved configuration; CrossEncoder.load makes one")
        self.config = config
        self.tokenizer = tokenizer
        self.backbone = backbone
        self._tokenizer_hash = tokenizer_hash(tokenizer)
        self.pairs: HeadPairs | YesNoPairs
        self._answer_ids: list[Any] = []
        if config.form == "head":
            self.pairs = HeadPairs(tokenizer, config.max_length)
        else:
            self.pairs = YesNoPairs(tokenizer, config.max_length, config.instruction or "")
            self._answer_ids = [tokenizer.convert_tokens_to_ids(word) for word in ANSWERS]
            if {None, tokenizer.unk_token_id} & set(self._answer_ids):
                raise RequestError("model.form=yes_no: this model's tokenizer has no token 'yes' or 'no'")

    @classmethod
    def load(
        cls, config: CrossEncoderConfig, frozen: bool = False, device: torch.device | str | None = None
    ) -> CrossEncoder:
        """Read the reranker that `config` describes: weights in fp32, eval mode, on `device` (default: accelerate's).

        Args:
            frozen: it will not be trained, so it must have learnt to score.

        Raises:
            RequestError: a source that is missing, unreadable, of another kind, or that has not learnt to score.
        """
        folders = model_folders(config)
        facts = files.folder_facts(folders.settings) if config.architecture is None else {}
        tokenizer = encoder_files.load_tokenizer(folders.tokenizer)
        found = encoder_files.load_model_config(config, folders.weights, tokenizer)
        resolved = files.resolve_config(config, facts, found, tokenizer)
        of_encoder = files.encoders_adapters(folders, resolved)
        if frozen:
            files.check_learnt(resolved, found, folders.adapters is not None and of_encoder is None)
        device = device or default_device()
        dtype = resolve_precision(config.precision, device)
        resolved = dataclasses.replace(resolved, precision=precision_name(dtype))
        tokenizer.padding_side = "left" if resolved.form == "yes_no" else "right"
        backbone = files.load_backbone(resolved, folders.weights, found, tokenizer, of_encoder)
        made = cls(resolved, tokenizer, backbone).to(device).eval()
        made.folders = folders if of_encoder is None else None
        use_cpu_attention(backbone)
        made.put_on_adapters(frozen)
        return made.eval()

    @property
    def module(self) -> CrossEncoder:
        """What a trainer trains."""
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Token ids and mask `[B, L]` to logits `[B]`, fp32."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.config.form == "head":
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.backbone(**inputs, **types).logits[:, 0].float()
        positions = text_positions(attention_mask)
        logits_BV = self.backbone(**inputs, position_ids=positions, logits_to_keep=1).logits[:, -1].float()
        yes, no = self._answer_ids
        return logits_BV[:, yes] - logits_BV[:, no]

    def tokenize_pairs(self, queries: Sequence[str], passages: Sequence[str]) -> list[PairIds]:
        """Tokens of each question with the passage beside it in the other list, `max_length` at most, not padded."""
        return self.pairs(queries, passages)

    def pad(self, pairs: Sequence[PairIds]) -> dict[str, Tensor]:
        """What `forward` takes, `[B, L]` with L the longest of the batch, on the CPU."""
        return padded(pairs, int(self.tokenizer.pad_token_id), left=self.config.form == "yes_no")

    def score(
        self, queries: Sequence[str], passages: Sequence[str], batch_size: int | None = None, progress: bool = False
    ) -> np.ndarray:
        """The logit of each pair, fp32 `[N]`; without gradients, pairs of like length together, the longest first."""
        pairs = self.tokenize_pairs(queries, passages)
        batch_size = batch_size or self.config.batch_size
        order = np.argsort([-len(pair) for pair in pairs], kind="stable")
        scores_N = np.empty(len(pairs), dtype=np.float32)
        device, was_training = self.device, self.training
        dtype = resolve_precision(self.config.precision, device)
        self.eval()
        try:
            with (
                torch.no_grad(),
                autocast(device, dtype),
                tqdm(total=len(pairs), desc="pairs", disable=not progress) as bar,
            ):
                for start in range(0, len(order), batch_size):
                    rows = order[start : start + batch_size]
                    batch = {name: tensor.to(device) for name, tensor in self.pad([pairs[i] for i in rows]).items()}
                    # The class's own: a trainer wraps the instance's in the autocast of the training.
                    scores_N[rows] = CrossEncoder.forward(self, **batch).cpu().numpy()
                    bar.update(len(rows))
        finally:
            self.train(was_training)
            # Casts cached here carry no gradient; inside a trainer's own autocast the next forward would reuse them.
            torch.clear_autocast_cache()
        return scores_N

    def save(self, folder: Path | str) -> None:
        """Write the model into `folder`, for `CrossEncoder.load` and for sentence-transformers' alike."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        template = self.pairs.template() if isinstance(self.pairs, YesNoPairs) else None
        adapters = self.save_adapters(folder)
        if adapters:
            files.save_beside_adapters(folder, self.config.form, self._answer_ids)
        else:
            with encoder_files.without_bars():
                files.save_backbone(self.backbone, folder)
        files.save_tokenizer(self.tokenizer, self.config, template, folder)
        write_facts(folder, self.kind, {name: getattr(self.config, name) for name in files.SAVED_SETTINGS} | adapters)

    def load_weights(self, folder: Path | str) -> None:
        """Take the weights (or adapters) that `save` wrote, in place; settings stay."""
        folder = Path(folder)
        if self.load_adapters(folder):
            return
        saved = dataclasses.replace(self.config, path=str(folder), init="pretrained", architecture=None, revision=None)
        found = encoder_files.load_model_config(saved, folder, self.tokenizer)
        backbone = files.load_backbone(saved, folder, found, self.tokenizer)
        self.backbone.load_state_dict(backbone.state_dict())

    def fingerprint(self) -> str:
        """A hash of the weights and of all else that decides a score: equal fingerprints mean equal scores."""
        settings = without(self.config, NOT_IN_A_SCORE)
        return weights_digest(self, self._tokenizer_hash, settings, architecture_of(self.transformer.config))
