"""Corpus vectors, computed once for a corpus and an encoder, by as many processes as there are.

A cache entry is a folder named by the hash of the corpus and of everything in the encoder that decides a vector, so a
changed weight, prefix or length never finds the vectors of another. The corpus is worked through in blocks written
straight into one memory-mapped file: memory stays that of a block, a killed run loses a block at most, and processes
that want the same vectors share the blocks between them (a lock each) instead of computing them twice.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout
from tqdm.auto import tqdm

from rag_experiments.core import distributed
from rag_experiments.core.cache import Entry, in_a_sentence
from rag_experiments.core.digest import digest

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.models.encoder.encoder import Encoder

BLOCK = 16_384
"""Passages sorted by length and embedded together: wide enough that batches hold hardly any padding."""

_VECTORS, _LAYOUT = "vectors.npy", "layout.json"


def embed_corpus(
    encoder: Encoder,
    passages: PassageStore,
    cache: Path | None,
    progress: bool = True,
    *,
    store: bool = True,
    block: int = BLOCK,
) -> np.ndarray:
    """Vectors of all passages `[N, D]`, float32, row i that of passage i.

    From `cache` (a read-only memory map) where it has them. Otherwise computed: into the cache, or, with
    `store=False` or without a cache, into memory, for weights that will change with the next step: the processes of a
    run then embed a share each, and must all ask.
    Raises `OSError` when the disk has no room for the vectors, before any is computed.
    """
    shape = (len(passages), encoder.dimension)
    if cache is not None:
        place = Entry(cache, "vectors", vectors_key(encoder, passages))
        cached_ND = _open(place, shape)
        if store:
            return cached_ND if cached_ND is not None else _embed_into(place, encoder, passages, progress, block)
        # Another run may have put them there between one process's look and the next one's.
        if all(distributed.gathered(cached_ND is not None)):
            assert cached_ND is not None
            return cached_ND
    vectors_ND = np.empty(shape, dtype=np.float32)
    rank, count = distributed.rank_and_count()
    with tqdm(total=len(passages), desc="embedding passages", disable=not progress) as bar:
        for rows in _blocks(len(passages), block):
            parts = [slice(rows.start + number, rows.stop, count) for number in range(count)]
            own_ND = encoder.embed_passages(passages.full_texts(parts[rank]))
            for part, part_ND in zip(parts, distributed.gathered(own_ND), strict=True):
                vectors_ND[part] = part_ND
            bar.update(rows.stop - rows.start)
    return vectors_ND


def keep_corpus(
    vectors_ND: np.ndarray, encoder: Encoder, passages: PassageStore, cache: Path, block: int = BLOCK
) -> np.ndarray:
    """Put vectors that `embed_corpus` computed in memory into the cache; returns what is there then.

    Nothing is written where another process is filling the entry: its vectors are these.
    Raises `OSError` when the disk has no room for them, and leaves nothing then.
    """
    place = Entry(cache, "vectors", vectors_key(encoder, passages))
    with in_a_sentence(place.root), place.lock():
        if not place.whole() and not place.partial.exists():
            try:
                _prepare(place.partial, vectors_ND.shape, block)
                kept_ND = np.load(place.partial / _VECTORS, mmap_mode="r+")
                kept_ND[:] = vectors_ND
                kept_ND.flush()
                del kept_ND
                place.put((_VECTORS, _LAYOUT))
            except BaseException:
                shutil.rmtree(place.partial, ignore_errors=True)
                raise
    stored_ND = _open(place, vectors_ND.shape)
    return vectors_ND if stored_ND is None else stored_ND


def vectors_key(encoder: Encoder, passages: PassageStore) -> str:
    """The cache key: equal keys mean equal vectors."""
    return digest(passages.content_hash, encoder.fingerprint(), len(passages), encoder.dimension)


def _embed_into(place: Entry, encoder: Encoder, passages: PassageStore, progress: bool, block: int) -> np.ndarray:
    """Fill the cache entry, together with every other process that does so at the same moment."""
    shape = (len(passages), encoder.dimension)
    with in_a_sentence(place.root), place.lock():
        stored_ND = _open(place, shape)
        if stored_ND is not None:
            return stored_ND
        _prepare(place.partial, shape, block)
        vectors_ND = np.load(place.partial / _VECTORS, mmap_mode="r+")
    blocks = list(enumerate(_blocks(len(passages), block)))
    with tqdm(total=len(passages), desc="embedding passages", disable=not progress) as bar:
        # First pass: whatever no other process works on. Second: wait for those, or do what a dead one left.
        for wait in (False, True):
            waiting = []
            for number, rows in blocks:
                done = place.partial / f"{number:06d}.done"
                try:
                    with place.lock(f"{number:06d}", timeout=-1 if wait else 0):
                        if not (done.exists() or place.whole()):
                            vectors_ND[rows] = encoder.embed_passages(passages.full_texts(rows))
                            vectors_ND.flush()
                            done.touch()
                    bar.update(rows.stop - rows.start)
                except Timeout:
                    waiting.append((number, rows))
            blocks = waiting
    del vectors_ND
    with in_a_sentence(place.root), place.lock():
        if not place.whole():
            place.put((_VECTORS, _LAYOUT))
            # After the rename: a process that looks for a block's marker in between must find one or the other.
            for marker in place.path.glob("*.done"):
                marker.unlink()
    for lock in place.path.parent.glob(f"{place.key}.*.lock"):
        # Whoever still waits on one finds the finished entry right after, so the files may go.
        lock.unlink(missing_ok=True)
    stored_ND = _open(place, shape)
    if stored_ND is None:
        raise RuntimeError(
            f"{place.path}: the vectors just written there cannot be read; remove the folder and try again"
        )
    return stored_ND


def _prepare(partial: Path, shape: tuple[int, int], block: int) -> None:
    """An empty array with its disk space reserved, unless an earlier process left one to go on with."""
    layout = {"shape": list(shape), "block": block}
    note = partial / _LAYOUT
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == layout:
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.lib.format.open_memmap(partial / _VECTORS, mode="w+", dtype=np.float32, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        # A memory map on a full disk kills the process with a bus error; this fails with a sentence, and now.
        size = (partial / _VECTORS).stat().st_size
        with open(partial / _VECTORS, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    note.write_text(json.dumps(layout), encoding="utf-8")


def _open(place: Entry, shape: tuple[int, int]) -> np.ndarray | None:
    """The finished vectors of a cache entry, or `None` where there are none of this shape."""
    if not place.whole():
        return None
    vectors_ND = np.load(place.path / _VECTORS, mmap_mode="r")
    return vectors_ND if vectors_ND.shape == shape else None


def _blocks(count: int, block: int) -> Iterator[slice]:
    for start in range(0, count, block):
        yield slice(start, min(start + block, count))
