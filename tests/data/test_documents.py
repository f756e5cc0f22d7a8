"""Documents: each kind's text, titles and headings; chunks; questions; damaged files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("semantic_text_splitter")
pytest.importorskip("pypdf")

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.document_parsing import Unreadable, parse
from rag_experiments.data.formats.documents import DocumentsConfig
from rag_experiments.data.load import load_data

MARKDOWN = """---
title: "The guide"
---
# Start *here*

Some `code` and a [link](http://nowhere/x) in **bold**.

## Deeper

```python
print("kept")
```

| a | b |
|---|---|
| cell | other |
"""
HTML = """<html><head><title>Page</title><style>p {color: red}</style></head><body><nav><p>menu</p></nav>
<main><h1>Top<a href="#top">¶</a></h1><p>First <b>bold</b> words.</p><ul><li>one <p>inner</p></li></ul><pre>a
  b</pre></main><script>alert(1)</script></body></html>"""
RST = """
A title
=======

Text with :func:`~os.path.join` and ``code``.

.. include:: /etc/passwd

.. versionadded:: 3.1
   Words inside.

Section
-------

.. note:: A note.
"""


def pdf_with(text: str) -> bytes:
    """The smallest PDF with one line of text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def test_markdown(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(MARKDOWN)
    document = parse(path)
    assert document.title == "The guide"
    assert [text for _, text in document.headings] == ["Start here", "Deeper"]
    assert "Some code and a link in bold." in document.text
    assert 'print("kept")' in document.text
    assert "cell" in document.text
    assert "nowhere" not in document.text
    assert document.heading_at(document.text.index("kept")) == "Deeper"


def test_html(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(HTML)
    document = parse(path)
    assert document.title == "Page"
    assert document.text == "Top\n\nFirst bold words.\n\none inner\n\na\n  b"


def test_rst(tmp_path):
    path = tmp_path / "a.rst"
    path.write_text(RST)
    document = parse(path)
    assert document.title == "A title"
    assert "Text with os.path.join and code." in document.text
    assert "root:" not in document.text
    assert "A note." in document.text
    assert document.headings[-1][1] == "Section"


def blocks_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return parse(path).text.split("\n\n")


MYST = """---
title: T
---
(install)=
# Install {{ project }} {#install .wide}

% a comment
Use {ref}`this page <target>`, {func}`~a.b` and `{not}` a role.[^1]

```{versionadded} 22.2
:class: x

With the `--flag`.
```

:::{note} Mind
{any}`pip`
:::

```{toctree}
:maxdepth: 2
one
```

```{code-block} console
---
linenos: true
---
$ pip {x}
```

```{eval-rst}
See :ref:`there`.
```

!!! warning "Care"
    Inside of it.

{% if x %}
"""


def test_myst_becomes_its_words(tmp_path):
    assert blocks_of(tmp_path / "a.md", MYST) == [
        "Install project",
        "Use this page, a.b and {not} a role.",
        "Added in version 22.2",
        "With the --flag.",
        "Mind",
        "pip",
        "$ pip {x}",
        "See there.",
        "Care",
        "Inside of it.",
    ]


SPHINX = """
:orphan:

Title |release|
===============

.. _target:

See :ref:`the words <target>`, :variable:`CMAKE_<LANG>_FLAGS`, **bold**, a `link <http://x>`_ and [1]_.

.. toctree::
   :maxdepth: 2

   one

.. py:function:: f(x)
   :noindex:

   Does :class:`!this`.

   .. versionchanged:: 3.2
      Inner words.

.. code-block:: c
   :linenos:

   int :x: `y`;

.. tab-set::

   .. tab-item:: Linux

      On *Linux*.

:param name: what it is
"""


def test_sphinx_becomes_its_words(tmp_path):
    assert blocks_of(tmp_path / "a.rst", SPHINX) == [
        "Title release",
        "See the words, CMAKE_<LANG>_FLAGS, bold, a link and .",
        "f(x)",
        "Does this.",
        "Changed in version 3.2",
        "Inner words.",
        "int :x: `y`;",
        "Linux",
        "On Linux.",
        "param name",
        "what it is",
    ]


def test_a_passage_does_not_repeat_the_headings_of_its_title(folder, tmp_path):
    (folder / "deep" / "guide.md").write_text("# Guide\n\n## Doors\n\nThe door opens.\n\n## Keys\n")
    data = load_data(config(folder), tmp_path / "cache")
    passages = [passage for passage in data.passages if passage.id.startswith("deep/guide.md")]
    assert [(passage.title, passage.text) for passage in passages] == [("Guide: Doors", "The door opens.\n\nKeys")]
    (folder / "deep" / "guide.md").write_text("# Guide\n\n## Doors")
    data = load_data(config(folder), tmp_path / "cache")
    (passage,) = [passage for passage in data.passages if passage.id.startswith("deep/guide.md")]
    assert (passage.title, passage.text) == ("Guide", "Doors")


def test_pdf(tmp_path):
    path = tmp_path / "a_small-report.pdf"
    path.write_bytes(pdf_with("Words of a report"))
    document = parse(path)
    assert document.text == "Words of a report"
    assert document.title == "a small report"
    path.write_bytes(b"%PDF-1.4 and nothing more")
    with pytest.raises(Unreadable, match="not readable as PDF"):
        parse(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents, and a tokenizer of words beside them."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokens").mkdir()
    tokenizer.save(str(tmp_path / "tokens" / "tokenizer.json"))
    (tmp_path / "tokens" / "config.json").write_text("{}")
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "long.txt").write_text(" ".join(f"word{n}" for n in range(100)))
    (docs / "deep" / "guide.md").write_text("# Guide\n\nThe door opens with the brass key.\n")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    return docs


def config(folder: Path, **keys) -> DocumentsConfig:
    values = {"chunk_tokens": 40, "overlap_tokens": 10, "tokenizer": str(folder.parent / "tokens"), **keys}
    return DocumentsConfig(path=str(folder), **values)


def test_chunks(folder, tmp_path):
    data = load_data(config(folder), tmp_path / "cache")
    chunks = [passage for passage in data.passages if passage.id.startswith("long.txt#")]
    assert all(len(chunk.text.split()) <= 40 for chunk in chunks)
    words = [set(chunk.text.split()) for chunk in chunks]
    assert set().union(*words) == {f"word{n}" for n in range(100)}
    assert all(len(first & second) == 10 for first, second in itertools.pairwise(words))
    assert chunks[0].title == "long"
    assert data.passages[0].id == "deep/guide.md#0"
    assert any("picture.png" in note for note in data.notes)
    assert data.splits == {"train": [], "dev": [], "test": []}


def test_questions(folder, tmp_path):
    rows = [{"question": "What opens the door?", "answers": ["the brass key"], "document": "deep/guide.md"}]
    rows += [{"question": f"After word{n}?", "answer": f"word{n + 1}", "document": "long.txt"} for n in range(1, 90, 9)]
    rows += [{"question": "And this?", "positive_ids": ["long.txt#0"]}]
    (folder.parent / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = Intake(tmp_path, collect=True)
    from rag_experiments.data.formats import documents

    documents.read(config(folder, questions=str(folder.parent / "asked.jsonl")), made)
    store = made.finish()
    asked = [one.question for one in made.splits["train"]]
    assert not made.problems
    assert asked[0].positive_ids == ("deep/guide.md#0",)
    for question in asked[1:-1]:
        texts = store.full_texts(store.rows(question.positive_ids))
        assert all(question.answers[0] in text.split() for text in texts)
    assert {one.group for one in made.splits["train"]} == {"deep/guide.md", "long.txt"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x", "answers": ["y"], "document": "no.txt"}, "'document' is 'no.txt'"),
        ({"question": "x", "answers": ["absent"], "document": "long.txt"}, "no answer stands in 'long.txt'"),
        ({"question": "x", "positive_ids": ["long.txt#99"]}, "no passage has that id"),
    ],
)
def test_wrong_questions(row, message, folder, tmp_path):
    (folder.parent / "asked.jsonl").write_text(json.dumps(row))
    with pytest.raises(RequestError, match=message):
        load_data(config(folder, questions=str(folder.parent / "asked.jsonl")), tmp_path / "cache")


FACTS = {
    "deep/guide.md": "# Guide\n\nThe door of the cellar opens with the brass key.\n",
    "attic.txt": "The window of the attic opens with the brass key. It was built in 1923 of oak.",
    "mill.txt": "The mill by the river was built in 1923 by the miller Anna Berg.",
}


@pytest.fixture
def facts(folder) -> Path:
    for name, text in FACTS.items():
        (folder / name).write_text(text)
    return folder


def read(folder: Path, rows: list[dict], tmp_path: Path, **keys) -> Intake:
    from rag_experiments.data.formats import documents

    file = folder.parent / "qa.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    tmp_path.mkdir(exist_ok=True)
    made = Intake(tmp_path)
    documents.read(config(folder, questions=str(file), **keys), made)
    return made


def golds(made: Intake) -> list[tuple[str, ...]]:
    return [one.question.positive_ids for one in made.splits["train"]]


def test_a_question_without_a_document_gets_the_passage_that_holds_its_answer(facts, tmp_path):
    rows = [
        {
            "Query": "What opens the door of the cellar?",
            "Ground Truth": "the brass key",
        },  # stands twice; one speaks of it
        {"Query": "Who built the mill?", "Ground Truth": ["nobody", "Anna Berg"]},
        {"Query": "When was the mill by the river built?", "Ground Truth": "1923"},
    ]
    made = read(facts, rows, tmp_path)
    made.finish()
    assert golds(made) == [("deep/guide.md#0",), ("mill.txt#0",), ("mill.txt#0",)]
    assert {one.group for one in made.splits["train"]} == {"deep/guide.md", "mill.txt"}
    assert any(note.startswith("3 times: a question names no document") or "names no document" in note
               for note in made.notes)  # fmt: skip


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ("What opens?", "the brass key", "none is ahead"),
        ("Which poet is meant here?", "Anna Berg", "few of its words"),
        ("Who built the castle?", "Otto", "stands in no passage"),
    ],
)
def test_what_is_not_clear_is_left_out_or_kept_as_asked(facts, tmp_path, question, answer, why):
    rows = [
        {"question": question, "answers": [answer]},
        {"question": "Who built the mill?", "answers": ["Anna Berg"]},
    ]
    made = read(facts, rows, tmp_path / "one")
    made.finish()
    assert golds(made) == [("mill.txt#0",)]
    assert any(why in note and "data.keep_unplaced=true" in note for note in made.notes)
    kept = read(facts, rows, tmp_path / "two", keep_unplaced=True)
    assert golds(kept) == [(), ("mill.txt#0",)]
    with pytest.raises(
        RequestError, match=r"no question has a gold passage: 1 name no document.*data\.keep_unplaced=true"
    ):
        read(facts, rows[:1], tmp_path / "three")


