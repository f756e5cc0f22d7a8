"""The disk cache: what is expensive to make is kept under a key of all that it is made from.

    <paths.cache>/<room>/<key>/            an entry: whole, or not there
    <paths.cache>/<room>/.partial-<key>/   one that is being made
    <paths.cache>/<room>/<key>.lock        held by the process that makes it

A key is a `core.digest.digest` of whole configuration objects and content hashes. An entry is filled beside its place
and put there by one rename, so a reader never sees half of one, and what a killed process left is cleared by the next.
`entry.json` lists an entry's files with their sizes: one that lost a file, or a part of one, is made again.

Two kinds of things have their place and key from here and are filled otherwise: scores grow in an SQLite file
(`Entry.file`), and a run that comes before another is a run directory, resumable, whole when its `model/` is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import TEMPORARY_PREFIX, atomic_write_json, put_directory

LISTING = "entry.json"
"""Written into an entry last."""


@dataclass(frozen=True)
class Entry:
    """A place in the cache."""

    root: Path
    """`paths.cache`."""
    room: str
    """What kind of thing it is; may name folders below one another."""
    key: str

    @property
    def path(self) -> Path:
        """The entry's folder, or where it will be."""
        return self.root / self.room / self.key

    @property
    def partial(self) -> Path:
        """Where it is made. Whoever writes there holds a lock of this entry."""
        return self.path.with_name(f"{TEMPORARY_PREFIX}{self.key}")

    def file(self, suffix: str) -> Path:
        """A file beside the folder that has this key."""
        return self.path.with_name(f"{self.key}{suffix}")

    def lock(self, part: str = "", timeout: float = -1) -> FileLock:
        """A lock of the entry, or of a part of it, shared by all processes.

        Entering it raises `filelock.Timeout` after `timeout` seconds (-1: never).

        Raises:
            OSError: the room cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.file(f".{part}.lock" if part else ".lock"), timeout=timeout)

    def whole(self) -> bool:
        """Whether the entry is there, with every file as long as it was."""
        return is_whole(self.path)

    def put(self, names: Collection[str] | None = None) -> None:
        """List what is in `partial` and give it its place. The caller holds the entry's lock.

        Args:
            names: its files; `None`: all. Others may be removed later.
        """
        write_listing(self.partial, names)
        put_directory(self.partial, self.path)


def entry(root: Path, room: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder of an entry: found, or made now by `fill(folder)`, by one process while others wait for it.

    Raises:
        RequestError: the cache cannot be written, or what `fill` raises. Nothing is left then.
        OSError: the disk is full.
    """
    place = Entry(root, room, key)
    if place.whole():  # without a lock: another's cache may be read-only
        return place.path
    with in_a_sentence(root), place.lock():
        if not place.whole():
            shutil.rmtree(place.partial, ignore_errors=True)  # of a process that was killed
            place.partial.mkdir()
            try:
                fill(place.partial)
                place.put()
            except BaseException:
                shutil.rmtree(place.partial, ignore_errors=True)
                raise
    return place.path


def write_listing(folder: Path, names: Collection[str] | None = None) -> None:
    """Write down the files of `folder`, or those of these names, for `is_whole`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    atomic_write_json(folder / LISTING, {name: size for name, size in sizes.items() if names is None or name in names})


def is_whole(folder: Path) -> bool:
    """Whether every file that `write_listing` found is in `folder`, as long as it was."""
    try:
        sizes = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        return all(os.stat(folder / name).st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def in_a_sentence(root: Path) -> Iterator[None]:
    """Within, a disk that is read-only or gone is a `RequestError`, and a full one an `OSError`, that name the key."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no wrong request: `outcome` has a status and words for it
            raise OSError(error.errno, f"{error.strerror} (paths.cache={root})") from error
        raise RequestError(
            f"paths.cache={root} cannot be used ({error}): give the right to write there, or choose another paths.cache"
        ) from error
