"""Convert any format into the native one: python -m rag_experiments.data.convert data=… data.path=… DIR

DIR gets passages.jsonl and train, dev and test.jsonl; missing splits are cut from train. If something is wrong with
the data the command stops, as training does; `check --fix DIR` converts the usable part.
"""

from __future__ import annotations

from rag_experiments.config import command_line
from rag_experiments.core.visible import say
from rag_experiments.data.tools.data_command import NoOptions, leave_with, parse, target_folder


def main() -> None:
    """`python -m`."""
    leave_with(start)


def start(arguments: list[str]) -> int:
    """Run the command with the typed `arguments`; returns its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return command_line.DONE
    command = parse(arguments, "convert", NoOptions)
    folder = target_folder(command.words, "convert")
    from rag_experiments.data.load import load_data
    from rag_experiments.data.tools.native_writer import write_native

    data = load_data(command.config.data, command.cache)
    write_native(folder, data.passages, data.splits)
    for note in data.notes:
        say(f"note: {note}")
    counts = ", ".join(f"{len(questions):,} {name}" for name, questions in data.splits.items())
    say(f"{folder}: {len(data.passages):,} passages; questions: {counts}")
    if any(data.splits.values()):
        say(f"read it with: data=jsonl data.path={folder}")
    else:
        say("there are no questions yet, and a data set needs some: rag_experiments.data.generate writes them")
    return command_line.DONE


if __name__ == "__main__":
    main()
