"""Every writer: the old content or the new, flushed before it is named, and nothing left beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments.core import files
from tests.stand_in import stand_in

WRITERS = {
    "bytes": lambda path, text: files.atomic_write_bytes(path, text.encode()),
    "text": files.atomic_write_text,
    "json": files.atomic_write_json,
    "jsonl": lambda path, text: files.atomic_write_jsonl(path, [text, text]),
}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_write_that_cannot_end_leaves_the_old_file_and_nothing_else(write, tmp_path, monkeypatch, fails):
    file = tmp_path / "status.json"
    file.write_bytes(b"old")
    stand_in(monkeypatch, files, "os", **{fails: full_disk})
    with pytest.raises(OSError, match="No space"):
        write(file, "new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["status.json"]


def test_content_is_on_disk_before_it_has_its_name_and_the_name_after(write, tmp_path, monkeypatch):
    """In that order: after a power cut a file that has its name has its content."""
    events = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(("sync folder" if path.is_dir() else "sync file", path.stat().st_size if path.is_file() else 0))
        fsync(descriptor)

    def seen_replace(source, target):
        events.append(("rename", Path(source).stat().st_size))
        replace(source, target)

    stand_in(monkeypatch, files, "os", fsync=seen_fsync, replace=seen_replace)
    file = tmp_path / "file"
    write(file, "some text")
    size = file.stat().st_size
    assert events == [("sync file", size), ("rename", size), ("sync folder", 0)]


def test_an_unfinished_file_has_a_name_that_lists_pass_over(write, tmp_path, monkeypatch):
    names = []
    replace = os.replace

    def seen(source, target):
        names.append(Path(source))
        replace(source, target)

    stand_in(monkeypatch, files, "os", replace=seen)
    write(tmp_path / "a.jsonl", "x")
    write(tmp_path / "a.jsonl", "y")
    assert all(name.parent == tmp_path and name.name.startswith(files.TEMPORARY_PREFIX) for name in names)
    assert len(set(names)) == 2  # two writers of one file do not meet


def test_a_file_that_cannot_be_opened_says_why(write, tmp_path, monkeypatch):
    """Not that the unfinished file, which was never there, is missing."""

    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open", denied, raising=False)
    with pytest.raises(PermissionError):
        write(tmp_path / "file", "x")


def test_folders_are_made_and_long_names_fit(write, tmp_path):
    file = tmp_path / "a" / "b" / ("n" * 250)
    write(file, "x")
    assert file.is_file()


def test_no_open_file_stays(write, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        write(tmp_path / str(number), "x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_system_that_syncs_no_folders_is_no_obstacle(write, tmp_path, monkeypatch):
    fsync = os.fsync

    def files_only(descriptor):
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    stand_in(monkeypatch, files, "os", fsync=files_only)
    write(tmp_path / "file", "x")
    assert (tmp_path / "file").is_file()


def test_text_is_utf8_whatever_the_locale(tmp_path):
    files.atomic_write_text(tmp_path / "t", "é\n")
    assert (tmp_path / "t").read_bytes() == "é\n".encode()
    files.atomic_write_json(tmp_path / "j", {"é": 1})
    assert (tmp_path / "j").read_bytes() == '{\n  "é": 1\n}\n'.encode()
    files.atomic_write_jsonl(tmp_path / "l", iter([{"é": 1}, [2]]))
    assert (tmp_path / "l").read_bytes() == '{"é": 1}\n[2]\n'.encode()


# -- folders -------------------------------------------------------------------------------------------


def make(target: Path, text: str) -> None:
    with files.atomic_directory(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text(text)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "model"
    make(target, "old")
    with pytest.raises(error), files.atomic_directory(target) as folder:
        raise error(str((folder / "inner").mkdir()))
    assert (target / "inner" / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path, monkeypatch, existed, failing):
    target = tmp_path / "model"
    if existed:
        make(target, "old")
    elif failing == 2:
        return  # there is one rename only
    replace, calls = os.replace, []

    def fails(source, to):
        calls.append(source)
        if len(calls) == failing:
            full_disk()
        replace(source, to)

    stand_in(monkeypatch, files, "os", replace=fails)
    with pytest.raises(OSError, match="No space"):
        make(target, "new")
    assert os.listdir(tmp_path) == (["model"] if existed else [])
    if existed:
        assert (target / "inner" / "weights").read_text() == "old"


def test_what_cannot_be_removed_is_no_reason_to_fail(tmp_path, monkeypatch):
    """A file held open by another machine (NFS): the new folder stands, and the block's own error is the one raised."""

    def busy(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy")

    make(tmp_path / "model", "old")
    stand_in(monkeypatch, files, "shutil", rmtree=busy)
    make(tmp_path / "model", "new")
    assert (tmp_path / "model" / "inner" / "weights").read_text() == "new"
    with pytest.raises(ZeroDivisionError), files.atomic_directory(tmp_path / "other"):
        raise ZeroDivisionError


def test_every_file_of_a_folder_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def seen_replace(source, target):
        events.append("rename")
        replace(source, target)

    stand_in(monkeypatch, files, "os", fsync=seen_fsync, replace=seen_replace)
    with files.atomic_directory(tmp_path / "model") as folder:
        (folder / "a").write_text("1")
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "b").write_text("2")
    assert set(events[: events.index("rename")]) >= {"a", "b"}
    assert events[-1] == tmp_path.name


