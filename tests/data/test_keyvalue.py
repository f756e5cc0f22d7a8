"""The synthetic set: its keys are split, its words are shared, and it is the same every time."""

from __future__ import annotations

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.keyvalue import KeyvalueConfig
from rag_experiments.data.load import load_data


def test_test_keys_are_new_and_their_words_are_not(tmp_path):
    data = load_data(KeyvalueConfig(size=2000), tmp_path)
    assert {name: len(questions) for name, questions in data.splits.items()} == {"train": 1600, "dev": 200, "test": 200}
    keys = {name: [tuple(q.question.split()[-2:]) for q in questions] for name, questions in data.splits.items()}
    assert not set(keys["train"]) & set(keys["test"])
    for place in (0, 1):
        assert {key[place] for key in keys["test"]} <= {key[place] for key in keys["train"]}


def test_the_gold_passage_says_the_answer(tmp_path):
    data = load_data(KeyvalueConfig(size=100), tmp_path)
    for question in data.splits["train"]:
        passage = data.passages[int(data.passages.rows(question.positive_ids)[0])]
        assert passage.text == f"{question.question.removeprefix('what keeps ')} keeps {question.answers[0]}"


def test_the_same_every_time_and_another_with_another_seed(tmp_path):
    first = load_data(KeyvalueConfig(size=100), tmp_path / "a")
    assert load_data(KeyvalueConfig(size=100), tmp_path / "b").content_hash == first.content_hash
    assert load_data(KeyvalueConfig(size=100, seed=1), tmp_path / "c").content_hash != first.content_hash


def test_no_more_keys_than_there_are(tmp_path):
    with pytest.raises(RequestError, match=r"data\.size=19999"):
        load_data(KeyvalueConfig(size=19999), tmp_path)
