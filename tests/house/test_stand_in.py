"""Tests replace a function of the standard library for the module under test, never for the whole process."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path

import pytest

from tests import stand_in as under_test
from tests.stand_in import stand_in

# What a process has once, and is looked up there: arguments, paths, the platform.
ALLOWED = {"sys"}


def patched_for_all(source: str) -> list[str]:
    """The calls of `setattr` in a test file that replace something in a module of the standard library."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    standard = sys.stdlib_module_names - ALLOWED
    found = []
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "setattr"):
            continue
        target = call.args[0] if call.args else None
        match target:
            case ast.Name(id=name):
                hit = name in imported & standard
            case ast.Attribute(attr=name):  # `recorder.time` is the module itself
                hit = name in standard
            case ast.Constant(value=str(text)):
                hit = text.split(".")[0] in standard
            case _:
                hit = False
        if hit:
            found.append(ast.unparse(call))
    return found


def test_no_test_patches_the_standard_library_for_all():
    files = Path(__file__).parents[1].rglob("*.py")
    assert {str(file): calls for file in files if (calls := patched_for_all(file.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "line", ['import os\nm.setattr(os, "f", g)', 'm.setattr(recorder.time, "f", g)', 'm.setattr("os.f", g)']
)
def test_a_patch_for_all_is_found(line):
    assert len(patched_for_all(line)) == 1


def test_only_the_one_module_sees_it(monkeypatch):
    monkeypatch.setattr(under_test, "time", time, raising=False)
    stand_in(monkeypatch, under_test, "time", monotonic=lambda: 1.0)
    stand_in(monkeypatch, under_test, "time", perf_counter=lambda: 2.0)
    seen = under_test.time  # type: ignore[attr-defined]
    assert (seen.monotonic(), seen.perf_counter(), seen.sleep) == (1.0, 2.0, time.sleep)
    assert time.monotonic() != 1.0
