"""`data=hub`: any data set of the Hugging Face hub, or a local file or folder, read by a mapping of columns.

Local: a .jsonl, .json, .csv, .tsv or .parquet file (each also .gz), a folder of them whose file names tell the splits,
a folder that `save_to_disk` wrote, or a download of a data set's repository (files in `data/` or in the folder of the
configuration). On the hub: `data.path=squad`; `data.name` is the configuration, `data.revision` the commit. Loading
scripts are never run.

    data.columns.question=query data.columns.context=paragraph data.columns.answers=answers.text

`data.preset=squad` is the mapping for SQuAD and data sets with its fields, including nested JSON. Contexts become the
corpus, each once. Longer contexts are cut into passages of `data.passage_words` words, and the gold passage is the one
in which an answer begins. If splits are missing, all questions on one article go to one split.
`data.preset=hotpot` reads HotpotQA's paragraphs and supporting facts, `quac` and `coqa` conversations. A JSON file with
`queries`, `corpus` and `relevant_docs` is recognised (`question_sets.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rag_experiments.config.schema import DataConfig, PositiveInt
from rag_experiments.core.errors import RequestError, first_line
from rag_experiments.data.bad_row import MissingColumn
from rag_experiments.data.builder import SPLITS, Intake
from rag_experiments.data.cells import listed
from rag_experiments.data.column_names import preferred
from rag_experiments.data.formats import dialogues, hotpot, hub_access, question_sets, squad
from rag_experiments.data.formats.conversations import is_conversation, last_exchange, reply
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.json_objects import rows_inside
from rag_experiments.data.formats.tables import find_files, json_rows, kind_of, read_json, rows, split_files
from rag_experiments.data.records import Where
from rag_experiments.data.row_fields import BadRow, content_id, id_of, reach, shown, text_of, turns_of


@dataclass(kw_only=True)
class HubColumns:
    """Names of the columns. A dot reaches into a column (`answers.text`); null means that there is no such column."""

    question: str = "question"
    """The column of the question's text."""
    id: str | None = "id"
    """The column of the question's id; null numbers the rows."""
    answers: str | None = "answers"
    """The column of the answers: a string, a list of strings, or SQuAD's {"text": [..], "answer_start": [..]}."""
    context: str | None = "context"
    """The column of the text that contains the answer: a string or a list of strings."""
    title: str | None = "title"
    """The column of the context's title."""
    negatives: str | None = None
    """The column of texts that do not answer the question."""
    history: str | None = None
    """The column of the turns before the question."""
    group: str | None = None
    """Questions with one value of this column go to one split; null: the title if there is one, else the context."""


@dataclass(kw_only=True)
class HubConfig(DataConfig):
    """`data.path` is a hub name, a file or a folder."""

    format: str = "hub"
    name: str | None = None
    """The data set's configuration on the hub; null is its only or its default one."""
    revision: str | None = None
    """The commit, tag or branch of the data set on the hub; null takes the newest."""
    preset: Literal["columns", "squad", "hotpot", "quac", "coqa"] = "columns"
    """How a row is read: by `columns`, or as the data sets SQuAD, HotpotQA, QuAC and CoQA are, with nested JSON."""
    columns: HubColumns = field(default_factory=HubColumns)
    """The names of the columns, for `preset: columns` and `squad`."""
    files: dict[str, str | None] = field(default_factory=dict)
    """A file name or pattern in a local folder, or the name of a split on the hub, for each split."""
    passage_words: Annotated[PositiveInt, Field(ge=10)] | None = 180
    """Longer contexts are cut into passages of this many words; null never cuts."""
    passage_overlap: Annotated[int, Field(ge=0)] = 0
    """Words that a passage shares with the one before it."""
    split_by: Literal["article", "passage"] = "article"
    """Which questions go to one split when a split is cut: those on one article (title, group), or on one passage."""

    def __post_init__(self) -> None:
        if self.columns.context is None and self.preset in ("columns", "squad"):
            raise ValueError("columns.context is null, and contexts are the corpus: name the column that holds them")
        if self.passage_words is not None and self.passage_overlap >= self.passage_words:
            raise ValueError(
                f"passage_overlap ({self.passage_overlap}) must be smaller than passage_words ({self.passage_words})"
            )


def fingerprint(config: HubConfig) -> str:
    """A hash of the files, or the hub's own hash of the data set. Raises `RequestError` if there are no files."""
    local = local_files(config)
    if local:
        return files_fingerprint(path for paths in local.values() for path in paths)
    return repr({split: table._fingerprint for split, table in _tables(config).items()})


