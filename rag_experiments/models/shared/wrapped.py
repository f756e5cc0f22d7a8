"""What a trainer asks of a module that wraps a transformer of Hugging Face (`backbone`), with adapters or without."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from rag_experiments.config.schema import LoraConfig
from rag_experiments.models.shared.adapter_folder import ModelFolders, has_adapters, whole
from rag_experiments.models.shared.precision import autocast


class WrappedTransformer(nn.Module):
    """A module around `backbone` that `transformers.Trainer` trains."""

    config: Any
    backbone: Any
    folders: ModelFolders | None = None
    """Where it was opened from."""

    def put_on_adapters(self, frozen: bool) -> None:
        """The adapters of its folder, or fresh ones that `model.lora` asks for: nothing else learns then.

        Args:
            frozen: it will not be trained: adapters are merged, and fresh ones, which change nothing, are left out.
        """
        adapters = self.folders.adapters if self.folders is not None else None
        if adapters is None and (frozen or self.config.lora is None):
            return
        from rag_experiments.models.shared import lora

        if adapters is None:
            self.requires_grad_(False)
            self.backbone = lora.add_adapters(self.backbone, self.config.lora, self.config.kind)
            return
        if not frozen:
            self.requires_grad_(False)
        self.backbone = lora.open_adapters(self.backbone, adapters, trainable=not frozen)
        settings = None if frozen else LoraConfig(**lora.settings_of(self.backbone))
        self.config = dataclasses.replace(self.config, lora=settings)

    def merge_adapters(self) -> bool:
        """Make a whole model of it in place; False where it has no adapters."""
        if not has_adapters(self.backbone):
            return False
        self.backbone = self.backbone.merge_and_unload()
        self.config = dataclasses.replace(self.config, lora=None)
        return True

    def save_adapters(self, folder: Path) -> dict[str, str]:
        """Write its adapters into `folder`, where it has any, and return what the facts must say of them."""
        if not has_adapters(self.backbone) or self.folders is None:
            return {}
        from rag_experiments.models.shared import lora

        lora.save_adapters(self.backbone, folder, self.folders.base_for_others)
        return {"path": self.folders.base}

    def load_adapters(self, folder: Path) -> bool:
        """Take the adapters that `save_adapters` wrote, in place; False where it has none.

        Raises:
            RequestError: `folder` holds none, or those of another model.
        """
        if not has_adapters(self.backbone):
            return False
        from rag_experiments.models.shared import lora

        lora.load_adapter_weights(self.backbone, folder)
        return True

    @property
    def transformer(self) -> Any:
        """The Hugging Face model inside adapters."""
        return whole(self.backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's (`trainer.neftune_noise_alpha` adds its noise there)."""
        return self.backbone.get_input_embeddings()

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Recompute activations in the backward pass (`trainer.activation_checkpointing=true`).

        `more` is what Trainer knows besides: `every_n_layers`, `offload`.
        """
        given = activation_checkpointing_kwargs or {"use_reentrant": False}
        if hasattr(self.backbone, "activation_checkpointing_enable"):  # its name since transformers 5.23
            self.backbone.activation_checkpointing_enable(given, **more)
        else:
            self.backbone.gradient_checkpointing_enable(given, **more)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """The same, as Trainer calls it before transformers 5.23."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **more)


class Fp32Linear(nn.Linear):
    """A linear layer that computes in fp32 under autocast too: bf16 would round a logit to three digits."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[…, in]` to `[…, out]`, fp32 at least."""
        with autocast(input.device, torch.float32):
            wide = input if input.dtype == torch.float64 else input.float()
            bias = None if self.bias is None else self.bias.to(wide.dtype)
            return functional.linear(wide, self.weight.to(wide.dtype), bias)
