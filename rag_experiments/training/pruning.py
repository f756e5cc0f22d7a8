"""The hook by which a running trial is cut short: it reports each evaluation to its study, and asks.

Needs nothing but the study's storage, so it works the same in this process, in another, or on a node.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_experiments.config.schema import RunConfig
from rag_experiments.core.outcome import Pruned

log = logging.getLogger(__name__)


class PruningCallback(TrainerCallback):
    """Raises `Pruned` after an evaluation that the study's pruner finds hopeless."""

    def __init__(self, address: str, number: int, metric: str):
        from rag_experiments.training.study import load_trial

        self.metric = metric
        self.trial = load_trial(address, number)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        value = (metrics or {}).get(f"eval_{self.metric}")
        if value is None:
            return
        number = evaluations_so_far(state, self.metric)
        # A trial that was continued evaluates again what it reported before; the first report stays.
        if number not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
            self.trial.report(float(value), number)
        if self.trial.should_prune():
            raise Pruned(f"at step {state.global_step}, {self.metric} {value:.4f} is behind the other trials")


def evaluations_so_far(state: TrainerState, metric: str) -> int:
    """The number of this evaluation, from 1: what trials are compared at.

    Not the step: with another batch size it is another one, and no trial would meet another there. The
    history comes with the checkpoint, so a continued trial counts on.
    """
    return max(1, len({entry.get("step") for entry in state.log_history if metric in entry}))


def pruning_callbacks(config: RunConfig) -> list[TrainerCallback]:
    """The hook of a trial; none for other runs, and none where several processes would all have to stop."""
    sweep = config.sweep
    metric = sweep.metric or config.trainer.get("metric_for_best_model")
    if sweep.study is None or sweep.trial is None or metric is None:
        return []
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        log.warning("a trial on several processes is not pruned")
        return []
    return [PruningCallback(sweep.study, sweep.trial, metric)]
