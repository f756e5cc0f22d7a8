"""`trainer.*`: every field of `transformers.TrainingArguments`, checked without importing transformers.

The class takes seconds to import and OmegaConf refuses ten of its types, so its fields are read from
its source with `ast` (0.01 s) and values are checked here. What this cannot know (two fields that
contradict each other) `TrainingArguments` itself refuses when it is made, still before weights are read.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rag_experiments.core.errors import RequestError, did_you_mean

# Fields that the run decides, and where the user says it instead.
ELSEWHERE = {
    "output_dir": "`hydra.run.dir` says where the run directory is; checkpoints go to its `checkpoints/`",
    "report_to": "`tracking` (wandb, wandb_offline, none) says where the run reports to",
    "run_name": "`name` names the run",
    "project": "`tracking.project` names the project",
    "seed": "`seed` seeds everything",
    "resume_from_checkpoint": "`resume=<run directory>` continues a run",
    "remove_unused_columns": "the collators take what they need",
    "eval_on_start": "`evaluation.zero_shot` evaluates before training",
    "do_train": "`rag_experiments.train` trains",
    "do_eval": "`trainer.eval_strategy` and `evaluation.splits` say when and on what",
    "do_predict": "`evaluation.splits` says which splits are evaluated",
    "hub_token": "credentials come from the environment (`HF_TOKEN`)",
}

# Fields that would be taken and not done, and why. Evaluation here is the run's own code, not Trainer's.
_OWN_EVALUATION = "evaluation has its own code here, which this does not reach; "
_SHARDS = "each process holds the whole model here, and one process's part of it would be saved as the model; "
_UPLOAD = "nothing is uploaded here; the model is in the run's `model/`: `hf upload <repository> <run>/model`"
REFUSED = {
    "fsdp": f"{_SHARDS}several GPUs: torchrun and `trainer=multi_gpu`",
    "fsdp_config": f"{_SHARDS}several GPUs: torchrun and `trainer=multi_gpu`",
    "deepspeed": f"{_SHARDS}several GPUs: torchrun and `trainer=multi_gpu`",
    "parallelism_config": f"{_SHARDS}several GPUs: torchrun and `trainer=multi_gpu`",
    "bf16_full_eval": f"{_OWN_EVALUATION}`model.precision=bf16` computes in bf16",
    "fp16_full_eval": f"{_OWN_EVALUATION}`model.precision=fp16` computes in fp16",
    "prediction_loss_only": f"{_OWN_EVALUATION}leave it out",
    "eval_do_concat_batches": f"{_OWN_EVALUATION}leave it out",
    "eval_use_gather_object": f"{_OWN_EVALUATION}leave it out",
    "eval_accumulation_steps": f"{_OWN_EVALUATION}leave it out",
    "include_for_metrics": f"{_OWN_EVALUATION}leave it out",
    "batch_eval_metrics": f"{_OWN_EVALUATION}leave it out",
    "label_names": f"{_OWN_EVALUATION}leave it out",
    "length_column_name": "the examples have no column of lengths; `trainer.train_sampling_strategy` groups by length",
    "include_num_input_tokens_seen": "`tokens_per_second` counts the tokens of every run",
    "trackio_space_id": "`tracking` (wandb, wandb_offline, none) says where the run reports to",
    "trackio_bucket_id": "`tracking` (wandb, wandb_offline, none) says where the run reports to",
    "trackio_static_space_id": "`tracking` (wandb, wandb_offline, none) says where the run reports to",
    "push_to_hub": _UPLOAD,
    "hub_model_id": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_always_push": _UPLOAD,
    "hub_revision": _UPLOAD,
    "local_rank": "the launcher (torchrun, accelerate launch) tells each process its rank",
}
_USUAL = {
    "eval_do_concat_batches": True,
    "length_column_name": "length",
    "hub_strategy": "every_save",
    "local_rank": -1,
}
"""The defaults of those that are not empty. What asks for nothing is taken: some configurations state it."""

# Former names in transformers 4, and what replaced them.
FORMER = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps (a value below 1 is a share of all steps)",
    "group_by_length": "train_sampling_strategy=group_by_length",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "logging_dir": "hydra.run.dir",
    "push_to_hub_model_id": "nothing: the model is in the run's `model/`, to be uploaded from there",
    "push_to_hub_token": "the environment variable HF_TOKEN",
    "overwrite_output_dir": "hydra.run.dir (a run directory is never overwritten)",
    "use_mps_device": "nothing: the device is found",
    "tpu_num_cores": "nothing: the launcher says it",
    "fp16_backend": "fp16",
    "half_precision_backend": "fp16 or bf16",
    "bf16_backend": "bf16",
    "use_legacy_prediction_loop": "nothing: there is one evaluation",
    "past_index": "nothing",
    "jit_mode_eval": "torch_compile",
    "use_ipex": "nothing",
    "ray_scope": "hydra/launcher=ray",
    "include_inputs_for_metrics": "nothing: evaluation has its own code",
    "include_tokens_per_second": "nothing: `tokens_per_second` is counted in every run",
    "dispatch_batches": "accelerator_config",
    "split_batches": "accelerator_config",
    "save_safetensors": "nothing: weights are always safetensors",
}

RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Former names to those since transformers 5.23. Either is understood, whichever transformers is installed."""

