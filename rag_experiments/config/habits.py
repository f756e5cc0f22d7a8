"""Habits of other tools, each answered with the whole command that works here.

The names are those of the arguments of transformers, TRL, sentence-transformers, LLaMA-Factory, Lightning,
FlagEmbedding and Tevatron, and of the settings of W&B. The command that is made of a habit is shown and not run, since
a habit may mean something else than its nearest key here. Only a place is taken as it is: `model=/my/folder`,
`model=org/name`, `data=my/file.csv`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import yaml

from rag_experiments.config.groups import OPTION_GROUPS, TOP, choices, conf_dir
from rag_experiments.config.trainer_keys import ELSEWHERE, FORMER, fields

KEY_HABITS = {
    # Length and batches.
    "lr": "trainer.learning_rate",
    "epochs": "trainer.num_train_epochs",
    "num_epochs": "trainer.num_train_epochs",
    "n_epochs": "trainer.num_train_epochs",
    "max_epochs": "trainer.num_train_epochs",
    "train_epochs": "trainer.num_train_epochs",
    "steps": "trainer.max_steps",
    "num_steps": "trainer.max_steps",
    "max_train_steps": "trainer.max_steps",
    "num_train_steps": "trainer.max_steps",
    "batch_size": "trainer.per_device_train_batch_size",
    "bs": "trainer.per_device_train_batch_size",
    "train_batch_size": "trainer.per_device_train_batch_size",
    "micro_batch_size": "trainer.per_device_train_batch_size",
    "per_device_batch_size": "trainer.per_device_train_batch_size",
    "eval_batch_size": "trainer.per_device_eval_batch_size",
    "accumulate_grad_batches": "trainer.gradient_accumulation_steps",
    "grad_accum": "trainer.gradient_accumulation_steps",
    "grad_accumulation_steps": "trainer.gradient_accumulation_steps",
    "gradient_accumulation": "trainer.gradient_accumulation_steps",
    # Optimiser.
    "optimizer": "trainer.optim",
    "wd": "trainer.weight_decay",
    "warmup": "trainer.warmup_steps",
    "num_warmup_steps": "trainer.warmup_steps",
    "warmup_ratio": "trainer.warmup_steps",
    "scheduler": "trainer.lr_scheduler_type",
    "lr_scheduler": "trainer.lr_scheduler_type",
    "gradient_clip_val": "trainer.max_grad_norm",
    "grad_clip": "trainer.max_grad_norm",
    "clip_grad_norm": "trainer.max_grad_norm",
    "gradient_checkpointing": "trainer.activation_checkpointing",
    "num_workers": "trainer.dataloader_num_workers",
    # Rhythm.
    "evaluation_strategy": "trainer.eval_strategy",
    "evaluation_steps": "trainer.eval_steps",
    "eval_every": "trainer.eval_steps",
    "val_check_interval": "trainer.eval_steps",
    "log_every": "trainer.logging_steps",
    "log_every_n_steps": "trainer.logging_steps",
    "log_steps": "trainer.logging_steps",
    "save_every": "trainer.save_steps",
    "checkpoint_every": "trainer.save_steps",
    "patience": "early_stopping",
    "early_stopping_patience": "early_stopping",
    # Names and places.
    "output_dir": "hydra.run.dir",
    "out_dir": "hydra.run.dir",
    "save_dir": "hydra.run.dir",
    "default_root_dir": "hydra.run.dir",
    "model_save_path": "hydra.run.dir",
    "logging_dir": "hydra.run.dir",
    "run_name": "name",
    "exp_name": "name",
    "experiment_name": "name",
    "random_seed": "seed",
    "cache_dir": "paths.cache",
    "project": "tracking.project",
    "project_name": "tracking.project",
    "wandb_project": "tracking.project",
    "wandb.project": "tracking.project",
    "wandb_entity": "tracking.entity",
    "wandb.entity": "tracking.entity",
    "wandb.mode": "tracking.mode",
    "wandb.tags": "tracking.tags",
    # Going on with a run.
    "resume_from_checkpoint": "resume",
    "resume_from": "resume",
    "ckpt_path": "resume",
    "checkpoint": "resume",
    # Models.
    "model_name": "model.path",
    "model_id": "model.path",
    "model_path": "model.path",
    "model_name_or_path": "model.path",
    "pretrained_model_name_or_path": "model.path",
    "base_model": "model.path",
    "model.name": "model.path",
    "model.name_or_path": "model.path",
    "model.model_name_or_path": "model.path",
    "pooling": "model.pooling",
    "pooling_method": "model.pooling",
    "pooling_mode": "model.pooling",
    "query_instruction": "model.query_prefix",
    "query_instruction_for_retrieval": "model.query_prefix",
    "query_prefix": "model.query_prefix",
    "passage_prefix": "model.passage_prefix",
    "query_max_len": "model.max_query_length",
    "query_max_length": "model.max_query_length",
    "passage_max_len": "model.max_passage_length",
    "passage_max_length": "model.max_passage_length",
    "max_new_tokens": "model.max_new_tokens",
    "cutoff_len": "model.max_input_length",
    "max_seq_length": "model.max_input_length",
    "lora_r": "model.lora.r",
    "lora_rank": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "lora_dropout": "model.lora.dropout",
    "lora_target": "model.lora.target_modules",
    "load_in_4bit": "model.load_in_4bit",
    "attn_implementation": "model.attn_implementation",
    # Data.
    "dataset": "data.path",
    "dataset_name": "data.path",
    "data_path": "data.path",
    "data_dir": "data.path",
    "train_file": "data.path",
    "train_data": "data.path",
    "train_dataset": "data.path",
    "max_train_samples": "data.max_train",
    "max_samples": "data.max_train",
    "max_eval_samples": "data.max_dev",
    # Retrieval and losses.
    "top_k": "retriever.k",
    "topk": "retriever.k",
    "k": "retriever.k",
    "retriever.top_k": "retriever.k",
    "retriever.topk": "retriever.k",
    "n_docs": "retriever.k",
    "temperature": "algorithm.temperature",
    "tau": "algorithm.temperature",
    "hard_negatives": "algorithm.hard_negatives",
    "num_hard_negatives": "algorithm.hard_negatives",
    "num_negatives": "algorithm.hard_negatives",
}
"""What others call a key, and the key. Fields of `TrainingArguments` without `trainer.` are known beside them."""


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
    name = {"16": "fp16", "bf16": "bf16", "fp16": "fp16", "32": "fp32", "fp32": "fp32"}.get(value.partition("-")[0])
    return [f"model.precision={name}"] if name else []


def _finetuning(value: str) -> list[str]:
    return ["model.lora.r=16"] if value in ("lora", "qlora") else []


def _config(value: str) -> list[str]:
    file = Path(value)
    folder = file.parent.parent if file.parent.name == "experiment" else file.parent
    where = ["--config-dir", str(folder)] if len(file.parts) > 1 else []
    return [*where, f"experiment={file.stem}"]


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
    "finetuning_type": _finetuning,
    "config": _config,
    "config_name": _config,
    "config_file": _config,
}
"""Names whose value must change too: name → the words that say the same here."""


HYDRAS = (
    "help", "hydra_help", "version", "cfg", "resolve", "package", "run", "multirun", "shell_completion", "config_path",
    "config_name", "config_dir", "experimental_rerun", "info",
)  # fmt: skip
"""Hydra's own options."""
_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")
"""Options of Hydra's that take the next word."""


