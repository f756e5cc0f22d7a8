"""Every key of `generate` does what it says, and a folder is continued under the same ones only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage
from rag_experiments.data.tools import question_generation
from rag_experiments.data.tools.question_generation import (
    Generated,
    GenerateOptions,
    Generator,
    as_asked,
    clean_answer,
    read_log,
)
from rag_experiments.retrieval.retriever import SearchResult


@dataclass
class Builder:
    instruction: str = ""
    reserve: int = 0

    def build(self, question, passages, name):
        return self.instruction, self.reserve, question, name


@dataclass
class Reader:
    """Asks about the passage's number and answers with it; keeps what it was asked."""

    print: str = "reader"
    prompts: Builder = field(default_factory=Builder)
    asked: list[Any] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    config: Any = field(default_factory=lambda: SimpleNamespace(batch_size=3))
    device: Any = field(default_factory=lambda: SimpleNamespace(type="cpu"))

    def generate(self, prompts, max_new_tokens):
        self.asked += [(*prompt, max_new_tokens) for prompt in prompts]
        self.sizes.append(len(prompts))
        return [f"What is number {p[3]}?" if p[0] == question_generation.ASK else f"copper {p[3]}" for p in prompts]

    def fingerprint(self):
        return self.print


@dataclass
class Retriever:
    """Has the passage at the second place."""

    print: str = "retriever"

    def search(self, queries, k):
        rows = [[99, int(query.split()[-1][1:-1])][:k] for query in queries]
        return SearchResult(np.array(rows), np.zeros((len(rows), min(k, 2))))

    def fingerprint(self):
        return self.print


def store_of(folder, count=6) -> PassageStore:
    folder.mkdir()
    write_passages(folder, [Passage(f"p{n}", " ".join(["word"] * (n + 1))) for n in range(count)])
    return PassageStore(folder)


@pytest.fixture
def store(tmp_path) -> PassageStore:
    return store_of(tmp_path / "store")


def outcomes(store, folder, retriever=None, reader=None, **options) -> list[tuple[int, str]]:
    values = {"shortest_passage": 0, "shortest_question": 1, "support": 0, **options}
    made = Generator(store, reader or Reader(), retriever, GenerateOptions(**values), folder).run(progress=False)
    entries = read_log(folder / question_generation.LOG)
    assert [entry for entry in entries if entry["outcome"] == "kept"] == made.kept
    return [(entry["row"], entry["outcome"]) for entry in entries]


def test_a_passage_is_kept_where_it_is_found_deep_enough(store, tmp_path):
    kept, lost = [(n, "kept") for n in range(6)], [(n, "not found") for n in range(6)]
    assert outcomes(store, tmp_path / "a", Retriever(), round_trip_k=2) == kept
    assert outcomes(store, tmp_path / "b", Retriever(), round_trip_k=1) == lost
    assert outcomes(store, tmp_path / "c", None, round_trip_k=1) == kept


def test_short_passages_and_short_questions_are_left_out(store, tmp_path):
    assert outcomes(store, tmp_path / "a", shortest_passage=3) == [(n, "kept") for n in range(2, 6)]
    assert outcomes(store, tmp_path / "b", shortest_question=4) == [(n, "kept") for n in range(6)]
    assert outcomes(store, tmp_path / "c", shortest_question=5) == [(n, "malformed") for n in range(6)]


def test_tokens_blocks_and_prompts(store, tmp_path):
    reader = Reader()
    outcomes(store, tmp_path / "a", reader=reader, question_tokens=7, answer_tokens=5, block=4)
    assert reader.sizes == [3, 3, 1, 1, 2, 2]
    ask, answer = reader.asked[0], reader.asked[3]
    assert ask == (question_generation.ASK, 7, "Write the question.", "p0", 7)
    assert answer == (question_generation.ANSWER, 5, "What is number p0?", "p0", 5)


@pytest.mark.parametrize(
    ("device", "size", "wanted"), [("cpu", 3, [3, 2, 1]), ("cpu", 9, [4, 1, 1]), ("cuda", 9, [5, 1])]
)
def test_the_bar_moves_with_each_batch(device, size, wanted, store, tmp_path, monkeypatch):
    moves = []
    reader = Reader(config=SimpleNamespace(batch_size=size), device=SimpleNamespace(type=device))

    class Bar:
        def __init__(self, total, **_):
            moves.append(total)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            moves.append(count)

    monkeypatch.setattr(question_generation, "tqdm", Bar)
    outcomes(store, tmp_path / "a", reader=reader, block=5)
    assert moves == [6, *wanted]


def test_the_choice_is_of_its_seed_in_the_corpus_order(store, tmp_path):
    def chosen(**options):
        made = Generator(store, Reader(), None, GenerateOptions(shortest_passage=2, **options), tmp_path)
        return made.passage_rows()

    assert chosen(passages=None) == chosen(passages=5) == chosen(passages=9) == [1, 2, 3, 4, 5]
    draws = [tuple(chosen(passages=2, seed=seed)) for seed in range(20)]
    assert all(len(draw) == 2 and draw == tuple(sorted(draw)) and set(draw) <= {1, 2, 3, 4, 5} for draw in draws)
    assert draws == [tuple(chosen(passages=2, seed=seed)) for seed in range(20)]
    assert len(set(draws)) > 5


