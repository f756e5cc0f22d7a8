"""The rooms of the package stay in order: no circles, nothing imports upward, one home for each heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import structure

FILES = structure.modules()
GRAPH = structure.imports(FILES)


def test_every_room_has_its_place_in_the_order():
    assert {structure.room(module, FILES) for module in FILES} <= set(structure.ORDER)


def test_no_circle_of_files_or_of_rooms():
    assert structure.circles(GRAPH) == []
    assert structure.circles(structure.rooms(FILES, GRAPH)) == []


def test_no_import_runs_upward():
    assert structure.upward(FILES, GRAPH) == []


def test_the_package_has_at_most_22_rooms_at_its_top():
    assert len(structure.top_level(FILES)) <= 22


def test_no_two_files_of_one_name():
    assert structure.repeated_names(FILES) == []


def test_circles_are_found():
    assert structure.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("library", "home"), [("wandb", "runs"), ("faiss", "retrieval"), ("plotly", "comparison.output")]
)
def test_one_room_knows_a_library(library, home):
    known = {"plotly": {"dashboard", "dashboard.pages", "dashboard.shared"}}
    for module, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 0
        }
        if library in names:
            assert structure.room(module, FILES) in {home} | known.get(library, set()), f"{module} imports {library}"


def test_one_file_hashes():
    """So that there is one way to make a key, and one list of functions that recorded hashes rest on."""
    libraries = {"hashlib", "xxhash", "mmh3"}
    found = set()
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if libraries & {name.split(".")[0] for name in names}:
                found.add(module)
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
            assert not called, f"{module}: hash() of a text is another in each process"
    assert {str(module).removeprefix("rag_experiments.") for module in found} == {"core.digest"}


def test_what_a_refusal_needs_imports_no_torch():
    needed = [
        "config.command_line",
        "config.keys",
        "config.kinds",
        "training.checks",
        "training.run",
        "core.distributed",
        "training.resume",
        "runs.identity",
        "runs.tracking",
        "data.load",
        "config.data_formats",
        "compare",
        "train",
    ]
    code = "import sys\n" + "".join(f"import rag_experiments.{name}\n" for name in needed)
    code += "assert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
