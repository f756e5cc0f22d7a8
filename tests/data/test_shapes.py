"""Shapes that people's files have: marks, histories, MS MARCO's tables, columns nobody reads, sentences that help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data import check
from rag_experiments.data.bad_row import BadRow
from rag_experiments.data.formats.beir import BeirConfig
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.formats.tevatron import TevatronColumns, TevatronConfig
from rag_experiments.data.load import load_data
from rag_experiments.data.records import Turn
from rag_experiments.data.row_fields import turns_of
from tests.data.conftest import write_jsonl

TURNS = (Turn("user", "Which train?"), Turn("assistant", "The one to Bern."))
ASKED, SAID = (turn.content for turn in TURNS)


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}],
        [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
        [{"speaker": "User", "text": ASKED}, {"speaker": "agent", "text": SAID}],
        [{"author": "customer", "message": ASKED}, {"author": "bot", "message": SAID}],
        [{"question": ASKED, "answer": SAID}],
        [[ASKED, SAID]],
        [ASKED, SAID],
        json.dumps([{"role": "user", "content": ASKED}, {"role": "ai", "content": SAID}]),
    ],
)
def test_turns_of_reads_each_shape_of_a_history(history):
    assert turns_of({"history": history}) == TURNS


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ({"role": "judge", "content": "x"}, "has the role 'judge': it must be user or assistant"),
        ({"content": "x"}, "has the role None"),
        ({"role": "user"}, "and one entry is"),
        (3, "and one entry is 3"),
    ],
)
def test_turns_of_refuses_what_is_no_turn(turn, why):
    with pytest.raises(BadRow, match=why):
        turns_of({"history": [turn]})


@pytest.mark.parametrize("mark", ["hasanswer", "has_answer"])
@pytest.mark.parametrize("contexts", ["ctxs", "contexts"])
@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize(("yes", "no"), [(True, False), ("True", "False"), (1, 0)])
def test_retrieval_files_of_dpr_and_pyserini_name_their_gold(mark, contexts, by_id, yes, no, tmp_path):
    rows = [
        {
            "question": f"{n}?",
            "answers": [[f"a{n}"]],
            contexts: [{"docid": f"{n}-{m}", "text": f"{n} {m}", mark: yes if m == 1 else no} for m in range(3)],
        }
        for n in range(3)
    ]
    value = {f"q{n}": row for n, row in enumerate(rows)} if by_id else rows
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    asked = load_data(DprConfig(path=str(tmp_path)), tmp_path / "cache").splits["train"]
    assert [q.positive_ids for q in asked] == [(f"{n}-1",) for n in range(3)]
    assert [q.answers for q in asked] == [(f"a{n}",) for n in range(3)]
    assert [q.id for q in asked] == [f"q{n}" if by_id else f"train-{n + 1}" for n in range(3)]
    assert asked[0].candidate_ids == ("0-0", "0-1", "0-2")


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_ms_marcos_tables_are_read_with_and_without_a_header(header, beside, tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "collection.tsv").write_text("pid\ttext\n" * header + '0\tA "quoted" text.\n1\t"Whole" text.\n')
    for split in ("train", "dev.small", "test"):
        name = f"qrels.{split}.tsv" if beside else f"qrels/{split.split('.')[0]}.tsv"
        (tmp_path / f"queries.{split}.tsv").write_text("qid\tquery\n" * header + f"{split}1\twhat {split}\n9\tnobody\n")
        (tmp_path / name).write_text(f"{split}1\t0\t1\t1\n")
    data = load_data(BeirConfig(path=str(tmp_path)), tmp_path / "cache")
    assert [(p.id, p.text) for p in data.passages] == [("0", 'A "quoted" text.'), ("1", '"Whole" text.')]
    assert [q.question for questions in data.splits.values() for q in questions] == [
        "what train",
        "what dev.small",
        "what test",
    ]
    assert data.splits["dev"][0].positive_ids == ("1",)


def test_dprs_corpus_may_have_no_header(tmp_path):
    (tmp_path / "c.tsv").write_text("7\tText seven.\tSeven\n8\tText eight.\n")
    rows = [{"question": f"{n}?", "positive_ctxs": [{"psg_id": "7"}]} for n in range(3)]
    for name, row in zip(("train", "dev", "test"), rows, strict=True):
        write_jsonl(tmp_path / f"{name}.jsonl", [row])
    data = load_data(DprConfig(path=str(tmp_path), passages="c.tsv"), tmp_path / "cache")
    assert data.passages.full_texts(slice(None)) == ["Seven\nText seven.", "Text eight."]
    (tmp_path / "c.tsv").write_text("7\tText seven.\tSeven\turl\n")
    with pytest.raises(RequestError, match=r"c\.tsv:1: 4 columns, and without a header they are id, text and title"):
        load_data(DprConfig(path=str(tmp_path), passages="c.tsv"), tmp_path / "cache")


def test_columns_that_are_not_used_are_named(native, tmp_path):
    more = {"pos_scores": [1.0], "prompt": "p"}
    row = {"question": "q", "query": "q", "positive_ids": ["p1"], "pos": ["x"], "context": "c", "ctxs": []}
    for name in ("train", "dev", "test"):
        write_jsonl(tmp_path / "set" / f"{name}.jsonl", [{**row, **more}])
    path = str(tmp_path / "set")
    folder = native(train=[{**row, **more}])
    columns = HubColumns(id=None, title=None, answers=None)
    for config, unused in (
        (JsonlConfig(path=str(folder)), "query, pos, context, ctxs, pos_scores, prompt"),
        (
            TevatronConfig(path=path, columns=TevatronColumns(positives="pos")),
            "question, positive_ids, context, ctxs, prompt",
        ),
        (HubConfig(path=path, columns=columns), "query, positive_ids, pos, ctxs, pos_scores, prompt"),
    ):
        assert f"columns not used: {unused}" in load_data(config, tmp_path / "cache").notes


def test_a_refused_row_names_the_command_that_leaves_it_out(native, tmp_path):
    folder: Path = native(dev=[{"question": ""}])
    with pytest.raises(RequestError, match=r"dev\.jsonl:1: 'question' is empty .*data\.check data=jsonl .* --fix DIR"):
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")


def test_check_says_why_nothing_is_usable(native, tmp_path, capsys):
    rows = [{"query": f"{n}?", "positive_ids": ["p1"]} for n in range(3)]
    folder = native(train=rows, dev=None, test=None)
    assert check.start(["data=jsonl", f"data.path={folder}", f"paths.cache={tmp_path / 'cache'}"]) == 2
    said = capsys.readouterr().err
    assert "there is not one usable question; 3 of 4 problems are: " in said
    assert "train.jsonl:1: there is no 'question' (the keys here are 'query', 'positive_ids')" in said
