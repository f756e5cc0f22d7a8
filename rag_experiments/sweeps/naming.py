"""Names of the folders of sweeps and jobs. A job's name depends only on its own settings that vary in the sweep."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rag_experiments.core.files import safe_name

NAME_LIMIT = 120
VALUE_LIMIT = 48
"""A longer value (a path, a list) is cut and gets a hash, so that the name stays readable."""


@contextmanager
def hydra_config(composed: DictConfig) -> Iterator[None]:
    """Resolve `${hydra:…}` from `composed` inside the block; Hydra itself does this only for jobs that it runs."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(composed)
        yield
    finally:
        HydraConfig.instance().cfg = before


def sweep_folder(config: DictConfig) -> Path:
    """`hydra.sweep.dir`, also if it contains chosen options (`${hydra:runtime.choices.model}`)."""
    with hydra_config(copy.deepcopy(config)):  # a copy, because Hydra makes it read-only
        return Path(config.hydra.sweep.dir)


def job_label(overrides: Sequence[str], swept: Collection[str]) -> str:
    """A job's label, such as `algorithm-ctl_learning_rate-1e-5_seed-0`, from its overrides and the varied keys.

    A label depends on the job's own values and on which keys vary, but not on the other values of these keys, so adding
    a value renames no job. If no key varies, the label is `single`.
    """
    pairs = [split_override(override) for override in overrides]
    shown = [(key, value) for key, value in pairs if key in swept]
    keys = [key for key, _ in shown]
    parts = [f"{short_key(key, keys)}-{_short_value(value)}" for key, value in shown]
    return safe_name("_".join(parts), NAME_LIMIT) if parts else "single"


def split_override(override: str) -> tuple[str, str]:
    """`+a.b=c` → (`a.b`, `c`)."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def short_key(key: str, keys: Sequence[str]) -> str:
    """The last part of a key, or the whole key if two keys of the sweep have the same last part."""
    last = _last(key)
    alike = [other for other in keys if other != key and _last(other) == last]
    return re.sub(r"[@/]", ".", key) if alike else last


def _last(key: str) -> str:
    # `model@algorithm.teacher` is named by its role.
    return re.split(r"[.@/]", key)[-1]


def _short_value(value: str) -> str:
    text = value.strip("'\"")
    return ("-" if text.startswith("-") else "") + safe_name(text, VALUE_LIMIT)
