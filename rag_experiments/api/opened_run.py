"""A run directory, opened: what it recorded, and its models to work with. Nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments import ask as asking
from rag_experiments import evaluate as evaluating
from rag_experiments import export as exporting
from rag_experiments.api import frames
from rag_experiments.comparison.records.run_records import read_rows
from rag_experiments.config.command_line import CommandLine, parse
from rag_experiments.config.overrides import of_value, typed
from rag_experiments.config.surroundings import as_before
from rag_experiments.core.bounded_files import read_json, read_yaml
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Turn
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training.reopen import Reopened, existing, reopen

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from rag_experiments.algorithms.base import RunComponents
    from rag_experiments.models.component import Component

Overrides = str | Mapping[str, Any]
"""`"key=value"`, as it is typed to a command, or keys and their Python values."""
Place = str | PathLike[str]
"""A path; a `Run` is one."""
History = Sequence[Turn | tuple[str, str]]
"""Earlier turns of a conversation, oldest first: `Turn`s or `(role, content)`."""


def read_line(overrides: Sequence[Overrides], config_dir: Place | None = None) -> CommandLine:
    """Overrides as a command reads them.

    Raises:
        RequestError: a word that is no override, a value that no key takes, an option that only a command takes.
    """
    line = parse(as_words(overrides, config_dir))
    refuse_secrets(line.overrides)
    if line.multirun or line.shows_only:
        raise RequestError("a sweep, and what only prints, are for the command: python -m rag_experiments.train …")
    return line


def as_words(overrides: Sequence[Overrides], config_dir: Place | None = None) -> list[str]:
    """Overrides as they would be typed."""
    words = [] if config_dir is None else ["--config-dir", str(Path(config_dir).expanduser())]
    for override in overrides:
        words += (
            [of_value(key, value) for key, value in override.items()] if isinstance(override, Mapping) else [override]
        )
    return words


def _read(file: Path, read: Callable[[Path], Any], missing: Any) -> Any:
    """The content of a run's file; `missing` where it is not there. Raises `RequestError` where it is damaged."""
    try:
        return read(file)
    except FileNotFoundError:
        return missing
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read: {error}") from error


class Run:
    """A run directory. Everything is read when it is asked for; the models stay open afterwards.

    Args:
        path: the directory, or an evaluation in it (`evaluations/<name>`).
        changes: overrides that hold when the run's models are opened, such as `retriever.k=8`.
        config_dir: a folder of your own config groups; None: the one that the run was started with.
    """

    def __init__(self, path: Place, changes: Sequence[str] = (), config_dir: str | None = None):
        self.path = Path(path).absolute()
        self.directory = RunDirectory.open(Path(path))
        self.directory.path = self.path  # the notebook may go elsewhere
        self._changes = list(changes)
        self._config_dir = config_dir

    def __repr__(self) -> str:
        return f"<Run {self.path} ({self.directory.state})>"

    def __fspath__(self) -> str:
        return str(self.path)

    # -- what it recorded ------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        """`status.json`. `state` is `running`, `completed`, `failed` or `interrupted` as of now."""
        return {**self.directory.read_status(), "state": self.directory.state}

    @property
    def config(self) -> dict[str, Any]:
        """`config.yaml`: every key with its value, nested."""
        return _read(self.directory.config_path, read_yaml, {})

    @property
    def metrics(self) -> pd.Series:
        """The final figures by `<stage>/<metric>`; empty while there are none."""
        return frames.figures(_read(self.directory.metrics_path, read_json, {}), self.path.name)

    @property
    def log(self) -> pd.DataFrame:
        """`metrics.jsonl`: a row for each logging step, a column for each figure, NaN where a step does not have it."""
        return frames.history(self.directory.read_metrics())

    @property
    def stages(self) -> list[str]:
        """The stages whose predictions there are, such as `zero_shot/dev` and `test`."""
        folder = self.path / "predictions"
        return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.jsonl"))

    def predictions(self, split: str = "test", stage: str | None = None) -> pd.DataFrame:
        """A row for each question, by its id.

        Columns: `question`, `retrieved_ids`, `retrieved_scores`, `gold_ids`, `answer` (None: an encoder's run),
        `references`, what else the file has, then each metric of the question, whose mean is the figure in `metrics`.

        Args:
            split: `dev` or `test`.
            stage: `zero_shot` for what was there before training; None: after it.

        Raises:
            RequestError: the run has no such predictions, or their file is damaged.
        """
        name = f"{stage}/{split}" if stage else split
        if name not in self.stages:
            there = ", ".join(self.stages) or "none at all"
            raise RequestError(f"{self.path}: there are no predictions of {name} (there are: {there})")
        return frames.predictions(_read(self.directory.predictions_path(name), read_rows, []))

    # -- its models ------------------------------------------------------------------------------

    @cached_property
    def _opened(self) -> Reopened:
        with as_before():
            return reopen(self.path, self._changes, self._config_dir)

    @cached_property
    def _parts(self) -> RunComponents:
        request = self._opened.request
        from rag_experiments.training import build

        with as_before():
            return build.build_components(request)

    @cached_property
    def _ready(self) -> RunComponents:
        """With an index over the whole corpus."""
        self._parts.retriever.refresh(persist=True)
        return self._parts

    @property
    def model(self) -> Component:
        """What the run trained, as the package's own object: an `Encoder` or a `Reader`, or one from outside."""
        return self._parts.model

    @cached_property
    def encoder(self) -> RunEncoder:
        """The encoder that the run trained, or else its retriever's.

        Raises:
            RequestError: it has none.
        """
        encoder = self._parts.models.get("encoder") or exporting.encoder_of(self._parts.retriever)
        if encoder is None:
            raise RequestError(f"{self.path}: the run has no encoder; its retriever searches by words")
        return RunEncoder(encoder)

    @cached_property
    def reader(self) -> RunReader:
        """The reader that the run trained.

        Raises:
            RequestError: it trained none.
        """
        if "reader" not in self._parts.models:
            trained = ", ".join(self._parts.models)
            raise RequestError(f"{self.path}: the run has no reader; it trained: {trained}")
        return RunReader(self._parts)

    def search(self, question: str, k: int | None = None, history: History = ()) -> pd.DataFrame:
        """The best passages of the whole corpus for a question: `score`, `id`, `title`, `text` by rank, best first.

        Args:
            k: how many; None: `retriever.k`.
            history: earlier turns; `data.query_history` says which of them are searched with.

        Raises:
            RequestError: an empty question, or `k` that the corpus does not have.
        """
        full_question = asking.asked(question, turns(history))
        count = self._opened.request.config.retriever.k if k is None else k
        corpus = len(self._opened.request.data.passages)
        if not 1 <= count <= corpus:
            raise RequestError(f"k={k} is not between 1 and {corpus}, the number of passages in the corpus")
        return frames.passages(asking.search(self._ready, full_question, count))

    def ask(self, question: str, history: History = ()) -> asking.Reply:
        """A reader's answer (None: the run trained an encoder) and the `(score, passage)` pairs behind it, best first.

        Raises:
            RequestError: an empty question, or one that is longer than the reader reads.
        """
        asking.asked(question, earlier := turns(history))
        return asking.reply(self._ready, question, earlier)

    # -- the other commands ----------------------------------------------------------------------

    def evaluate(self, *overrides: Overrides, name: str | None = None) -> pd.Series:
        """Measure again, as `rag-evaluate` does, and write `evaluations/<name>`; returns the figures.

        `rag.open_run(run.path / "evaluations" / name)` opens what was written.

        Args:
            overrides: what shall differ: data, retriever, evaluation, how the model is used.
            name: of the folder; None: made of the overrides.

        Raises:
            RequestError: a change to what made the model, data that does not fit, …
        """
        line = read_line([*self._changes, *overrides, *([{"name": name}] if name is not None else [])])
        folder, changes = evaluating.split_name(self.path, line.overrides)
        with as_before():
            opened = reopen(self.path, changes, self._config_dir)
            measured = evaluating.evaluate(opened, folder, [typed("run", str(self.path)), *line.overrides])
        return frames.figures(measured, folder.name)

    def export(self, folder: Place) -> Path:
        """Write model, index and passages as plain files, as `rag-export` does; returns the folder.

        Raises:
            RequestError: something stands there already.
        """
        target = exporting.new_folder(Path(folder)).absolute()
        with as_before():
            exporting.export(self._opened, target)
        return target


