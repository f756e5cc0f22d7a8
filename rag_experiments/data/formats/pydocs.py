"""`data=pydocs`: questions about the documentation of the running Python interpreter. Nothing is downloaded.

A passage is a documented public object: the title is its qualified name, the text its signature and docstring. If a
docstring has more than one paragraph, the first becomes a question and is removed from the passage, so that question
and passage share the meaning but few words. The answer is the qualified name; its parts are removed from the question.
Objects with the same first paragraph are all gold. All other objects stay in the corpus, complete, as distractors.
Splits are made by object.

Sources are parsed, not imported (importing parts of the standard library opens a browser or prints a poem); only the
public modules written in C, which have no source, are imported. The result depends only on the interpreter and
`data.packages`.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rag_experiments.config.schema import DataConfig, PositiveInt
from rag_experiments.core.digest import settled_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.lines import refuse_path
from rag_experiments.data.formats.pydocs_objects import Documented, in_c_modules, in_sources
from rag_experiments.data.records import Passage, Question, Where

GENERATOR_VERSION = 5
"""Raised when the same interpreter would give another data set."""

_SHORTEST_QUESTION, _LONGEST_QUESTION = 4, 60
_SHORTEST_REST = 8
"""Words that must remain in a gold passage, not counting its title."""

PHRASINGS = (
    "Which {kind} is this? {text}",
    "{text} What is it called?",
    "What is the name of the {kind} described so: {text}",
    "I am looking for a {kind}. {text}",
    "{text}",
)


@dataclass(kw_only=True)
class PydocsConfig(DataConfig):
    """Keys of `data=pydocs`. A `path` is refused, because it must have been meant for another format."""

    format: str = "pydocs"
    packages: list[str] = field(default_factory=list)
    """Installed packages whose documentation is added, such as [numpy, torch]."""
    methods: bool = False
    """Add methods to modules, classes and functions; this doubles the corpus."""
    max_words: Annotated[PositiveInt, Field(ge=20)] = 50
    """A passage keeps so many words of a docstring, and the rest is left out."""

    def __post_init__(self) -> None:
        refuse_path(self)


def fingerprint(config: PydocsConfig) -> str:
    """The version of this format, the interpreter, and the packages with their versions, as one text.

    Raises:
        RequestError: a package is not installed.
    """
    packages = [(name, str(_package_root(name)), _version(name)) for name in sorted(config.packages)]
    return repr((GENERATOR_VERSION, platform.python_implementation(), sys.version, packages))


def read(config: PydocsConfig, intake: Intake) -> None:
    """Add all objects as passages and their questions as train; dev and test are later cut from train by object."""
    selection = (item for item in collect(config.packages) if config.methods or item.kind != "method")
    objects = sorted(selection, key=lambda item: item.name)
    questions, golds = make_questions(objects)
    passages = [_passage(item, item.name in golds, config.max_words) for item in objects]
    for passage in passages:
        with intake.row(Where(f"the documentation of {passage.id}")):
            intake.passage(passage.id, passage.text, passage.title)
    corpus = "\n".join(passage.text.lower() for passage in passages)
    paragraphs = {item.name: item.paragraphs[0].lower() for item in objects}
    for question in questions:
        # If some passage still holds the paragraph (a subclass quotes it), word matching alone would find it.
        if not any(paragraphs[name] in corpus for name in question.positive_ids):
            with intake.row(Where(f"the documentation of {question.id}")):
                intake.question("train", question)


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

    The last part is replaced wherever it occurs as a word. The parts before it are replaced only directly before it;
    otherwise modules named `copy` or `time` would remove half the words of a question.
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


def _number(text: str) -> int:
    return int(settled_digest(text)[:16], 16)


# -- objects ---------------------------------------------------------------------------------------


def collect(packages: list[str]) -> Iterator[Documented]:
    """Documented public objects of the standard library and of `packages`, each name once."""
    seen: set[str] = set()
    roots = [(Path(sysconfig.get_paths()["stdlib"]), "")] + [(_package_root(name), name) for name in sorted(packages)]
    for item in (*(item for root, prefix in roots for item in in_sources(root, prefix)), *in_c_modules()):
        if item.name not in seen:
            seen.add(item.name)
            yield item


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
