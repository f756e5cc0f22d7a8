"""`--help`, `--help <group>`, `--help <key>`, and the page of all keys. Imports no torch.

python -m rag_experiments.config.keys > docs/manual/keys.md
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rag_experiments.config import trainer_keys
from rag_experiments.config.groups import (
    GROUPS,
    OPTION_GROUPS,
    TOP,
    comments,
    conf_dir,
    first_comment,
    option_file,
    option_files,
    role_places,
)
from rag_experiments.config.key_sections import (
    Key,
    Section,
    all_sections,
    as_yaml,
    option_section,
    sections,
    stated_by_place,
    stated_trainer_keys,
    top_section,
)
from rag_experiments.core.errors import RequestError, did_you_mean

ARGUMENTS = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"
HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")


def help_text(program: str, purpose: str, arguments: Sequence[str]) -> str:
    """What `--help` with these arguments prints: about each group, option and key named, or the overview.

    Raises:
        RequestError: a word is neither, or `--config-dir` names no directory.
    """
    words, config_dir = _topics(arguments)
    if not words:
        return help_page(program, purpose, config_dir)
    return "\n\n".join("\n".join(_about(word, config_dir)) for word in words)


def help_page(program: str, purpose: str, config_dir: str | None = None) -> str:
    """Usage, the config groups with a line on each option, and the keys people type."""
    lines = [purpose, "", f"    {program} [group=option …] [key=value …]", ""]
    for group in OPTION_GROUPS:
        lines += [*_options(group, config_dir), ""]
    lines += [
        "Keys: seed name resume plan refit keep early_stopping  model.path data.path retriever.k",
        "      algorithm.<hyper-parameter>  trainer.<a field of transformers.TrainingArguments>",
        "      evaluation.… tracking.… sweep.… paths.…",
        "      hydra/launcher=local|serial|slurm|submitit_local|ray  hydra/sweeper=grid|optuna|random",
        f"      {'  '.join(f'model@{place}=…' for place in role_places())}  hydra.run.dir=…",
        "",
        "What a key means and its default:  --help retriever  --help algorithm=dca  --help retriever.k  --help trainer",
        "Options: -m (sweep)  --config-dir DIR (your own groups)  --cfg job (print the configuration)  --hydra-help",
    ]
    return "\n".join(lines)


def _topics(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The words that help is asked for, and `--config-dir`."""
    words, config_dir = [], None
    waiting = iter(arguments)
    for argument in waiting:
        if argument in ("--config-dir", "-cd"):
            config_dir = next(waiting, None)
            if config_dir is None:
                raise RequestError(f"{argument} needs a value: {argument} DIR")
        elif argument.startswith("--config-dir="):
            config_dir = argument.partition("=")[2]
        elif not argument.startswith("-"):
            words.append(argument.lstrip("+~"))
    return words, config_dir


def _about(word: str, config_dir: str | None) -> list[str]:
    """The lines about one group, option or key."""
    name, equals, option = word.partition("=")
    name = name.partition("@")[0]
    if name in (*OPTION_GROUPS, *HYDRA_GROUPS) and equals:
        return _about_option(name, option, config_dir)
    if name in (*GROUPS, *OPTION_GROUPS, *HYDRA_GROUPS):
        return _about_group(name, config_dir)
    if not equals and (groups := [g for g in OPTION_GROUPS if name in _names(g, config_dir)]):
        descriptions = [_about_option(group, name, config_dir) for group in groups]
        return [line for lines in descriptions for line in (*lines, "")][:-1]
    return _about_key(name, config_dir)


def _about_group(group: str, config_dir: str | None) -> list[str]:
    lines = _options(group, config_dir)
    if group == "trainer":
        return [*lines, "", *_about_trainer()]
    for section in sections(group, config_dir):
        lines += ["", *_about_section(section)]
    return lines if lines[0] else lines[1:]


def _about_option(group: str, option: str, config_dir: str | None) -> list[str]:
    file = option_file(group, option, config_dir)
    lines = [f"{group}={option}", *(f"    {line}".rstrip() for line in comments(file))]
    settings = [(key, value) for key, value in _flat(stated_by_place(file, group)) if not key.endswith("._target_")]
    if settings:
        lines += ["", "It sets:", *_wrapped("  ".join(f"{key}={as_yaml(value)}" for key, value in settings), 4)]
    section = option_section(group, option, config_dir)
    return [*lines, "", *_about_section(section, heading=False)] if section.keys else lines


def _about_key(name: str, config_dir: str | None) -> list[str]:
    """One key, wherever it stands."""
    group, _, field = name.partition(".")
    if group == "trainer" and field:
        return _about_argument(field)
    for place in role_places():
        if name.startswith(f"{place}."):  # a model's keys are those of `model`, wherever it stands
            name = f"model.{name.removeprefix(f'{place}.')}"
    everything = [top_section(), *(section for group in GROUPS for section in sections(group, config_dir))]
    matches = [(section, key) for section in everything for key in section.keys if key.name == name]
    if not matches:
        matches = [(section, key) for section in everything for key in section.keys if key.name.endswith(f".{name}")]
    if not matches:
        names = {*GROUPS, *OPTION_GROUPS, *TOP, *(key.name for section in everything for key in section.keys)}
        names |= {option for group in OPTION_GROUPS for option in _names(group, config_dir)}
        right = did_you_mean(name, names - {name})
        raise RequestError(f"--help {name}: that is no group, option or key{right}; --help alone lists the groups")
    lines: list[str] = []
    for section, key in matches:
        lines += [*([f"{section.title}:"] if section.title and len(matches) > 1 else []), *_about_one(key)]
    return lines


