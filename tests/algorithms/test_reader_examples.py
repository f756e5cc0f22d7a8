"""Rows that a reader cannot read or write: found before weights, left out and counted, never the end of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms.shared import reader_examples
from rag_experiments.algorithms.shared.reader_examples import check_examples, new_tokens, prompt_builder
from rag_experiments.config.schema import FidSettings, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Question, Turn
from rag_experiments.models.reader.prompts import PromptBuilder, TruncationCounts
from rag_experiments.models.reader.reader import Reader
from rag_experiments.models.reader.written import Written, decoded
from tests.tiny_readers import byte_tokenizer, write_tiny_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


def question(name: str, text: str = "who?", *answers: str) -> Question:
    return Question(id=name, question=text, answers=answers or ("a cat",), positive_ids=("p",))


def checked(llama, max_new_tokens=None, length=400, times=2, **splits):
    """The model's settings after the checks, and the notes."""
    model = ReaderConfig(path=str(llama), max_new_tokens=max_new_tokens, max_input_length=length)
    config = SimpleNamespace(model=model, evaluation=SimpleNamespace(splits=["dev", "test"]))
    places = {"train": {each.id: f"train.jsonl:{row}" for row, each in enumerate(splits.get("train", []), 1)}}
    data = SimpleNamespace(splits={"train": [], "dev": [], "test": [], **splits}, notes=[], places=places)
    for _ in range(times):
        check_examples(config, data)  # asked twice, each note is there once
    assert len(set(data.notes)) == len(data.notes)
    return model, data.notes


# -- what is found before weights ------------------------------------------------------------------


def test_a_training_question_that_leaves_no_room_is_refused_with_its_line(llama):
    rows = [question("a"), question("b", "x" * 500)]
    with pytest.raises(RequestError, match=r"train\.jsonl:2: question 'b'.*model\.max_input_length is 400"):
        checked(llama, train=rows)


def test_the_room_that_the_longest_answer_needs_counts(llama):
    with pytest.raises(RequestError, match="question 'a'"):
        checked(llama, max_new_tokens=8, train=[question("a", "who?", "short", "y" * 390)])


def test_a_question_of_an_evaluation_is_named_and_left_out(llama):
    rows = [question("a"), question("b", "x" * 500), question("c")]
    _, notes = checked(llama, train=[question("t")], test=rows)
    (note,) = notes
    assert note.startswith("test: 1 of 3 questions are longer than the reader reads")
    assert "('b')" in note


def test_references_that_cannot_be_written_are_counted(llama):
    long = "z" * 20
    _, notes = checked(
        llama,
        max_new_tokens=8,
        train=[question("t", "?", long)],
        dev=[question("d", "?", long, "ok"), question("e", "?", long), question("f", "?", long, " ")],
    )
    assert any(note.startswith("train: 1 of 1 answers are longer than model.max_new_tokens=8") for note in notes)
    assert any(note.startswith("dev: 2 of 3 questions have only references longer") for note in notes)


def test_the_length_of_answers_follows_the_training_answers(llama):
    model, _ = checked(llama, train=[question("t", "?", "q" * 79)])  # 80 tokens with the end
    assert model.max_new_tokens == 100
    model, _ = checked(llama, train=[question("t")])
    assert model.max_new_tokens == 32
    model, _ = checked(llama, max_new_tokens=8, train=[question("t")])
    assert model.max_new_tokens == 8


def test_a_question_leaves_room_for_the_length_that_the_training_answers_gave(llama):
    made = prompt_builder(ReaderConfig(path=str(llama), max_new_tokens=8, max_input_length=400))
    assert made is not None

    def fits(length: int, reserve: int) -> bool:
        try:
            replace(made, reserve=reserve).for_question(question("d", "x" * length), reader_examples.ANY_PASSAGE)
        except RequestError:
            return False
        return True

    length = next(length for length in range(400, 0, -1) if fits(length, 32))
    assert not fits(length, 100)
    rows = [question("d", "x" * length)]
    _, notes = checked(llama, train=[question("t")], dev=rows)
    assert notes == []
    _, notes = checked(llama, times=1, train=[question("t", "?", "q" * 79)], dev=rows)
    assert any(note.startswith("dev: 1 of 1 questions are longer than the reader reads") for note in notes)


def test_one_long_answer_in_many_decides_nothing():
    assert new_tokens([]) == 32
    assert new_tokens([40] * 400 + [4000]) == 50
    assert new_tokens([4000] * 10) == reader_examples.MOST_NEW_TOKENS


def test_a_model_that_is_not_on_this_disk_is_not_fetched(monkeypatch):
    monkeypatch.setattr(reader_examples.sizes, "tokenizer_of", lambda model: None)
    model, notes = checked("/nowhere", train=[question("t", "x" * 9000)])
    assert (model.max_new_tokens, notes) == (None, [])


