"""Files written whole or not at all, and names that can be typed back.

Every writer makes a temporary file beside its target, flushes it to disk and renames it over the
target: a reader sees the old content or the new, and a full disk loses nothing that was finished.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rag_experiments.core.digest import settled_digest
from rag_experiments.core.errors import RequestError

TEMPORARY_PREFIX = ".partial-"
"""What the names of unfinished files and folders start with; whatever lists files skips them."""


def atomic_write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        OSError: it could not be written; `path` is as it was and no temporary file is left.
    """
    with _atomically(Path(path), "xb") as file:
        file.write(content)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all (see `atomic_write_bytes`)."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    atomic_write_text(path, json_text(value, indent=2) + "\n")


def atomic_write_jsonl(path: Path | str, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all; `rows` may be a generator."""
    with _atomically(Path(path), "x") as file:
        file.writelines(json_text(row) + "\n" for row in rows)


@contextmanager
def _atomically(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A new file to fill, put at `path` when it is on disk and removed when that fails; texts are UTF-8."""
    temporary = _temporary(path)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """A folder to fill, renamed to `path` when the block ends well and removed when it does not.

    A folder already at `path` is replaced; between its going and the new one's coming there is a moment
    with neither, but never a half of either.
    """
    path = Path(path)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        put_directory(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put_directory(temporary: Path, path: Path) -> None:
    """Rename a filled folder to `path`, once all of it is on disk; see `atomic_directory`."""
    for folder, _, names in os.walk(temporary):
        for name in names:
            _sync_file(Path(folder) / name)
    if path.exists():
        aside = _temporary(path.with_name(path.name + "-old"))
        os.replace(path, aside)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(temporary, path)
    _sync_directory(path.parent)


def json_text(value: Any, indent: int | None = None) -> str:
    """Strict JSON: numbers of numpy and torch as plain ones, NaN and infinities as null (JSON has neither)."""
    return json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` as JSON types.

    Raises:
        TypeError: it holds something that is no number, text, list, mapping or path.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays, without importing either
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def safe_name(text: str, limit: int = 100) -> str:
    """`text` with `[A-Za-z0-9._-]` only, at most `limit` long.

    What is cut or would be empty is told apart by a hash of the whole text at the end.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text).strip("-.")
    whole = settled_digest(text)[:8]
    if not name:
        return whole
    return name if len(name) <= limit else f"{name[: limit - 9].rstrip('-._')}-{whole}"


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name[-100:]}-{os.getpid()}-{os.urandom(4).hex()}")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    # The rename itself lasts through a power cut only once the folder is synced; some network
    # file systems refuse that, and then the rename is as lasting as they make it.
    with suppress(OSError):
        _sync_file(path)


def nearest_existing(path: Path) -> Path:
    """`path`, or the first folder above it that is there."""
    return next(there for there in (path, *path.absolute().parents) if there.exists())


def remove_empty_folders(path: Path, above: Path) -> None:
    """Remove `path` and the folders between it and `above`, as far as they are empty."""
    with suppress(OSError):
        for folder in (path.absolute(), *path.absolute().parents):
            if folder == above.absolute():
                return
            folder.rmdir()


def safetensors_size(path: Path) -> int:
    """How many bytes a safetensors file has when it is whole, by its header.

    Raises:
        ValueError: its start is not that of a safetensors file.
    """
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if length > size - 8:
            raise ValueError("its header is cut short")
        header = json.loads(file.read(length))
    try:
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (LookupError, TypeError, AttributeError):
        raise ValueError("its header describes no tensors") from None


PROBE_BYTES = 64 * 1024
"""What a run writes before it does anything: a full disk is found out by `check_writable`, not by a traceback."""


def check_writable(directory: Path, key: str) -> None:
    """Raise `RequestError` unless `directory` exists or can be made and takes a few files; leave nothing behind."""
    existing = nearest_existing(directory)
    probe = existing / f".write_test_{os.getpid()}"
    try:
        probe.mkdir()
        try:
            with open(probe / "file", "wb") as file:  # a full disk makes folders, and no files
                file.write(bytes(PROBE_BYTES))
        finally:
            shutil.rmtree(probe, ignore_errors=True)
    except OSError as error:
        raise RequestError(f"{key}={directory} cannot be written: {error.strerror} ({existing})") from error
