"""Text of users on a terminal: control characters are shown, never obeyed.

A name, a passage or an answer may hold escape sequences that move a cursor, hide a line or retitle a window, and
marks that turn the direction of writing round. Whatever prints data goes through `visible` or `say`.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 without tab and line feed, DEL, C1, separators of lines, overrides of direction, and halves of characters."""


def visible(text: str) -> str:
    r"""`text` with control characters written out: `\x1b` for an escape. Line feeds and tabs stay."""
    return _CONTROL.sub(lambda found: _written(found.group()), text)


def json_visible(text: str) -> str:
    r"""JSON text with the same characters as `\u009b`, which a reader of JSON turns back into what they were."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _written(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"


def say(text: object = "", file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """`print` for what holds somebody's data."""
    print(visible(str(text)), file=file or sys.stdout, end=end, flush=flush)