def rewritten(arguments: Sequence[str]) -> list[str] | None:
    """The arguments with each habit put into words of this program; None where there is no habit among them."""
    result: list[str] = []
    changed = False
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word in _WITH_VALUE:
            result += [word, *waiting[:1]]
            del waiting[:1]
            continue
        words = _rewrite_word(word, waiting, arguments)
        changed = changed or words is not None
        result += [word] if words is None else words
    return result if changed else None


def habit_message(program: str, arguments: Sequence[str]) -> str | None:
    """What to say to a command line with a habit in it; None where there is none."""
    words = rewritten(arguments)
    if words is None:
        return None
    return f"that is written otherwise here: {program} {shlex.join(words)}"


def _rewrite_word(word: str, waiting: list[str], arguments: Sequence[str]) -> list[str] | None:
    """The words in place of `word` and, after an option, of its value, which is taken from `waiting`."""
    option = re.fullmatch(r"--?([A-Za-z][\w.-]*)(=(.*))?", word, re.DOTALL)
    if option:
        name, value = option[1].replace("-", "_"), option[3]
        key = None if _is_habit(name) else _whole_key(name, arguments)
        if not _is_habit(name) and key is None:
            return None
        if value is None:
            separate = waiting and not waiting[0].startswith("-") and "=" not in waiting[0]
            value = waiting.pop(0) if separate else "true"
        return _translate(name, value) if key is None else [f"{key}={value}"]
    name, equals, value = word.partition("=")
    if not equals:
        return _bare_word(word)
    if name.partition("@")[0] == "model" and value not in choices("model") and value in presets_by_name():
        return [f"{name}={presets_by_name()[value]}"]
    if (name, value.lower()) == ("resume", "true"):
        return ["resume=auto"]
    bare = name.removeprefix("trainer.")
    if bare != name and bare not in fields() and bare not in FORMER and _is_habit(bare):
        return _translate(bare, value)
    if _is_habit(name):
        return _translate(name, value)
    key = _whole_key(name, arguments)
    return None if key is None else [f"{key}={value}"]


