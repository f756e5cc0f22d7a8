"""A key that is typed without its group, such as `objective=listwise` for `algorithm.objective=listwise`.

The keys of the chosen algorithm come first; of the other groups a key counts that only one of them has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rag_experiments.config.groups import conf_dir, option_file
from rag_experiments.config.key_sections import option_section, sections
from rag_experiments.core.errors import RequestError

_OTHER_GROUPS = ("model", "data", "retriever", "evaluation", "tracking", "paths")
"""Beside `algorithm`; `trainer` has the fields of `TrainingArguments`, and no section here."""
_CHOICE = re.compile(r"^ *- (?:override )?/?algorithm: *(\S+)", re.MULTILINE)


def whole_key(name: str, arguments: Sequence[str]) -> str | None:
    """The key that `name` is without its group; None where there is none, or where several could be meant.

    Args:
        arguments: the whole command line, which chooses the algorithm.
    """
    config_dir = _value_of("--config-dir", arguments) or _value_of("-cd", arguments)
    of_algorithm = {key for option in algorithms(arguments) for key in _keys(option, config_dir)}
    if f"algorithm.{name}" in of_algorithm:
        return f"algorithm.{name}"
    found = {key for key in _other_keys() if key.partition(".")[2] == name}
    return found.pop() if len(found) == 1 else None


def keys_of(group: str) -> set[str]:
    """Every key of a group, in any of its kinds."""
    return {key.name for section in sections(group) for key in section.keys}


def algorithms(arguments: Sequence[str]) -> list[str]:
    """The options of `algorithm` that the command line chooses, by itself, by its experiment, or by default."""
    config_dir = _value_of("--config-dir", arguments) or _value_of("-cd", arguments)
    typed = [word.partition("=")[2] for word in arguments if word.startswith("algorithm=")]
    if typed:
        return typed[-1].split(",")
    files = [conf_dir() / "config.yaml"]
    for word in arguments:
        if word.startswith("experiment="):
            try:
                files.insert(0, option_file("experiment", word.partition("=")[2], config_dir))
            except RequestError:
                continue
    chosen = (_CHOICE.search(file.read_text(encoding="utf-8")) for file in files)
    return next(([match[1]] for match in chosen if match is not None), [])


def _keys(algorithm: str, config_dir: str | None) -> Iterator[str]:
    try:
        yield from (key.name for key in option_section("algorithm", algorithm, config_dir).keys)
    except RequestError:  # no such algorithm: that is said by itself
        return


def _other_keys() -> Iterator[str]:
    for group in _OTHER_GROUPS:
        yield from (key.name for section in sections(group) for key in section.keys)


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """The word after an option."""
    places = [place for place, word in enumerate(arguments[:-1]) if word == option]
    return arguments[places[-1] + 1] if places else None
