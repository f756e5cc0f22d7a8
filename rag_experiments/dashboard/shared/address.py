"""The address is the view: every choice made on a page is in its query, and nothing else holds state.

What equals a page's default is left out, so that addresses stay short enough to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

Value = str | tuple[str, ...]

COMMON: dict[str, Value] = {"q": "", "state": (), "algorithm": (), "sel": ()}
"""Which runs are looked at: kept from page to page."""


@dataclass
class View:
    """One page with its choices. `defaults` gives every name the page knows; a tuple marks one with several values."""

    page: str
    defaults: Mapping[str, Value]
    values: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def read(cls, page: str, defaults: Mapping[str, Value], query: Iterable[tuple[str, str]]) -> View:
        """The view that a query asks for; names that the page does not know are passed over."""
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
        """The value of a name with one."""
        value = self.values.get(name, self.defaults[name])
        return value if isinstance(value, str) else ""

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a name with several."""
        value = self.values.get(name, self.defaults[name])
        return value if isinstance(value, tuple) else ()

    def number(self, name: str, least: float, most: float) -> float:
        """A number within bounds; the default where something else was typed."""
        for text in (self.one(name), self.defaults[name]):
            try:
                value = float(str(text))
            except ValueError:
                continue
            if value == value:
                return min(max(value, least), most)
        return least

    def forget(self, name: str, default: Value) -> None:
        """Leave a choice out of the address where it is what the page would choose by itself."""
        if self.values.get(name) == default:
            del self.values[name]

    @property
    def href(self) -> str:
        """The address of this view."""
        return self.link()

    def link(self, page: str | None = None, /, **changes: object) -> str:
        """The address of this view with `changes` (`page` among them: of rows), or of another page on the same runs."""
        target = self.page if page is None else page
        keep = self.values if target == self.page else {k: v for k, v in self.values.items() if k in COMMON}
        values: dict[str, Value] = {**keep, **{name: _value(value) for name, value in changes.items()}}
        # Defaults of another page are its own: what is given for it is kept as it is.
        default = self.defaults if target == self.page else COMMON
        pairs: list[tuple[str, str]] = []
        for name in sorted(values, key=lambda name: (name in COMMON, name)):
            value = values[name]
            if value == default.get(name) or value in ("", ()):
                continue
            pairs += [(name, item) for item in ([value] if isinstance(value, str) else value)]
        query = urlencode(pairs, safe="/@,:", quote_via=quote)
        return f"/{target}?{query}" if query else f"/{target}"

    def toggled(self, name: str, item: str) -> str:
        """The address with `item` added to a name with several values, or taken out of it. Page 1 again."""
        held = self.many(name)
        changed = tuple(value for value in held if value != item) if item in held else (*held, item)
        return self.link(**{name: changed}, **({"page": "1"} if "page" in self.defaults else {}))

    def hidden(self, *shown: str) -> list[tuple[str, str]]:
        """Name and value of what a form must carry along besides the controls it shows."""
        pairs: list[tuple[str, str]] = []
        for name, value in self.values.items():
            if name not in shown and value != self.defaults.get(name):
                pairs += [(name, item) for item in ([value] if isinstance(value, str) else value)]
        return pairs


def _value(value: object) -> Value:
    if isinstance(value, list | tuple | set):
        return tuple(str(item) for item in value)
    return "" if value is None else str(value)
