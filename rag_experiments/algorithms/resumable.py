"""A `transformers.Trainer` whose interrupted and resumed run equals the undisturbed one.

Trainer forgets what it sums up over steps, and makes a step more where the checkpoint is that of the last. Here the
sums lie in every checkpoint (`totals.json`), and training that had ended stays ended.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerState

from rag_experiments.algorithms.health import Health
from rag_experiments.core.files import atomic_write_json

log = logging.getLogger(__name__)

TOTALS = "totals.json"
"""In every checkpoint: what Trainer sums up over steps and forgets (see `ResumableTrainer.take_totals`)."""


class EarlierSegments(TrainerCallback):
    """Gives a resumed run the sums of its earlier segments, once Trainer has set them to zero."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self.trainer.take_totals(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")


class ResumableTrainer(Trainer):
    """Checkpoints, sums over segments, and the names of what is logged.

    Subclasses implement `save_weights` and `load_weights`.
    """

    def __init__(self, *, callbacks: list[TrainerCallback] | None = None, **kwargs: Any):
        self.tokens_seen = 0
        """This process's, since it started; those of earlier segments are in `earlier_tokens`."""
        self.earlier_tokens = 0
        self.earlier_seconds = 0.0
        self._started = time.perf_counter()
        self._recorded: dict[str, list[float]] = defaultdict(list)
        self.health = Health(self)
        super().__init__(callbacks=[EarlierSegments(self), self.health, *(callbacks or [])], **kwargs)

    def save_weights(self, folder: Path) -> None:
        """Write all weights that are trained into `folder`."""
        raise NotImplementedError

    def load_weights(self, folder: Path) -> None:
        """Take the weights that `save_weights` wrote, in place."""
        raise NotImplementedError

    # -- logging ---------------------------------------------------------------------------------

    def record(self, name: str, value: float | torch.Tensor) -> None:
        """Log `value`, averaged over the steps since the last logging step, as `train/<name>`."""
        self._recorded[name].append(float(value.detach()) if isinstance(value, torch.Tensor) else float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's own figures get the `train/` prefix; evaluation's have their stage already."""
        named = {_named(name): value for name, value in logs.items() if name != "epoch"}
        if "train/loss" in named:
            named |= {f"train/{name}": sum(values) / len(values) for name, values in self._recorded.items() if values}
            self._recorded.clear()
        if "train/mean_loss" in named:  # Trainer divides a resumed run's by the steps of its last segment
            named["train/mean_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(named, start_time)

    # -- tokens ----------------------------------------------------------------------------------

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Counts the tokens that are not padding, for `tokens_per_second`, and keeps the loss for `Health`."""
        self.tokens_seen += count_tokens(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.health.losses.append(loss.detach())
        return loss

    # -- checkpoints -----------------------------------------------------------------------------
    # No pickled arguments lie beside the weights. Trainer writes `trainer_state.json` last: a checkpoint that holds it
    # is whole.

    def save_more(self, folder: Path) -> None:
        """What an algorithm adds to a checkpoint, on rank 0. Nothing by default."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._totals = self._gathered_totals()
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # `state_dict` is given where processes share the weights (FSDP, DeepSpeed), which `trainer.*` refuses.
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or ".")
            self.save_weights(folder)
            self.save_more(folder)
            atomic_write_json(folder / TOTALS, self._totals)

    def _gathered_totals(self) -> dict[str, Any]:
        """All processes call this: their tokens are added up, their losses since the last logging step averaged."""
        pending = gather_object([self._tr_loss.item()])
        return {
            "loss": self._total_loss_scalar,
            "pending_loss": sum(pending) / len(pending),
            "logged_step": self._globalstep_last_logged,
            "recorded": dict(self._recorded),
            "tokens": self.total_tokens(),
            "seconds": self.total_seconds(),
            "moved": self.health.moved,
        }

    def take_totals(self, checkpoint: Path) -> None:
        """Go on with the sums that the checkpoint was written with, so that the log is that of one run.

        Of the losses and figures recorded since the last logging step, tokens, seconds. Trainer begins all at zero.
        """
        if not (checkpoint / TOTALS).is_file():
            log.warning("%s holds no %s: means and totals begin anew", checkpoint, TOTALS)
            return
        totals = json.loads((checkpoint / TOTALS).read_text(encoding="utf-8"))
        self._total_loss_scalar = _number(totals["loss"])
        self._tr_loss = torch.tensor(_number(totals["pending_loss"]), device=self.args.device)
        self._globalstep_last_logged = totals["logged_step"]
        self._recorded.clear()  # of what was recorded before training: the first segment has logged it
        self._recorded.update(
            {name: [_number(value) for value in values] for name, values in totals["recorded"].items()}
        )
        self.earlier_tokens, self.earlier_seconds = totals["tokens"], totals["seconds"]
        self.health.moved = totals.get("moved", True)  # checkpoints of earlier versions do not say
        self._started, self.tokens_seen = time.perf_counter(), 0

    def total_tokens(self) -> int:
        """Trained on, by all processes and all segments of the run. All processes call this."""
        return self.earlier_tokens + sum(gather_object([self.tokens_seen]))

    def total_seconds(self) -> float:
        """Of training, in all segments of the run; what was lost to an interruption is left out."""
        return self.earlier_seconds + time.perf_counter() - self._started

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As Trainer's; but where training had ended when the checkpoint was written, not a step more is made."""
        self._started = time.perf_counter()
        if isinstance(resume_from_checkpoint, str) and self._had_ended(Path(resume_from_checkpoint)):
            return self._take_ended(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    @staticmethod
    def _had_ended(checkpoint: Path) -> bool:
        """Whether the last step was made, or early stopping had decided. Trainer itself would make a step first."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        control: Any = (state.stateful_callbacks or {}).get("TrainerControl") or {}
        return state.global_step >= state.max_steps or bool(control.get("args", {}).get("should_training_stop"))

    def _take_ended(self, checkpoint: Path) -> None:
        """The state, and the weights that training would have left, from a checkpoint after the last step."""
        log.info("%s: training had ended; its weights are taken", checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.state.is_world_process_zero = self.is_world_process_zero()
        self.state.is_local_process_zero = self.is_local_process_zero()
        weights_checkpoint = checkpoint
        if self.args.load_best_model_at_end and self.state.best_global_step:
            weights_checkpoint = checkpoint.with_name(f"checkpoint-{self.state.best_global_step}")
        self.load_weights(weights_checkpoint)
        self._total_loss_scalar, self._tr_loss = 0.0, torch.tensor(0.0)
        self.take_totals(checkpoint)
        self._total_loss_scalar += self._tr_loss.item()
        self.log({"total_flos": self.state.total_flos, "train_loss": self._total_loss_scalar})
        if self.args.should_save and self.args.save_total_limit == 1 and weights_checkpoint != checkpoint:
            shutil.rmtree(checkpoint)  # as Trainer does where training ends

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self.load_weights(Path(str(self.state.best_model_checkpoint)))


def _number(written: float | None) -> float:
    """JSON has no NaN: it is written as null."""
    return math.nan if written is None else written


def _named(name: str) -> str:
    """`loss` → `train/loss`; Trainer's closing figures lose their `train_`, and its mean loss says that it is one."""
    if "/" in name:
        return name
    return "train/mean_loss" if name == "train_loss" else f"train/{name.removeprefix('train_')}"


def count_tokens(inputs: Any) -> int:
    """Tokens of a batch that are not padding, at any depth of it."""
    if isinstance(inputs, dict):
        masks = [inputs.get(name) for name in ("attention_mask", "tail_mask")]
        own = sum(int(mask.sum()) for mask in masks if isinstance(mask, torch.Tensor) and mask.dim() == 2)
        return own + sum(count_tokens(value) for value in inputs.values() if isinstance(value, dict | list))
    return sum(count_tokens(value) for value in inputs) if isinstance(inputs, list) else 0
