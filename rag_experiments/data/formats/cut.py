"""Long texts into passages."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

from rag_experiments.core.text import cut_units, places


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and the characters it begins and ends at."""

    text: str
    start: int
    end: int


def cut_by_words(text: str, words: int, overlap: int = 0) -> list[Piece]:
    """Pieces of `words` words each, the next beginning `overlap` words before the last ends.

    In a script that does not space its words a character counts as one. A rest of less than a quarter is joined to
    the piece before it.
    """
    spans = cut_units(text)
    pieces: list[Piece] = []
    step = words - overlap
    for first in range(0, len(spans), step):
        last = min(first + words, len(spans))
        if pieces and last == len(spans) and (last - first) - overlap < words // 4:
            start = pieces[-1].start
            pieces[-1] = Piece(text[start : spans[last - 1][1]], start, spans[last - 1][1])
            break
        start, end = spans[first][0], spans[last - 1][1]
        pieces.append(Piece(text[start:end], start, end))
        if last == len(spans):
            break
    return pieces


def piece_at(pieces: list[Piece], place: int) -> int:
    """Index of the last piece that begins at or before character `place`."""
    return max(0, bisect.bisect_right([piece.start for piece in pieces], place) - 1)


def find_answer(context: str, answer: str, offset: int | None) -> tuple[int | None, bool]:
    """Where `answer` stands in `context`, and whether that is where `offset` points.

    With a wrong offset it is the occurrence nearest to it, in whatever spelling; None: the answer is nowhere.
    """
    answer = answer.strip()
    if offset is not None and offset >= 0:
        # A space before the answer moves it, and is no mistake.
        at = offset + len(context[offset:]) - len(context[offset:].lstrip())
        if context.startswith(answer, at):
            return at, True
    found = [match.start() for match in re.finditer(re.escape(answer), context)]
    if not found:
        found = [match.start() for match in re.finditer(_loosely(answer), context, re.IGNORECASE)]
    found = found or places(context, answer)
    if not found:
        return None, False
    return min(found, key=lambda place: abs(place - (offset or 0))), offset is None


def _loosely(answer: str) -> str:
    return r"\s+".join(re.escape(word) for word in answer.split())
