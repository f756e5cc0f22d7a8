"""Written questions: which are kept, and that an interrupted run continues. The reader is a fake."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage
from rag_experiments.data.tools.question_generation import (
    LOG,
    GenerateOptions,
    Generator,
    as_asked,
    clean_answer,
    clean_question,
    is_supported,
    read_log,
    without_question,
)
from rag_experiments.retrieval.retriever import SearchResult

WRITTEN = {
    0: ("Question: What is the colour of thing zero?", "Answer: red"),
    1: ("What does the passage say about it?", "blue"),
    2: ("What is the colour of thing zero?", "green"),
    3: ("What is the colour of thing three?", "I do not know."),
    4: ("What is the colour of thing four?", "black"),
    5: ("No question at all", "grey"),
    6: ("How large is thing number six?", "very"),
}


@dataclass
class FakeBuilder:
    instruction: str = ""
    reserve: int = 0

    def build(self, question, passages, name):
        return int(name), "answer" in self.instruction.split(".")[0].lower().split()[0]


class FakeReader:
    prompts = FakeBuilder()
    config = SimpleNamespace(batch_size=2)
    device = SimpleNamespace(type="cpu")

    def __init__(self, die_at: int = 99):
        self.left = die_at

    def generate(self, prompts, max_new_tokens):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return [WRITTEN[row][1 if answers else 0] for row, answers in prompts]

    def fingerprint(self):
        return "fake"


class FakeRetriever:
    """Finds every passage but the fifth."""

    def search(self, queries, k):
        rows = [next((n for n, (q, _) in WRITTEN.items() if query in q), -1) for query in queries]
        return SearchResult(np.array([[-1 if row == 4 else row] for row in rows]), np.zeros((len(rows), 1)))

    def fingerprint(self):
        return "fake"


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    write_passages(folder, [Passage(str(n), f"text {n} " * 30) for n in range(7)] + [Passage("short", "too short")])
    return PassageStore(folder)


def generator(store, folder, reader=None, **options) -> Generator:
    options = GenerateOptions(block=2, support=0, **options)
    return Generator(store, reader or FakeReader(), FakeRetriever(), options, folder)


def test_outcomes(store, tmp_path):
    done = generator(store, tmp_path / "out").run(progress=False)
    outcomes = [entry["outcome"] for entry in read_log(tmp_path / "out" / LOG)]
    assert outcomes == ["kept", "malformed", "repeated", "unanswered", "not found", "malformed", "kept"]
    assert [(row["question"], row["answer"]) for row in done.kept] == [
        ("What is the colour of thing zero?", "red"),
        ("How large is thing number six?", "very"),
    ]
    assert "dropped     2 malformed" in done.lines()
    asked = as_asked(done.kept)
    assert asked[0].question.positive_ids == ("0",)


def test_continues_where_it_was_stopped(store, tmp_path):
    whole = generator(store, tmp_path / "whole").run(progress=False)
    with pytest.raises(KeyboardInterrupt):
        generator(store, tmp_path / "cut", FakeReader(die_at=3)).run(progress=False)
    assert len(read_log(tmp_path / "cut" / LOG)) == 2
    with open(tmp_path / "cut" / LOG, "a", encoding="utf-8") as log:
        log.write('{"row": 2, "half of a li')
    again = generator(store, tmp_path / "cut").run(progress=False)
    assert again.kept == whole.kept
    assert again.outcomes == whole.outcomes


def test_other_settings_are_refused(store, tmp_path):
    generator(store, tmp_path / "out").run(progress=False)
    with pytest.raises(RequestError, match="was begun with another options"):
        generator(store, tmp_path / "out", round_trip_k=3).run(progress=False)


def test_choice_is_seeded(store, tmp_path):
    rows = {tuple(generator(store, tmp_path, passages=3, seed=seed).passage_rows()) for seed in range(9)}
    assert len(rows) > 1
    assert 7 not in {row for chosen in rows for row in chosen}, "short passages are not asked about"


def test_cleaning():
    assert clean_question("1. Here it is:\n\nQ: What is *that*? And more") == "What is *that*?"
    assert clean_question('"Who was it?"') == "Who was it?"
    assert clean_question("This was cut off before it") == ""
    assert clean_question("") == ""
    assert clean_answer("Answer: it\nis red.\n\nAnd so on") == "it is red."


@pytest.mark.parametrize(
    "before", ["1. ", "(2) ", "[2] ", "Q3: ", "**Question 4:** ", "- ", "  > ", "# ", "5) Q. ", ""]
)
def test_numbers_labels_and_marks_before_a_text_are_no_part_of_it(before):
    assert clean_question(f"{before}What is a 3.2 release?") == "What is a 3.2 release?"
    for answer in ("a red one", "--flag", "1.5 seconds", "__init__", "2021", "a < b", "-v"):
        assert clean_answer(f"{before}{answer}") == answer


@pytest.mark.parametrize("written", ["`--flag`", '"--flag"', "**--flag**", "```--flag```", "A: `--flag`"])
def test_marks_around_an_answer_are_no_part_of_it(written):
    assert clean_answer(written) == "--flag"
    assert clean_answer("**one** and **two**") == "**one** and **two**"


@pytest.mark.parametrize("name", [LOG, "generate.json"])
def test_a_log_that_somebody_edited_is_refused(name, store, tmp_path):
    generator(store, tmp_path / "made", FakeReader()).run(progress=False)
    (tmp_path / "made" / name).write_text("{}\nnot JSON\n")
    with pytest.raises(RequestError, match=rf"{name}.* is not as generate wrote it"):
        generator(store, tmp_path / "made", FakeReader()).run(progress=False)


@pytest.mark.parametrize(
    ("answer", "question", "wanted"),
    [
        ("The name of the key is brass.", "What is the name of the key?", "brass."),
        ("The key is what is used to open the door.", "What is the key?", "used to open the door."),
        ("The key that is lost is brass.", "Which key is lost?", "brass."),
        ("The key was to open the door.", "What was the key?", "open the door."),
        ("Brass is a metal.", "What is the key?", "Brass is a metal."),
        ("The key is", "What is the key?", "The key is"),
        ("brass", "What is the key?", "brass"),
    ],
)
def test_an_answer_does_not_say_the_question_again(answer, question, wanted):
    assert without_question(answer, question) == wanted


PASSAGE = "Doors\nThe brass key opens every door of the old house; the iron key opens none."


@pytest.mark.parametrize(
    ("question", "answer", "share", "supported"),
    [
        ("Which key opens the doors?", "brass", 0.8, True),
        ("Which key opens the doors?", "the brass one of the palace", 0.8, False),
        ("Which key opens the doors?", "the brass one of the palace", 0.3, True),
        ("Which key opens the doors?", "copper", 0.8, False),
        ("Who sold the horses of the king?", "brass", 0.8, False),
        ("Which key of the horses of the king?", "brass", 0.1, False),
        ("Which old horses opens?", "the brass key", 1.0, True),
    ],
)
def test_a_pair_is_supported_where_the_passage_has_its_words(question, answer, share, supported):
    assert is_supported(question, answer, PASSAGE, share) is supported