@pytest.mark.parametrize("fid", [None, FidSettings(passage_tokens=50)])
def test_prompts_are_those_that_the_opened_reader_makes(llama, fid):
    from rag_experiments.models.fid.fid_reader import FidReader

    config = ReaderConfig(path=str(llama), fid=fid, max_new_tokens=16, precision="fp32")
    opened = (FidReader if fid else Reader).load(config, device="cpu").prompts
    made = prompt_builder(config)
    passages = [Passage(id=str(n), title="t", text="word " * n) for n in range(5)]
    assert made is not None
    assert made.max_length == opened.max_length
    assert made.build("who?", passages, [Turn("user", "hi")]) == opened.build("who?", passages, [Turn("user", "hi")])


# -- what an evaluation does ---------------------------------------------------------------------------


def test_a_question_too_long_gets_no_answer_and_the_others_do(llama, caplog):
    reader = Reader.load(
        ReaderConfig(path=str(llama), max_new_tokens=4, max_input_length=300, precision="fp32"), device="cpu"
    )
    asked = [question("a"), question("b", "x" * 400), question("c")]
    passages = [[Passage(id="p", text="the cat")]] * 3
    answers, cut = reader.answer(asked, passages)
    alone, _ = reader.answer([asked[0], asked[2]], passages[:2])
    assert answers[1] is None
    assert [answers[0], answers[2]] == alone
    assert (cut.questions_left_out, cut.prompts) == (1, 2)
    assert cut.loud
    assert "question 'b'" in caplog.text
    assert "1 questions were left out" in cut.sentence()


def test_an_answer_without_an_end_was_cut():
    tokenizer = byte_tokenizer()
    said = tokenizer("ab", add_special_tokens=False)["input_ids"]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    new = torch.tensor([[*said, end, pad], [*said, *said]])
    texts = decoded(tokenizer, new, [end], "decoder")
    assert [(str(text), text.cut) for text in texts] == [("ab", False), ("abab", True)]
    # An encoder-decoder's tokens open with its start token, which may be the one that ends.
    started = torch.cat([torch.full((2, 1), end), new], dim=1)
    assert [text.cut for text in decoded(tokenizer, started, [end], "encoder_decoder")] == [False, True]


def test_answers_that_are_cut_are_a_figure(llama):
    reader = Reader.load(ReaderConfig(path=str(llama), max_new_tokens=2, precision="fp32"), device="cpu")
    reader.generate = lambda prompts, **options: [Written("a", cut=True), Written("b")]  # type: ignore[method-assign]
    _, cut = reader.answer([question("a"), question("b")], [[], []])
    assert cut.as_metrics()["truncation/answers_cut"] == 1.0
    assert "1 of 2 answers ran into model.max_new_tokens" in cut.sentence()


@pytest.mark.parametrize(
    ("counts", "loud"),
    [
        (TruncationCounts(prompts=100), False),
        (TruncationCounts(prompts=100, prompts_truncated=2), False),
        (TruncationCounts(prompts=100, prompts_truncated=3), True),
        (TruncationCounts(prompts=100, answers_cut=3), True),
        (TruncationCounts(prompts=100, questions_left_out=1), True),
        (TruncationCounts(), False),
    ],
)
def test_more_than_a_few_in_a_hundred_is_said_aloud(counts, loud):
    assert counts.loud is loud


# -- the law -------------------------------------------------------------------------------------------

WORDS = st.text("abc dé?", min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(
    WORDS,
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), WORDS), max_size=5),
    st.lists(WORDS, max_size=4),
    st.integers(60, 500),
    st.sampled_from(["decoder", "encoder_decoder"]),
    st.booleans(),
)
def test_the_question_is_in_every_prompt_whole_or_refused(asked, history, texts, limit, kind, fid):
    from rag_experiments.models.fid.fid_prompts import FidPromptBuilder

    tokenizer = byte_tokenizer(ends=kind == "encoder_decoder")
    builder = (FidPromptBuilder if fid else PromptBuilder)(
        tokenizer, limit, reserve=8, kind=kind, instruction="Answer."
    )
    passages = [Passage(id=str(number), text=text) for number, text in enumerate(texts)]
    turns = [Turn(role, text) for role, text in history]
    try:
        prompt = builder.build(asked, passages, turns)
    except RequestError:
        with pytest.raises(RequestError):  # nor does it fit with the shortest passage and without a turn
            builder.build(asked, reader_examples.ANY_PASSAGE)
        return
    parts = prompt.passages if fid and kind == "encoder_decoder" else [prompt.ids]
    for part in parts:
        assert asked.encode() in tokenizer.decode(part).encode()
    kept = len(turns) - prompt.turns_dropped
    whole = tokenizer.decode(prompt.ids)
    for turn in turns[len(turns) - kept :]:
        assert turn.content in whole  # the newest stay


def test_a_question_that_stands_twice_needs_the_room_of_two(llama):
    """FiD over a decoder reads it before the passages and after them."""
    model = ReaderConfig(path=str(llama), max_new_tokens=8, max_input_length=400, fid=FidSettings())
    data = SimpleNamespace(splits={"train": [question("a", "x" * 150)]}, notes=[], places={})
    config = SimpleNamespace(model=model, evaluation=SimpleNamespace(splits=[]))
    with pytest.raises(RequestError, match="question 'a'"):
        check_examples(config, data)
    model.fid = FidSettings(question_with_passage=False)
    check_examples(config, data)
