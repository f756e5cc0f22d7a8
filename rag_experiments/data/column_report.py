"""What became of the columns of a data set: read, not used, named and nowhere to be seen."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rag_experiments.data.column_names import preferred

UNUSED = "columns not used"
MOST_NAMED = 20
"""So many unused columns are listed."""


@dataclass
class ColumnReport:
    """Collects the columns of every row that a format reads."""

    mapping: dict[str, str] = field(default_factory=dict)
    """Key under `data.columns` → the column that it names."""
    defaults: Mapping[str, str | None] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    """Keys for want of which a row was left out."""
    _unused: dict[str, None] = field(default_factory=dict)
    _absent: dict[str, None] = field(default_factory=dict)
    _rows: int = 0

    def expect(self, mapping: Mapping[str, str | None], defaults: Mapping[str, str | None]) -> None:
        """Say which column each key of `data.columns` names, before the first row."""
        self.mapping = {key: name for key, name in mapping.items() if name}
        self.defaults = defaults
        self._absent = dict.fromkeys(self.mapping)

    def row(self, names: Iterable[str], used: Container[str]) -> None:
        """Record the columns of a row."""
        self._rows += 1
        names = list(names)
        for name in names:
            if name not in used:
                self._unused.setdefault(name)
        if self._absent:
            here = {*names}
            for key in list(self._absent):
                if self.mapping[key] in here or self.mapping[key].split(".")[0] in here:
                    del self._absent[key]

    def missing(self) -> Iterator[str]:
        """A sentence for each column that no row has, if it was named by hand or rows were left out for want of it."""
        for key in self._absent if self._rows else ():
            if self.mapping[key] != self.defaults.get(key):
                yield f"data.columns.{key}={self.mapping[key]}: no row has such a column{self._advice(key)}"
            elif key in self.needed and self._other(key):
                yield (
                    f"no row has a column {self.mapping[key]!r}, and rows are left out for want of it"
                    f"{self._advice(key)}, data.columns.{key}=null says that there is none"
                )

    def notes(self) -> Iterator[str]:
        """What was read, where a name is another than the default; what was not; what could have been."""
        present = {key: name for key, name in self.mapping.items() if key not in self._absent}
        if self._rows and any(name != self.defaults.get(key) for key, name in present.items()):
            yield f"columns read: {', '.join(f'{key} from {name!r}' for key, name in present.items())}"
        for key in self._absent if self._rows else ():
            if self.mapping[key] == self.defaults.get(key) and key not in self.needed and self._other(key):
                yield f"no row has a column {self.mapping[key]!r}{self._advice(key)}"
        if self._unused:
            yield f"{UNUSED}: {', '.join(list(self._unused)[:MOST_NAMED])}"

    def _other(self, key: str) -> str | None:
        """A column that is not used and usually holds what this key is for."""
        return preferred("context" if key == "positives" else key, self._unused)

    def _advice(self, key: str) -> str:
        named = self._other(key)
        if named is not None:
            return f"; data.columns.{key}={named} reads {named!r}"
        return f" (not used: {', '.join(list(self._unused)[:MOST_NAMED])})" if self._unused else ""
