"""Whatever must be shortened, the question is in every query and prompt, whole, or is refused."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import Query, retrieval_query, shortened
from rag_experiments.data.records import Passage, Question, Turn
from rag_experiments.models.fid.fid_prompts import FidPromptBuilder
from rag_experiments.models.reader.prompts import Prompt, PromptBuilder
from tests.tiny_readers import byte_tokenizer

WORDS = st.text("abc é北", max_size=30)
ASKED = WORDS.map(lambda text: f"<{text}>")
"""A question that nothing else contains."""
HISTORY = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), WORDS), max_size=6).map(tuple)
PASSAGES = st.lists(WORDS, max_size=4).map(lambda texts: [Passage(str(n), text or "-") for n, text in enumerate(texts)])
LIMITS = st.integers(1, 400)


@given(ASKED, HISTORY, st.sampled_from(["none", "user", "all"]), LIMITS)
def test_a_query_loses_its_oldest_turns_and_no_more_than_it_must(asked, history, mode, limit):
    query = retrieval_query(Question("q", asked, history=history), mode)
    said = [] if mode == "none" else [turn.content for turn in history if mode == "all" or turn.role == "user"]
    (kept,) = shortened([query], lambda queries: [len(one) > limit for one in queries])
    assert kept in {"\n".join([*said[first:], asked]) for first in range(len(said) + 1)}
    assert len(kept) <= limit or kept == asked
    one_more = "\n".join([*said[len(said) - kept.count("\n") - 1 :], asked])
    assert kept == query or len(one_more) > limit


def test_a_query_is_pickled_with_its_parts() -> None:
    query = pickle.loads(pickle.dumps(Query("a?", ["b", "c"])))
    assert (query, query.question, query.turns) == ("b\nc\na?", "a?", ("b", "c"))


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("fid", [False, True])
@settings(deadline=None, max_examples=60)
@given(ASKED, HISTORY, PASSAGES, LIMITS)
def test_every_prompt_holds_the_question_or_is_refused(fid, kind, asked, history, passages, limit):
    options = {"max_length": limit, "reserve": 4, "kind": kind, "chat_template": "none", "instruction": ""}
    builder = (
        FidPromptBuilder(byte_tokenizer(False), **options, passage_tokens=limit, question_with_passage=True)
        if fid
        else PromptBuilder(byte_tokenizer(False), **options)
    )
    try:
        prompt: Prompt = builder.build(asked, passages, history)
    except RequestError:
        return
    apart = fid and kind == "encoder_decoder"
    for ids in prompt.passages if apart else [prompt.ids]:
        text = builder.tokenizer.decode(ids)
        assert asked in text
        kept = len(history) - prompt.turns_dropped
        newest = [turn.content for turn in history[len(history) - kept :]]
        assert all(said in text for said in newest)
