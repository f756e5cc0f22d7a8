"""A wrong value is named with its key and what would be right, at any depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from rag_experiments.config import schema
from rag_experiments.config.kinds import model_kind
from rag_experiments.config.validation import check_values, refuse_keys_of_other_kinds, refuse_unknown
from rag_experiments.core.errors import RequestError, did_you_mean, nearest, with_article


@dataclass(kw_only=True)
class Inner:
    size: Annotated[int, Field(ge=1)] = 1
    word: Literal["mean", "max"] = "mean"


@dataclass(kw_only=True)
class Outer:
    seed: int
    inner: Inner | None = None
    rows: list[Inner] = field(default_factory=list)
    either: int | list[int] = 0
    share: schema.Fraction = 0.5
    rate: schema.PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.seed == 13:
            raise ValueError("Thirteen brings bad luck")


def test_right_values_become_the_dataclass():
    found = check_values(Outer, {"seed": 1, "inner": {"size": 3}, "rows": [{"word": "max"}], "either": [1]}, "x")
    assert found == Outer(seed=1, inner=Inner(size=3), rows=[Inner(word="max")], either=[1])
    assert type(found.inner) is Inner


def test_fields_that_are_checked_already_are_taken_as_they_are():
    inner = Inner(size=5)
    found = check_values(Outer, {"seed": 1, "inner": {"nonsense": 1}}, "x", already={"inner": inner})
    assert found.inner.size == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"^k\.seed has no value: set k\.seed=…$"),
        ({"seed": "a"}, r"^k\.seed='a': input should be a valid integer"),
        ({"seed": 1, "inner": {"size": 0}}, r"^k\.inner\.size=0: input should be greater than or equal to 1$"),
        ({"seed": 1, "inner": {"word": "mode"}}, r"^k\.inner\.word='mode': input should be 'mean' or 'max'$"),
        ({"seed": 1, "rows": [{}, {"size": -1}]}, r"^k\.rows\.1\.size=-1: "),
        ({"seed": 1, "either": "x"}, r"^k\.either='x': "),
        ({"seed": 1, "either": ["x"]}, r"^k\.either"),
        ({"seed": 1, "share": 1.5}, r"^k\.share=1\.5: input should be less than or equal to 1$"),
        ({"seed": 1, "share": -0.1}, r"^k\.share=-0\.1: "),
        ({"seed": 1, "rate": 0}, r"^k\.rate=0: input should be greater than 0$"),
        ({"seed": 1, "rate": float("inf")}, r"^k\.rate=inf: "),
        ({"seed": 13}, r"^k: thirteen brings bad luck$"),
        ({"seed": 1, "sed": 2}, r"^k\.sed is an unknown key \(did you mean 'seed'\?\)$"),
        ({"seed": 1, "inner": {"siz": 2}}, r"^k\.inner\.siz is an unknown key \(did you mean 'size'\?\)$"),
        ({"seed": 1, "inner": 3}, r"^k\.inner=3: "),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(values, message):
    with pytest.raises(RequestError, match=message):
        check_values(Outer, values, "k")


def test_keys_of_the_top_stand_alone():
    with pytest.raises(RequestError, match=r"^seed='a': "):
        check_values(Outer, {"seed": "a"}, "")
    with pytest.raises(RequestError, match=r"^sed is an unknown key"):
        check_values(Outer, {"seed": 1, "sed": 1}, "")
    with pytest.raises(RequestError, match=r"^seed has no value: set seed=…"):
        check_values(Outer, {}, "")


def test_unknown_keys_are_looked_for_in_dataclasses_only():
    refuse_unknown(int, {"a": 1}, "k")
    refuse_unknown(Outer, "text", "k")
    refuse_unknown(Outer, {"inner": None, "rows": 1, "either": {"a": 1}}, "k")


# -- models --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Holder:
    teacher: schema.ReaderConfig | None = None
    encoder: schema.EncoderConfig | None = None


READER = {"path": "r", "kind": "decoder"}
ENCODER = {"path": "e", "kind": "encoder"}


def test_a_second_model_of_the_right_kind():
    found = check_values(Holder, {"teacher": {**READER, "kind": "encoder_decoder"}, "encoder": ENCODER}, "algorithm")
    assert (found.teacher.kind, found.encoder.kind) == ("encoder_decoder", "encoder")
    assert check_values(Holder, {"teacher": None}, "algorithm").teacher is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"teacher": {**ENCODER, "pooling": "mean"}},
            r"^algorithm\.teacher must be a decoder or encoder_decoder, but e is an encoder: "
            r"choose model@algorithm\.teacher=.*smollm2_135m",
        ),
        (
            {"encoder": {**READER, "lora": None}},
            r"^algorithm\.encoder must be an encoder, but r is a decoder: choose model@algorithm\.encoder=.*minilm",
        ),
        (
            {"encoder": "minilm"},
            r"a model is chosen with model@algorithm\.encoder=minilm, its keys are algorithm\.encoder\.<",
        ),
        ({"encoder": {**ENCODER, "kind": "nothing"}}, r"^algorithm\.encoder\.kind='nothing'"),
        ({"encoder": {**ENCODER, "poling": "mean"}}, r"^algorithm\.encoder\.poling .* 'pooling'"),
    ],
)
def test_a_second_model_that_does_not_fit(values, message):
    with pytest.raises(RequestError, match=message) as caught:
        check_values(Holder, values, "algorithm")
    if "choose model@algorithm.encoder" in str(caught.value):
        assert "smollm2" not in str(caught.value)
    if "choose model@algorithm.teacher" in str(caught.value):
        assert "minilm" not in str(caught.value)


def test_the_class_of_a_kind():
    assert model_kind({"kind": "encoder"}, "model").config is schema.EncoderConfig
    assert model_kind({"kind": "decoder"}, "model").config is schema.ReaderConfig
    assert model_kind({"kind": "encoder_decoder"}, "model").config is schema.ReaderConfig
    for kind in ("encodr", None):
        with pytest.raises(RequestError, match=rf"^m\.kind={kind!r} is not a kind of model"):
            model_kind({"kind": kind} if kind else {}, "m")


def test_a_key_of_another_kind_is_not_called_unknown():
    refuse_keys_of_other_kinds({**ENCODER, "pooling": "mean", "batch_size": 3, "nonsense": 1})
    refuse_keys_of_other_kinds({**READER, "lora": None, "batch_size": 3})
    with pytest.raises(RequestError) as caught:
        refuse_keys_of_other_kinds({**READER, "pooling": "mean"})
    assert "model.pooling is a key of an encoder, but model.path=r is a decoder: choose model=" in str(caught.value)
    assert "minilm" in str(caught.value)
    assert "smollm2" not in str(caught.value)
    with pytest.raises(
        RequestError, match=r"model\.fid is a key of a decoder or encoder_decoder, but .*=e is an encoder"
    ):
        refuse_keys_of_other_kinds({**ENCODER, "fid": None})


# -- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "options", "said"),
    [
        ("seeed", ["seed", "name"], " (did you mean 'seed'?)"),
        ("recal", ["recall", "recalled"], " (did you mean 'recall' or 'recalled'?)"),
        ("zzz", ["b", "a"], " (choose from a, b)"),
        (
            "zzz",
            [f"n{number}" for number in range(12)],
            " (choose from n0, n1, n10, n11, n2, n3, n4, n5, n6, n7, n8, n9)",
        ),
        ("zzz", [f"n{number}" for number in range(13)], ""),
        ("zzz", [], ""),
    ],
)
def test_what_was_meant(word, options, said):
    assert did_you_mean(word, iter(options)) == said


def test_the_nearest_words_come_best_first():
    assert nearest("learning_rat", ["learning", "learning_rate", "nothing"])[0] == "learning_rate"
    assert len(nearest("aaaa", ["aaaab", "aaaac", "aaaad", "aaaae"])) == 3
    assert nearest("aaaa", ["aaaab", "aaaac"], 1) == ["aaaac"] or nearest("aaaa", ["aaaab", "aaaac"], 1) == ["aaaab"]


def test_articles():
    assert [with_article(noun) for noun in ("encoder", "decoder", "index", "a", "x")] == [
        "an encoder",
        "a decoder",
        "an index",
        "an a",
        "a x",
    ]


def test_annotated_types_of_the_schema():
    for wrong in ({"k": 0}, {"bm25_b": 1.1}, {"bm25_k1": 0.0}, {"dense_weight": -0.1}, {"nprobe": 0}):
        with pytest.raises(RequestError, match=rf"^retriever\.{next(iter(wrong))}="):
            check_values(schema.RetrieverConfig, wrong, "retriever")
    values: dict[str, Any] = {"bm25_b": 0, "dense_weight": 1, "k": 1}
    assert check_values(schema.RetrieverConfig, values, "retriever").k == 1
