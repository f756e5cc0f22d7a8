"""Write questions for documents: python -m rag_experiments.data.generate data=documents data.path=… DIR [generate.…=…]

A reader (`model=smollm2_135m` unless you name another) writes one question and its answer for each passage of a
sample. A pair is kept if the passage has the answer's words and the retriever finds the passage again. DIR becomes a
native data set; its generated.jsonl lists every attempt and its result. If the command was interrupted, the same
command continues it.

    generate.passages=500|null  generate.round_trip=true  generate.round_trip_k=10  generate.seed=0
    generate.shortest_passage=20  generate.shortest_question=4  generate.question_tokens=40
    generate.answer_tokens=32  generate.support=0.8  generate.block=32
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rag_experiments.config import command_line
from rag_experiments.config.schema import EncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.data.tools.data_command import Command, leave_with, parse
from rag_experiments.data.tools.question_generation import LOG, SETTINGS, GenerateOptions

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.data.tools.question_generation import Generator

READER, ENCODER = "model=smollm2_135m", "model@retriever.encoder=minilm"


def main() -> None:
    """`python -m`."""
    leave_with(start)


def start(arguments: list[str]) -> int:
    """Run the command with the typed `arguments`; returns its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return command_line.DONE
    command = parse([*defaults(arguments), *arguments], "generate", GenerateOptions)
    folder = open_folder(command.words)
    if isinstance(command.config.model, EncoderConfig):
        raise RequestError(f"model.path={command.config.model.path} is an encoder; questions are written by a reader")
    from rag_experiments.data.load import assemble, load_data

    data = load_data(command.config.data, command.cache)
    generator = make_generator(command, data.passages, folder)
    try:
        generated = generator.run()
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(f"the same command continues with what {folder / LOG} holds") from interruption
    say("\n".join(generated.lines()))
    from rag_experiments.data.tools.native_writer import write_files
    from rag_experiments.data.tools.question_generation import as_asked

    if not generated.kept:
        raise RequestError(
            "not one question was kept: try another reader (model=…), generate.support=0 or generate.round_trip=false"
        )
    dataset = assemble(data.passages, {"train": as_asked(generated.kept)}, command.config.data, [])
    write_files(folder, data.passages, dataset.splits)
    say(f"questions   {', '.join(f'{len(members):,} {split}' for split, members in dataset.splits.items())}")
    say(f"read it with: data=jsonl data.path={folder}")
    return command_line.DONE


def defaults(arguments: list[str]) -> list[str]:
    """Overrides that choose the embedded reader and encoder, unless `arguments` name others."""
    named = {word.partition("=")[0] for word in arguments}
    overrides = [READER] if "model" not in named else []
    dense = not any(word.startswith("retriever=bm25") for word in arguments)
    return [*overrides, *([ENCODER] if dense and "model@retriever.encoder" not in named else [])]


def open_folder(words: list[str]) -> Path:
    """The folder to write: new, empty, or begun by an earlier run of this command.

    Raises:
        RequestError: no folder or several are given, or it holds something else, or it cannot be made.
    """
    from rag_experiments.core.files import check_writable

    if len(words) != 1:
        raise RequestError("give one folder to write: python -m rag_experiments.data.generate data=… DIR")
    folder = Path(words[0]).expanduser()
    if folder.is_file():
        raise RequestError(f"{folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise RequestError(f"{folder} holds something else than an earlier run of generate ({LOG}, {SETTINGS})")
    check_writable(folder, "the folder to write")
    return folder


def make_generator(command: Command, passages: PassageStore, folder: Path) -> Generator:
    """Load the reader and the retriever, and make the generator."""
    from rag_experiments.data.tools.question_generation import Generator
    from rag_experiments.models.component import load_model
    from rag_experiments.models.reader.reader import Reader
    from rag_experiments.retrieval.factory import build_retriever

    config = command.config
    assert not isinstance(config.model, EncoderConfig)
    reader = Reader.load(config.model, command.cache, frozen=True)
    retriever = None
    if command.options.round_trip:
        encoder = None if config.retriever.encoder is None else load_model(config.retriever.encoder, command.cache)
        retriever = build_retriever(config.retriever, passages, encoder, command.cache)
    return Generator(passages, reader, retriever, command.options, folder)


if __name__ == "__main__":
    main()
