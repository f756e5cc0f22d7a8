"""What Hydra and OmegaConf raise on a wrong request, as one sentence of ours. Their own texts are read here alone."""

from __future__ import annotations

import re
from typing import Any

from rag_experiments.core.errors import RequestError, did_you_mean


class translated_errors:
    """Turns what Hydra and OmegaConf raise on a wrong override into a `RequestError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        if isinstance(error, HydraException | OmegaConfBaseException):
            raise RequestError(_sentence(error)) from error


def value_sentence(error: Any) -> str:
    """What OmegaConf says of a value that it cannot resolve, with the key in front where it knows it."""
    from omegaconf.errors import GrammarParseError

    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if match := re.search(r"Environment variable '([^']*)' not found", text):
        problem = f"the environment variable {match.group(1)} is not set"
    elif match := re.search(r"Interpolation key '([^']*)' not found", text):
        problem = f"there is no key {match.group(1)!r} to take the value from"
    elif isinstance(error, GrammarParseError) or "expecting {" in text:
        problem = "${…} in the value cannot be read: ${key} or ${oc.env:NAME} is wanted"
    else:
        problem = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    key = getattr(error, "full_key", None)
    return f"{key}: {problem}" if key else problem


def _sentence(error: BaseException) -> str:
    from omegaconf.errors import GrammarParseError, InterpolationResolutionError

    from rag_experiments.config.groups import OPTION_GROUPS, choices

    text, cause = str(error), error.__cause__
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        return value_sentence(error)
    if not text and cause is not None:  # Hydra wraps OmegaConf's error and says nothing itself
        return _sentence(cause)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match.group(1), text, cause)
    if text.startswith("Error merging override") and isinstance(cause, GrammarParseError):
        return value_sentence(cause)
    if text.startswith("Error merging override") and (key := getattr(cause, "full_key", None)):
        reason = str(cause).splitlines()[0]
        return f"{key}: {reason[0].lower()}{reason[1:]}"
    if match := re.search(r"[Cc]ould not find '([^']+)'", text):
        group, _, option = match.group(1).rpartition("/")
        if (first_part := match.group(1).partition("/")[0]) in OPTION_GROUPS:  # `model=/a/folder`
            group, option = first_part, match.group(1).removeprefix(f"{first_part}/")
        if group in OPTION_GROUPS or group.startswith("hydra"):
            offered = _offered(text) or choices(group)
            return f"{group}={option} is not one of the {group} options{did_you_mean(option, offered)}"
        name = match.group(1)
        return f"{name} was not found: is the config group misspelt?{did_you_mean(name, OPTION_GROUPS)}"
    if "No match in the defaults list" in text:
        return f"{text.splitlines()[0]}: the groups are {', '.join(OPTION_GROUPS)}"
    first = text.splitlines()[0] if text else type(error).__name__
    if match := re.search(r"Error parsing override '([^']*)'", text):
        return f"the override {match.group(1)!r} cannot be read (key=value is wanted; quote special characters)"
    if "no viable alternative" in first or "mismatched input" in first or "extraneous input" in first:
        return f"an override cannot be read: {first} (key=value is wanted; quote special characters)"
    return first


def _unknown_key(key: str, text: str, cause: BaseException | None) -> str:
    """The sentence for a key that Hydra cannot override, with the nearest ones where it goes astray."""
    from rag_experiments.config.groups import GROUPS, OPTION_GROUPS, TOP, choices

    if "@" in key:  # a group at another place: Hydra lists the places there are
        places = re.search(r"Did you mean to override (?:one of )?([^?]+)\?", text)
        return f"{key} is an unknown place{did_you_mean(key, places.group(1).split(', ') if places else [])}"
    if "/" in key:
        parent = key.rpartition("/")[0]
        nested = [f"{parent}/{name}" for name in choices(parent, folders=True)]
        return f"{key} is an unknown config group{did_you_mean(key, nested)}"
    wrong = getattr(cause, "full_key", None) or key
    holder, _, name = wrong.rpartition(".")
    if not holder:
        top_names = [*{*GROUPS, *OPTION_GROUPS}, *TOP, "hydra"]
        if name in top_names:
            return f"{name} is no config group: set its keys, such as hydra.run.dir=…"
        return f"{key} is an unknown key{did_you_mean(name, sorted(top_names))}"
    parent_node: Any = getattr(cause, "parent_node", None)
    there = [str(inner) for inner in parent_node or () if not str(inner).startswith("_")]
    if not there:
        return f"{key} is an unknown key: {holder} has no keys of its own"
    sentence = f"{key} is an unknown key{did_you_mean(name, there)}"
    if holder in ("hydra.sweeper", "hydra.launcher"):  # each option of these groups has its own
        group = holder.replace(".", "/")
        sentence += f"; another {group} may have it ({', '.join(choices(group))})"
    return sentence


def _offered(text: str) -> list[str]:
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("Available options"):
            options = []
            for option in lines[index + 1 :]:
                if not option.startswith("\t"):
                    break
                options.append(option.strip())
            return options
    return []
