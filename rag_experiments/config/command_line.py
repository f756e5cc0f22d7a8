"""The command line around Hydra: quick help, one-sentence errors, exit statuses, resume.

Every command goes through `exit_with`, so that a wrong request ends the same way everywhere.
Exit status: 0 done, 1 the run failed, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import locale
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig

from rag_experiments.config import filling
from rag_experiments.config.habits import with_places
from rag_experiments.config.hydra_errors import translated_errors
from rag_experiments.config.overrides import prepare
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import DONE as DONE
from rag_experiments.core.outcome import INTERRUPTED as INTERRUPTED
from rag_experiments.core.outcome import WRONG_REQUEST as WRONG_REQUEST
from rag_experiments.core.outcome import ending_of, exit_status
from rag_experiments.core.visible import say

log = logging.getLogger(__name__)

NO_HOME = "home directory"
"""Part of what pathlib says where `~` is asked for, HOME is not set, and the user is in no password file."""


@dataclass
class CommandLine:
    """What was typed: overrides, and the Hydra options that this package knows about."""

    overrides: list[str]
    multirun: bool
    config_dir: str | None
    shows_only: bool
    """Hydra prints something (`--cfg`, `--info`, …) and runs nothing."""
    options: list[str] = field(default_factory=list)
    """Hydra's options as they were typed."""

    @property
    def arguments(self) -> list[str]:
        """As Hydra takes them: options, then overrides."""
        return [*self.options, *self.overrides]


def exit_with(task: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run `task` on the arguments and leave with its exit status; errors of the request as one sentence."""
    if argv is None:
        _speak_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with translated_errors():  # a value is resolved where it is first read, which may be anywhere
            status = task(arguments) or DONE
    except RequestError as error:
        status = say_wrong_request(error)
    except RuntimeError as error:
        if NO_HOME not in str(error):
            raise
        status = say_wrong_request(RequestError("a path begins with ~ and this user has no home directory: set HOME"))
    except KeyboardInterrupt as interruption:
        say("; ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        status = exit_status(interruption)
    except BrokenPipeError:  # `… | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = DONE
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            too_long = RequestError(f"{str(error.filename)[:60]}… is too long for the name of a file")
            status = say_wrong_request(too_long)
        else:
            ending = ending_of(error)
            if ending.error is None or ending.error["kind"] == "exception":  # the program's fault: with its traceback
                raise
            say(f"error: {ending.sentence}", file=sys.stderr)
            status = ending.exit_status
    sys.exit(status)


def _speak_utf8() -> None:
    """Start this command again in Python's UTF-8 mode where the locale has another encoding.

    In the C locale with that mode off, or in a Latin one, `é` in a path cannot be written to a file of settings, and
    `→` not to the terminal. The mode is settled before Python starts, so it takes a new start of the same process;
    processes that it starts itself inherit it.
    """
    if not sys.flags.utf8_mode and codecs.lookup(locale.getencoding()).name != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def say_wrong_request(error: RequestError) -> int:
    """Print the sentence and return the exit status."""
    say(f"error: {error}", file=sys.stderr)
    return exit_status(error)


_NOT_TAKEN = {
    "--config-name": "a set of overrides is chosen with experiment=<name>, from conf/experiment or --config-dir",
    "--config-path": "a folder of your own options is added with --config-dir DIR",
    "--package": "write the whole key, such as model.path=…",
    "--experimental-rerun": "a run goes on with resume=<run directory>",
}
"""Options of Hydra's that would change nothing here, or the wrong thing, without a word."""
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.@/-]*=")


