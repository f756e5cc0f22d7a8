"""Formats that cut long texts into passages: how, and how short passages must be so that an encoder reads them whole.

The length does not follow the encoder by itself: runs of two encoders compare only over the same passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_experiments.config.schema import DataConfig

KEYS = ("chunk_tokens", "passage_words")
"""Keys under `data` that say how long a passage is at most."""
SHARE = 99
"""Percent of the passages that the advice makes fit: one long table must not halve all the others."""

MARGIN = 0.85
"""Of the length that the limit alone would give: a title and special tokens do not shrink with the text."""


def cut_key(config: DataConfig) -> str | None:
    """The key that decides how long passages are; None where the data's own passages stay as they are."""
    return next((key for key in KEYS if getattr(config, key, None) is not None), None)


def shorter(config: DataConfig, lengths: Sequence[int] | np.ndarray, limit: int) -> str:
    """`data.<key>=<value>` with which 99 % of passages of these `lengths` (tokens) would keep within `limit`.

    Empty where they do already, or where nothing is cut.
    """
    key = cut_key(config)
    usual = float(np.percentile(lengths, SHARE)) if len(lengths) else 0.0
    if key is None or usual <= limit:
        return ""
    return f"data.{key}={int(getattr(config, key) * limit * MARGIN / usual)}"
