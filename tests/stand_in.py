"""Replace a function of the standard library for one module alone.

`monkeypatch.setattr(time, "monotonic", ...)` replaces it for the whole process: threads that another test left running,
such as a web server's, then call the replacement as well, and one that answers twice is used up by them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


class _StandIn:
    """A module with some of its attributes replaced."""

    def __init__(self, original: Any, replaced: dict[str, Any]):
        self.__dict__.update(replaced)
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def stand_in(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, **replaced: Any) -> None:
    """In `module` alone, the module that it imported as `name` has the attributes `replaced`."""
    monkeypatch.setattr(module, name, _StandIn(getattr(module, name), replaced))
