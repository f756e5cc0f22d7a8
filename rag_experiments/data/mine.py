"""Find hard negatives for CTL: python -m rag_experiments.data.mine data=… data.path=… DIR [mine.…=…]

DIR gets the data set in the native format; its train questions have `negative_ids`. The encoder is `model=…`.

    mine.retrievers=[bm25,encoder]  mine.count=4  mine.first_rank=1 mine.last_rank=50  mine.sampling=top|random
    mine.margin=0.05|null  mine.margin_absolute=null  mine.cross_encoder=null  mine.cross_encoder_margin=0.0
    mine.answer_match=true  mine.keep_listed=true  mine.splits=[train]  mine.processes=1  mine.block=1024  mine.seed=0
"""

from __future__ import annotations

from rag_experiments.config import command_line
from rag_experiments.config.schema import EncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.data.tools.data_command import Command, leave_with, parse, target_folder
from rag_experiments.data.tools.mining import MineOptions


def main() -> None:
    """`python -m`."""
    leave_with(start)


def start(arguments: list[str]) -> int:
    """Run the command with the typed `arguments`; returns its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return command_line.DONE
    command = parse(arguments, "mine", MineOptions)
    folder = target_folder(command.words, "mine")
    from rag_experiments.data.load import load_data
    from rag_experiments.data.tools.native_writer import write_native

    data = load_data(command.config.data, command.cache)
    for split in command.options.splits:
        if not data.splits[split]:
            there = ", ".join(name for name, questions in data.splits.items() if questions) or "none at all"
            raise RequestError(f"mine.splits: the data has no {split} questions (it has {there})")
    model = encoder_config(command)

    from rag_experiments.data.tools.cross_encoder_judge import CrossEncoderJudge
    from rag_experiments.data.tools.mining import Miner
    from rag_experiments.models.component import load_model

    options, judge = command.options, None
    if options.cross_encoder:
        judge = CrossEncoderJudge(options.cross_encoder, options.cross_encoder_margin, command.cache)
    miner = Miner(
        passages=data.passages,
        options=options,
        retriever=command.config.retriever,
        query_history=command.config.data.query_history,
        cache=command.cache,
        encoder=load_model(model, command.cache) if model is not None else None,
        judge=judge,
    )
    mined = miner.mine(data.splits)
    write_native(folder, data.passages, mined.splits)
    say("\n".join(mined.lines(options)))
    say(f"read it with: data=jsonl data.path={folder}")
    return command_line.DONE


def encoder_config(command: Command) -> EncoderConfig | None:
    """The encoder that searches and filters: the model's, or the retriever's if the model is a reader.

    Raises:
        RequestError: an encoder is needed, and there is none.
    """
    if not command.options.needs_encoder:
        return None
    config = command.config
    model = config.model if isinstance(config.model, EncoderConfig) else config.retriever.encoder
    if model is None:
        raise RequestError("mine needs an encoder: model=minilm, or mine.retrievers=[bm25] mine.margin=null")
    return model


if __name__ == "__main__":
    main()
