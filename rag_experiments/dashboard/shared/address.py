"""The address of a page holds all choices made on it; there is no other state.

Choices equal to a page's defaults are left out, so that addresses stay short enough to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

Value = str | tuple[str, ...]

COMMON: dict[str, Value] = {"q": "", "state": (), "algorithm": (), "sel": ()}
"""The choices of runs, which are kept from page to page."""


@dataclass
class View:
    """One page with its choices. `defaults` lists all names of the page; a tuple marks a name with several values."""

    page: str
    defaults: Mapping[str, Value]
    values: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def read(cls, page: str, defaults: Mapping[str, Value], query: Iterable[tuple[str, str]]) -> View:
        """The view for a query; names that the page does not know are ignored."""
        view = cls(page, {**COMMON, **defaults})
        for name, value in query:
            default = view.defaults.get(name)
            if isinstance(default, tuple):
                held = view.many(name) if name in view.values else ()
                view.values[name] = held if value in held or not value else (*held, value)
            elif default is not None:
                view.values[name] = value.strip()
        return view

    def one(self, name: str) -> str:
        """The value of a name with a single value."""
        value = self.values.get(name, self.defaults[name])
        return value if isinstance(value, str) else ""

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a name with several values."""
        value = self.values.get(name, self.defaults[name])
        return value if isinstance(value, tuple) else ()

    def number(self, name: str, least: float, most: float) -> float:
        """A number within bounds; the default if something else was typed."""
        for text in (self.one(name), self.defaults[name]):
            try:
                value = float(str(text))
            except ValueError:
                continue
            if value == value:
                return min(max(value, least), most)
        return least

    def forget(self, name: str, default: Value) -> None:
        """Leave a choice out of the address if the page would choose the same by itself."""
        if self.values.get(name) == default:
            del self.values[name]

    @property
    def href(self) -> str:
        """The address of this view."""
        return self.link()

    def link(self, page: str | None = None, /, **changes: object) -> str:
        """The address of this view with `changes`, or of another page with the same runs."""
        target = self.page if page is None else page
        keep = self.values if target == self.page else {k: v for k, v in self.values.items() if k in COMMON}
        values: dict[str, Value] = {**keep, **{name: _value(value) for name, value in changes.items()}}
        # Another page has its own defaults, so all changes for it are kept.
        default = self.defaults if target == self.page else COMMON
        pairs: list[tuple[str, str]] = []
        for name in sorted(values, key=lambda name: (name in COMMON, name)):
            value = values[name]
            if value == default.get(name) or value in ("", ()):
                continue
            pairs += [(name, item) for item in ([value] if isinstance(value, str) else value)]
        query = urlencode(pairs, safe="/@,:", quote_via=quote)
        return f"/{target}?{query}" if query else f"/{target}"

    def hidden(self, *shown: str) -> list[tuple[str, str]]:
        """Names and values of the hidden fields that a form needs besides its visible controls."""
        pairs: list[tuple[str, str]] = []
        for name, value in self.values.items():
            if name not in shown and value != self.defaults.get(name):
                pairs += [(name, item) for item in ([value] if isinstance(value, str) else value)]
        return pairs


def _value(value: object) -> Value:
    if isinstance(value, list | tuple | set):
        return tuple(str(item) for item in value)
    return "" if value is None else str(value)
