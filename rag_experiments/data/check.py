"""Look at a data set before it is used: python -m rag_experiments.data.check data=… data.path=… [--fix DIR]

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
from typing import Literal

from rag_experiments.config import command_line
from rag_experiments.config.schema import NonNegativeInt
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.data.tools.data_command import leave_with, parse, take_option, target_folder


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
    command = parse(arguments, "check", CheckOptions)
    if command.words:
        raise RequestError(f"check does not know {command.words[0]!r}: give key=value, or --fix DIR")
    folder = target_folder([fixed], "check") if fixed is not None else None
    from rag_experiments.data.tools.check_report import examine
    from rag_experiments.data.tools.native_writer import write_native

    with examine(command.config, command.cache, command.options.needs) as found:
        say("\n".join(found.lines(command.options.examples, command.options.problems)))
        if folder is not None and found.data is not None:
            write_native(folder, found.passages_once(), found.questions_once())
            say(f"\nwhat is usable is written to {folder}: data=jsonl data.path={folder}")
            return command_line.DONE
    if found.problems or found.nothing:
        say(f"\nerror: {found.verdict()}", file=sys.stderr)
        return command_line.WRONG_REQUEST
    return command_line.DONE


if __name__ == "__main__":
    main()