def open_run(path: Place, *overrides: Overrides, config_dir: Place | None = None) -> Run:
    """The run in a directory. Nothing but its status is read.

    Args:
        overrides: what shall differ when its models are opened, such as `retriever.k=8`.
        config_dir: a folder of your own config groups; None: the one that the run was started with.

    Raises:
        RequestError: there is no run.
    """
    line = read_line(overrides, config_dir)
    return Run(existing(Path(path)), line.overrides, line.config_dir)


def turns(history: History) -> list[Turn]:
    """Earlier turns of a conversation.

    Raises:
        RequestError: a turn of another role than `user` and `assistant`, or of another shape.
    """
    conversation = []
    for one in history:
        role, content = (one.role, one.content) if isinstance(one, Turn) else tuple(one) if len(one) == 2 else ("", "")
        if role not in ("user", "assistant"):
            raise RequestError(f'history: {one!r} is no turn: give ("user", "text") or ("assistant", "text")')
        conversation.append(Turn(role, content))
    return conversation


class RunEncoder:
    """An encoder as arrays in and out. `component` is the package's own object."""

    def __init__(self, component: Any):
        self.component = component

    def __repr__(self) -> str:
        return f"<RunEncoder {self.component.config.path}>"

    def encode(self, queries: str | Sequence[str]) -> np.ndarray:
        """Vectors `[N, D]` of questions, fp32; of unit length where the similarity is cosine."""
        return self.component.embed_queries([queries] if isinstance(queries, str) else list(queries))

    def encode_passages(self, passages: str | Passage | Sequence[str | Passage]) -> np.ndarray:
        """Vectors `[N, D]` of passages: texts as they are, a `Passage` with its title."""
        items = [passages] if isinstance(passages, str | Passage) else passages
        return self.component.embed_passages([one if isinstance(one, str) else one.full_text for one in items])

    def similarity(self, queries_QD: np.ndarray, passages_PD: np.ndarray) -> np.ndarray:
        """Scores `[Q, P]` of vectors."""
        import torch

        return self.component.similarity(torch.from_numpy(queries_QD), torch.from_numpy(passages_PD)).numpy()


class RunReader:
    """A reader that answers from passages that it is given. `component` is the package's own object."""

    def __init__(self, parts: RunComponents):
        self.component = parts.models["reader"]
        self._parts = parts

    def __repr__(self) -> str:
        return f"<RunReader {self.component.config.path}>"

    def answer(
        self,
        question: str,
        passages: Sequence[str | Passage],
        history: History = (),
    ) -> str:
        """What it answers to `question` from `passages`, best first.

        Raises:
            RequestError: an empty question, or one that leaves no room for a passage or an answer.
        """
        passage_records = [
            Passage(f"given-{n}", one) if isinstance(one, str) else one for n, one in enumerate(passages, 1)
        ]
        return asking.answer(self._parts, asking.asked(question, turns(history)), passage_records)
