"""The two ways a run ends early, and the sentence the user reads.

Imports nothing heavy: every module, the command line included, may raise these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_AT_MOST = 8
"""Names that a message lists."""


class RequestError(Exception):
    """The request is wrong (configuration or data): exit status 2, one sentence, no traceback.

    The message says which key or file and line, what was wrong, and what would be right.
    """


def first_line(error: object) -> str:
    """What an error says first; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(word: str, options: Iterable[str], count: int = 3) -> list[str]:
    """The options spelt most like `word`, best first."""
    return difflib.get_close_matches(word, list(options), n=count, cutoff=0.6)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"`, or the whole list where nothing is near and the list is short, or nothing."""
    options = list(options)
    close = nearest(word, options)
    if close:
        return f" (did you mean {' or '.join(repr(c) for c in close)}?)"
    if 0 < len(options) <= 12:
        return f" (choose from {', '.join(sorted(options))})"
    return ""


def first_of(names: Iterable[str], separator: str, rest: str) -> str:
    """`a|b|c`, or the first eight of many and `rest`, which says where the others are."""
    names = list(names)
    if len(names) <= SHOWN_AT_MOST:
        return separator.join(names)
    return f"{separator.join(names[:SHOWN_AT_MOST])}{separator}… ({len(names) - SHOWN_AT_MOST} more: {rest})"


def with_article(noun: str) -> str:
    """`a decoder`, `an encoder`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
