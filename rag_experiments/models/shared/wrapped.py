"""What a trainer asks of a module that wraps a transformer of Hugging Face (`backbone`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from rag_experiments.models.shared.precision import autocast


class WrappedTransformer(nn.Module):
    """A module around `backbone` that `transformers.Trainer` trains."""

    backbone: Any

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
