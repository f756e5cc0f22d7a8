"""Cut long texts into passages."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

from rag_experiments.core.text import cut_units, places


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, with the positions of its first character and of its end."""

    text: str
    start: int
    end: int


def cut_by_words(text: str, words: int, overlap: int = 0) -> list[Piece]:
    """Pieces of `words` words each; each begins `overlap` words before the end of the piece before it.

    In a script without spaces between words, each character counts as a word. A last piece shorter than a quarter of
    `words` is joined to the piece before it.
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
    """The position of `answer` in `context`, and whether `offset` points at it.

    If the offset is wrong, the occurrence nearest to it is returned, ignoring case and spelling variants. None if the
    answer does not occur.
    """
    answer = answer.strip()
    if offset is not None and offset >= 0:
        # A space before the answer shifts its position; that is not an error of the data.
        at = offset + len(context[offset:]) - len(context[offset:].lstrip())
        if context.startswith(answer, at):
            return at, True
    positions = [match.start() for match in re.finditer(re.escape(answer), context)]
    if not positions:
        positions = [match.start() for match in re.finditer(_loosely(answer), context, re.IGNORECASE)]
    positions = positions or places(context, answer)
    if not positions:
        return None, False
    return min(positions, key=lambda place: abs(place - (offset or 0))), offset is None


def _loosely(answer: str) -> str:
    return r"\s+".join(re.escape(word) for word in answer.split())