def split_words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Plain words (a question, a folder), and what `parse` reads: overrides, options and their values."""
    words, others = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if argument in ("--config-dir", "-cd"):
            others += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        elif argument.startswith("-") or _OVERRIDE.match(argument):
            others.append(argument)
        else:
            words.append(argument)
    return words, others


def parse(arguments: list[str]) -> CommandLine:
    """Split off Hydra's options.

    Raises:
        RequestError: an option that Hydra does not know.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.exit_on_error = False

    def refuse(message: str) -> NoReturn:
        raise RequestError(f"{message}; `--help` shows the options")

    parser.error = refuse  # type: ignore[method-assign]
    try:
        # Options may stand between overrides: `seed=1,2 -m trainer=quick`.
        args = parser.parse_intermixed_args(arguments)
    except (argparse.ArgumentError, TypeError) as error:
        refuse(str(error))
    for option, instead in _NOT_TAKEN.items():
        if getattr(args, option.lstrip("-").replace("-", "_"), None):
            raise RequestError(f"{option} is not taken here: {instead}")
    shows_only = bool(args.cfg or args.info or args.hydra_help or args.shell_completion)
    for override in args.overrides:
        if override.startswith("-"):
            raise RequestError(f"unknown option {override}; `--help` shows the options")
    options = _without(arguments, args.overrides)
    overrides = list(args.overrides)
    if not args.shell_completion:
        overrides = prepare(with_places(overrides, args.config_dir), bool(args.multirun))
    return CommandLine(overrides, bool(args.multirun), args.config_dir, shows_only, options)


def _without(arguments: list[str], overrides: list[str]) -> list[str]:
    """The options among the arguments, with their values."""
    pending = list(overrides)
    options = []
    for argument in arguments:
        if pending and argument == pending[0]:
            pending.pop(0)
        else:
            options.append(argument)
    return options


def register() -> None:
    """Let any key of a group through Hydra without `+`, and fill in the defaults of those that no YAML states.

    Ours are checked here, with better messages. Hydra's struct flag stays on at the top, so a misspelt group or
    top-level key is still refused.
    """

    from hydra.core.config_store import ConfigStore

    from rag_experiments.config.groups import GROUPS

    node: dict[str, Any] = {group: DictConfig({}, flags={"struct": False}) for group in GROUPS}
    node |= filling.top_keys()
    ConfigStore.instance().store(name="open_groups", node=DictConfig(node))
    filling.install()


def compose(overrides: list[str], config_dir: str | None = None) -> DictConfig:
    """The composed configuration, Hydra's own node included.

    Raises:
        RequestError: an override or a group that does not compose.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from rag_experiments.config.groups import conf_dir

    register()
    extra = prepare(overrides)
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise RequestError(f"--config-dir {config_dir}: there is no such directory")
        extra.append(f"hydra.searchpath=[file://{Path(config_dir).resolve()}]")
    with translated_errors(), initialize_config_dir(version_base="1.3", config_dir=str(conf_dir()), job_name="train"):
        composed = hydra_compose("config", overrides=extra, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
    return composed


_HYDRAS_OWN = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What Hydra's own code was seen to raise for wrong values of its keys, which it does not check itself."""


def run_hydra(arguments: list[str], task: Any, composed: filling.Composed | None = None) -> int:
    """Hand `arguments` to Hydra, which makes the directory and calls `task`; returns the task's `status`.

    Args:
        composed: what they compose to, if that is known.

    Raises:
        RequestError: what Hydra refuses or, before the task, fails at for a key of its own; or what the task does.
    """
    import hydra

    from rag_experiments.config.groups import conf_dir

    register()
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it Hydra prints the error itself and leaves with status 1
    typed, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        with translated_errors(), filling.at_hand(composed):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except _HYDRAS_OWN as error:
        own = [word for word in arguments if word.lstrip("+~").startswith("hydra") and "hydra.run.dir=" not in word]
        if task.started or not own:
            raise
        reason = f": {first}" if (first := (str(error).splitlines() or [""])[0]) else ""
        raise RequestError(f"Hydra cannot work with {' '.join(own)} ({type(error).__name__}{reason})") from error
    finally:
        sys.argv = typed
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
    return task.status


def add_working_directory() -> None:
    """Console scripts see the modules of the working directory, as `python -m` does."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
