"""Which tier a test belongs to, found from what its file imports and what it asks for: docs/testing.md."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "sentence_transformers", "trl", "faiss", "optuna"}
"""Libraries that take seconds to import."""
COMMANDS = {
    *(
        "training/test_training_arguments.py",
        "training/test_chain.py",
        "config/test_compose.py",
        "commands/test_export.py",
        "config/test_keys.py",
        "training/test_processes.py",
        "training/test_run.py",
    ),
    *(
        "api/test_notebooks.py",
        "commands/test_reopen.py",
        "runs/test_tracking.py",
        "house/test_extending.py",
        "commands/test_wrong_requests.py",
    ),
    *("sweeps/test_grid.py", "sweeps/test_real.py", "data/test_pydocs.py"),
}
"""Files whose tests run whole commands, or import what is heavy inside functions."""
_COMMAND_FILES = {ROOT / "tests" / name for name in COMMANDS}
STARTS = {"subprocess", "Popen", "multiprocessing", "fork", "spawn", "pretend_processes", "warm"}

# Files and folders below tests/ that `-m numeric` selects; those marked `real` stay out of `make test-numeric`.
NUMERIC = ("algorithms/", "comparison/test_statistics.py", "evaluation/", "models/", "retrieval/", "api/test_api.py",
           "commands/test_export.py", "commands/test_reopen.py", "training/test_run.py")  # fmt: skip


def is_numeric(file: str) -> bool:
    """Whether `file`, relative to tests/, is one of them."""
    return any(file == name or (name.endswith("/") and file.startswith(name)) for name in NUMERIC)


def tiers(path: Path, names: tuple[str, ...] = ()) -> set[str]:
    """The markers of a test: `torch`, `process`, `browser`; `unit` where none of them fits.

    `path`: its file; `names`: of the test function and of its fixtures.
    """
    found = set()
    if path in _COMMAND_FILES or reached(path) & HEAVY:
        found.add("torch")
    if not _starting(path).isdisjoint(names):
        found.add("process")
    if any(name in ("browser", "page", "chromium") for name in names) or path.name == "test_browser.py":
        found.add("browser")
    return found or {"unit"}


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _starting(path: Path) -> set[str]:
    """The functions of a file that start processes, themselves or by another of them."""
    words = {
        node.name: {
            part.id if isinstance(part, ast.Name) else part.attr
            for part in ast.walk(node)
            if isinstance(part, ast.Name | ast.Attribute)
        }
        | {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        for node in ast.walk(ast.parse(_text(path)))
        if isinstance(node, ast.FunctionDef)
    }
    found = {name for name, used in words.items() if used & STARTS}
    while more := {name for name, used in words.items() if used & found} - found:
        found |= more
    return found


@cache
def _imports(path: Path) -> frozenset[str]:
    """Names of the modules that a file imports when it is imported itself, in full."""
    found: set[str] = set()
    nodes = list(ast.parse(_text(path)).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        if isinstance(node, ast.Expr | ast.Assign) and "importorskip" in ast.unparse(node):
            found |= {str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return frozenset(found)


@cache
def _file(module: str) -> Path | None:
    """The repository's file of a module, if it is the repository's."""
    if module.split(".")[0] not in ("rag_experiments", "tests", "hydra_plugins"):
        return None
    place = ROOT.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def reached(path: Path) -> frozenset[str]:
    """Top names of all modules that come with importing a test file, through the package, the tests, its conftest."""
    seen, waiting, found = set(), [path], set()
    if (path.parent / "conftest.py").is_file():
        waiting.append(path.parent / "conftest.py")
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in _imports(file):
            parts = module.split(".")
            found.add(parts[0])
            for depth in range(1, len(parts) + 1):  # `import a.b.c` runs a and a.b too
                own = _file(".".join(parts[:depth]))
                if own is not None:
                    waiting.append(own)
    return frozenset(found)
