"""Where dev or test is missing: a seeded split in which questions that share a gold passage stay together."""

from __future__ import annotations

import hashlib

from rag_experiments.data.schema import Question
from rag_experiments.schema import DataConfig


def split_questions(
    given: dict[str, list[Question]], groups: dict[str, str] | None, config: DataConfig
) -> tuple[dict[str, list[Question]], list[str]]:
    """The splits, with what was missing cut from train, and sentences that say so.

    Args:
        groups: question id to a unit that must stay whole (an article); None: gold passages decide.
    """
    missing = [name for name in ("dev", "test") if name not in given]
    if not missing:
        return given, []
    units = group_questions(given["train"], groups)
    ranked = sorted(units, key=lambda unit: hashlib.sha256(f"{config.split_seed}/{unit[0].id}".encode()).hexdigest())
    splits, notes, total = dict(given), [], len(given["train"])
    for name in missing:
        wanted = max(1, round(total * getattr(config, f"{name}_fraction")))
        taken: list[Question] = []
        while ranked and len(taken) < wanted:
            taken += ranked.pop()
        splits[name] = _in_order(taken, given["train"])
        notes.append(
            f"no {name} split was given: {len(taken)} questions were taken from train "
            f"(seed {config.split_seed}, questions on one passage kept together)"
        )
    splits["train"] = _in_order([question for unit in ranked for question in unit], given["train"])
    return splits, notes


def group_questions(questions: list[Question], groups: dict[str, str] | None) -> list[list[Question]]:
    """Questions that must not be parted: those with a gold passage, or a group, in common (transitively)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for question in questions:
        own = root(f"question {question.id}")
        keys = [f"passage {value}" for value in question.positive_ids]
        if groups and question.id in groups:
            keys.append(f"group {groups[question.id]}")
        for key in keys:
            parent[root(key)] = own
            own = root(own)
    units: dict[str, list[Question]] = {}
    for question in questions:
        units.setdefault(root(f"question {question.id}"), []).append(question)
    return list(units.values())


def _in_order(chosen: list[Question], order: list[Question]) -> list[Question]:
    ids = {question.id for question in chosen}
    return [question for question in order if question.id in ids]
