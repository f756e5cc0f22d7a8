"""What is typed is never overruled by what an option states.

An option may hold two keys of which one makes the other needless: `max_steps` beside `num_train_epochs`. Whoever types
the second means it, so the first is given up. Where both are typed, both stay as they are.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override


def settle(composed: DictConfig) -> DictConfig:
    """`composed` itself, with those values of `trainer` given up that would hide a typed one.

    - `num_train_epochs` typed: no `max_steps`.
    - `eval_steps` typed: evaluated by steps; `save_steps` the same: a checkpoint must be there to be chosen.
    - `eval_strategy` typed: `save_strategy` the same, for the same reason.
    """
    trainer = OmegaConf.select(composed, "trainer", throw_on_missing=False)
    if not isinstance(trainer, DictConfig):
        return composed
    typed = _typed_fields(composed)
    follows: dict[str, Any] = {}
    if "num_train_epochs" in typed and (trainer.get("max_steps") or -1) != -1:
        follows["max_steps"] = -1
    if "eval_steps" in typed:
        follows |= {"eval_strategy": "steps", "save_strategy": "steps", "save_steps": trainer.get("eval_steps")}
    if "eval_strategy" in typed and trainer.get("eval_strategy") in ("steps", "epoch"):
        follows["save_strategy"] = trainer.get("eval_strategy")
    with flag_override(composed, "readonly", False):
        for name, value in follows.items():
            if name not in typed and value is not None:
                trainer[name] = value
    return composed


def _typed_fields(composed: DictConfig) -> set[str]:
    """Names of the `trainer` keys that were typed."""
    node = OmegaConf.select(composed, "hydra.overrides.task")
    # Not resolved: an override may name a key that has its value later.
    overrides = OmegaConf.to_container(node, resolve=False) if isinstance(node, ListConfig) else []
    assert isinstance(overrides, list)
    keys = (str(override).lstrip("+").partition("=")[0] for override in overrides)
    return {key.removeprefix("trainer.") for key in keys if key.startswith("trainer.")}
