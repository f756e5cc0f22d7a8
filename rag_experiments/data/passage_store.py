"""The corpus as a memory-mapped Arrow table, so that a corpus may be larger than memory.

Rows are found by id through sorted 64-bit hashes, which are memory-mapped too: 16 bytes per passage on disk, almost
nothing in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_experiments.core.digest import ContentDigest, content_number
from rag_experiments.data.number_columns import Column, sorted_runs
from rag_experiments.data.records import Passage

SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string()), ("place", pa.string())])
_FIELDS = ("id", "text", "title", "place")
BLOCK, BLOCK_CHARACTERS = 2_000, 8_000_000
"""Limits of passages, and of their characters, held in memory while writing."""


class PassageStore:
    """Passages by row or id.

    Attributes:
        path: the folder that `PassageWriter` filled.
        content_hash: a hash of every id, title and text, in order.
    """

    def __init__(self, path: Path):
        self.path = path
        self.content_hash = (path / "content_hash").read_text(encoding="utf-8")
        reader = pa.ipc.open_file(pa.memory_map(str(path / "passages.arrow")))
        self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        # An import of an earlier version has no places.
        self._fields = tuple(name for name in _FIELDS if name in reader.schema.names)
        # Rows are taken batch by batch, because `take` on the whole table copies the table first.
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._sorted_N = np.load(path / "id_hashes.npy", mmap_mode="r")
        self._order_N = np.load(path / "id_rows.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type[PassageStore], tuple[Path]]:
        # Worker processes open the files again, so nothing is copied to them.
        return PassageStore, (self.path,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Passage:
        return Passage(*self._values(row, self._fields))

    def __iter__(self) -> Iterator[Passage]:
        for batch in self._batches:
            for values in zip(*(batch.column(name).to_pylist() for name in self._fields), strict=True):
                yield Passage(*values)

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """int64 rows of `ids`, in their order. Raises `KeyError` with the first id that no passage has."""
        rows = self._find(ids)
        for value, row in zip(ids, rows, strict=True):
            if row < 0:
                raise KeyError(value)
        return rows

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that no passage has."""
        return [value for value, row in zip(ids, self._find(ids), strict=True) if row < 0]

    def __contains__(self, value: str) -> bool:
        return not self.missing([value])

    def repeated_rows(self) -> list[tuple[int, int]]:
        """`(first row, later row)` for every passage with the id of an earlier one, in order of the later row."""
        repeats = []
        runs = np.flatnonzero(self._sorted_N[1:] == self._sorted_N[:-1])
        for hashed in np.unique(self._sorted_N[runs]):
            low, high = (self._sorted_N.searchsorted(hashed, side) for side in ("left", "right"))
            first: dict[str, int] = {}
            for row in sorted(self._order_N[low:high].tolist()):
                earlier = first.setdefault(self._id(row), row)
                if earlier != row:
                    repeats.append((earlier, row))
        return sorted(repeats, key=lambda pair: pair[1])

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of `rows`, in their order."""
        return [self._id(row) for row in rows]

    def shown_ids(self, ids: Sequence[str]) -> list[str]:
        """What people see in place of `ids` (`Passage.shown_id`); an id that no passage has stays as it is."""
        rows = self._find(ids).tolist()
        return [value if row < 0 else self[row].shown_id for value, row in zip(ids, rows, strict=True)]

    @cached_property
    def has_places(self) -> bool:
        """Whether any passage is shown by its place."""
        return "place" in self._fields and any(
            pc.sum(pc.binary_length(batch.column("place"))).as_py() for batch in self._batches
        )

    def places(self) -> Iterator[tuple[int, str]]:
        """Row and place of every passage that is shown by its place."""
        for start, batch in zip(self._starts.tolist(), self._batches, strict=False) if self.has_places else ():
            for row, place in enumerate(batch.column("place").to_pylist(), start):
                if place:
                    yield row, place

    def full_texts(self, rows: slice | Sequence[int] | np.ndarray) -> list[str]:
        """The texts of `rows` that an encoder reads (`Passage.full_text`), in their order."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        return [Passage("", *self._values(row, ("text", "title"))).full_text for row in rows]

    def _find(self, ids: Sequence[str]) -> np.ndarray:
        hashes = np.array([hash_id(value) for value in ids], dtype=np.uint64)
        places = np.searchsorted(self._sorted_N, hashes)
        rows = np.full(len(ids), -1, dtype=np.int64)
        for index, (value, place) in enumerate(zip(ids, places.tolist(), strict=True)):
            # Two ids may, rarely, have the same hash: check each of them.
            while place < len(self._sorted_N) and self._sorted_N[place] == hashes[index]:
                row = int(self._order_N[place])
                if self._id(row) == value:
                    rows[index] = row
                    break
                place += 1
        return rows

    def _id(self, row: Any) -> str:
        return self._values(row, ("id",))[0]

    def _values(self, row: Any, names: tuple[str, ...]) -> list[str]:
        row = int(row)
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} passages")
        at = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch, inside = self._batches[at], row - int(self._starts[at])
        return [batch.column(name)[inside].as_py() for name in names]


def hash_id(value: str) -> int:
    """The 64-bit hash of an id."""
    return content_number(value)


class PassageWriter:
    """Writes a store into the folder `path`, block by block."""

    def __init__(self, path: Path):
        self.path = path
        self._sink = pa.OSFile(str(path / "passages.arrow"), "wb")
        self._file = pa.ipc.new_file(self._sink, SCHEMA)
        self._block: list[Passage] = []
        self._characters = 0
        self._digest = ContentDigest()
        self._hashes = Column(path / "unsorted_id_hashes")

    def add(self, passage: Passage) -> None:
        """Append one passage."""
        self._block.append(passage)
        self._characters += len(passage.text)
        self._hashes.append(hash_id(passage.id))
        self._digest.add("\x1f".join((passage.id, passage.title, passage.text, "\x1e")))
        if len(self._block) >= BLOCK or self._characters >= BLOCK_CHARACTERS:
            self._flush()

    def close(self) -> int:
        """Finish the files; returns how many passages they hold."""
        self._flush()
        self._file.close()
        self._sink.close()
        hashes_N = self._hashes.values()
        size = len(hashes_N)
        sorted_N = _new_array(self.path / "id_hashes.npy", np.uint64, size)
        order_N = _new_array(self.path / "id_rows.npy", np.int64, size)
        at = 0
        for hashes, rows in sorted_runs(hashes_N, self.path):
            sorted_N[at : at + len(hashes)], order_N[at : at + len(rows)] = hashes, rows
            at += len(hashes)
        self._hashes.remove()
        (self.path / "content_hash").write_text(self._digest.hexdigest(), encoding="utf-8")
        return size

    def _flush(self) -> None:
        if self._block:
            columns = [[getattr(passage, name) for passage in self._block] for name in SCHEMA.names]
            self._file.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._block, self._characters = [], 0


def _new_array(path: Path, kind: type, size: int) -> np.ndarray:
    """A new memory-mapped array, to be filled by the caller."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(size,))


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Write a store into the folder `path`; returns how many passages it holds."""
    writer = PassageWriter(path)
    for passage in passages:
        writer.add(passage)
    return writer.close()
