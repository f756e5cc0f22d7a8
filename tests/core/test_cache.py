"""An entry of the disk cache: made once, whole or not at all, whoever asks and whoever is killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.core import cache
from rag_experiments.core.digest import Digest, digest, without
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import ending_of

FILL = """
import sys, time
from pathlib import Path
from rag_experiments.core import cache
root, seconds = Path(sys.argv[1]), float(sys.argv[2])
def fill(folder):
    (folder / "first").write_text("one")
    with open(root / "filled", "a") as log:
        log.write("x")
    time.sleep(seconds)
    (folder / "second").write_text("two")
print((cache.entry(root, "room", "key", fill) / "second").read_text())
"""


def filling(root: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", FILL, str(root), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def two_files(folder: Path) -> None:
    (folder / "one").write_text("1")
    (folder / "inner").mkdir()
    (folder / "inner" / "two").write_text("22")


def never(folder: Path) -> None:
    raise AssertionError("it is there already")


def test_an_entry_is_made_once_and_then_found(tmp_path):
    made = cache.entry(tmp_path, "room", "key", two_files)
    assert made == tmp_path / "room" / "key"
    assert json.loads((made / "entry.json").read_text()) == {"one": 1, "inner/two": 2}
    assert cache.entry(tmp_path, "room", "key", never) == made
    assert sorted(path.name for path in made.parent.iterdir()) == ["key", "key.lock"]


def test_two_processes_make_one_entry(tmp_path):
    both = [filling(tmp_path, 1.0) for _ in range(2)]
    assert [process.communicate(timeout=60) for process in both] == [("two\n", ""), ("two\n", "")]
    assert (tmp_path / "filled").read_text() == "x"


def test_what_a_killed_process_left_is_cleared_and_made_again(tmp_path):
    killed = filling(tmp_path, 600)
    wait_for(tmp_path / "room" / ".partial-key" / "first")
    wait_for(tmp_path / "filled")
    assert not (tmp_path / "room" / "key").exists(), "nobody sees half of it"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    (tmp_path / "room" / ".partial-key" / "rest").write_text("of the killed one")
    assert filling(tmp_path, 0).communicate(timeout=60) == ("two\n", "")
    assert {path.name for path in (tmp_path / "room" / "key").iterdir()} == {"first", "second", "entry.json"}
    assert not (tmp_path / "room" / ".partial-key").exists()


def lose(folder: Path) -> None:
    (folder / "one").unlink()


def cut(folder: Path) -> None:
    (folder / "inner" / "two").write_text("2")


def unlist(folder: Path) -> None:
    (folder / "entry.json").write_text('{"one": ')


def empty(folder: Path) -> None:
    (folder / "entry.json").write_text("[]")


@pytest.mark.parametrize("damage", [lose, cut, unlist, empty])
def test_a_damaged_entry_is_made_again(damage, tmp_path):
    made = cache.entry(tmp_path, "room", "key", two_files)
    damage(made)
    cache.entry(tmp_path, "room", "key", two_files)
    assert ((made / "one").read_text(), (made / "inner" / "two").read_text()) == ("1", "22")
    assert cache.entry(tmp_path, "room", "key", never) == made
    assert sorted(path.name for path in made.parent.iterdir()) == ["key", "key.lock"]


@pytest.mark.parametrize("error", [ValueError("broken"), RequestError("no such data"), KeyboardInterrupt()])
def test_what_cannot_be_made_leaves_nothing(error, tmp_path):
    def fails(folder: Path) -> None:
        two_files(folder)
        raise error

    with pytest.raises(type(error)):
        cache.entry(tmp_path, "room", "key", fails)
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["key.lock"]


def test_a_full_disk_is_one_sentence(tmp_path):
    def full(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        cache.entry(tmp_path, "room", "key", full)
    said = ending_of(caught.value)
    assert said.sentence == f"the disk is full: [Errno 28] No space left on device (paths.cache={tmp_path})"
    assert said.exit_status == 1
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["key.lock"]


def test_a_read_only_disk_is_one_sentence_and_still_gives_what_it_has(tmp_path, monkeypatch):
    made = cache.entry(tmp_path, "room", "key", two_files)

    def read_only(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("rag_experiments.core.cache.FileLock", read_only)
    assert cache.entry(tmp_path, "room", "key", never) == made
    with pytest.raises(RequestError) as caught:
        cache.entry(tmp_path, "room", "other", two_files)
    assert str(caught.value) == (
        f"paths.cache={tmp_path} cannot be used ([Errno 30] Read-only file system): give the right to write there, or "
        "choose another paths.cache"
    )


def test_a_file_where_the_cache_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"paths\.cache=.*file"):
        cache.entry(tmp_path / "file", "room", "key", two_files)


# -- keys ----------------------------------------------------------------------------------------------


@dataclass
class Inner:
    number: float = 1.5


@dataclass
class Settings:
    name: str = "a"
    count: int = 1
    inner: Inner = field(default_factory=Inner)
    values: list[str] = field(default_factory=lambda: ["x", "y"])


def test_a_key_tells_types_and_boundaries_apart():
    parts: list[tuple[Any, ...]] = [
        ("ab", "c"), ("a", "bc"), ("abc",), (["ab", "c"],), (1,), ("1",), (1.0,), (True,), (None,), ("None",), (b"1",),
        ({"a": 1},), ({"a": "1"},), (Settings(),), (Settings(count=2),), (Settings(inner=Inner(2.0)),),
        (Settings(values=["xy"]),), (), ("",),
    ]  # fmt: skip
    keys = [digest(*part) for part in parts]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"x", "y"}) == digest({"y", "x"})
    with pytest.raises(TypeError, match="no key can be made from a object"):
        digest(object())


def test_a_key_of_pieces_is_that_of_the_pieces():
    def of(*pieces: Any) -> str:
        made = Digest()
        for piece in pieces:
            made.add_bytes(piece) if isinstance(piece, bytes) else made.add(piece)
        return made.hexdigest()

    assert of("a") == digest("a")
    assert len({of("a", b"1"), of("a", b"2"), of("b", b"1"), of("a"), of("a", b"1", "a")}) == 5


def test_what_is_left_out_of_a_key_must_be_a_field():
    assert without(Settings(), {"inner": "why", "values": "why"}) == {"name": "a", "count": 1}
    with pytest.raises(TypeError, match="Settings has no coutn"):
        without(Settings(), {"coutn": "why"})