OTHERS: dict[str, Any] = {
    "passages": 3,
    "round_trip_k": 3,
    "round_trip": False,
    "support": 0.5,
    "shortest_passage": 1,
    "shortest_question": 2,
    "question_tokens": 9,
    "answer_tokens": 9,
    "seed": 5,
    "block": 7,
}


def test_a_folder_is_continued_under_the_same_settings_only(store, tmp_path, monkeypatch):
    assert {entry.name for entry in dataclasses.fields(GenerateOptions)} == set(OTHERS), "a new key: is it a setting?"
    outcomes(store, tmp_path / "out", Retriever())
    outcomes(store, tmp_path / "out", Retriever())
    outcomes(store, tmp_path / "out", Retriever(), block=7)  # how many are written at a time changes nothing
    for name, value in OTHERS.items():
        if name != "block":
            with pytest.raises(RequestError, match="was begun with another options"):
                outcomes(store, tmp_path / "out", Retriever(), **{name: value})
    for changed, what in (
        ({"reader": Reader("other")}, "reader"),
        ({"retriever": Retriever("other")}, "retriever"),
        ({"retriever": None}, "retriever"),
        ({"store": store_of(tmp_path / "more", 7)}, "corpus"),
    ):
        values: dict[str, Any] = {"store": store, "retriever": Retriever(), **changed}
        with pytest.raises(RequestError, match=f"was begun with another {what}"):
            outcomes(values.pop("store"), tmp_path / "out", **values)
    for name in ("ASK", "ANSWER"):
        with monkeypatch.context() as patch:
            patch.setattr(question_generation, name, "Other words.")
            with pytest.raises(RequestError, match="was begun with another prompts"):
                outcomes(store, tmp_path / "out", Retriever())


@pytest.mark.parametrize(
    ("question", "answer", "outcome"),
    [
        ("What is the passage about now?", "x", "malformed"),
        ("Which context is that in there?", "x", "kept"),
        ("What does this document tell us?", "x", "malformed"),
        ("What is it again here?", "", "unanswered"),
        ("What is it again here?", "I don't know", "unanswered"),
        ("What is it again here?", "There is no answer", "unanswered"),
        ("What is it again here?", "Not mentioned.", "unanswered"),
        ("What is it again here?", "Unknown", "unanswered"),
        ("What is it again here?", "N/A", "unanswered"),
        ("What is it again here?", "what is it again here", "unanswered"),
        ("What is it again here?", "Nothing", "kept"),
        ("What is the key again here?", "The key is here again.", "unanswered"),
        ("What is it again here?", "It opens every door of the old house and", "kept"),
        ("What is it again here?", "It opens every door of the old house and of the new one, and", "unanswered"),
        ("What is it again here?", "It opens every door of the old house and of the new one.", "kept"),
        ("WAS it asked before now?", "x", "repeated"),
    ],
)
def test_what_becomes_of_a_pair(question, answer, outcome, store, tmp_path):
    made = Generator(store, Reader(), None, GenerateOptions(support=0), tmp_path)
    assert made._outcome(question, answer, "", True, {"was it asked before now?"}) == outcome
    lost = made._outcome(question, answer, "", False, {"was it asked before now?"})
    assert lost == ("not found" if outcome == "kept" else outcome)


def test_what_the_passage_does_not_support_is_dropped_where_that_is_asked(store, tmp_path):
    for share, outcome in ((0.8, "unsupported"), (0.5, "kept"), (0.0, "kept")):
        made = Generator(store, Reader(), None, GenerateOptions(support=share), tmp_path)
        assert made._outcome("Which key opens it?", "brass and iron", "The brass key opens.", True, set()) == outcome


def test_the_report_and_what_a_split_keeps_together():
    kept = [
        {"row": 4, "id": "a.md#1", "question": "q?", "answer": "x"},
        {"row": 7, "id": "b", "question": "r?", "answer": "y"},
    ]
    counts = question_generation.Counter({"kept": 2, "malformed": 1, "not found": 1200})
    assert Generated(kept, counts).lines() == [
        "passages    1,203 asked about, 2 questions kept",
        "dropped     1,200 not found",
        "dropped     1 malformed",
    ]
    made = as_asked(kept)
    assert [(one.question.id, one.group, str(one.where)) for one in made] == [
        ("generated-4", "a.md", f"{question_generation.LOG}:1"),
        ("generated-7", None, f"{question_generation.LOG}:2"),
    ]
    assert [(one.question.answers, one.question.positive_ids) for one in made] == [
        (("x",), ("a.md#1",)),
        (("y",), ("b",)),
    ]
    assert clean_answer("A: red") == clean_answer("answer) red\n\nmore") == "red"
