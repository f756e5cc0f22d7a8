"""Data sets of the Hugging Face hub: asked for once, and from its cache where the hub cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError, first_line
from rag_experiments.data.formats.document_parsing import PARSERS
from rag_experiments.data.formats.lines import no_such_path
from rag_experiments.data.formats.tables import SUFFIXES, kind_of

SECONDS = 10
"""How long the hub may take to say whether it has a data set."""


def load(path: str, name: str | None, revision: str | None, *, streaming: bool = False) -> Any:
    """What `datasets` makes of a name on the hub; with `streaming`, without a download. Loading scripts are never run.

    Args:
        path, name, revision: as `data.path`, `data.name` and `data.revision`.

    Raises:
        RequestError: it is no name of a data set there, or is not loaded.
    """
    import datasets

    if _is_named_as_file(path):
        raise no_such_path(path)
    reason = _unreachable(path, revision)
    try:
        if not reason:
            return datasets.load_dataset(path, name, revision=revision, streaming=streaming)
        with _offline():
            return datasets.load_dataset(path, name, revision=revision)
    except Exception as error:  # the library and the network raise many kinds
        raise RequestError(
            f"data.path={path}: no file or folder of that name, and not loaded from the hub: "
            f"{reason or first_line(error)}"
        ) from error


def _is_named_as_file(name: str) -> bool:
    kind = kind_of(Path(name))
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or kind in SUFFIXES or kind in PARSERS


@lru_cache
def _unreachable(name: str, revision: str | None) -> str:
    """Why the hub cannot be asked for the data set; empty if it has it.

    The library asks again and again for half a minute, and prints each try.

    Raises:
        RequestError: the hub says that it has no such data set, or not for everybody.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().dataset_info(name, revision=revision, timeout=SECONDS)
    except GatedRepoError:
        raise RequestError(f"data.path: the hub's {name!r} is gated: accept its terms there and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise RequestError(f"data.revision: the hub's {name!r} has no revision {revision!r}") from None
    except HFValidationError:
        raise no_such_path(name) from None
    except RepositoryNotFoundError:
        raise RequestError(f"data.path={name} is neither a file or folder here nor a data set on the hub") from None
    except Exception as error:  # every failure of the network, whose kinds change with the hub's HTTP library
        return f"it cannot be reached ({first_line(error)})"
    return ""


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, the libraries look into their cache only."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
