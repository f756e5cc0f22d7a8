"""A split that is made: nothing lost, nothing twice, nothing parted, no larger than asked, whatever is asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Asked
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.queries import question_key
from rag_experiments.data.records import Question, Turn, Where
from rag_experiments.data.split import split_questions, unite


class Texts:
    """Passages by id, as far as a split asks for them."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.ids, self.texts = list(texts), list(texts.values())

    def rows(self, ids):
        return np.array([self.ids.index(value) for value in ids], dtype=np.int64)

    def full_texts(self, rows):
        return [self.texts[row] for row in rows]


STORE = Texts({f"p{n}": f"text {n % 6}" for n in range(9)})
"""p0 and p6, p1 and p7, p2 and p8 have one text each."""
TURNS = (Turn("user", "Hello"), Turn("assistant", "Yes?"))
QUESTION = st.builds(
    lambda text, golds, group, turns: (text, golds, group, turns),
    st.sampled_from(["A  thing?", "a thing?", *(f"{n}?" for n in range(40))]),
    st.lists(st.sampled_from(STORE.ids), max_size=2, unique=True),
    st.sampled_from([None, None, None, "x", "y"]),
    st.sampled_from([(), (), TURNS]),
)
FRACTION = st.floats(0.02, 0.49)


def asked(drawn) -> list[Asked]:
    made = []
    for number, (text, golds, group, turns) in enumerate(drawn):
        question = Question(f"q{number}", text, positive_ids=tuple(golds), history=turns)
        made.append(Asked(question, Where("train", number), group))
    return made


def hang_together(one: Asked, other: Asked) -> bool:
    texts = [set(STORE.full_texts(STORE.rows(q.question.positive_ids))) for q in (one, other)]
    same_group = one.group is not None and one.group == other.group
    return bool(texts[0] & texts[1]) or same_group or question_key(one.question) == question_key(other.question)


def components(questions: list[Asked]) -> list[set[str]]:
    """Sets of ids that hang together, by merging until nothing changes."""
    found = [{one.question.id} for one in questions]
    by_id = {one.question.id: one for one in questions}
    merged = True
    while merged:
        merged = False
        for a in range(len(found)):
            for b in range(a + 1, len(found)):
                if any(hang_together(by_id[i], by_id[j]) for i in found[a] for j in found[b]):
                    found[a] |= found.pop(b)
                    merged = True
                    break
            if merged:
                break
    return found


def ids(questions: list[Asked]) -> list[str]:
    return [one.question.id for one in questions]


@settings(max_examples=150, deadline=None)
@given(st.lists(QUESTION, max_size=14))
def test_units_are_what_hangs_together(drawn):
    questions = asked(drawn)
    units = unite(questions, STORE)
    assert sorted(map(sorted, components(questions))) == sorted(sorted(ids(unit)) for unit in units)
    assert all(ids(unit) == sorted(ids(unit), key=lambda i: int(i[1:])) for unit in units)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(QUESTION, min_size=1, max_size=22),
    FRACTION,
    FRACTION,
    st.integers(0, 3),
    st.sampled_from([("dev",), ("test",), ("dev", "test")]),
)
def test_whatever_the_questions_are(drawn, dev, test, seed, missing):
    questions = asked(drawn)
    fractions = {"dev": dev, "test": test}
    config = JsonlConfig(path="x", dev_fraction=dev, test_fraction=test, split_seed=seed)
    others = {name: asked([("given?", [], None, ())]) for name in fractions if name not in missing}
    before = {"train": questions, **others}
    units = components(questions)
    if len(units) <= len(missing):
        with pytest.raises(RequestError, match="none can be cut from train"):
            split_questions(before, STORE, config)
        return
    splits, notes = split_questions(before, STORE, config)
    assert len(notes) == len(missing)
    assert all(splits[name] is before[name] for name in fractions if name not in missing)
    parts = {name: ids(splits[name]) for name in ("train", *missing)}
    # Nothing lost, nothing twice, each in the order that it had, none empty.
    assert sorted(itertools.chain(*parts.values())) == sorted(ids(questions))
    assert all(part and part == [one for one in ids(questions) if one in part] for part in parts.values())
    # Nothing parted.
    for unit in units:
        assert sum(bool(unit & set(part)) for part in parts.values()) == 1
    # As large as asked where the units allow it, and never larger but where the smallest unit is.
    left = units
    for number, name in enumerate(missing):
        wanted = max(1, round(len(questions) * fractions[name]))
        part = set(parts[name])
        if len(part) > wanted:
            assert len(part) == min(map(len, left))
            assert part in left
        left = [unit for unit in left if not unit & part]
        must_stay = len(missing) - number
        assert len(left) == must_stay or all(len(unit) > wanted - len(part) for unit in left)
        assert f"{len(part)} of {len(questions)} questions" in notes[number]


def test_a_split_is_that_of_its_seed():
    questions = asked([(f"{n}?", [], None, ()) for n in range(60)])
    found = []
    for seed in (0, 0, 1, 2):
        splits, _ = split_questions({"train": questions}, STORE, JsonlConfig(path="x", split_seed=seed))
        found.append(tuple(ids(splits["dev"])))
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert found[0] != tuple(ids(questions))[:6], "it is drawn, not the beginning"


def test_nothing_is_made_of_data_without_train():
    given_splits = {"dev": asked([("a?", [], None, ())])}
    assert split_questions(given_splits, STORE, JsonlConfig(path="x")) == (given_splits, [])
