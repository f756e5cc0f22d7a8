"""The names of a run, its metrics and tags in W&B, and whether it is online. Does not import `wandb`."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from rag_experiments.core.files import plain
from rag_experiments.data.shown_ids import HASHED_AS

LOWER_IS_BETTER = re.compile(r"(?:^|/)(?:loss|.*_loss|perplexity)$")
HIGHER_IS_BETTER = re.compile(
    r"(?:^|/)(?:recall|hit|mrr|ndcg|exact_match|f1|rouge_l|bleu|answer_in_passages)(?:@\d+)?$"
)
HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
"""W&B's own servers, new and old name: the netrc file may hold the key under either."""


def metric_name(name: str) -> str:
    """`dev/recall@4` → `dev/recall_at_4`: replace characters that W&B's charts and formulas cannot read."""
    return re.sub(r"[^A-Za-z0-9_/]", "_", name.replace("@", "_at_"))


def has_key() -> bool:
    """Whether wandb finds an API key without a prompt: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")  # unchanged if the user has no home folder
    base = os.environ.get("WANDB_BASE_URL")
    hosts = (urlparse(base).netloc,) if base else HOSTS
    try:
        netrc_hosts = netrc.netrc(file).hosts
        return any(host in netrc_hosts for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def session_mode(mode: str) -> str:
    """Resolve `tracking.mode` to online, offline or disabled. `auto` respects WANDB_MODE, then looks for a key."""
    if mode != "auto":
        return mode
    environment_mode = os.environ.get("WANDB_MODE", "").lower()
    if environment_mode in ("online", "offline", "disabled"):
        return environment_mode
    return "online" if has_key() else "offline"


def tags(resolved: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[str]:
    """The tags of a run: its algorithm, its data, and `sweep` if it is a job of a sweep."""
    algorithm = (resolved.get("algorithm") or {}).get("name")
    data = (resolved.get("data") or {}).get("format")
    return [str(tag) for tag in (algorithm, data, "sweep" if sweep else None) if tag]


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of predictions as columns of plain values, because W&B cannot sort by lists."""
    flat: dict[str, Any] = {}
    for name, value in plain({name: value for name, value in row.items() if name != HASHED_AS}).items():
        if isinstance(value, dict):
            flat |= {metric_name(inner): number for inner, number in value.items()}
        elif isinstance(value, list):
            flat[name] = " | ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        else:
            flat[name] = value
    return flat


def summary_of(name: str) -> str:
    """The summary that W&B keeps of a curve: its last value, and its best if the metric has a direction."""
    best = "min" if LOWER_IS_BETTER.search(name) else "max" if HIGHER_IS_BETTER.search(name) else None
    return f"{best},last" if best else "last"
