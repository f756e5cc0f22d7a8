"""Habits whose value must change with the name: the words that say the same here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _switch(on: str, off: str = "") -> Callable[[str], list[str] | None]:
    """Words for true and false; nothing is typed for an empty one. Another value is no switch."""

    def words(value: str) -> list[str] | None:
        if value.lower() not in ("", "true", "1", "yes", "false", "0", "no"):
            return None
        word = on if value.lower() in ("", "true", "1", "yes") else off
        return [word] if word else []

    return words


def _tracker(value: str) -> list[str]:
    offline = {"offline": "tracking=wandb_offline", "dryrun": "tracking=wandb_offline"}
    none = value.lower() in ("disabled", "none", "false", "null", "no", "[]")
    return ["tracking=none" if none else offline.get(value.lower(), "tracking=wandb")]


def _device(value: str) -> list[str]:
    return ["trainer.use_cpu=true"] if value.lower() == "cpu" else []


def _precision(value: str) -> list[str]:
    names = {"16": "fp16", "32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16"}
    named = value.removeprefix("torch.").partition("-")[0]
    name = names.get(named, named if named in ("bf16", "fp16", "fp32", "auto") else None)
    return [f"model.precision={name}"] if name else []


def _finetuning(value: str) -> list[str]:
    return ["model.lora.r=16"] if value in ("lora", "qlora") else []


def _config(value: str) -> list[str]:
    file = Path(value)
    folder = file.parent.parent if file.parent.name == "experiment" else file.parent
    where = ["--config-dir", str(folder)] if len(file.parts) > 1 else []
    return [*where, f"experiment={file.stem}"]


def _attention(value: str) -> list[str]:
    names = {"fa2": "flash_attention_2", "true": "flash_attention_2", "disabled": "eager", "false": "eager"}
    return [f"model.attn_implementation={names.get(value.lower(), value)}"]


def _share_of_dev(value: str) -> list[str] | None:
    """A share of the training questions, or their number."""
    number = _number(value)
    if number is None:
        return None
    return [f"data.dev_fraction={value}"] if number < 1 else [f"data.max_dev={value}"]


def _of_group(value: str) -> list[str] | None:
    """Passages of a question, the gold one among them: the others are hard negatives."""
    number = _number(value)
    return None if number is None or number < 1 else [f"algorithm.hard_negatives={int(number) - 1}"]


def _scale(value: str) -> list[str] | None:
    """What similarities are multiplied by: the temperature divides."""
    number = _number(value)
    return [f"algorithm.temperature={1 / number:.6g}"] if number else None


def _bits(value: str) -> list[str]:
    return ["model.load_in_4bit=true"] if value == "4" else []


def _amp(value: str) -> list[str] | None:
    return _switch("model.precision=auto", "model.precision=fp32")(value)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


VALUE_HABITS: dict[str, Callable[[str], list[str] | None]] = {
    "wandb": _tracker,
    "report_to": _tracker,
    "use_wandb": _switch("tracking=wandb", "tracking=none"),
    "logger": _tracker,
    "device": _device,
    "accelerator": _device,
    "precision": _precision,
    "dtype": _precision,
    "dry_run": _switch("plan=true"),
    "dryrun": _switch("plan=true"),
    "fast_dev_run": _switch("plan=true"),
    "do_train": _switch(""),
    "do_eval": _switch(""),
    "no_cuda": _switch("trainer.use_cpu=true"),
    "cpu": _switch("trainer.use_cpu=true"),
    "lora": _switch("model.lora.r=16"),
    "use_lora": _switch("model.lora.r=16"),
    "use_peft": _switch("model.lora.r=16"),
    "model.lora": _switch("model.lora.r=16"),
    "peft": _switch("model.lora.r=16"),
    "finetuning_type": _finetuning,
    "adapter": _finetuning,
    "quantization_bit": _bits,
    "flash_attn": _attention,
    "flash_attention": _attention,
    "use_flash_attention": _attention,
    "torch_dtype": _precision,
    "mixed_precision": _precision,
    "use_amp": _amp,
    "amp": _amp,
    "normalize_embeddings": _switch("model.similarity=cosine", "model.similarity=dot"),
    "normalize": _switch("model.similarity=cosine", "model.similarity=dot"),
    "normlized": _switch("model.similarity=cosine", "model.similarity=dot"),
    "scale": _scale,
    "logit_scale": _scale,
    "train_group_size": _of_group,
    "train_n_passages": _of_group,
    "val_size": _share_of_dev,
    "val_set_size": _share_of_dev,
    "validation_split": _share_of_dev,
    "group_by_length": _switch("trainer.train_sampling_strategy=group_by_length"),
    "verbose": _switch("hydra.verbose=true"),
    "debug": _switch("hydra.verbose=true"),
    "quiet": _switch("trainer.disable_tqdm=true"),
    **{name: lambda value: [f"data.files.dev={value}"]
       for name in ("validation_file", "valid_file", "eval_file", "dev_file", "validation_data", "eval_data",
                    "eval_dataset", "data.dev", "data.validation", "data.validation_file")},
    **{name: lambda value: [f"data.files.test={value}"] for name in ("test_file", "test_data", "data.test")},
    "config": _config,
    "config_name": _config,
    "config_file": _config,
}  # fmt: skip
"""Names whose value must change too: name → the words that say the same here."""
