"""Credentials stay out of what is written: refused on the command line, masked in configurations.

They come from the environment only. Hydra writes every override to `.hydra/overrides.yaml`, so one
that holds a key would put it on disk, into shared folders and into the tracker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rag_experiments.core.errors import RequestError

MASK = "***"

# `token` alone or after one of these words: `eos_token`, `max_new_tokens`, `tokenizer` are no secrets.
_KEY = re.compile(
    r"(?:^|_)(?:api_?key|access_?key(?:_id)?|secret(?:_?key)?|client_secret|private_?key|pass(?:word|wd|phrase)|credentials?"
    r"|auth|bearer)$"
    r"|^token$|(?:^|_)(?:hub|hf|huggingface|api|access|auth|bearer|secret|refresh|session|security|wandb|github|gh|gitlab|"
    r"openai)_token$"
)
_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}"
    r"|wandb_v\d+_[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
)
_WANDB_KEY = re.compile(r"(?:local-)?[0-9a-f]{40}")
# A 40-digit hexadecimal number is an old W&B key, and also a git commit.
_COMMIT_KEYS = ("revision", "commit", "sha", "hash")
_NO_SECRET = re.compile(r"|null|none|true|false|~|\$\{oc\.env:[^}]*\}|\*+", re.IGNORECASE)


def looks_secret(key: str, value: Any) -> bool:
    """Whether `key=value` looks like a credential. `key` may be dotted; its last part counts."""
    if not isinstance(value, str):
        return False
    text = value.strip().strip("'\"")
    if _NO_SECRET.fullmatch(text):
        return False
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", key.split(".")[-1]).lower().replace("-", "_")
    if _KEY.search(name) or _VALUE.search(text):
        return True
    return bool(_WANDB_KEY.fullmatch(text)) and not name.endswith(_COMMIT_KEYS)


def refuse_secrets(overrides: Iterable[str]) -> None:
    """Raise `RequestError` for the first override that looks like a credential; the message does not repeat it."""
    for override in overrides:
        key, _, value = override.partition("=")
        key = key.lstrip("+~").split("@")[0]
        if any(looks_secret(key, part) for part in (value, *value.strip("[]()").split(","))):
            shown = key if not _VALUE.search(key) else "an override"
            raise RequestError(
                f"{shown} looks like a credential, and overrides are written to disk with the run: leave it out and "
                "set the environment variable instead (WANDB_API_KEY, HF_TOKEN, …)"
            )


def mask_secrets(config: Any, key: str = "") -> Any:
    """A copy of `config` (nested dicts and lists) with everything that looks like a credential as `***`."""
    if isinstance(config, dict):
        return {name: mask_secrets(value, str(name)) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [mask_secrets(value, key) for value in config]
    return MASK if looks_secret(key, config) else config
