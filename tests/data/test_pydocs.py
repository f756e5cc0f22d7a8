"""The embedded data set: deterministic, without leaks, without side effects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.pydocs import Documented, PydocsConfig, hide_name, make_questions
from rag_experiments.data.load import RagData, load_data

PHRASING = re.compile(
    r"^Which \w+ is this\? | What is it called\?$|^What is the name of the \w+ described so: "
    r"|^I am looking for a \w+\. "
)


@pytest.fixture(scope="module")
def pydocs(tmp_path_factory: pytest.TempPathFactory) -> RagData:
    return load_data(PydocsConfig(), tmp_path_factory.mktemp("cache"))


def test_size(pydocs):
    assert 2_000 < len(pydocs.passages) < 4_000
    assert sum(map(len, pydocs.splits.values())) > 800
    assert "math.hypot" in pydocs.passages
    assert "json.dumps" in pydocs.passages


def test_questions_do_not_say_the_name_and_golds_not_the_question(pydocs):
    for questions in pydocs.splits.values():
        for question in questions:
            assert question.answers == question.positive_ids
            assert question.answers
            last = question.answers[0].rsplit(".", 1)[-1]
            text = PHRASING.sub("", question.question)
            assert not re.search(rf"(?<![\w.]){re.escape(last)}(?!\w)", text, re.IGNORECASE), question


def test_no_passage_holds_a_question(pydocs):
    corpus = "\n".join(passage.text.lower() for passage in pydocs.passages)
    for questions in pydocs.splits.values():
        for question in questions:
            text = PHRASING.sub("", question.question).lower()
            if "…" not in text:
                assert text not in corpus, question.id


def test_splits_share_no_object(pydocs):
    golds = [{i for q in questions for i in q.positive_ids} for questions in pydocs.splits.values()]
    assert not golds[0] & golds[1]
    assert not golds[0] & golds[2]
    assert not golds[1] & golds[2]


SCRIPT = """
import sys
from pathlib import Path
if len(sys.argv) > 2:
    import json, sqlite3, numpy, xml.dom.minidom
from rag_experiments.data.load import load_data
from rag_experiments.data.formats.pydocs import PydocsConfig
data = load_data(PydocsConfig(), Path(sys.argv[1]))
assert not {"torch", "antigravity", "this", "turtle", "tkinter"} & set(sys.modules)
print(data.content_hash)
"""


def test_deterministic(pydocs, tmp_path):
    for number, arguments in enumerate([[], ["more"]]):
        environment = {**os.environ, "PYTHONHASHSEED": str(number + 1), "HOME": str(tmp_path)}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"cache{number}"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
        assert done.stdout.strip() == pydocs.content_hash, "nothing else is printed, and the data is the same"


def test_objects_with_one_first_paragraph_are_gold_together():
    rest = "It takes one argument and it returns another thing."
    objects = [
        Documented("a.copy", "function", "()", ("Return a copy of the thing.", rest)),
        Documented("b.copy", "function", "()", ("Return a copy of the thing.", rest)),
        Documented("c.other", "function", "()", ("Return some quite other thing.", rest)),
    ]
    questions, golds = make_questions(objects)
    assert [q.positive_ids for q in questions] == [("a.copy", "b.copy"), ("c.other",)]
    assert golds == {"a.copy", "b.copy", "c.other"}
    assert "copy" not in questions[0].question


def test_hide_name():
    assert hide_name("heapq.heappush(heap, item) -> None. Push item", "heapq.heappush") == "… -> None. Push item"
    assert hide_name("Copy the copyright of a copy.", "copy.copy") == "… the copyright of a …."


def test_packages(tmp_path):
    with pytest.raises(RequestError, match="'no_such_package' is not installed"):
        load_data(PydocsConfig(packages=["no_such_package"]), tmp_path)
    data = load_data(PydocsConfig(packages=["filelock"]), tmp_path)
    assert any(passage.id.startswith("filelock.") for passage in data.passages)
