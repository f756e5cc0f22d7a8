"""A reader's run from Python: asked, with a conversation, and its reader alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rag_experiments as rag
from rag_experiments import ask
from rag_experiments.data.records import Turn
from tests.commands.test_reopen import request
from tests.conftest import write_small_data

QUESTION = "where is the red cat one"
HISTORY = [("user", "is there a dog"), ("assistant", "in the river")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_bert: Path) -> rag.Run:
    root = tmp_path_factory.mktemp("api_reader")
    more = ("trainer.max_steps=2", "evaluation.zero_shot=false", "evaluation.splits=[test]")
    return rag.train(*request(tiny_llama, tiny_bert, write_small_data(root / "data"), root, *more))


@pytest.fixture(scope="module")
def parts(run):
    return ask.open_parts(run.path, [])


@pytest.mark.parametrize("history", [[], HISTORY], ids=["alone", "in a conversation"])
def test_ask_gives_what_the_command_gives(run, parts, history):
    expected = ask.reply(parts, QUESTION, [Turn(*turn) for turn in history])
    assert run.ask(QUESTION, history) == expected
    assert run.ask(QUESTION, [Turn(*turn) for turn in history]) == expected
    assert expected.answer is not None
    assert len(expected.passages) == 4


def test_history_reaches_search_and_reader(run):
    passages = [passage for _, passage in run.ask(QUESTION).passages]
    assert run.search("and", history=HISTORY)["score"].tolist() != run.search("and")["score"].tolist()
    assert run.reader.answer("and", passages, HISTORY) != run.reader.answer("and", passages)


def test_the_reader_alone_answers_from_the_passages_that_it_is_given(run):
    reply = run.ask(QUESTION)
    passages = [passage for _, passage in reply.passages]
    assert run.reader.answer(QUESTION, passages) == reply.answer
    texts = ["the dog sleeps in river two"]
    assert run.reader.answer(QUESTION, texts) != reply.answer
    assert run.reader.component is run.model
    with pytest.raises(rag.RequestError, match="longer than the reader reads"):
        run.reader.answer("where " * 2000, texts)


def test_the_encoder_of_a_readers_run_is_its_retrievers(run):
    found = run.search(QUESTION, k=2)
    vectors = run.encoder.encode_passages([passage for _, passage in run.ask(QUESTION).passages[:2]])
    scores = run.encoder.similarity(run.encoder.encode(QUESTION), vectors)[0]
    np.testing.assert_allclose(scores, found["score"], rtol=1e-5)
    with pytest.raises(rag.RequestError, match="no encoder; its retriever searches by words"):
        rag.open_run(run.path, "retriever=bm25").encoder  # noqa: B018


def test_predictions_have_answers_and_their_metrics(run):
    frame = run.predictions()
    assert frame["answer"].notna().all()
    assert frame["f1"].mean() == pytest.approx(run.metrics["test/f1"])


@pytest.mark.parametrize("turn", [("system", "x"), ("user",), ("user", "a", "b")])
def test_a_turn_of_another_shape_is_refused(run, turn):
    with pytest.raises(rag.RequestError, match="is no turn"):
        run.ask(QUESTION, [turn])
