"""The names in a module's source, followed through its imports to where they are defined. Imports no module.

An algorithm's module imports torch, which takes seconds; its text says the same in milliseconds.
"""

from __future__ import annotations

import ast
import importlib.util
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


class SourceError(Exception):
    """The source does not show what was looked for."""


class SourceModule:
    """The names that a module's source defines or imports."""

    def __init__(self, name: str, path: Path):
        self.name = name
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.defined: dict[str, ast.AST] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError) as error:
            raise SourceError(f"{path}: {error}") from error
        for statement in tree.body:
            self._take(statement)

    def _take(self, statement: ast.stmt) -> None:
        match statement:
            case ast.ClassDef(name=name):
                self.defined[name] = statement
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.defined[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.defined[name] = value
            case ast.Import(names=names):
                for alias in names:
                    self.imported[alias.asname or alias.name] = (alias.name, "")
            case ast.ImportFrom(module=source, names=names, level=level):
                if level:
                    source = importlib.util.resolve_name("." * level + (source or ""), self.package)
                for alias in names:
                    self.imported[alias.asname or alias.name] = (source or "", alias.name)
            case ast.If(body=body):  # `if TYPE_CHECKING:`
                for inner in body:
                    self._take(inner)

    def resolve(self, node: ast.AST, steps: int = 20) -> tuple[SourceModule, ast.AST]:
        """The module and the definition that a name leads to, in so many steps at most.

        A node that is no name, or whose name leads out of sight, is returned itself.
        """
        source, name = "", ""
        if isinstance(node, ast.Name) and node.id in self.defined:
            definition = self.defined[node.id]
            return (
                (self, definition)
                if isinstance(definition, ast.ClassDef) or not steps
                else self.resolve(definition, steps - 1)
            )
        if isinstance(node, ast.Name):
            source, name = self.imported.get(node.id, ("", ""))
        elif isinstance(node, ast.Attribute):
            holder, inside = self.imported.get(ast.unparse(node.value), ("", ""))
            source, name = f"{holder}.{inside}" if inside else holder, node.attr
        if source and name and steps:
            with suppress(SourceError):
                return module_named(source).resolve(ast.Name(name), steps - 1)
        return self, node


def module_named(name: str) -> SourceModule:
    """The source of a module.

    Raises:
        SourceError: there is no such module, or none in Python.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise SourceError(f"{name}: {error}") from error
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise SourceError(f"{name} has no source")
    path = Path(spec.origin)
    return _read(name, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _read(name: str, path: Path, changed: int) -> SourceModule:
    return SourceModule(name, path)


def class_at(place: str) -> tuple[SourceModule, ast.ClassDef]:
    """The module and the definition of the class `module:Class`.

    Raises:
        SourceError: the source shows none.
    """
    name, _, cls = place.partition(":")
    module, node = module_named(name).resolve(ast.Name(cls))
    if not isinstance(node, ast.ClassDef):
        raise SourceError(f"{name} has no class {cls}")
    return module, node
