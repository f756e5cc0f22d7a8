"""Who may import whom: the order of DESIGN, held by walking the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rag_experiments"

# A module may import its own layer and those before it.
LAYERS = [
    {"errors"},
    {
        "schema",
        "files",
        "text",
        "credentials",
        "provenance",
        "outcome",
        "trainer_arguments",
        "tracking_names",
        "extra_packages",
    },
    {"run_directory", "processes", "recording", "runs", "data"},
    {"models"},
    {"config", "groups", "values", "cli", "tracking"},
    {"resume"},
    {"retrieval"},
    {"evaluation"},
    {"comparison", "callbacks"},
    {"algorithms"},
    {"request", "build", "plan", "stages", "reopen"},
    {"sweeps"},
    {"train", "evaluate", "ask", "export", "compare", "dashboard", "chain"},
]
COMMANDS = {f"data/{name}.py" for name in ("check", "convert", "mine", "generate", "commands", "lengths", "report")}
"""Commands that live beside what they serve: they are ends of the graph, nothing imports them."""


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "conf" not in path.relative_to(PACKAGE).parts]


def imported(path: Path, top_level_only: bool) -> set[str]:
    """Modules a file imports: all of them, or only those run when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_level(tree: ast.AST):
    """Nodes outside functions and outside `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from top_level(node)


def layer(part: str) -> int:
    for index, names in enumerate(LAYERS):
        if part in names:
            return index
    raise AssertionError(f"rag_experiments/{part} is in no layer: say where it belongs in tests/test_imports.py")


def test_imports_point_one_way():
    backwards = []
    for path in files():
        relative = path.relative_to(PACKAGE)
        own = relative.parts[0].removesuffix(".py")
        if own == "__init__" or str(relative) in COMMANDS:
            continue
        for name in imported(path, top_level_only=True):
            other = name.split(".")[1] if name.startswith("rag_experiments.") else ""
            known = other and ((PACKAGE / other).exists() or (PACKAGE / f"{other}.py").exists())
            if known and layer(other) > layer(own):
                backwards.append(f"{relative} imports {name}")
    assert not backwards


@pytest.mark.parametrize(("library", "home"), [("wandb", {"tracking"}), ("faiss", {"retrieval"})])
def test_one_place_knows_a_library(library, home):
    for path in files():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = {name.split(".")[0] for name in imported(path, top_level_only=False)}
        assert library not in names or own in home, f"{path.relative_to(PACKAGE)} imports {library}"


def test_what_a_refusal_needs_imports_no_torch():
    modules = "cli, config, processes, resume, runs, tracking, data.load, data.formats, compare"
    code = f"""
import sys
from importlib import import_module
for name in {modules.split(", ")}:
    import_module("rag_experiments." + name)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
