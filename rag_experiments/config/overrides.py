"""Overrides as people type them, made into what Hydra's grammar reads as the same.

Hydra reads a value by a grammar of its own: a letter outside ASCII, `#`, a lone quote or a bracket in a path is an
error there, a comma means several values, and `1` is a number where a name is expected. `prepare` puts such a value in
quotes, so that a text is taken as it was typed. `typed` is the other direction: the word to paste into a shell.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rag_experiments.config import schema
from rag_experiments.config.groups import GROUPS, OPTION_GROUPS, choices
from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.core.errors import RequestError, first_of

_KEY = re.compile(r"[A-Za-z_]\w*(?:[./-]\w+)*(?:@[\w.:]*)?", re.ASCII)
_TEXT_KEYS = {"name", "resume", "run", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
_LEFT_OUT_BY_NULL = ("experiment", "sweep")
"""Groups of which a run needs no option; `config.yaml` itself writes null for them."""


def quote(value: str) -> str:
    """`value` as Hydra's override grammar reads it back unchanged."""
    # A backslash is one, but before a quote, where the grammar takes two for one: inside, and at the end.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"


def unquote(text: str) -> str:
    """What `quote` was given; a text that is not in quotes is as it is."""
    if not _is_quoted(text):
        return text
    inner = re.sub(rf"((?:\\\\)*)\\{text[0]}", lambda found: found[1][::2] + text[0], text[1:-1])
    return re.sub(r"\\+$", lambda found: found[0][::2], inner)


def typed(key: str, value: str) -> str:
    """`key=value` as one word for a shell: pasted behind a command, it gives `value` back."""
    plain = f"{key}={value}"
    return shlex.quote(plain if _reads_back(key, value) else f"{key}={quote(value)}")


def of_value(key: str, value: Any) -> str:
    """`key=value` for a value of Python's: what `typed` is to a shell, for `prepare` and Hydra.

    Raises:
        RequestError: a value that no key takes.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return f"{key}={text if _reads_back(key, text) else quote(text)}"
    return f"{key}={_written(key, value)}"


def _written(key: str, value: Any) -> str:
    """A value in Hydra's grammar; texts inside lists and mappings stand in quotes."""
    if hasattr(value, "item") and not isinstance(value, list | tuple | dict):  # a number of numpy's or torch's
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        return quote(os.fspath(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, part) for part in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_written(key, part)}' for name, part in value.items())}}}"
    raise RequestError(
        f"{key}: {type(value).__name__} is no value of a key; give a text, a number, a truth value, None, list or dict"
    )


def _reads_back(key: str, value: str) -> bool:
    """Whether `value`, typed without quotes, is taken as this text."""
    if not value or value != unquote(value):
        return False
    try:
        (prepared,) = prepare([f"{key}={value}"])
    except (RequestError, ValueError):
        return False
    return bool(_parsed(prepared).value() == value)


def split_override(override: str) -> tuple[str, str]:
    """Key and value, the value without the quotes that Hydra would take off."""
    key, _, value = override.partition("=")
    return key, unquote(value)


def prepare(overrides: Iterable[str], multirun: bool = False) -> list[str]:
    """The overrides as Hydra takes them, in order.

    Args:
        multirun: whether a comma parts the values of several runs (`-m`).

    Raises:
        RequestError: a word that is no override, several values without `-m`, a group that is given no option's name.
    """
    return [words for override in overrides if (words := _prepared(override, multirun)) is not None]


def _prepared(override: str, multirun: bool) -> str | None:
    head, equals, value = override.partition("=")
    prefix = head[: len(head) - len(head.lstrip("+~"))]
    key = head.removeprefix(prefix)
    if prefix not in ("", "+", "++", "~") or not _KEY.fullmatch(key):
        raise RequestError(_no_key(override, key, bool(equals)))
    if not equals:
        if prefix != "~":
            raise RequestError(_no_key(override, key, False))
        return override
    group = key.partition("@")[0]
    if group in OPTION_GROUPS or "/" in group or "@" in key:
        return _option(override, key, value, prefix, multirun)
    return f"{head}={_value(head, key, value, multirun)}"


def _no_key(override: str, key: str, valued: bool) -> str:
    """The sentence for a word that Hydra would not know what to do with."""
    if not valued and (groups := [group for group in OPTION_GROUPS if override in choices(group)]):
        return f"{override!r} alone chooses nothing: write {' or '.join(f'{group}={override}' for group in groups)}"
    if not valued and _KEY.fullmatch(key):
        return f"{override!r} has no value: write {key}=<value>"
    if not key:
        return f"{override!r} has no key: write key=value, such as seed=5"
    return f"{override!r}: {key!r} is not the name of a key: write key=value, such as trainer.learning_rate=1e-5"