def _about_section(section: Section, heading: bool = True) -> list[str]:
    lines = []
    if heading and section.title:
        lines.append(section.title)
    if section.intro:
        lines += _wrapped(section.intro, 0)
    for key in section.keys:
        lines += _about_one(key)
    return lines


def _about_one(key: Key) -> list[str]:
    default = f"default {key.default}" if key.type and key.default else key.default
    facts = "; ".join(fact for fact in (key.type, default) if fact)
    return [f"  {key.name}", *_wrapped(facts, 6), *_wrapped(key.doc, 6)]


def _about_trainer() -> list[str]:
    lines = [*_wrapped(f"Every field of transformers.TrainingArguments is a key: {ARGUMENTS}", 0), "", "Set here:"]
    for key in stated_trainer_keys():
        lines += _about_one(key)
    lines += ["", "Settled by the run, and said elsewhere:"]
    lines += [line for name, why in trainer_keys.ELSEWHERE.items() for line in _wrapped(f"trainer.{name}: {why}", 2)]
    lines += ["", "Refused:"]
    lines += [line for why, names in _refused() for line in _wrapped(f"{', '.join(names)}: {why}", 2)]
    return lines


def _refused() -> Iterable[tuple[str, list[str]]]:
    """Reason → the fields that are refused for it."""
    by_reason: dict[str, list[str]] = {}
    for name, why in trainer_keys.REFUSED.items():
        by_reason.setdefault(why, []).append(f"trainer.{name}")
    return by_reason.items()


def _about_argument(name: str) -> list[str]:
    """One field of TrainingArguments."""
    if name in trainer_keys.ELSEWHERE:
        return [f"  trainer.{name}", *_wrapped(f"It cannot be set: {trainer_keys.ELSEWHERE[name]}", 6)]
    if name in trainer_keys.REFUSED:
        return [f"  trainer.{name}", *_wrapped(f"It is not supported: {trainer_keys.REFUSED[name]}", 6)]
    arguments = trainer_keys.fields()
    if name not in arguments:
        right = did_you_mean(name, arguments)
        raise RequestError(f"trainer.{name} is not an argument of transformers.TrainingArguments{right}")
    own = [key for key in stated_trainer_keys() if key.name == f"trainer.{name}"]
    lines = _about_one(own[0]) if own else [f"  trainer.{name}"]
    return [*lines, *_wrapped(f"A field of transformers.TrainingArguments: {ARGUMENTS}", 6)]


def _names(group: str, config_dir: str | None) -> list[str]:
    return [file.stem for file in option_files(group, config_dir)]


def _options(group: str, config_dir: str | None) -> list[str]:
    """The options of a group, with the first comment of each."""
    files = option_files(group, config_dir)
    if not files:
        return [""]
    width = max(len(file.stem) for file in files)
    own = {file for file in files if not file.is_relative_to(conf_dir())}
    return [
        f"{group}=",
        *(
            f"    {file.stem:<{width}}  {first_comment(file)}{f' ({file})' if file in own else ''}".rstrip()
            for file in files
        ),
    ]


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and value:
            yield from _flat(value, name)
        else:
            yield name, value


def _wrapped(text: str, indent: int) -> list[str]:
    width, margin = max(40, shutil.get_terminal_size((100, 24)).columns), " " * indent
    wrapper = textwrap.TextWrapper(
        width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False, break_long_words=False
    )
    return [line for paragraph in text.splitlines() for line in wrapper.wrap(paragraph)]


# -- the page --------------------------------------------------------------------------------------

_INTRO = """# Keys

Every key that a run can be given, with its type, its default and what it means. `--help <group>`, `--help <option>` and
`--help <key>` say the same in the terminal. This page is made from the docstrings in the code:
`python -m rag_experiments.config.keys > docs/manual/keys.md`.

A default stands beside its key. An option of a group may choose another value: `--help data=pydocs` shows which.
`rag-train … --cfg job` shows the values of all keys together.
"""


def keys_page() -> str:
    """docs/manual/keys.md."""
    parts = [_INTRO]
    for group, group_sections in all_sections():
        parts.append(f"## {group or 'Keys in no group'}\n")
        for section in group_sections:
            if section.title and len(group_sections) > 1:
                parts.append(f"### {section.title}\n")
            if section.intro:
                parts.append(f"{section.intro}\n")
            if section.keys:
                parts.append(_table(section.keys))
    parts.append(
        f"## trainer\n\nEvery field of [transformers.TrainingArguments]({ARGUMENTS}) is a key, such as "
        "`trainer.learning_rate=1e-5`. The options of `trainer` set these; an algorithm's option sets some more "
        "(`--help algorithm=ctl`).\n"
    )
    parts.append(_table(stated_trainer_keys(), typed=False))
    parts.append("The run itself settles these, and they are said elsewhere:\n")
    parts.append("\n".join(f"- `trainer.{name}`: {why}." for name, why in trainer_keys.ELSEWHERE.items()) + "\n")
    parts.append("These are refused, since they would be taken and not done:\n")
    refused = [f"- {', '.join(f'`{name}`' for name in names)}: {why}." for why, names in _refused()]
    parts.append("\n".join(refused) + "\n")
    return "\n".join(parts)


def _table(keys: Sequence[Key], typed: bool = True) -> str:
    head = ["key", "type", "default", "meaning"] if typed else ["key", "value", "meaning"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for key in keys:
        default = f"`{key.default}`" if key.default and typed and key.default != "those below" else key.default
        cells = [f"`{key.name}`", *([key.type] if typed else []), default, key.doc.replace("\n", " ")]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(keys_page(), end="")
