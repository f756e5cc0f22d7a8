"""A pytest plugin: a test fails where a call of ours makes a library say that something will go away.

    python -m pytest -p tests.deprecations …

Libraries say it in two ways, by `warnings.warn` and in their log, and neither says whose call it was: the module that
Python's filters see is the library's own where its `stacklevel` is wrong. So the stack is read at that moment. The
frames of the library that speaks (and of the standard library) are passed over; the call is ours where the next
frame is. What one library does wrong with another is not ours, and stays unsaid.
"""

from __future__ import annotations

import logging
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

OURS = ("rag_experiments", "hydra_plugins")
GOES_AWAY = re.compile(r"deprecat|will be removed|is removed in|no longer (be )?supported|will be an error", re.I)
CATEGORIES = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
FORWARDERS = ("torch.nn.modules.module", "torch.utils._contextlib", "torch._tensor", "accelerate.utils.operations")
"""Modules through which a call passes unchanged: `module(...)` to its `forward`, `no_grad`, autocast."""
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])

said: list[str] = []
"""What was said because of us, since the last test."""


def package(frame: FrameType) -> str | None:
    """The top package of a frame's code; `None` for the standard library, for forwarders and for this file."""
    module = str(frame.f_globals.get("__name__", ""))
    if module in FORWARDERS or module == __name__:
        return None
    file = Path(frame.f_code.co_filename)
    standard = STANDARD_LIBRARY in file.parents and "site-packages" not in file.parts
    return None if standard or file.name.startswith("<") else module.partition(".")[0]


def caused_by_us(frame: FrameType | None) -> bool:
    """Whether the first frame outside the library that speaks is ours. We may be the one that speaks: no library."""
    speaker = None
    while frame is not None:
        name = package(frame)
        if name is not None and name != speaker:
            if speaker is not None:
                return name in OURS
            speaker = name
        frame = frame.f_back
    return False


def note(message: str) -> None:
    """Keep what was said, if it was said because of us."""
    if caused_by_us(sys._getframe(1)):
        said.append(message.splitlines()[0])


def pytest_configure() -> None:
    """Listen before the libraries are imported."""
    warn, log = warnings.warn, logging.Logger.warning

    def warned(message: Any, category: Any = None, *args: Any, **kwargs: Any) -> None:
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if issubclass(kind, CATEGORIES) or GOES_AWAY.search(str(message)):
            note(f"{kind.__name__}: {message}")
        level = kwargs.pop("stacklevel", None) or (args[0] if args else 1)
        warn(message, category, level + 1, *args[1:], **kwargs)

    def logged(self: logging.Logger, message: object, *args: Any, **kwargs: Any) -> None:
        if GOES_AWAY.search(str(message)):
            note(f"{self.name}: {message}")
        log(self, message, *args, **{"stacklevel": 2, **kwargs})

    warnings.warn = warned  # type: ignore[assignment]
    logging.Logger.warning = logged  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def nothing_goes_away() -> Iterator[None]:
    """Fails the test during which it was said."""
    said.clear()
    yield
    if said:
        pytest.fail("our call, which a library will not take for ever: " + "; ".join(dict.fromkeys(said)))
