"""Look at a data set before it is used: python -m rag_experiments.data.check PATH [data=…] [--fix DIR]

PATH is a file, a folder or a name on the Hugging Face hub, the same as data.path=PATH: what it is, and which column
holds what, is found out (data=auto) and shown.

Prints counts, lengths in the model's tokens, repeated passages, questions whose gold passage is missing, answers that
appear in no gold passage, questions and passages that splits share, the first questions as the model will see them,
and every bad row with its file, line and reason. `--fix DIR` writes the usable part as a native data set. Exit status
0: the data is usable as it is; 2: something is wrong, or nothing is usable.

    check.examples=3     questions shown
    check.problems=50    bad rows shown (all are counted)
    check.needs=[]       positives, answers: a question without them is a problem, and --fix leaves it out
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_experiments.config import command_line
from rag_experiments.config.overrides import of_value
from rag_experiments.config.schema import NonNegativeInt
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.data.tools.data_command import Command, leave_with, parse, take_option, target_folder

if TYPE_CHECKING:
    from rag_experiments.data.builder import Problem


@dataclass(kw_only=True)
class CheckOptions:
    """Keys under `check`."""

    examples: NonNegativeInt = 3
    problems: NonNegativeInt = 50
    needs: list[Literal["positives", "answers"]] = field(default_factory=list)
    """The fields that every question must have because an algorithm needs them."""


def main() -> None:
    """`python -m`."""
    leave_with(start)


def start(arguments: list[str]) -> int:
    """Run the command with the typed `arguments`; returns its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return command_line.DONE
    arguments, fixed = take_option(arguments, "--fix")
    command = parse(_with_path(arguments), "check", CheckOptions)
    folder = target_folder([fixed], "check") if fixed is not None else None
    looked = look(command, folder)
    say(looked.report)
    if looked.written is not None:
        say(f"\nwhat is usable is written to {folder}: data=jsonl data.path={folder}")
        return command_line.DONE
    if looked.verdict is not None:
        say(f"\nerror: {looked.verdict}", file=sys.stderr)
        return command_line.WRONG_REQUEST
    return command_line.DONE


def _with_path(arguments: list[str]) -> list[str]:
    """The arguments with the one that is no `key=value` as `data.path`.

    Raises:
        RequestError: there are two paths.
    """
    words, others = command_line.split_words(arguments)
    if not words:
        return arguments
    if len(words) > 1 or any(word.startswith("data.path=") for word in others):
        raise RequestError(f"check takes one path, and not {words[-1]!r} besides: give the others as key=value")
    return [*others, of_value("data.path", words[0])]


@dataclass(frozen=True)
class Looked:
    """What was found in a data set."""

    report: str
    """Everything that the command prints."""
    problems: list[Problem]
    """Every bad row, with its file and line."""
    verdict: str | None
    """One sentence that says what is wrong; None: the data is usable as it is."""
    written: Path | None
    """The folder that `--fix` has written."""


def look(command: Command, folder: Path | None = None) -> Looked:
    """Read the whole data set; `folder` gets what is usable of it.

    Raises:
        RequestError: the files do not exist, or are of a kind that is never read.
    """
    from rag_experiments.data.tools.check_report import examine
    from rag_experiments.data.tools.native_writer import write_native

    options = command.options
    with examine(command.config, command.cache, options.needs) as examination:
        report = "\n".join(examination.lines(options.examples, options.problems))
        written = folder if examination.data is not None else None
        if written is not None:
            write_native(written, examination.passages_once(), examination.questions_once())
    return Looked(
        report,
        examination.problems,
        examination.verdict() if examination.problems or examination.nothing else None,
        written,
    )


if __name__ == "__main__":
    main()
