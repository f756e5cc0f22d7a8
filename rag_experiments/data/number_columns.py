"""Numbers about every passage, on disk rather than in memory while a corpus is read, and sorted there."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 65_536
"""Numbers in memory while writing, and about so many while sorting."""


class Column:
    """64-bit numbers appended to a file; `values` maps it into memory."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 - open as long as the column is
        self._block = array("Q")

    def append(self, value: int) -> None:
        """One number."""
        self._block.append(value)
        if len(self._block) >= BLOCK:
            self._flush()

    def values(self) -> np.ndarray:
        """All of them so far, read-only; they outlive the file's name."""
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
    """`(values, their places)` in ascending order, run by run; equal values in one run, in order of place.

    The values are hashes: parted by their highest bits into temporary files in `folder`, they make runs of
    about `BLOCK`, and memory holds one.
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
    """Value and place of each, appended to the file that is called as its highest bits."""
    shift = np.uint64(64 - bits)
    for start in range(0, len(values_N), BLOCK):
        values = np.asarray(values_N[start : start + BLOCK])
        pairs = np.stack([values, np.arange(start, start + len(values), dtype=np.uint64)], axis=1)
        parts = (values >> shift).astype(np.int64)
        for part in np.unique(parts):
            with open(folder / f"{part}", "ab") as file:
                pairs[parts == part].tofile(file)


def repeats(values_N: np.ndarray, folder: Path) -> int:
    """How many of the values equal an earlier one."""
    return sum(int((values[1:] == values[:-1]).sum()) for values, _ in sorted_runs(values_N, folder))
