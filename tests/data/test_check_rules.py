"""What `check` counts, against counts by hand: lengths, supervision, overlaps, what `--fix` renames."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag_experiments.config.schema import EncoderConfig, ReaderConfig
from rag_experiments.data.builder import Problem
from rag_experiments.data.load import RagData
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage, Question, Turn, Where
from rag_experiments.data.tools import check_report
from rag_experiments.data.tools.check_report import Findings, answer_in_passages
from rag_experiments.data.tools.token_lengths import Counter, Lengths, _make, _max_length


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


# -- lengths -------------------------------------------------------------------------------------------


def test_lengths_are_percentiles():
    lengths = Lengths.of(list(range(1, 1001)))
    assert (lengths.middle, lengths.ninety, lengths.ninety_nine, lengths.longest) == (500, 900, 990, 1000)
    assert str(lengths) == "500, 900, 990, 1,000"
    assert str(Lengths.of([])) == "0, 0, 0, 0"


def test_texts_are_counted_in_tokens_or_words(monkeypatch):
    monkeypatch.setattr("rag_experiments.data.tools.token_lengths.BATCH", 2)
    texts = ["a b", "", "c", "d e f", "g"]
    assert Counter(None, "words", {}, {}).count(texts) == [2, 0, 1, 3, 1]
    assert Counter(tokenizer(), "tokens", {}, {}).count(texts) == [2, 0, 1, 3, 1]


def test_what_a_model_cuts_is_said():
    counter = Counter(tokenizer(), "tokens", {"passage": 4, "query": None}, {"passage": "p: "})
    assert counter.cut_note(Lengths.of([1, 4, 5, 9]), "passage") == (
        "; 2 of 4 (50.0%) are longer than the model's 4, and cut"
    )
    assert counter.cut_note(Lengths.of([1, 4]), "passage") == " (the model reads 4)"
    assert counter.cut_note(Lengths.of([9]), "query") == ""
    assert counter.count(["a b", "c"], "passage") == [3, 2], "with the prefix"
    assert counter.as_seen("a b c", "passage") == "p: a b c"
    # The last place is that of the end token, which most models add.
    assert counter.as_seen("aa bb cc dd", "passage") == "p: aa bb [cut: 5 tokens, the model reads 4]"
    assert counter.as_seen("aa bb cc dd ee", "query") == "aa bb cc dd ee"
    assert Counter(None, "words", {"passage": 1}, {}).cut_note(Lengths.of([9]), "passage") == ""


def test_limits_and_prefixes_are_the_configurations_or_the_folders(tmp_path):
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    assert _max_length(tmp_path) is None
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 77}')
    path = str(tmp_path)
    assert _make(EncoderConfig(path=path)).limits == {"query": 77, "passage": 77}
    own = _make(
        EncoderConfig(path=path, max_query_length=5, max_passage_length=6, query_prefix="q", passage_prefix="p")
    )
    assert own.limits == {"query": 5, "passage": 6}
    assert own.prefixes == {"query": "q", "passage": "p"}
    reader = _make(ReaderConfig(path=path))
    assert (reader.limits, reader.prefixes, reader.unit) == ({"query": 77, "passage": 77}, {}, f"in tokens of {path}")
    assert _make(EncoderConfig(path="/nowhere")).tokenizer is None
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": "many"}')
    assert _max_length(tmp_path) is None


# -- the report ----------------------------------------------------------------------------------------


@pytest.fixture
def findings(tmp_path) -> Findings:
    """p2 and p4 have the content of p1; p5 has its text under another title."""
    rows = [("p0", "zero"), ("p1", "one  Two"), ("p2", "one  Two"), ("p3", "three"), ("p4", "one  Two")]
    (tmp_path / "store").mkdir()
    write_passages(tmp_path / "store", [*(Passage(*row) for row in rows), Passage("p5", "one  Two", "title")])
    store = PassageStore(tmp_path / "store")
    splits = {
        "train": [
            Question("a", "First?", ("one two",), ("p2",), ("p3",), relevance={"p1": 1, "p2": 3, "p3": 0}),
            Question("b", "second?", ("absent",), ("p0", "p4"), ("p1", "p2", "p3"), candidate_ids=("p4", "p3", "p2")),
            Question("c", "third?", history=(Turn("user", "Hm"),)),
        ],
        "dev": [Question("d", "first?", (), ("p4",)), Question("e", "third?", ("x",))],
        "test": [],
    }
    data = RagData(store, splits, "hash", ["a note"], {"train": {"a": "train.jsonl:1"}})
    config = SimpleNamespace(
        data=SimpleNamespace(format="jsonl", path="somewhere", query_history="user"),
        model=EncoderConfig(path="/nowhere"),
    )
    same = check_report._same_texts(data, tmp_path)
    return Findings(config, data, [], same_text=same)  # type: ignore[arg-type]


def test_the_same_content_is_told_by_title_and_text(findings, tmp_path):
    assert findings.same_text == {"p2": "p1", "p4": "p1"}
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "nothing is left behind"
    assert [passage.id for passage in findings.passages_once()] == ["p0", "p1", "p3", "p5"]


def test_fixed_questions_speak_of_the_passages_that_stay(findings):
    a, b, c = findings.questions_once()["train"]
    assert a == dataclasses.replace(
        findings.data.splits["train"][0], positive_ids=("p1",), relevance={"p1": 3, "p3": 0}
    ), "the higher grade of two copies"
    assert (b.positive_ids, b.negative_ids, b.candidate_ids) == (("p0", "p1"), ("p3",), ("p1", "p3"))
    assert c == findings.data.splits["train"][2]


def test_the_report_by_hand(findings):
    lines = findings.lines(examples=1, problems=2)
    for expected in (
        "data        jsonl  somewhere",
        "passages    6 (3 gold, 2 with the title and text of another)",
        "questions   3 train, 2 dev, 0 test; 1 have several gold passages",
        "train       1 without a gold passage, 1 without an answer, 2 with listed negatives; "
        "1 of 2 answers appear in no gold passage",
        "dev         1 without a gold passage, 1 without an answer, 0 with listed negatives",
        "overlap     train and dev: 1 questions, 1 gold passages in both",
        "note        a note",
        "train a  (train.jsonl:1)",
        "  query     First?",
        "  gold      one  Two",
        "  answer    one two",
        "no problem found",
    ):
        assert expected in lines, expected
    assert not any(line.startswith(("overlap     train and test", "test  ")) for line in lines)
    assert len([line for line in findings.lines(9, 2) if line.startswith("  query")]) == 3


def test_problems_are_shown_up_to_a_number_and_all_counted(findings):
    kinds = ["bad row", "gold passage missing", "gold passage missing"]
    findings.problems = [Problem(Where("a", n), f"reason {n}", kind) for n, kind in enumerate(kinds)]
    assert findings.lines(0, 2)[-4:] == [
        "3 problem(s):",
        "  a:0: reason 0",
        "  a:1: reason 1",
        "  … and 1 more (check.problems=… shows more)",
    ]
    assert findings.lines(0, 3)[-1] == "  a:2: reason 2"
    assert findings.verdict() == (
        "3 problem(s) (gold passage missing: 2, bad row: 1), the first: a:0: reason 0; --fix DIR writes the rest"
    )
    findings.nothing = "why"
    assert findings.verdict() == "why"


def test_an_answer_stands_in_a_gold_passage_case_and_spaces_aside(findings):
    def found(*answers: str, golds: tuple[str, ...] = ("p0", "p1")) -> bool:
        return answer_in_passages(Question("q", "?", answers, golds), findings.data)

    assert found("ONE two")
    assert found("absent", "zero")
    assert not found("three")
    assert not found("zero", golds=("p1",))
    assert np.all([found("one\n two"), not found()])
