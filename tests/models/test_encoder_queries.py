"""What an encoder leaves out of a query that is too long for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Question, Turn
from rag_experiments.models.encoder.encoder import Encoder


@pytest.fixture
def encoder_of(make_folder) -> Callable[[int], Encoder]:
    folder, encoders = str(make_folder()), {}

    def load(limit: int) -> Encoder:
        if limit not in encoders:
            encoders[limit] = Encoder.load(EncoderConfig(path=folder, precision="fp32", max_query_length=limit))
        return encoders[limit]

    return load


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["river", "stone", "house", "bird"]), max_size=30), st.integers(8, 30))
def test_an_encoder_reads_the_whole_question(encoder_of, turns, limit):
    encoder = encoder_of(limit)
    question = "is the dog in the house ?"
    query = retrieval_query(Question("q", question, history=tuple(Turn("user", f"{t} {t}") for t in turns)), "user")
    (ids,) = encoder.tokenize_queries([query])
    (alone,) = encoder.tokenize_queries([question])
    assert ids[-len(alone) + 1 :] == alone[1:]
    assert len(ids) <= limit
    assert encoder.queries_cut([query]) == (len(encoder.tokenizer(query)["input_ids"]) > limit)


def test_two_questions_of_one_long_conversation_have_two_vectors(encoder_of) -> None:
    encoder = encoder_of(12)
    history = tuple(Turn("user", "a bird flies over the old house") for _ in range(8))
    asked = [retrieval_query(Question("q", text, history=history), "user") for text in ("red stone", "blue river")]
    vectors = encoder.embed_queries(asked)
    assert float(vectors[0] @ vectors[1]) < 0.999
    np.testing.assert_allclose(
        vectors,
        encoder.embed_queries([f"a bird flies over the old house\n{text}" for text in ("red stone", "blue river")]),
        rtol=1e-5,
    )


def test_a_question_too_long_alone_loses_its_end_and_is_counted(encoder_of) -> None:
    encoder = encoder_of(12)
    long = " ".join(["red stone"] * 20)
    assert encoder.tokenize_queries([long]) == [encoder.tokenizer(long, truncation=True, max_length=12)["input_ids"]]
    assert encoder.queries_cut([long, "red stone"]) == 1
