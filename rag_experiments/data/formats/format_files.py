"""Which files a format reads, and a hash that changes whenever they do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

from rag_experiments.core.errors import RequestError

BLOCK = 1 << 20


def files_fingerprint(paths: Iterable[Path]) -> str:
    """A hash of paths' names and contents.

    Raises:
        RequestError: one of them cannot be read.
    """
    digest = xxhash.xxh128()
    for path in paths:
        # The folder is left out, so that a copied data set keeps its cache; error messages of a data
        # set that was imported have been said before.
        digest.update(f"\x1e{path.name}\x1f{path.stat().st_size}\x1f".encode("utf-8", "surrogateescape"))
        try:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
