"""rag-data <command> …: the data commands under one name.

    rag-data check PATH [data=…] [--fix DIR]            what is in a data set, and what is wrong with it
    rag-data convert data=… data.path=… DIR             any format into the native one
    rag-data mine data=… data.path=… DIR                hard negatives for CTL
    rag-data generate data=documents data.path=… DIR    questions for documents, by a reader

Each shows its keys with --help, and is the same as python -m rag_experiments.data.<command>.
"""

from __future__ import annotations

from rag_experiments.config import command_line
from rag_experiments.core.errors import RequestError, did_you_mean
from rag_experiments.data import check, convert, generate, mine
from rag_experiments.data.tools.data_command import leave_with

COMMANDS = {"check": check.start, "convert": convert.start, "mine": mine.start, "generate": generate.start}


def main() -> None:
    """The console script."""
    leave_with(start)


def start(arguments: list[str]) -> int:
    """Run the command that the first argument names; returns its exit status.

    Raises:
        RequestError: it names none.
    """
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(__doc__)
        return command_line.DONE
    if name not in COMMANDS:
        listed = ", ".join(COMMANDS)
        if not name:
            raise RequestError(f"rag-data needs a command: rag-data {listed.replace(', ', '|')} …")
        hint = did_you_mean(name, COMMANDS) if name.isidentifier() else f" (choose from {listed})"
        raise RequestError(f"rag-data has no command {name!r}{hint}")
    return COMMANDS[name](arguments[1:])


if __name__ == "__main__":
    main()
