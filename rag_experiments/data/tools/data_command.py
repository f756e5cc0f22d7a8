"""Code that the data commands share: parse arguments, check the configuration, exit.

    python -m rag_experiments.data.check   data=… data.path=…              [--fix DIR]
    python -m rag_experiments.data.convert data=… data.path=… DIR
    python -m rag_experiments.data.mine    data=… data.path=… DIR          [mine.…=…]
    python -m rag_experiments.data.generate data=documents data.path=… DIR [generate.…=…]

All commands accept the overrides of `train`. A command's own keys begin with its name (`mine.count`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rag_experiments.config import command_line
from rag_experiments.config.schema import RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import ending_of, termination_as_interrupt
from rag_experiments.core.visible import say


@dataclass
class Command:
    """The typed arguments, parsed and checked."""

    config: RunConfig
    """The run configuration; `algorithm` is a plain dict here."""
    options: Any
    """The values of the command's own keys, in its dataclass."""
    words: list[str]
    """The arguments without `=`: the folder to write."""

    @property
    def cache(self) -> Path:
        """The folder of imports and vectors."""
        return Path(self.config.paths.cache).expanduser()


@dataclass(kw_only=True)
class NoOptions:
    """The options of a command without keys of its own."""


def leave_with(start: Callable[[list[str]], int]) -> NoReturn:
    """Run a command with the typed arguments and exit with its status. A full disk gives one sentence, too.

    SIGTERM is handled like Ctrl-C: half-written files are removed.
    """

    def guarded(arguments: list[str]) -> int:
        try:
            with termination_as_interrupt():
                return start(arguments)
        except BrokenPipeError:
            raise
        except (OSError, MemoryError) as error:
            ending = ending_of(error)
            say(f"error: {ending.sentence}", file=sys.stderr)
            return ending.exit_status

    command_line.exit_with(guarded)


def parse(arguments: list[str], own: str, options: type) -> Command:
    """Parse the arguments: keys under `own` fill `options`, the other overrides compose the configuration.

    Raises:
        RequestError: a key or an option is unknown, or a value is wrong.
    """
    from rag_experiments.core.credentials import refuse_secrets
    from rag_experiments.training.checks import check_common, without_hydra

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    command_line.add_working_directory()
    arguments, config_dir = take_option(arguments, "--config-dir", "of your own config groups")
    words = [word for word in arguments if "=" not in word and not word.startswith("-")]
    mine = [word for word in arguments if word.startswith(f"{own}.")]
    line = command_line.parse([word for word in arguments if word not in words and word not in mine])
    refuse_secrets(line.overrides)
    with command_line.translated_errors():
        config, _ = check_common(without_hydra(command_line.compose(line.overrides, config_dir)))
    return Command(config, _own_options(mine, own, options), words)


def _own_options(typed: list[str], own: str, options: type) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from rag_experiments.config.validation import check_values

    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist([word.removeprefix(f"{own}.") for word in typed]))
    except (OmegaConfBaseException, ValueError) as error:
        raise RequestError(f"{own}: {str(error).splitlines()[0]}") from error
    return check_values(options, values, own)


def target_folder(words: list[str], command: str) -> Path:
    """The folder that a command writes: new, or empty.

    Raises:
        RequestError: no folder or several are given, or it is not empty, or it cannot be made.
    """
    from rag_experiments.core.files import check_writable

    if len(words) != 1:
        what = "the folder to write is missing" if not words else f"give one folder to write, not {len(words)}"
        raise RequestError(f"{what}: python -m rag_experiments.data.{command} data=… data.path=… DIR")
    folder = Path(words[0]).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RequestError(f"{folder} exists already and is not empty; name a new folder")
    check_writable(folder, "the folder to write")
    return folder


def take_option(arguments: list[str], name: str, what: str = "to write") -> tuple[list[str], str | None]:
    """Take `--name VALUE` or `--name=VALUE` out of the arguments; returns the other arguments and the value.

    Raises:
        RequestError: the value is missing.
    """
    for index, word in enumerate(arguments):
        if word.startswith(f"{name}="):
            return arguments[:index] + arguments[index + 1 :], word.partition("=")[2]
        if word == name:
            if index + 1 >= len(arguments) or "=" in arguments[index + 1] or arguments[index + 1].startswith("-"):
                raise RequestError(f"{name} needs the folder {what}: {name} DIR")
            return arguments[:index] + arguments[index + 2 :], arguments[index + 1]
    return arguments, None
