"""The corpus as a memory-mapped Arrow table, so that one larger than memory works.

Rows are found by id through sorted 64-bit hashes, also memory-mapped: 16 bytes a passage on disk, next to
nothing in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from rag_experiments.data.schema import Passage

SCHEMA = pa.schema([("id", pa.large_string()), ("title", pa.large_string()), ("text", pa.large_string())])
BLOCK = 10_000
"""Passages written at a time."""


class PassageStore:
    """Passages by row or id.

    Attributes:
        path: the folder `write_passages` filled.
        content_hash: of every id, title and text, in order.
    """

    def __init__(self, path: Path):
        self.path = path
        self.content_hash = (path / "content_hash").read_text(encoding="utf-8").strip()
        self._source = pa.memory_map(str(path / "passages.arrow"))
        self._table = pa.ipc.open_file(self._source).read_all()
        self._sorted_N = np.load(path / "id_hashes.npy", mmap_mode="r")
        self._order_N = np.load(path / "id_rows.npy", mmap_mode="r")

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, row: int) -> Passage:
        row = int(row)
        values = [self._table.column(name)[row].as_py() for name in ("id", "text", "title")]
        return Passage(*values)

    def __iter__(self) -> Iterator[Passage]:
        for batch in self._table.to_batches():
            for ids, title, text in zip(*(batch.column(n).to_pylist() for n in SCHEMA.names), strict=True):
                yield Passage(ids, text, title)

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """int64 rows of `ids`, in their order. Raises `KeyError` with the first id that is not there."""
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        hashes = np.array([hash_id(value) for value in ids], dtype=np.uint64)
        places = np.searchsorted(self._sorted_N, hashes)
        rows = np.empty(len(ids), dtype=np.int64)
        for index, (value, place) in enumerate(zip(ids, places, strict=True)):
            rows[index] = self._row_at(value, hashes[index], int(place))
        return rows

    def _row_at(self, value: str, wanted: np.uint64, place: int) -> int:
        while place < len(self) and self._sorted_N[place] == wanted:  # a collision is possible, if barely
            row = int(self._order_N[place])
            if self._table.column("id")[row].as_py() == value:
                return row
            place += 1
        raise KeyError(value)

    def __contains__(self, value: str) -> bool:
        try:
            self.rows([value])
        except KeyError:
            return False
        return True

    def ids_are_unique(self) -> bool:
        """Whether no two passages have one id."""
        for place in np.flatnonzero(self._sorted_N[1:] == self._sorted_N[:-1]):
            same = self._sorted_N[place]
            rows = self._order_N[self._sorted_N.searchsorted(same) : self._sorted_N.searchsorted(same, "right")]
            if len(set(self.ids(rows))) < len(rows):
                return False
        return True

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of `rows`, in their order."""
        return self._table.column("id").take(pa.array(np.asarray(rows, dtype=np.int64))).to_pylist()

    def full_texts(self, rows: slice | Sequence[int] | np.ndarray) -> list[str]:
        """What an encoder reads of `rows`, in their order."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        taken = self._table.take(pa.array(np.asarray(rows, dtype=np.int64)))
        titles, texts = taken.column("title").to_pylist(), taken.column("text").to_pylist()
        return [f"{title}\n{text}" if title else text for title, text in zip(titles, texts, strict=True)]


def hash_id(value: str) -> int:
    """64 bits of an id."""
    return xxhash.xxh64_intdigest(value.encode("utf-8"))


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Write a store into the folder `path`, `BLOCK` passages in memory at a time; returns how many."""
    digest = xxhash.xxh128()
    hashes: list[np.ndarray] = []
    with pa.OSFile(str(path / "passages.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for block in _blocks(passages):
            columns = [[getattr(passage, name) for passage in block] for name in SCHEMA.names]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            for passage in block:
                digest.update("\x1f".join((passage.id, passage.title, passage.text, "\x1e")).encode("utf-8"))
            hashes.append(np.array([hash_id(passage.id) for passage in block], dtype=np.uint64))
    all_N = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
    order_N = np.argsort(all_N, kind="stable")
    np.save(path / "id_hashes.npy", all_N[order_N])
    np.save(path / "id_rows.npy", order_N.astype(np.int64))
    (path / "content_hash").write_text(digest.hexdigest(), encoding="utf-8")
    return len(all_N)


def _blocks(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    block: list[Passage] = []
    for passage in passages:
        block.append(passage)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block