_STRICTLY_POSITIVE = {
    "learning_rate",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "dataloader_prefetch_factor",
}
_NOT_NEGATIVE = {
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "label_smoothing_factor",
    "adam_epsilon",
    "adam_beta1",
    "adam_beta2",
    "dataloader_num_workers",
    "eval_delay",
}
_CHOICES = {
    "eval_strategy": ("no", "steps", "epoch"),
    "logging_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "lr_scheduler_type": (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "greedy",
    ),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
}


@cache
def fields() -> dict[str, Any]:
    """Names of all `TrainingArguments` fields to their annotated types; enumerations count as `str`."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError("transformers is not installed: pip install 'transformers>=5.3'")
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    (class_node,) = [node for node in classes if node.name == "TrainingArguments"]
    return {
        node.target.id: _annotation(ast.unparse(node.annotation))
        for node in class_node.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(node.annotation)
    }


class _Names(dict):
    """Evaluates an annotation whose own classes are not imported: an enumeration is typed as its string."""

    def __missing__(self, name: str) -> Any:
        return str


def _annotation(text: str) -> Any:
    scope = {"int": int, "float": float, "bool": bool, "str": str, "dict": dict, "list": list, "Any": Any}
    try:
        return eval(text, {"__builtins__": {}}, _Names(scope, Literal=Literal))
    except TypeError:
        return Any


def check_trainer_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with their values converted to their types, under the names that the installed transformers has.

    Raises:
        RequestError: an unknown, former or run-decided field, a wrong type, a value out of range.
    """
    field_types = fields()
    checked = {}
    arguments = _under_known_names(arguments, field_types)
    for name, value in arguments.items():
        key = f"trainer.{name}"
        if name in FORMER and name not in field_types:
            raise RequestError(f"{key} is no longer an argument of transformers.TrainingArguments: use {FORMER[name]}")
        if name not in field_types:
            hint = did_you_mean(name, field_types)
            raise RequestError(f"{key} is not an argument of transformers.TrainingArguments{hint}")
        if name in ELSEWHERE:
            raise RequestError(f"{key} cannot be set: {ELSEWHERE[name]}")
        if name in REFUSED and _asks_for_something(name, value):
            raise RequestError(f"{key}={value!r} is not supported: {REFUSED[name]}")
        checked[name] = _checked_value(key, name, value, field_types[name])
    return checked


def _asks_for_something(name: str, value: Any) -> bool:
    return value != _USUAL[name] if name in _USUAL else value not in (None, False, "", "no", [], {})


def _under_known_names(arguments: dict[str, Any], field_types: dict[str, Any]) -> dict[str, Any]:
    """The arguments, what was renamed under the name that `field_types` has."""
    for old, new in RENAMED.items():
        if old in arguments and new in arguments:
            raise RequestError(f"trainer.{old} and trainer.{new} are one setting under two names: give one of them")
    names = RENAMED if "activation_checkpointing" in field_types else {new: old for old, new in RENAMED.items()}
    return {names.get(name, name): value for name, value in arguments.items()}


def _checked_value(key: str, name: str, value: Any, annotation: Any) -> Any:
    if name in _CHOICES and isinstance(value, bool):
        value = "no" if value is False else value  # a bare `no` is False in YAML
    try:
        value = TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        type_name = getattr(annotation, "__name__", str(annotation)).replace(" | None", "")
        raise RequestError(f"{key}={value!r} has the wrong type: {type_name} is wanted") from error
    if name in _CHOICES and value not in _CHOICES[name]:
        raise RequestError(f"{key}={value!r} is not a choice{did_you_mean(str(value), _CHOICES[name])}")
    if name in _STRICTLY_POSITIVE and value is not None and not value > 0:
        raise RequestError(f"{key}={value} must be greater than 0")
    if name in _NOT_NEGATIVE and value is not None and not value >= 0:
        raise RequestError(f"{key}={value} must not be negative")
    if name == "max_steps" and value != -1 and value < 1:
        raise RequestError(f"{key}={value} must be at least 1, or -1 for num_train_epochs to decide")
    return value
