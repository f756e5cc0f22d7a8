"""Whether training still learns: losses, gradients and weights that are numbers, and a gradient that is not zero.

A run whose loss is no number, or whose weights never move, must not end as completed. transformers.Trainer hides the
first (`logging_nan_inf_filter`) and does not look at the second.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)

STILL_STEPS = 10
"""Steps without any gradient after which that is said."""
_ADVICE = "a lower trainer.learning_rate, trainer.warmup_steps or trainer.max_grad_norm may help"
_CAUSES = (
    "Is there anything to tell apart (negatives, candidates), and is a weight trained at all (adapters, frozen layers)?"
)


class NothingLearnt(Exception):
    """Training cannot go on, or has changed nothing: the run ends as failed."""


def check_finite(module: nn.Module, what: str) -> None:
    """Raise `NothingLearnt` where a weight of `module` is NaN or infinite; `what` names the module."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NothingLearnt(f"{what} is not saved: its weights are no numbers any more ({name}); {_ADVICE}")


class Health(TrainerCallback):
    """Looks at the loss and the gradient of every optimiser step, before the weights take it up."""

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.losses: list[torch.Tensor] = []
        """Of the micro-batches since the last step."""
        self.moved = False
        """Whether any step of the run, earlier segments included, had a gradient."""
        self.still = 0
        self.without_rate = 0
        """Steps of this process in which the learning rate of every weight was 0."""

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """One look per step: loss and gradient come from the device together."""
        if not self.losses or model is None:
            return
        loss = torch.stack(self.losses).sum()
        self.losses.clear()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients).to(loss.device) if gradients else torch.zeros_like(loss)
        total, length = torch.stack([loss.float(), norm.float()]).tolist()
        # fp16 finds its scale by gradients that overflow: the optimiser leaves such a step out.
        if not math.isfinite(total) or not (math.isfinite(length) or args.fp16):
            self._diverged(state, total, length)
        if length != 0:
            self.moved = True
        if not any(group["lr"] for group in self.trainer.optimizer.param_groups):
            self.without_rate += 1
        if length == 0 and not self.moved:
            self.still += 1
            if self.still == STILL_STEPS:
                log.warning("%d steps, and the gradient was 0 at each: nothing is learnt. %s", self.still, _CAUSES)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A training in which no step changed anything is none.

        One whose steps all lie at the beginning of the warm-up is a trial of the machinery, such as
        `trainer.max_steps=1`: it is told and does not fail.
        """
        if self.without_rate and self.without_rate == state.global_step:
            log.warning(
                "the weights are those of the beginning: the learning rate was 0 in all %d steps. "
                "trainer.warmup_steps=0, or more steps, trains",
                self.without_rate,
            )
        if self.still and not self.moved:
            raise NothingLearnt(f"nothing was learnt: the gradient was 0 at each of {self.still} steps. {_CAUSES}")

    def _diverged(self, state: TrainerState, loss: float, length: float) -> None:
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {length}"
        state.global_step += 1  # the step that this is
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        self.trainer.log({"loss": loss, "grad_norm": length, "learning_rate": rate})
        raise NothingLearnt(f"training diverged at step {state.global_step}: {what}; {_ADVICE}")
