"""Text and files that nobody expects: read right, or refused with a reason."""

from __future__ import annotations

import json

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.beir import BeirConfig
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.formats.localrqa import LocalrqaConfig
from rag_experiments.data.formats.tevatron import TevatronConfig
from rag_experiments.data.load import load_data
from tests.data.conftest import write_jsonl
from tests.data.samples import samples

# -- text ----------------------------------------------------------------------------------------------

ODD = {
    "a line separator": "one\u2028two",
    "a null character": "one\x00two",
    "a form feed": "one\x0ctwo",
    "right to left": "שלום \u202eolleh",
    "an emoji of several parts": "👩‍👩‍👧‍👦 🇨🇭",
    "combining": "e\u0301 is not é",
    "a very long line": "word " * 200_000,
    "tabs and line ends": "a\tb\r\nc",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_text_comes_through(name, native, tmp_path):
    text = ODD[name]
    passages = [{"id": f"p {n}\u00a0é/{n}", "title": text[:40], "text": f"{text} {n}"} for n in range(4)]
    asked = [{"question": text[:60] + f" {n}?", "positive_ids": [passages[n]["id"]]} for n in range(4)]
    folder = native(passages=passages, train=asked[:2], dev=asked[2:3], test=asked[3:])
    data = load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")
    assert data.passages[1].text == f"{text} 1"
    assert data.splits["train"][1].question == asked[1]["question"]


HALF = "half a \ud83d"
HALVES = {
    "relevance": {"relevance": {HALF: 1}},
    "answers": {"answers": [HALF]},
    "question": {"question": HALF},
    "id": {"id": HALF},
    "positive_ids": {"positive_ids": [HALF]},
    "history": {"history": [{"role": "user", "content": HALF}]},
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_character_anywhere_is_named(name, native, tmp_path):
    row = json.dumps({"question": "a?", "positive_ids": ["p0"], **HALVES[name]})
    folder = native(train=[row])
    with pytest.raises(RequestError, match=rf"train\.jsonl:1: '{name}' holds half a character"):
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")


def test_half_a_character_in_a_group(tmp_path):
    row = json.dumps({"question": "a?", "context": "b", "part": HALF})
    path = write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: 'group' holds half a character"):
        load_data(HubConfig(path=str(path), columns=HubColumns(group="part")), tmp_path / "cache")


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [JsonlConfig, BeirConfig, LocalrqaConfig, DprConfig, TevatronConfig, HubConfig])
def test_a_pickle_is_named_wherever_it_lies(config, tmp_path):
    """As `data.path` itself, and in a folder that has nothing else."""
    import pickle

    path = tmp_path / "documents.pkl"
    path.write_bytes(pickle.dumps([{"text": "x"}]))
    for given in (path, tmp_path):
        with pytest.raises(RequestError, match=r"documents\.pkl is a pickle, and no.* as JSON Lines"):
            load_data(config(path=str(given)), tmp_path / "cache")


def test_a_split_that_is_asked_for_and_not_there(tmp_path):
    samples()["localrqa"].write(tmp_path)
    config = LocalrqaConfig(path=str(tmp_path), splits={"train": "trian", "dev": "eval", "test": "test"})
    with pytest.raises(RequestError, match=r"data\.splits\.train=trian: there is no trian_w_q\.jsonl"):
        load_data(config, tmp_path / "cache")


def test_doubled_ids_of_a_large_corpus_are_dropped_where_problems_are_collected(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    intake = Intake(folder, collect=True)
    from rag_experiments.data.records import Where

    for n in range(5000):
        with intake.row(Where("corpus.jsonl", n + 1)):
            intake.passage(f"p{n % 4000}", f"text {n}")
    store = intake.finish()
    assert len(store) == 4000
    assert len(intake.problems) == 1000
    assert store[3999].text == "text 3999"
    assert intake.passage_place(3999) == Where("corpus.jsonl", 4000)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
