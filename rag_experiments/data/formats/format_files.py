"""Which files a format reads, and a hash that changes whenever they do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rag_experiments.core.digest import files_digest
from rag_experiments.core.errors import RequestError


def files_fingerprint(paths: Iterable[Path]) -> str:
    """A hash of paths' names and contents.

    Raises:
        RequestError: one of them cannot be read.
    """
    # The folder is left out, so that a copied data set keeps its cache; error messages of a data
    # set that was imported have been said before.
    try:
        return files_digest(paths)
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}") from error
