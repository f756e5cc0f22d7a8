"""The texts of passages, as long as the imported corpus of a run is in the cache.

The corpus is found by the content hash in the run's status, so another corpus with the same ids is never shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from rag_experiments.core.bounded_files import read_text
from rag_experiments.dashboard.shared.watch import Run
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Passage


def passages_of(run: Run, ids: Iterable[str], cache: Path) -> dict[str, Passage] | None:
    """The passages of the run's corpus with these ids; None if the corpus is not in the cache."""
    store = store_of(run, cache)
    if store is None:
        return None
    passages = {}
    for id_ in dict.fromkeys(ids):
        try:
            passages[id_] = store[int(store.rows([id_])[0])]
        except KeyError:
            continue
    return passages


def store_of(run: Run, cache: Path) -> PassageStore | None:
    """The run's corpus, from the run's own cache folder or from `cache`; None if neither has it."""
    corpus_hash = run.status.get("corpus_hash")
    folders = [Path(str(run.flat["paths.cache"])).expanduser()] if run.flat.get("paths.cache") else []
    for folder in dict.fromkeys([*folders, cache]):
        if corpus_hash and (store_folder := _find(folder / "data", str(corpus_hash))) is not None:
            return _open(store_folder)
    return None


def _find(folder: Path, content_hash: str) -> Path | None:
    for file in folder.glob("*/content_hash"):
        try:
            if read_text(file, 1024).strip() == content_hash:
                return file.parent
        except (OSError, ValueError):
            continue
    return None


@lru_cache(maxsize=4)
def _open(path: Path) -> PassageStore | None:
    try:
        return PassageStore(path)
    except (OSError, ValueError):  # partly deleted
        return None
