"""Numbers about every passage, kept and sorted on disk while a corpus is read, so that memory stays small."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 65_536
"""Numbers held in memory while writing, and approximately while sorting."""


class Column:
    """64-bit numbers that are appended to a file; `values` maps the file into memory."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 - open as long as the column is
        self._block = array("Q")

    def append(self, value: int) -> None:
        """Append one number."""
        self._block.append(value)
        if len(self._block) >= BLOCK:
            self._flush()

    def values(self) -> np.ndarray:
        """All numbers so far, read-only; the array stays valid after the file is deleted."""
        self._flush()
        if not self.path.stat().st_size:
            return np.empty(0, dtype=np.uint64)
        return np.memmap(self.path, dtype=np.uint64, mode="r")

    def remove(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._block.tofile(self._file)
        self._file.flush()
        self._block = array("Q")


def sorted_runs(values_N: np.ndarray, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `(values, their places)` in ascending order, part by part. Equal values are in one part, by place.

    The values are hashes. Their highest bits divide them into temporary files in `folder` of about `BLOCK` values each,
    so that memory holds only one part.
    """
    bits = min(9, max(0, math.ceil(math.log2(max(1, len(values_N)) / BLOCK))))
    with tempfile.TemporaryDirectory(dir=folder, prefix="sort-") as name:
        if bits:
            _part(values_N, bits, Path(name))
        for part in range(1 << bits):
            if not bits:
                values, places = np.asarray(values_N), np.arange(len(values_N))
            else:
                path = Path(name) / f"{part}"
                if not path.is_file():
                    continue
                pairs = np.fromfile(path, dtype=np.uint64).reshape(-1, 2)
                values, places = pairs[:, 0], pairs[:, 1].astype(np.int64)
            order = np.argsort(values, kind="stable")
            yield values[order], places[order]


def _part(values_N: np.ndarray, bits: int, folder: Path) -> None:
    """Append each value and its place to the file that is named after the value's highest bits."""
    shift = np.uint64(64 - bits)
    for start in range(0, len(values_N), BLOCK):
        values = np.asarray(values_N[start : start + BLOCK])
        pairs = np.stack([values, np.arange(start, start + len(values), dtype=np.uint64)], axis=1)
        parts = (values >> shift).astype(np.int64)
        for part in np.unique(parts):
            with open(folder / f"{part}", "ab") as file:
                pairs[parts == part].tofile(file)


def repeats(values_N: np.ndarray, folder: Path) -> int:
    """The number of values that equal an earlier one."""
    return sum(int((values[1:] == values[:-1]).sum()) for values, _ in sorted_runs(values_N, folder))
