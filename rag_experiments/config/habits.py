"""Habits of other tools, each answered with the whole command that works here.

The names are those of the arguments of transformers, TRL, sentence-transformers, LLaMA-Factory, Lightning,
FlagEmbedding and Tevatron, and of the settings of W&B. The command that is made of a habit is shown and not run, since
a habit may mean something else than its nearest key here. Only a place is taken as it is: `model=/my/folder`,
`model=org/name`, `data=my/file.csv`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from rag_experiments.config.groups import OPTION_GROUPS, TOP, choices, conf_dir
from rag_experiments.config.habit_names import (
    ENCODERS,
    KEY_HABITS,
    LEFT_OUT,
    LENGTH_KEYS,
    LENGTHS,
    OPTIONS,
    READERS,
    VALUES,
)
from rag_experiments.config.habit_values import VALUE_HABITS
from rag_experiments.config.trainer_keys import ELSEWHERE, FORMER, REFUSED, fields

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
    made: dict[str, str] = {}
    """Key → the word that a habit was made into; the last one counts, as `--peft --lora_r 8` says one thing twice."""
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
        for one in words or ():
            if (key := one.partition("=")[0]) in made:
                result.remove(made[key])
            made[key] = one
            result.append(one)
        result += [word] if words is None else []
    return result if changed else None


def habit_message(program: str, arguments: Sequence[str]) -> str | None:
    """What to say to a command line with a habit in it; None where there is none."""
    words = rewritten(arguments)
    if words is None:
        return None
    command = f"that is written otherwise here: {shlex.join([*shlex.split(program), *words])}"
    return "; ".join([*_reasons(arguments), command])


def _reasons(arguments: Sequence[str]) -> list[str]:
    """Why names are left out of the command."""
    names = (re.match(r"(?:--?|trainer\.)?([A-Za-z][\w.-]*)", word) for word in arguments)
    names_left_out = dict.fromkeys(match[1].replace("-", "_") for match in names if match)
    return [f"{name} is left out, since {reason}" for name in names_left_out if (reason := _left_out(name))]


def _left_out(name: str) -> str | None:
    """Why there is nothing to type for a name; None where there is something."""
    if name in KEY_HABITS or name in VALUE_HABITS or name in TOP or name in OPTION_GROUPS:
        return None
    return LEFT_OUT.get(name) or REFUSED.get(name) or (ELSEWHERE.get(name) if name in fields() else None)


def _rewrite_word(word: str, waiting: list[str], arguments: Sequence[str]) -> list[str] | None:
    """The words in place of `word` and, after an option, of its value, which is taken from `waiting`."""
    option = re.fullmatch(r"--?([A-Za-z][\w.-]*)(=(.*))?", word, re.DOTALL)
    if option:
        name, value = option[1].replace("-", "_"), option[3]
        ours = name.partition(".")[0] in (*TOP, *OPTION_GROUPS) and name not in HYDRAS
        if not ours and not _is_habit(name) and _whole_key(name, arguments) is None:
            return None
        if value is None:
            separate = waiting and not waiting[0].startswith("-") and "=" not in waiting[0]
            value = waiting.pop(0) if separate else "true"
        return _rewrite_pair(name, value, arguments) or ([f"{name}={value}"] if ours else [])
    name, equals, value = word.partition("=")
    return _rewrite_pair(name, value, arguments) if equals else _bare_word(word)


def _rewrite_pair(name: str, value: str, arguments: Sequence[str]) -> list[str] | None:
    """The words in place of `name=value`; None for what is no habit."""
    if name.partition("@")[0] == "model" and value not in choices("model") and value in presets_by_name():
        return [f"{name}={presets_by_name()[value]}"]
    if name in OPTIONS and value not in choices(name) and value.lower() in OPTIONS[name]:
        return [f"{name}={OPTIONS[name][value.lower()]}"]
    if (name, value.lower()) == ("resume", "true"):
        return ["resume=auto"]
    if _is_habit(name) and not (name.startswith(("data.", "model.")) and {"--config-dir", "-cd"} & {*arguments}):
        return _translate(name, value, arguments)
    group, _, bare = name.partition(".")
    if group in _OTHERS_GROUPS and bare and _is_habit(bare) and not _is_key(group, bare, arguments):
        return _translate(bare, value, arguments)
    key = _whole_key(name, arguments)
    return None if key is None else [f"{key}={value}"]


_OTHERS_GROUPS = (
    "trainer",
    "data",
    "model",
    "train",
    "training",
    "training_args",
    "args",
    "optimizer",
    "optim",
    "hparams",
)
"""Groups of other tools, and those of ours in which they have other keys."""


def _is_key(group: str, name: str, arguments: Sequence[str]) -> bool:
    """Whether `group.name` is a key of ours, or may be one of the user's own formats and models."""
    if group == "trainer":
        return name in fields() or name in FORMER
    if group not in OPTION_GROUPS:
        return False
    from rag_experiments.config.missing_groups import keys_of  # as in `_whole_key`

    return bool({"--config-dir", "-cd"} & {*arguments}) or f"{group}.{name.partition('.')[0]}" in keys_of(group)