def read(config: HubConfig, intake: Intake) -> None:
    """Hand every context and question to `intake`."""
    cutter = squad.Cutter(intake, config.passage_words, config.passage_overlap)
    if config.preset in ("columns", "squad"):
        intake.column_report.expect(vars(config.columns), vars(HubColumns()))
    local = local_files(config)
    for split, paths in local.items():
        intake.split(split, str(paths[0]))
        _read_rows(config, split, _file_rows(config, split, paths, cutter), cutter)
    if not local:
        for split, table in _tables(config).items():
            intake.split(split, f"{config.path}, {split}")
            _read_rows(config, split, _table_rows(config, split, table), cutter)


def _file_rows(
    config: HubConfig, split: str, paths: tuple[Path, ...], cutter: squad.Cutter
) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of a split's files. A file that holds one JSON object for everything is read here and yields no rows."""
    whole = config.split_by == "article"
    for path in paths:
        if kind_of(path) != ".json":
            yield from rows(path, cutter.intake)
            continue
        value = read_json(path, cutter.intake)
        if not isinstance(value, dict) or _holds_rows(config, value):
            yield from json_rows(value, path, cutter.intake)
        elif config.preset in ("squad", "quac") and "data" in value:
            squad.read_nested(
                value, str(path), split, cutter, whole, dialogues.is_quac, dialogues.read_quac, config.preset == "quac"
            )
        elif config.preset == "coqa" and isinstance(value.get("data"), list):
            for number, story in enumerate(value["data"]):
                where = Where(str(path), inside=f": data[{number}]")
                yield where, story if isinstance(story, dict) else {"story": story}
        elif question_sets.is_one(value):
            question_sets.read(value, str(path), split, cutter.intake)
        elif config.preset == "squad":
            cutter.intake.problem(Where(str(path)), "a SQuAD file is an object with a list 'data', and there is none")
        else:
            yield from json_rows(value, path, cutter.intake)


def _holds_rows(config: HubConfig, value: Mapping[str, Any]) -> bool:
    """Whether a JSON object holds rows, and is not one of those that a preset or `question_sets` reads."""
    inside = None if question_sets.is_one(value) else rows_inside(value)
    return inside is not None and (config.preset == "columns" or _has(inside[0], config.columns.question))


def _read_rows(
    config: HubConfig, split: str, source: Iterator[tuple[Where, dict[str, Any]]], cutter: squad.Cutter
) -> None:
    for number, (where, row) in enumerate(source, 1):
        with cutter.intake.row(where):
            if config.preset in _PRESET_FIELDS:
                cutter.intake.columns(row, _PRESET_FIELDS[config.preset])
            if config.preset == "hotpot":
                hotpot.take_row(row, f"{split}-{number}", split, cutter.intake)
            elif config.preset == "coqa":
                dialogues.read_coqa(row, f"{split}-{number}", split, cutter, config.split_by == "article")
            elif config.preset == "quac":
                name = id_of(row, "dialogue_id") or f"{split}-{number}"
                dialogues.read_quac_row(row, name, split, cutter, config.split_by == "article")
            else:
                _take_row(config, row, f"{split}-{number}", split, cutter)


_PRESET_FIELDS = {"hotpot": hotpot.FIELDS, "coqa": dialogues.COQA_FIELDS, "quac": dialogues.QUAC_FIELDS}


def _take_row(config: HubConfig, row: Mapping[str, Any], default: str, split: str, cutter: squad.Cutter) -> None:
    names = config.columns
    mapped = [name for name in vars(names).values() if name]
    cutter.intake.columns(row, {*mapped, *(name.split(".")[0] for name in mapped)})
    values = {name: reach(row, getattr(names, name)) for name in ("title", "group")}
    title = values["title"] if isinstance(values["title"], str) else ""
    placed = _texts(reach(row, names.context), names.context, "")
    contexts = [text for _, text in placed]
    group = (
        str(values["group"])
        if values["group"] is not None
        else title or (content_id(contexts[0]) if contexts else None)
    )
    unwanted = _texts(reach(row, names.negatives), names.negatives, f".{names.negatives}")
    negatives = [cutter.passages(text, "", part=part)[0].id for part, text in unwanted]
    for name in (names.question, names.context):
        if name is not None and not _has(row, name):
            hint = "; nested SQuAD is read with data.preset=squad" if isinstance(row.get("data"), list) else ""
            hint = _DIALOGUE if isinstance(row.get("questions"), list) else hint
            key = next(key for key, value in vars(names).items() if value == name)
            other = preferred(key, (column for column in row if column not in mapped))
            hint = f"; data.columns.{key}={other} names it" if other is not None else hint
            raise MissingColumn(f"there is no {name!r} (the columns here are {', '.join(map(repr, row))}){hint}")
    asked, answered = reach(row, names.question), reach(row, names.answers)
    history = turns_of({"history": listed(reach(row, names.history), names.history)}) if names.history else ()
    if is_conversation(asked):
        exchange = last_exchange(asked, names.question)
        asked, history = exchange.question, history or exchange.history
        answered = answered if answered is not None else exchange.answer
    if is_conversation(answered) and "role" in answered[0]:
        answered = reply(answered, names.answers or "answers")
    if isinstance(asked, list):
        raise BadRow(f"{names.question!r} is a list of questions, and a row needs a single one{_DIALOGUE}")
    answers = squad.answers_of(answered, names.answers or "answers")
    if config.preset == "squad" and not answers:
        cutter.unanswered()
        return
    cutter.question(
        split,
        question=text_of({names.question: asked}, names.question),
        id=(id_of({"id": reach(row, names.id)}, "id") if names.id else "") or default,
        answers=answers,
        contexts=contexts,
        parts=[part for part, _ in placed],
        title=title,
        negatives=negatives,
        history=history,
        group=group if config.split_by == "article" else None,
        about=group if config.preset == "squad" else None,
    )


