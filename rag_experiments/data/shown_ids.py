"""What people see in place of a passage's id, where the data give it none.

Such a passage has a hash of its content as id, so that hashes of data sets, caches and splits depend neither on the
form of a file nor on its name. What people see, and what predictions and native files hold, is the place where the
passage was read first (`Passage.shown_id`). Beside it these files keep what it is hashed as, so that they can be read
again, and compared with those of runs that were made before, or from another form of the same data.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.core.digest import content_number
from rag_experiments.data.records import Where

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore

HASHED_AS = "hashed_as"
"""The key in `passages.jsonl` and in rows of predictions under which the ids of hashes stand."""
ROW_LISTS = ("retrieved_ids", "first_stage_ids", "given_ids", "gold_ids")
"""The lists of passage ids in a row of predictions."""
_BLOCK = 2_000
"""Places that are looked up together."""


class FileLabels:
    """A short name for each file: its name, and a number where files before it have the same."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def place(self, where: Where) -> str:
        """A row's place, without folders and white space around it: `train.jsonl:17`, `dev.parquet[3]`.

        It depends on the names of files, but not on their folder, like the key of an import in the cache.
        """
        if where.inside.startswith(", "):  # a table that is in no single file: its name is the split's
            return where.inside[2:]
        label = self._labels.get(where.file)
        if label is None:
            name = Path(where.file).name
            number = self._counts[name] = self._counts.get(name, 0) + 1
            label = self._labels[where.file] = name if number == 1 else f"{name}({number})"
        return f"{label}:{where.line}" if where.line is not None else label + where.inside.replace(": ", ":", 1)


def misleading_rows(store: PassageStore) -> set[int]:
    """Rows of passages whose place is another passage's id, or an earlier one's place."""
    rows: set[int] = set()
    hashes = array("Q")
    places = store.places()
    while block := list(islice(places, _BLOCK)):
        free = set(store.missing([place for _, place in block]))
        rows.update(row for row, place in block if place not in free)
        hashes.extend(content_number(place) for _, place in block)
    counts = Counter(hashes) if len(set(hashes)) < len(hashes) else Counter[int]()
    seen: set[str] = set()
    for row, place in store.places() if counts else ():
        if counts[content_number(place)] > 1:
            rows.update([row] if place in seen else ())
            seen.add(place)
    return rows


# -- files that hold ids -----------------------------------------------------------------------------------


def shown_rows(rows: Iterable[Mapping[str, Any]], store: PassageStore) -> Iterator[dict[str, Any]]:
    """Rows of predictions as they are written: with ids as people see them, and under `hashed_as` the others.

    Args:
        rows: as an evaluator made them, or as they were read from a file, perhaps of an earlier version.
    """
    names: dict[str, str] = {}
    for row in rows:
        if not store.has_places and HASHED_AS not in row:
            yield dict(row)
            continue
        lists = {name: own_ids(row, name) for name in ROW_LISTS if row.get(name) is not None}
        new = [value for value in dict.fromkeys(one for ids in lists.values() for one in ids) if value not in names]
        names.update(zip(new, store.shown_ids(new), strict=True))
        shown = {name: [names[value] for value in ids] for name, ids in lists.items()}
        hashed = {names[value]: value for ids in lists.values() for value in ids if names[value] != value}
        rest = {name: value for name, value in row.items() if name != HASHED_AS}
        yield {**rest, **shown, **({HASHED_AS: hashed} if hashed else {})}


def own_ids(row: Mapping[str, Any], name: str) -> list[str]:
    """The ids of a list in a row of predictions as they are hashed and stored; as they stand there, where it has none
    others. Empty if there is no such list."""
    values, hashed = row.get(name), row.get(HASHED_AS)
    if not isinstance(values, list):
        return []
    return [str(hashed.get(value, value)) if isinstance(hashed, dict) else str(value) for value in map(str, values)]