def test_a_folders_block_sees_an_empty_place_beside_the_target(tmp_path):
    target = tmp_path / "x" / "model"
    with files.atomic_directory(target) as folder:
        assert list(folder.iterdir()) == []
        assert folder.parent == target.parent
        assert folder.name.startswith(files.TEMPORARY_PREFIX)
        assert not target.exists()
    assert os.listdir(target.parent) == ["model"]


# -- JSON ----------------------------------------------------------------------------------------------


def test_plain_values():
    given_value = {
        1: (1, 2.5, True, None, "x"),
        "set": {3},
        "frozen": frozenset([4]),
        "path": Path("/a/b"),
        "nan": [float("nan"), float("inf"), -float("inf")],
        "array": np.array([[1, 2], [3, 4]]),
        "scalar": np.float32(0.25),
        "half": np.array([np.nan, 1.0]),
    }
    found = files.plain(given_value)
    assert found == {
        "1": [1, 2.5, True, None, "x"],
        "set": [3],
        "frozen": [4],
        "path": "/a/b",
        "nan": [None, None, None],
        "array": [[1, 2], [3, 4]],
        "scalar": 0.25,
        "half": [None, 1.0],
    }
    assert type(found["1"][2]) is bool
    with pytest.raises(TypeError, match=r"object is not JSON: <object"):
        files.plain([object()])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_json_reads_back(value):
    assert json.loads(files.json_text(value)) == value


# -- names ---------------------------------------------------------------------------------------------


@given(st.text(), st.integers(min_value=12, max_value=120))
def test_a_safe_name_can_be_typed_is_not_empty_and_not_longer_than_asked(text, limit):
    name = files.safe_name(text, limit)
    assert 0 < len(name) <= limit
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0] not in "-."
    assert name == files.safe_name(text, limit)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ünïcødé-x", "unicde-x"),
        ("a b  c/d", "a-b-c-d"),
        ("-.a.b_c-.", "a.b_c"),
        ("a" * 100, "a" * 100),
        ("数据", hashlib.sha256("数据".encode()).hexdigest()[:8]),
        ("", hashlib.sha256(b"").hexdigest()[:8]),
    ],
)
def test_safe_names(text, name):
    assert files.safe_name(text) == name


def test_a_cut_name_ends_with_the_hash_of_the_whole():
    text = "a" * 90 + "-" + "b" * 20
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    assert files.safe_name(text) == f"{'a' * 90}-{digest}"  # no separator twice
    assert files.safe_name("c" * 101) == f"{'c' * 91}-{hashlib.sha256(b'c' * 101).hexdigest()[:8]}"


# -- folders above and below ---------------------------------------------------------------------------


def test_the_nearest_folder_that_is_there(tmp_path, monkeypatch):
    assert files.nearest_existing(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert files.nearest_existing(Path("a/b")) == tmp_path


def test_removing_empty_folders_stops_at_the_given_one(tmp_path, monkeypatch):
    (tmp_path / "kept" / "a").mkdir(parents=True)
    files.remove_empty_folders(tmp_path / "kept" / "a", tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept" / "b").mkdir()
    files.remove_empty_folders(Path("kept/b"), Path("kept"))  # relative ones are the same
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    files.remove_empty_folders(tmp_path / "gone", tmp_path)  # is no error


# -- safetensors ---------------------------------------------------------------------------------------


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def test_sizes_that_a_safetensors_header_promises(tmp_path):
    file = tmp_path / "w"
    tensors = {"b": {"data_offsets": [8, 24]}, "a": {"data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
    header = json.dumps(tensors).encode()
    file.write_bytes(safetensors(header))  # the data may be missing: it says what there should be
    assert files.safetensors_size(file) == 8 + len(header) + 24
    file.write_bytes(safetensors(b"{}"))
    assert files.safetensors_size(file) == 10


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cut short"),
        (b"\x02\0\0\0\0\0\0", "cut short"),
        (struct.pack("<Q", 3) + b"{}", "cut short"),
        (struct.pack("<Q", 2**63), "cut short"),
        (safetensors(b"{"), None),
        (safetensors(b"[1]"), "describes no tensors"),
        (safetensors(b'{"a": 1}'), "describes no tensors"),
        (safetensors(b'{"a": {}}'), "describes no tensors"),
        (safetensors(b'{"a": {"data_offsets": [1]}}'), "describes no tensors"),
        (safetensors(b'{"a": {"data_offsets": [0, "x"]}}'), "describes no tensors"),
    ],
)
def test_what_is_no_safetensors_file_is_a_value_error(tmp_path, content, why):
    file = tmp_path / "w"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        files.safetensors_size(file)