def _option(override: str, key: str, value: str, prefix: str, multirun: bool) -> str | None:
    """An override that chooses an option of a group."""
    group, _, place = key.partition("@")
    if prefix == "~":  # Hydra wants the option's name here, and takes no other for one
        return f"~{key}" if value in ("", "null") else f"~{key}={quote(unquote(value))}"
    parsed = _parsed(f"{key}={value}")
    if parsed is None:
        # No option has such a name; in quotes it gets as far as the sentence that says so.
        return f"{prefix}{key}={quote(unquote(value))}"
    if parsed.is_sweep_override():
        if not multirun:
            raise RequestError(f"{override} names several options of {group}: add -m to run one after another")
        return override
    option = parsed.value()
    if isinstance(option, str) and option:
        return override
    if option is None and prefix == "":
        if place:
            return f"~{key}"
        if group in _LEFT_OUT_BY_NULL:
            return None
    if option is None or option == "" or isinstance(option, list | dict):
        options = choices(group)
        right = f": choose one of {first_of(options, ', ', f'--help {group}')}" if options else ""
        raise RequestError(f"{override}: {group} takes the name of one option{right}")
    return f"{prefix}{key}={quote(value)}"  # a number or a truth value, where a name stands


def _value(head: str, key: str, value: str, multirun: bool) -> str:
    if _is_quoted(value) or "${" in value:
        return value
    parsed = _parsed(f"{key}={value}")
    if parsed is None:
        return ",".join(_element(key, part) for part in _parts(value)) if multirun else quote(value)
    if not parsed.is_sweep_override():
        as_it_is = not _is_text(key) or value in ("", "null", "???") or parsed.value() == value
        return value if as_it_is else quote(value)
    if multirun:
        return ",".join(_element(key, part) for part in _parts(value)) if _is_simple(parsed) else value
    if _is_text(key) and _is_simple(parsed):
        return quote(value)
    return _several(head, key, value, parsed)


def _several(head: str, key: str, value: str, parsed: Any) -> str:
    """Without `-m`, a value that Hydra would take for those of several runs."""
    if _is_simple(parsed) and _is_list(key):
        raise RequestError(f"{head}={value}: a list is written in brackets: {shlex.quote(f'{head}=[{value}]')}")
    sentence = f"{head}={value} is more than one value: add -m to run one after another"
    if _is_simple(parsed) and key.rpartition(".")[2] not in _names()[2]:
        sentence += f", or write {shlex.quote(f'{head}={quote(value)}')} if it is one text"
    raise RequestError(sentence)


def _element(key: str, part: str) -> str:
    """One of several values of a sweep."""
    parsed = _parsed(f"{key}={part}")
    if parsed is None:
        return part if _is_quoted(part.strip()) else quote(part)
    return quote(part) if _is_text(key) and isinstance(parsed.value(), int | float) else part


def _parts(value: str) -> list[str]:
    """`value` parted at commas that stand in no quotes and no brackets; whole, where these do not close."""
    parts, depth, within, start = [], 0, "", 0
    for index, letter in enumerate(value):
        if within:
            within = "" if letter == within and value[index - 1] != "\\" else within
        elif letter in "\"'" and (index == start or depth):
            within = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(value[start:index])
            start = index + 1
    return [*parts, value[start:]] if depth == 0 and not within else [value]


def _is_quoted(text: str) -> bool:
    """Whether a text is in quotes from its first letter to its last."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        return False
    return re.search(rf"(?<!\\)(?:\\\\)*{text[0]}", text[1:-1]) is None


def _parsed(override: str) -> Any:
    """What Hydra reads; None where its grammar fails."""
    from hydra.errors import HydraException

    try:
        return _parser().parse_override(override)
    except HydraException:
        return None


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _is_simple(parsed: Any) -> bool:
    """Whether values only stand side by side, `a,b`: no `choice(…)`, `range(…)`."""
    return bool(getattr(parsed.value(), "simple_form", False))


def _is_text(key: str) -> bool:
    return key in _TEXT_KEYS or (key.split(".")[0] in GROUPS and key.rpartition(".")[2] in _names()[0])


def _is_list(key: str) -> bool:
    return key.split(".")[0] in GROUPS and key.rpartition(".")[2] in _names()[1]


@cache
def _names() -> tuple[set[str], set[str], set[str]]:
    """Names of keys that hold a text, of keys that hold a list, and of the others, of all groups."""
    classes = {
        *(kind.config for kind in MODEL_KINDS.values()),
        *(value for value in vars(schema).values() if dataclasses.is_dataclass(value)),
    }
    texts: set[str] = set()
    lists: set[str] = set()
    others: set[str] = set()
    for cls in classes:
        for name, hint in get_type_hints(cls, include_extras=True).items():
            members = {_bare(member) for member in get_args(hint) or (hint,)} if _is_union(hint) else {_bare(hint)}
            members.discard(type(None))
            kind = texts if members == {str} else lists if list in {get_origin(m) or m for m in members} else others
            kind.add(name)
    return texts - others - lists, lists - texts - others, others


def _is_union(hint: Any) -> bool:
    return type(None) in get_args(hint) or len([arg for arg in get_args(hint) if isinstance(arg, type)]) > 1


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
