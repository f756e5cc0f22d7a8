"""`data=pydocs`: questions about the documentation of the interpreter that runs this. Nothing is downloaded.

A passage is a documented public object: title the qualified name, text its signature and docstring. Where
a docstring has more than one paragraph, the first becomes a question and is withheld from the passage, so
that the two share meaning and few words; the answer is the qualified name, whose parts are taken out of
the question. Objects whose first paragraphs are the same are gold together. All other objects stay in
the corpus, whole, as distractors. Splits are by object.

Sources are parsed, not imported (importing the standard library opens browsers and prints poems); only
the public modules written in C, which have no source, are imported. The result is a function of the
interpreter and `data.packages` alone.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rag_experiments.data.raw import Located, RawData
from rag_experiments.data.schema import Passage, Question
from rag_experiments.errors import RequestError
from rag_experiments.schema import DataConfig, PositiveInt

GENERATOR_VERSION = 1
"""Raised when the same interpreter would give another data set."""

_SKIPPED = {"antigravity", "this", "test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "__phello__"}
_SKIPPED |= {"ensurepip", "pydoc_data", "config", "dist-packages", "distutils", "turtle"}
_SHORTEST_QUESTION, _LONGEST_QUESTION = 4, 60
_SHORTEST_REST = 8
"""Words that must remain in a gold passage, its title not counted."""

PHRASINGS = (
    "Which {kind} is this? {text}",
    "{text} What is it called?",
    "What is the name of the {kind} described so: {text}",
    "I am looking for a {kind}. {text}",
    "{text}",
)


@dataclass(kw_only=True)
class PydocsConfig(DataConfig):
    """Keys of `data=pydocs`; `path` is not used."""

    format: str = "pydocs"
    packages: list[str] = field(default_factory=list)
    """Installed packages whose documentation is added, such as numpy or torch."""
    max_words: Annotated[PositiveInt, Field(ge=20)] = 100
    """Words a passage keeps of a docstring."""


@dataclass(frozen=True, slots=True)
class Documented:
    """An object with a docstring."""

    name: str
    kind: str
    signature: str
    paragraphs: tuple[str, ...]


def signature(config: PydocsConfig) -> str:
    """The interpreter, the packages' versions, and how the set is made.

    Raises:
        RequestError: a package is not installed.
    """
    packages = [(name, str(_package_root(name)), _version(name)) for name in sorted(config.packages)]
    return repr((GENERATOR_VERSION, platform.python_implementation(), sys.version, packages, config.max_words))


def read(config: PydocsConfig) -> RawData:
    """Passages of all objects, and three splits of questions."""
    objects = sorted(collect(config.packages), key=lambda item: item.name)
    questions, golds = make_questions(objects)
    splits: dict[str, list[Located[Question]]] = {"train": [], "dev": [], "test": []}
    for question in questions:
        splits[_split(question, config)].append(Located(question, f"the documentation of {question.positive_ids[0]}"))
    passages = [
        Located(_passage(item, item.name in golds, config.max_words), f"the documentation of {item.name}")
        for item in objects
    ]
    return RawData(passages=lambda: passages, splits=splits)


# -- questions -------------------------------------------------------------------------------------


def make_questions(objects: list[Documented]) -> tuple[list[Question], set[str]]:
    """Questions in the order of their first gold object, and the names of all gold objects."""
    by_text: dict[str, list[Documented]] = {}
    for item in objects:
        rest = " ".join(item.paragraphs[1:]).split()
        text = hide_name(item.paragraphs[0], item.name)
        if len(rest) >= _SHORTEST_REST and _SHORTEST_QUESTION <= len(text.split()) <= _LONGEST_QUESTION:
            by_text.setdefault(text.lower(), []).append(item)
    questions = []
    for group in by_text.values():
        first = group[0]
        phrasing = PHRASINGS[_number(first.name) % len(PHRASINGS)]
        text = phrasing.format(kind=first.kind, text=hide_name(first.paragraphs[0], first.name))
        names = tuple(item.name for item in group)
        questions.append(Question(id=first.name, question=text, answers=names, positive_ids=names))
    return questions, {item.name for group in by_text.values() for item in group}


def hide_name(paragraph: str, name: str) -> str:
    """`paragraph` with the parts of the object's own name replaced by an ellipsis.

    The last part goes wherever it occurs as a word; the parts before it only where they lead to it, or
    questions would lose half their words to modules named `copy` or `time`.
    """
    *before, last = name.split(".")
    qualified = "".join(rf"(?:{re.escape(part)}\.)?" for part in before)
    hidden = re.sub(rf"(?<![\w.]){qualified}{re.escape(last)}(?:\([^)]*\))?(?!\w)", "…", paragraph, flags=re.IGNORECASE)
    return " ".join(hidden.split())


def _passage(item: Documented, gold: bool, max_words: int) -> Passage:
    paragraphs = item.paragraphs[1:] if gold else item.paragraphs
    words = " ".join(paragraphs).split()
    head = f"{item.kind} {item.name.rsplit('.', 1)[-1]}{item.signature}"
    return Passage(id=item.name, title=item.name, text=f"{head}\n{' '.join(words[:max_words])}".strip())


def _split(question: Question, config: PydocsConfig) -> str:
    place = _number(f"{config.split_seed}/{question.id}") / 2**64
    if place < config.test_fraction:
        return "test"
    return "dev" if place < config.test_fraction + config.dev_fraction else "train"


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


# -- objects ---------------------------------------------------------------------------------------


def collect(packages: list[str]) -> Iterator[Documented]:
    """Documented public objects of the standard library and of `packages`, each name once."""
    seen: set[str] = set()
    roots = [(Path(sysconfig.get_paths()["stdlib"]), "")] + [(_package_root(name), name) for name in sorted(packages)]
    for item in (*(item for root, prefix in roots for item in _in_sources(root, prefix)), *_in_c_modules()):
        if item.name not in seen:
            seen.add(item.name)
            yield item


def _in_sources(root: Path, prefix: str) -> Iterator[Documented]:
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        parts = list(path.relative_to(root if root.is_dir() else root.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if any(part.startswith("_") or part in _SKIPPED or not part.isidentifier() for part in parts):
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
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield Documented(name, kind, f"({ast.unparse(node.args)})" if is_function else "", paragraphs)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            inner = "class" if isinstance(child, ast.ClassDef) else "method" if kind == "class" else "function"
            yield from _of_node(child, f"{name}.{child.name}", inner)


def _in_c_modules() -> Iterator[Documented]:
    """Public modules without source: those built in, and the extension modules of the standard library."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    folder = Path(sysconfig.get_paths()["platstdlib"]) / "lib-dynload"
    found = {path.name.split(".")[0] for path in folder.glob("*") if path.name.endswith(suffixes)}
    for name in sorted(found | set(sys.builtin_module_names)):
        if name.startswith("_") or name in _SKIPPED or name == "readline":  # readline takes over the terminal
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
        yield Documented(name, kind, getattr(value, "__text_signature__", None) or "", paragraphs)


def split_paragraphs(text: str) -> tuple[str, ...]:
    """Paragraphs of a docstring, each on one line; a lone underline or signature line leads no paragraph."""
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text.strip())]
    return tuple(block for block in blocks if re.search(r"\w", block))


def _package_root(name: str) -> Path:
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise RequestError(f"data.packages: {name!r} is not installed: pip install {name}")
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _version(name: str) -> str:
    distributions = importlib.metadata.packages_distributions().get(name, [name])
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