def _whole_key(name: str, arguments: Sequence[str]) -> str | None:
    """The key of ours that `name` is without its group; None for what no group is missing of."""
    ours = (*TOP, *OPTION_GROUPS, *HYDRAS, "hydra", "paths", "chain")
    if name.partition(".")[0] in ours or not re.fullmatch(r"[A-Za-z][\w.]*", name):
        return None
    from rag_experiments.config.missing_groups import whole_key  # reads the dataclasses: only where a word is unknown

    return whole_key(name, arguments)


def _is_habit(name: str) -> bool:
    if name in VALUE_HABITS or name in KEY_HABITS or name in (*LENGTHS, *ENCODERS, *READERS) or _left_out(name):
        return True
    ours = name in TOP or name in OPTION_GROUPS
    return not ours and name in fields()


def _translate(name: str, value: str, arguments: Sequence[str]) -> list[str] | None:
    if _left_out(name):
        return []
    if name in LENGTHS:
        return [f"{LENGTH_KEYS[_role(arguments)]}={value}"]
    if name in READERS and _role(arguments) != "reader":
        return None if (key := _whole_key(name, arguments)) is None else [f"{key}={value}"]
    if name in ENCODERS or name in READERS:
        return _model_of("reader" if name in READERS else "encoder", value, _role(arguments))
    if name in VALUE_HABITS:
        return VALUE_HABITS[name](value)
    key = KEY_HABITS.get(name, f"trainer.{name}")
    if key == "resume" and value.lower() == "true":
        return ["resume=auto"]
    if key == "model.path":
        return _model(value)
    return [f"{key}={VALUES.get(key, {}).get(value.lower(), value)}"]


def _role(arguments: Sequence[str]) -> str:
    """What the chosen algorithm trains under `model`."""
    from rag_experiments.config.missing_groups import algorithms  # as in `_whole_key`

    return _TRAINED.get(next(iter(algorithms(arguments)), ""), "encoder")


_TRAINED = {"sft": "reader", "swr": "reader", "fid": "reader", "rerank": "cross_encoder"}
"""Algorithm → the role of `model`, where that is no encoder."""


def _model_of(role: str, value: str, trained: str) -> list[str]:
    """The words for a model of a role: the one that is trained, or the encoder before it."""
    if role == trained:
        return _model(value)
    preset = presets_by_name().get(value.rpartition("/")[2])
    place = "model@retriever.encoder"
    return [f"{place}={preset}"] if preset else [f"{place}=run", f"retriever.encoder.path={value}"]


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


_FILE = re.compile(r".+\.(csv|tsv|jsonl?|ndjson|parquet|arrow|feather|xlsx)(\.gz)?", re.DOTALL | re.IGNORECASE)
"""The name of a file of rows, in the working directory."""


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
        elif name == "data" and not own and _is_data_place(value):
            words += ["data=auto", f"data.path={value}"]
        elif group != "model" or own or not _PLACE.fullmatch(value):
            words.append(override)
        elif value in presets_by_id():
            words.append(f"{name}={presets_by_id()[value]}")
        else:
            words += [f"{name}=run", f"{key or 'model'}.path={value}"]
    return words


def _is_data_place(value: str) -> bool:
    """Whether a value of `data` is a place and no option: a path, the id of a repository, or the name of a file."""
    return value not in choices("data") and bool(_PLACE.fullmatch(value) or _FILE.fullmatch(value))


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
