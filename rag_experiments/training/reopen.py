"""A finished run, opened again: its stored command line, what is asked to differ, and its own model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.config import command_line, roles
from rag_experiments.config.overrides import split_override
from rag_experiments.core.bounded_files import read_yaml
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import resume

if TYPE_CHECKING:
    from rag_experiments.config.schema import RunConfig
    from rag_experiments.training.request import Request

_FIXED = ("algorithm", "model", "seed", "trainer")
"""Keys that made the run's model; another value of theirs would be another run."""
_READING = tuple(
    f"{key}.{name}"
    for key in (roles.MODEL_KEY, "algorithm.reader")
    for name in ("batch_size", "max_new_tokens", "max_input_length", "precision", "attn_implementation")
)
"""Keys below them that only say how a model is used: that of `model`, or a reader that was trained beside it."""


@dataclass
class Reopened:
    """A run and the request that its overrides, with `changes` on top, compose to."""

    run: RunDirectory
    request: Request
    changes: list[str]


def split_run(overrides: list[str], command: str) -> tuple[Path, list[str]]:
    """`run=<dir>` and the other overrides.

    Raises:
        RequestError: no run is named, or there is none.
    """
    named = [value for key, value in map(split_override, overrides) if key == "run"]
    if not named or not named[-1]:
        raise RequestError(f"python -m rag_experiments.{command} needs run=<run directory>")
    return existing(named[-1]), [value for value in overrides if value.partition("=")[0] != "run"]


def existing(name: str | Path) -> Path:
    """The directory `name`. Raises `RequestError` where there is none."""
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise RequestError(f"run={directory}: there is no such directory")
    return directory


def reopen(directory: Path, changes: list[str], config_dir: str | None = None) -> Reopened:
    """The run in `directory` with `changes` to its data, retriever, evaluation or way of decoding.

    Raises:
        RequestError: no finished model there, a change to what made the model, data that does not fit, …
    """
    from rag_experiments.training.request import check_request

    run = RunDirectory.open(directory)
    if not run.model_dir.is_dir():
        raise RequestError(f"run={directory} has no model/ (its state is {run.state}): only a finished run can be used")
    for override in changes:
        _refuse_fixed(override, directory)
    other_data = any(split_override(change)[0] == "data" for change in changes)
    stored = resume.stored_overrides(directory, settled=not other_data)
    stored = [value for value in stored if not value.startswith("hydra.")]
    config_dir = config_dir or resume.stored_config_dir(directory)
    request = check_request(command_line.compose([*stored, *changes, "resume=null"], config_dir), training=False)
    _take_length(request, run)
    _take_models(request.config, run, request.trainer_class)
    return Reopened(run, request, changes)


def _refuse_fixed(override: str, directory: Path) -> None:
    key = override.lstrip("+~").partition("=")[0]
    group = key.partition("@")[2] or key
    if group.split(".")[0] in _FIXED and key not in _READING and not group.startswith("retriever"):
        reading = [name for name in _READING if name.startswith(roles.MODEL_KEY)]
        raise RequestError(
            f"{key} made the model of run={directory} and cannot be changed; "
            f"data, retriever, evaluation and {', '.join(reading)} can"
        )


def _take_length(request: Request, run: RunDirectory) -> None:
    """How long the run's answers may be, where its training data settled it and nothing else is asked for."""
    for model in roles.models_of(request.config, request.trainer_class):
        reader: Any = model.config
        if model.trained and getattr(reader, "max_new_tokens", 0) is None:
            try:
                settled = dict(roles.model_nodes(read_yaml(run.config_path)))[model.key]["max_new_tokens"]
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue  # an edited or lost file: the reader's own default
            reader.max_new_tokens = settled if isinstance(settled, int) else None


def _take_models(config: RunConfig, run: RunDirectory, trainer_class: Any) -> None:
    """The run's own weights in place of those that it began with, role by role."""
    trained = [model for model in roles.models_of(config, trainer_class) if model.trained]
    for model in trained:
        at = f"run://{run.path.resolve()}"
        model.config.path = f"{at}#{model.role}" if len(trained) > 1 else at
        model.config.revision = None
        model.config.init = "pretrained"
        model.config.architecture = None
