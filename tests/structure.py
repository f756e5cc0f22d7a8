"""The rooms of the package, who imports whom, circles, and imports that run back up.

    python -m tests.structure

Imports inside functions and under `if TYPE_CHECKING:` count as well. What is named by a string (`_target_`, the
registries of kinds and formats) does not: that is how parts from outside come in.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "rag_experiments"

COMMANDS = {
    "train", "evaluate", "compare", "ask", "export", "dashboard.__main__",
    "data.check", "data.convert", "data.mine", "data.generate", "data.commands",
}  # fmt: skip
"""Modules under their contract names (`python -m rag_experiments.<name>`): each is a room of its own."""

ORDER = (
    "",
    "core",
    "config",
    "model_files",
    "data",
    "data.formats",
    "runs",
    "models.shared",
    "models.encoder",
    "models.cross_encoder",
    "models.reader",
    "models.fid",
    "models",
    "retrieval",
    "evaluation",
    "algorithms.shared",
    "algorithms",
    "comparison.records",
    "comparison.analysis",
    "comparison.output",
    "comparison",
    "training",
    "data.tools",
    "train",
    "sweeps",
    "dashboard.shared",
    "dashboard.pages",
    "dashboard",
    "evaluate",
    "compare",
    "ask",
    "export",
    "dashboard.__main__",
    "data.check",
    "data.convert",
    "data.mine",
    "data.generate",
    "data.commands",
    "api",
)
"""Rooms from the ground up: each may import those before it. The first is the package's own `__init__`, which imports
what it offers when it is asked for."""


def modules() -> dict[str, Path]:
    """Name below the package → file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[0] == "conf":
            continue
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def room(module: str, files: dict[str, Path]) -> str:
    """The folder a module lies in; a command is a room of its own."""
    if module in COMMANDS or files[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0]


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module → modules of the package that it imports, anywhere in it."""
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        found[module] = own = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                first, _, rest = name.partition(".")
                if first != "rag_experiments":
                    continue
                while rest not in files and rest:
                    rest = rest.rpartition(".")[0]
                if rest != module and rest in files and (rest or module):
                    own.add(rest)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another."""
    reach = {node: _reached(node, graph) for node in graph}
    groups = {tuple(sorted({node} | {o for o in reach[node] if node in reach.get(o, ())})) for node in graph}
    return sorted(list(group) for group in groups if len(group) > 1)


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def rooms(files: dict[str, Path], graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Room → rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, others in graph.items():
        own = room(module, files)
        found[own] |= {room(other, files) for other in others} - {own}
    return dict(found)


def upward(files: dict[str, Path], graph: dict[str, set[str]]) -> list[str]:
    """Imports of a room that stands later in `ORDER`."""
    level = {name: index for index, name in enumerate(ORDER)}
    return sorted(
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if level[room(other, files)] > level[room(module, files)]
    )


def top_level(files: Iterable[str]) -> list[str]:
    """What stands directly in the package: folders and command modules."""
    return sorted({module.split(".")[0] for module in files if module})


def repeated_names(files: dict[str, Path]) -> list[str]:
    """File names that stand in more than one room."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in files.items():
        if path.name != "__init__.py":
            places[path.name].append(module)
    return sorted(f"{name}: {', '.join(sorted(found))}" for name, found in places.items() if len(found) > 1)


def main() -> None:
    """Print the figures."""
    files = modules()
    graph = imports(files)
    between = rooms(files, graph)
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files.values())
    print(f"{len(files)} files, {lines} lines, {sum(map(len, graph.values()))} imports between files")
    print(f"at the top ({len(top_level(files))}): {' '.join(top_level(files))}")
    print(f"rooms ({len(between)}), {sum(map(len, between.values()))} arrows between them:")
    for name in ORDER:
        if name in between:
            print(f"  {name or 'rag_experiments'} → {', '.join(sorted(between[name])) or '–'}")
    print(f"circles of files: {circles(graph) or 'none'}")
    print(f"circles of rooms: {circles(between) or 'none'}")
    print(f"upward: {upward(files, graph) or 'none'}")
    print(f"file names in several rooms: {repeated_names(files) or 'none'}")


if __name__ == "__main__":
    main()