_MISSING = object()
_DIALOGUE = "; conversations as CoQA's and QuAC's are read with data.preset=coqa or data.preset=quac"


def _has(row: Mapping[str, Any], name: str) -> bool:
    """Whether there is such a column; its value may be null."""
    return reach(row, name, _MISSING) is not _MISSING


def _texts(value: Any, name: str | None, single: str) -> list[tuple[str, str]]:
    """Each text of a column behind its place in the row: `single` if it is the only one, `.context[0]` in a list."""
    value = listed(value, name or "")
    if value is None:
        return []
    if isinstance(value, str):
        return [(single, value)] if value.strip() else []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadRow(f"{name!r} must be a string or a list of strings, and is {shown(value)}")
    return [(f".{name}[{number}]", entry) for number, entry in enumerate(value) if entry.strip()]


# -- where the rows are -----------------------------------------------------------------------------


def local_files(config: HubConfig) -> dict[str, tuple[Path, ...]]:
    """Files by split if `data.path` is on this disk; empty if it is a name on the hub or was written by `save_to_disk`.

    Raises:
        RequestError: no path, or a folder without files that could be splits.
    """
    if not config.path:
        raise RequestError("data=hub needs data.path=…: a name on the Hugging Face hub, a file or a folder")
    unknown = set(config.files) - set(SPLITS)
    if unknown:
        raise RequestError(f"data.files.{sorted(unknown)[0]} is not a split: give train, dev or test")
    path = Path(config.path).expanduser()
    if path.is_file():
        return find_files(path, config.files)
    if not path.is_dir() or _on_disk(path):
        return {}
    # A downloaded repository of the hub has its files one folder deeper.
    inside = [path, *(path / name for name in (config.name, "data") if name and (path / name).is_dir())]
    return next((files for folder in inside if (files := split_files(folder, config.files))), {}) or find_files(
        path, config.files
    )


def _on_disk(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()


def _tables(config: HubConfig) -> dict[str, Any]:
    """A `datasets.Dataset` by split.

    Raises:
        RequestError: there is no such data set here or on the hub, or it has no train split.
    """
    import datasets

    assert config.path is not None
    path = Path(config.path).expanduser()
    if path.is_dir():
        try:
            loaded = datasets.load_from_disk(str(path))
        except Exception as error:  # the library raises many kinds
            raise RequestError(
                f"data.path={config.path}: the saved data set there cannot be opened: {first_line(error)}"
            ) from error
    else:
        loaded = hub_access.load(config.path, config.name, config.revision)
    tables = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    table_by_split = {}
    for split, names in {"train": ["train"], "dev": ["validation", "dev"], "test": ["test"]}.items():
        split_names = [config.files[split]] if split in config.files else names
        split_name = next((name for name in split_names if name in tables), None)
        if split_name:
            table_by_split[split] = tables[split_name]
        elif config.files.get(split):
            raise RequestError(f"data.files.{split}={config.files[split]}: the splits are {', '.join(tables)}")
    if not table_by_split:
        raise RequestError(
            f"data.path={config.path} has the splits {', '.join(tables)}; choose one with data.files.train=…"
        )
    return table_by_split


def first_table(config: HubConfig) -> Any:
    """Rows of the first split: of a data set that `save_to_disk` wrote, or of one on the hub without downloading it.

    Raises:
        RequestError: there is no such data set here or on the hub.
    """
    assert config.path is not None
    if not Path(config.path).expanduser().exists():
        with suppress(Exception):  # the library and the network raise many kinds; `_tables` says which
            streamed = hub_access.load(config.path, config.name, config.revision, streaming=True)
            split_name = config.files.get("train") or "train"
            if isinstance(streamed, dict):
                return list(islice(streamed.get(split_name) or next(iter(streamed.values())), 100))
    return next(iter(_tables(config).values()))


def _table_rows(config: HubConfig, split: str, table: Any) -> Iterator[tuple[Where, dict[str, Any]]]:
    for number, row in enumerate(table, 1):
        yield Where(str(config.path), inside=f", {split}[{number}]"), row
