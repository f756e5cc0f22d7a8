"""Cut a missing dev or test split from train, by a seed, so that no gold passage is in two splits.

Kept together (transitively): questions with a gold passage in common, questions whose gold passages have
the same text under different ids, questions that ask the same, and questions of one group (an article).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.digest import content_digest, settled_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text import identity
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.queries import question_key

if TYPE_CHECKING:
    from rag_experiments.data.builder import Asked


def split_questions(
    entries: dict[str, list[Asked]], store: PassageStore, config: DataConfig
) -> tuple[dict[str, list[Asked]], list[str]]:
    """Cut missing splits from train; returns the splits and a note for each split that was cut.

    Data without train questions stays as it is: it can be evaluated, not trained on.

    Raises:
        RequestError: there are too few questions for a split, or too many of them must stay together.
    """
    missing = [name for name in ("dev", "test") if name not in entries]
    if not missing or "train" not in entries:
        return entries, []
    train = entries["train"]
    units = unite(train, store)
    if len(units) <= len(missing):
        raise RequestError(
            f"data.path={config.path}: there is no {' and no '.join(missing)} split, and none can be cut from train: "
            f"its {len(train)} questions make {len(units)} group(s) that share gold passages or wording; give the "
            "missing file(s)"
        )
    ranked = sorted(units, key=lambda unit: _rank(config.split_seed, unit))
    splits, notes = dict(entries), []
    for number, name in enumerate(missing):
        size = max(1, round(len(train) * getattr(config, f"{name}_fraction")))
        selection = _take(ranked, size, leave=len(missing) - number)
        splits[name] = _in_order(selection, train)
        notes.append(
            f"no {name} split was given: {len(selection)} of {len(train)} questions were taken from train "
            f"(data.split_seed={config.split_seed}, questions on one passage kept together)"
        )
    splits["train"] = _in_order([one for unit in ranked for one in unit], train)
    return splits, notes


def unite(entries: list[Asked], store: PassageStore) -> list[list[Asked]]:
    """Group the questions into units; the questions of one unit must be in the same split."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for number, one in enumerate(entries):
        for key in _bonds(one, store):
            parent[root(key)] = root(f"number {number}")
    units: dict[str, list[Asked]] = {}
    for number, one in enumerate(entries):
        units.setdefault(root(f"number {number}"), []).append(one)
    return list(units.values())


def _bonds(one: Asked, store: PassageStore) -> Iterator[str]:
    yield f"asks {question_key(one.question)}"
    for group in (one.group, *one.more_groups):
        if group is not None:
            yield f"group {group}"
    # Questions with one gold passage also share its text, so linking them by text is enough.
    for text in store.full_texts(store.rows(one.question.positive_ids)):
        yield f"text {content_digest(identity(text))}"


def _take(ranked: list[list[Asked]], size: int, leave: int) -> list[Asked]:
    """Take units from the front of `ranked` (they are removed) until there are `size` questions; keep `leave` units.

    A unit with more questions than are still needed is skipped while others are left: half of the questions may share
    one passage, and that unit must not become the whole of dev.
    """
    selection: list[Asked] = []
    passed: list[list[Asked]] = []
    while ranked and len(selection) < size and len(ranked) + len(passed) > leave:
        unit = ranked.pop(0)
        if len(unit) <= size - len(selection):
            selection += unit
        else:
            passed.append(unit)
    if not selection:
        passed.sort(key=len)
        selection = passed.pop(0)
    ranked[:0] = passed
    return selection


def _rank(seed: int, unit: list[Asked]) -> str:
    return settled_digest(f"{seed}/{unit[0].question.id}")


def _in_order(selection: list[Asked], order: list[Asked]) -> list[Asked]:
    ids = {one.question.id for one in selection}
    return [one for one in order if one.question.id in ids]
