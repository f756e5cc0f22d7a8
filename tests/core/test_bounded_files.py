"""What is read of files that anybody may have written, and what is refused with its reason."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from rag_experiments.core import bounded_files
from rag_experiments.core.bounded_files import open_regular, parse_json, parse_yaml, read_lines, read_text
from rag_experiments.core.visible import json_visible, visible


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: [1, 0x10, 1.5, yes, null, '2024-01-01', .inf]", {"a": [1, 16, 1.5, True, None, "2024-01-01", ".inf"]}),
        ("x: &x {1: b}\ny: *x", {"x": {"1": "b"}, "y": {"1": "b"}}),
        ("", None),
    ],
)
def test_parse_yaml_gives_plain_values(text: str, value: object) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 2024-01-01", "a date"),
        ("a: !!set {b}", "a set"),
        ("a: !!binary aGk=", "bytes"),
        ("a: !!python/name:os.system", "no plain value"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: 1}\nc: {<<: *a}", "no text"),
        ("[" * 1000 + "]" * 1000, "deeper"),
        ("a: " + "9" * 400, "400 digits"),
        ("a: !!bool maybe", "no bool"),
        ("a: [", "while parsing"),
    ],
)
def test_parse_yaml_refuses_what_is_no_plain_value(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "deeper"),
        ("[" * 100 + "]" * 100, "deeper"),
        ("9" * 400, "400 digits"),
        ('"\\ud800"', "half of a character"),
        (b'"\xff"', "not UTF-8"),
    ],
)
def test_parse_json_refuses_what_cannot_be_reckoned_with(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_parse_json_takes_numbers_beyond_reckoning_for_infinite_and_pairs_of_halves_for_text() -> None:
    assert parse_json("[1e200, -1e200, 18446744073709551615]") == [math.inf, -math.inf, 2**64 - 1]
    assert parse_json('"\\ud83d\\ude00"') == "😀"
    assert parse_json('"' + "[" * 200 + '"') == "[" * 200  # brackets in text are no depth


def test_open_regular_waits_for_nothing_and_reads_no_more_than_its_limit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "none").symlink_to("nowhere")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, reason in [("pipe", "pipe"), ("zero", "device"), ("none", "link"), ("large", "11 bytes"), (".", "direc")]:
        with pytest.raises(ValueError, match=reason):
            open_regular(tmp_path / name, 10)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")
    assert read_text(tmp_path / "large", 11) == "x" * 11


def test_read_lines_ends_at_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_files, "LINE_BYTES", 4)
    (tmp_path / "lines").write_bytes(b"abc\n\nabcd\nabc")
    found = []
    with pytest.raises(ValueError, match="line 3"):
        found += [number for number, _ in read_lines(tmp_path / "lines")]
    (tmp_path / "lines").write_bytes(b"abc\n\nabc")
    assert list(read_lines(tmp_path / "lines")) == [(1, b"abc\n"), (3, b"abc")]


def test_visible_writes_control_characters_out_and_leaves_languages_alone() -> None:
    assert visible("a\x1b[2J\x07\x9b\u202eb\r\ud800") == "a\\x1b[2J\\x07\\x9b\\u202eb\\x0d\\ud800"
    kept = "tab\tline\nक्‍ष 日本 é 👩‍💻 \u00a0"
    assert visible(kept) == kept
    assert parse_json(json_visible('"\x9b\u202e"')) == "\x9b\u202e"
