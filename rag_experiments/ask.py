"""Ask a finished run: what does it retrieve, with which scores, and, if it trained a reader, what does it answer?

    python -m rag_experiments.ask run=<dir> "question"         without a question: interactive
    python -m rag_experiments.ask run=<dir> retriever.k=8 "question"

Interactively, a reader is asked as in a conversation: earlier questions and answers go along (`/new` starts
another one).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_experiments.config import command_line
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.training.reopen import reopen, split_run

if TYPE_CHECKING:
    from rag_experiments.algorithms.base import RunComponents
    from rag_experiments.data.records import Passage, Question, Turn

USAGE = """Ask a finished run a question: the passages it retrieves, their scores, and a reader's answer.

    python -m rag_experiments.ask run=<dir> ["question"] [key=value …]

Without a question: interactive. Data, retriever and evaluation keys may be overridden, such as retriever.k=8."""

SHOWN_CHARACTERS = 300
"""Of a passage's text; the whole of it is what the reader gets."""


@dataclass
class Reply:
    """What came back: an answer (None: the run trained an encoder) and the passages behind it, best first."""

    answer: str | None
    passages: list[tuple[float, Passage]]


def main() -> None:
    """The console script and `python -m`."""
    command_line.exit_with(start)


def start(arguments: list[str]) -> int:
    """From the typed arguments to an exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return command_line.DONE
    words, others = command_line.split_words(arguments)
    line = command_line.parse(others)
    refuse_secrets(line.overrides)
    directory, changes = split_run(line.overrides, "ask")
    question = " ".join(words).strip()
    if words:
        asked(question)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    components = open_parts(directory, changes, line.config_dir)
    if question:
        show(reply(components, question))
    else:
        converse(components)
    return command_line.DONE


def open_parts(directory: Any, changes: list[str], config_dir: str | None = None) -> RunComponents:
    """The run's model and retriever, ready to be asked."""
    request = reopen(directory, changes, config_dir).request
    from rag_experiments.training import build

    components = build.build_components(request)
    components.retriever.refresh(persist=True)
    return components


def asked(question: str, history: Sequence[Turn] = ()) -> Question:
    """`question` as one of a data set.

    Raises:
        RequestError: it is empty.
    """
    from rag_experiments.data.records import Question

    if not question.strip():
        raise RequestError("the question is empty")
    return Question(id="asked", question=question, history=tuple(history))


def reply(components: RunComponents, question: str, history: Sequence[Turn] = ()) -> Reply:
    """Retrieve for `question`, and let a reader answer."""
    one = asked(question, history)
    passages = search(components, one, components.config.retriever.k)
    if "reader" not in components.models:
        return Reply(None, passages)
    return Reply(answer(components, one, [passage for _, passage in passages]), passages)


def search(components: RunComponents, question: Question, k: int) -> list[tuple[float, Passage]]:
    """The best `k` passages with their scores, best first."""
    from rag_experiments.data.queries import retrieval_query

    query = retrieval_query(question, components.config.data.query_history)
    result = components.retriever.search([query], k)
    store = components.data.passages
    return [
        (float(score), store[int(row)])
        for row, score in zip(result.rows_QK[0], result.scores_QK[0], strict=True)
        if row >= 0
    ]


def answer(components: RunComponents, question: Question, passages: Sequence[Passage]) -> str:
    """What the run's reader answers from `passages`.

    Raises:
        RequestError: the question leaves no room for a passage or an answer.
    """
    reader = components.models["reader"]
    (written,), _ = reader.answer([question], [list(passages)], components.config.evaluation.num_beams, False)
    if written is None:
        raise RequestError("the question is longer than the reader reads (model.max_input_length)")
    return written


def show(shown: Reply) -> None:
    """The answer, then the passages."""
    if shown.answer is not None:
        say(shown.answer, end="\n\n")
    for number, (score, passage) in enumerate(shown.passages, 1):
        title = f"  {passage.title}" if passage.title else ""
        text = " ".join(passage.text.split())
        cut = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
        say(f"[{number}] {score:.4f}  {passage.shown_id}{title}\n    {cut}")


def converse(components: RunComponents) -> None:
    """Questions from the terminal until it ends."""
    from rag_experiments.data.records import Turn

    history: list[Turn] = []
    say("A question (/new: another conversation; Ctrl-D: leave)", file=sys.stderr)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if question == "/new":
            history.clear()
        elif question:
            answered = reply(components, question, history)
            show(answered)
            if answered.answer is not None:
                history += [Turn("user", question), Turn("assistant", answered.answer)]


if __name__ == "__main__":
    main()