def _whole_key(name: str, arguments: Sequence[str]) -> str | None:
    """The key of ours that `name` is without its group; None for what no group is missing of."""
    ours = (*TOP, *OPTION_GROUPS, *HYDRAS, "hydra", "paths", "chain")
    if name.partition(".")[0] in ours or not re.fullmatch(r"[A-Za-z][\w.]*", name):
        return None
    from rag_experiments.config.missing_groups import whole_key  # reads the dataclasses: only where a word is unknown

    return whole_key(name, arguments)


def _is_habit(name: str) -> bool:
    if name in VALUE_HABITS or name in KEY_HABITS:
        return True
    ours = name in TOP or name in OPTION_GROUPS
    return not ours and name in fields() and name not in ELSEWHERE


def _translate(name: str, value: str) -> list[str] | None:
    if name in VALUE_HABITS:
        return VALUE_HABITS[name](value)
    key = KEY_HABITS.get(name, f"trainer.{name}")
    if key == "resume" and value.lower() == "true":
        return ["resume=auto"]
    if key == "model.path":
        return _model(value)
    return [f"{key}={value}"]


def _bare_word(word: str) -> list[str] | None:
    """A word without `=`: the name of an option of one group."""
    groups = [group for group in OPTION_GROUPS if word in choices(group)]
    return [f"{groups[0]}={word}"] if len(groups) == 1 or groups[:1] == ["algorithm"] else None


def _model(value: str) -> list[str]:
    """The preset of a model's name, with or without its organisation; else its path."""
    preset = presets_by_name().get(value.rpartition("/")[2])
    return [f"model={preset}"] if preset else ["model=run", f"model.path={value}"]


_DATA_KINDS = ("csv", "tsv", "json", "parquet", "arrow", "excel", "xlsx", "file", "folder", "local")
"""Kinds of files, typed where a data format stands: the file itself says which it is."""
_PLACE = re.compile(r"(/|\.{1,2}/|~|run://|package://).*|[\w.-]+/[\w.-]+", re.DOTALL)
"""What a model's place looks like, and no option of ours: a path, or the id of a repository; a data set's too."""


def with_places(overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """The overrides, `model=<place>` and `model@<key>=<place>` as what they stand for: the preset of that hub id, or
    the two words that open the place. `data=<place>` is that place, looked at.

    An option of that name in a folder of the user's own stays an option.
    """
    words: list[str] = []
    for override in overrides:
        name, _, value = override.partition("=")
        group, _, key = name.partition("@")
        own = config_dir is not None and Path(config_dir, group, f"{value}.yaml").is_file()
        if name == "data" and not own and value in _DATA_KINDS:
            words.append("data=auto")
        elif name == "data" and not own and _PLACE.fullmatch(value) and value not in choices("data"):
            words += ["data=auto", f"data.path={value}"]
        elif group != "model" or own or not _PLACE.fullmatch(value):
            words.append(override)
        elif value in presets_by_id():
            words.append(f"{name}={presets_by_id()[value]}")
        else:
            words += [f"{name}=run", f"{key or 'model'}.path={value}"]
    return words


@cache
def presets_by_id() -> dict[str, str]:
    """The hub id of each preset's model → the preset with the shortest name."""
    preset_of: dict[str, str] = {}
    for file in sorted((conf_dir() / "model").glob("*.yaml"), key=lambda file: (len(file.stem), file.stem)):
        path = str(yaml.safe_load(file.read_text(encoding="utf-8")).get("path") or "")
        if re.fullmatch(r"[\w.-]+/[\w.-]+", path):
            preset_of.setdefault(path, file.stem)
    return preset_of


@cache
def presets_by_name() -> dict[str, str]:
    """The name of each preset's model, its organisation left out → the preset; what a package ships comes first."""
    named = {path.partition("/")[2]: preset for path, preset in presets_by_id().items()}
    return {**named, "all-MiniLM-L6-v2": "minilm", "SmolLM2-135M-Instruct": "smollm2_135m"}