def test_documents_without_questions_name_what_gives_them_some(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    request = ["algorithm=ctl", "data=documents", f"data.path={folder}", f"data.tokenizer={folder.parent / 'tokens'}"]
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(train.start, [*request, "retriever.k=1", "plan=true"])
    assert ended.value.code == command_line.WRONG_REQUEST
    sentence = capsys.readouterr().err
    assert "data.questions=FILE" in sentence
    assert f"rag_experiments.data.generate data=documents data.path={folder} OUT" in sentence


def test_an_answer_in_the_overlap_of_two_passages_is_one_place(folder, tmp_path):
    rows = [{"question": "word31 word32?", "answers": ["word33 word34"]}]
    made = read(folder, rows, tmp_path)
    store = made.finish()
    (ids,) = golds(made)
    assert len(ids) == 2
    assert all("word33 word34" in text for text in store.full_texts(store.rows(ids)))


def test_a_source_column_counts_only_where_it_names_a_document(facts, tmp_path):
    rows = [
        {"question": "When was it built?", "answers": ["1923"], "source": "mill.txt"},
        {"question": "Who built the mill?", "answers": ["Anna Berg"], "source": "wikipedia"},
    ]
    assert golds(read(facts, rows, tmp_path)) == [("mill.txt#0",), ("mill.txt#0",)]


def test_damaged_pdf_is_named(folder, tmp_path):
    (folder / "bad.pdf").write_bytes(b"no pdf")
    with pytest.raises(RequestError, match=r"bad\.pdf: not readable as PDF"):
        load_data(config(folder), tmp_path / "cache")


EXAMPLES = int(os.environ.get("DATA_EXAMPLES", "40"))
KINDS = {".md": MARKDOWN, ".html": HTML, ".rst": RST, ".txt": MARKDOWN, ".pdf": pdf_with("Words of a report").decode()}
MARKS = st.sampled_from(
    [b"\x00", b"\xff", b"```", b"<table>", b"</", b"<!--", b"|", b"\n\n", b"===\n", b".. ", b"::", b"`", b"[", b"]("]
)
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), MARKS | st.binary(max_size=6)), min_size=1, max_size=6)


@pytest.mark.parametrize("suffix", KINDS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damaged_documents_are_read_or_refused(suffix, damage, tmp_path_factory):
    """Never another exception than the one that names the file."""
    content = KINDS[suffix].encode()
    for place, length, inserted in damage:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + length :]
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(content)
    refused = ""
    try:
        assert parse(path).title
    except Unreadable as error:
        refused = str(error)
    assert "\n" not in refused


@pytest.mark.parametrize(
    "start",
    [b"\x1f\x8b", b"\x1f\x8bnot gzip at all", gzip.compress(b"some text " * 50, mtime=0)[:-12]],
    ids=["two bytes", "text", "cut short"],
)
def test_a_damaged_gzip_under_a_documents_name_is_unreadable(start, tmp_path):
    (tmp_path / "a.txt").write_bytes(start)
    with pytest.raises(Unreadable, match="damaged"):
        parse(tmp_path / "a.txt")


def test_only_pickles(tmp_path):
    (tmp_path / "store.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(RequestError, match=r"there is no document .* store\.pkl is a pickle"):
        load_data(DocumentsConfig(path=str(tmp_path)), tmp_path / "cache")
