"""The documented objects of the standard library; the list depends only on the interpreter.

Sources are parsed. Modules written in C have no source, so a fresh interpreter imports them: this process may have
replaced some of the objects that they document. Therefore this file uses only the standard library and also runs as a
script.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import inspect
import json
import re
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

SKIPPED = {"antigravity", "this", "test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "__phello__"}
SKIPPED |= {"ensurepip", "pydoc_data", "config", "dist-packages", "distutils", "turtle"}


@dataclass(frozen=True, slots=True)
class Documented:
    """An object with a docstring."""

    name: str
    kind: str
    signature: str
    paragraphs: tuple[str, ...]


def in_sources(root: Path, prefix: str) -> Iterator[Documented]:
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        parts = list(path.relative_to(root if root.is_dir() else root.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if any(part.startswith("_") or part in SKIPPED or not part.isidentifier() for part in parts):
            continue
        name = ".".join([*([prefix] if prefix and root.is_dir() else []), *parts])
        if not name:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates and files of other Python versions
            continue
        yield from _of_node(tree, name, "module")


def _of_node(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, kind: str):
    paragraphs = split_paragraphs(ast.get_docstring(node) or "")
    if paragraphs:
        signature = f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""
        yield Documented(name, kind, signature, paragraphs)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            inner = "class" if isinstance(child, ast.ClassDef) else "method" if kind == "class" else "function"
            yield from _of_node(child, f"{name}.{child.name}", inner)


def in_c_modules() -> Iterator[Documented]:
    """Objects of public modules without source, as a fresh interpreter without site packages sees them.

    Raises:
        subprocess.CalledProcessError: that interpreter failed.
    """
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).resolve())]
    done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    for name, kind, signature, paragraphs in json.loads(done.stdout.decode("utf-8").splitlines()[-1]):
        yield Documented(name, kind, signature, tuple(paragraphs))


def _import_c_modules() -> Iterator[Documented]:
    """Public modules without source: those built in, and the extension modules of the standard library."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    # `platstdlib` would be the folder of the virtual environment, which holds no extension modules.
    folder = Path(sysconfig.get_config_var("DESTSHARED") or Path(sysconfig.get_paths()["stdlib"]) / "lib-dynload")
    names = {path.name.split(".")[0] for path in folder.glob("*") if path.name.endswith(suffixes)}
    for name in sorted(names | set(sys.builtin_module_names)):
        if name.startswith("_") or name in SKIPPED or name == "readline":  # readline takes over the terminal
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(name)
        except ImportError:  # built for a library that is not on this machine
            continue
        yield from _of_module(module, name)


def _of_module(module: object, name: str) -> Iterator[Documented]:
    yield from _of_object(module, name, "module")
    for attribute in sorted(vars(module)):
        value = getattr(module, attribute)
        if attribute.startswith("_") or getattr(value, "__module__", name) not in (name, None):
            continue
        if inspect.isclass(value):
            yield from _of_object(value, f"{name}.{attribute}", "class")
            for method in sorted(vars(value)):
                inner = vars(value)[method]
                if not method.startswith("_") and (callable(inner) or inspect.isdatadescriptor(inner)):
                    yield from _of_object(inner, f"{name}.{attribute}.{method}", "method")
        elif inspect.isbuiltin(value):
            yield from _of_object(value, f"{name}.{attribute}", "function")


def _of_object(value: object, name: str, kind: str) -> Iterator[Documented]:
    text = getattr(value, "__doc__", None)
    paragraphs = split_paragraphs(inspect.cleandoc(text)) if isinstance(text, str) else ()
    if paragraphs:
        signature = getattr(value, "__text_signature__", None) or ""
        # C code marks an argument that the caller does not pass by a dollar sign.
        yield Documented(name, kind, re.sub(r"\$\w+(?:, (?:/, )?)?", "", signature), paragraphs)


def split_paragraphs(text: str) -> tuple[str, ...]:
    """Paragraphs of a docstring, each on one line; a block without a letter or digit (an underline) is dropped."""
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text.strip())]
    return tuple(block for block in blocks if re.search(r"\w", block))


if __name__ == "__main__":
    print(json.dumps([astuple(item) for item in _import_c_modules()]))
