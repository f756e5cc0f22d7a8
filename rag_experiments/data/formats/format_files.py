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
    # The folder is not part of the hash, so that a copied data set keeps its cache. An imported data set has passed
    # all checks, so no error message needs the folder.
    try:
        return files_digest(paths)
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}") from error
