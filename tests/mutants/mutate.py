"""The mutants of a file: each a copy of its text with one thing wrong."""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from tests.mutants.operators import OPERATORS, left_alone, length_of_digest, return_nothing


@dataclass(frozen=True)
class Mutant:
    """One fault in one file. `was` and `now` are the changed lines without indentation: they outlive moved lines."""

    module: str
    function: str
    operator: str
    was: str
    now: str
    turn: int
    """Which of the equal changes in this function it is, from 0."""
    first: int
    last: int
    """Lines of the statement (of its head, if it has a body) that holds the fault."""
    at_import: bool
    """Whether the statement runs when the module is imported, not when a function is called."""
    source: str
    """The whole file with the fault."""

    @property
    def key(self) -> str:
        parts = (self.module, self.function, self.was, self.now, str(self.turn))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    @property
    def diff(self) -> str:
        lines = [f"-{line}" for line in self.was.split("\n")] + [f"+{line}" for line in self.now.split("\n")]
        return "\n".join(lines)


@dataclass
class _Place:
    """Where the walk is: names of classes and functions, and the statement."""

    names: list[str]
    in_function: int
    cached: int
    statement: tuple[int, int]


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, str, str, tuple[int, int], bool, int]] = []
        self.index_of = {id(part): index for index, part in enumerate(module.body)}
        self.index = -1
        self.place = _Place([], 0, 0, (1, 1))
        self.held: list[tuple[int, int]] = []
        self.may_return_none = [False]
        self.skipped: set[int] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.index = self.index_of.get(id(node), self.index)
        if self._skipped(node):
            return False
        self.skipped.update(map(id, length_of_digest(node)))
        if isinstance(node, cst.BaseStatement | cst.BaseCompoundStatement):
            self.held.append(self.place.statement)
            self.place.statement = self._lines(node)
        for kind, operator in OPERATORS:
            if isinstance(node, kind) and (operator is not return_nothing or self.may_return_none[-1]):
                for wrong in operator(node):
                    at_import = not self.place.in_function or bool(self.place.cached)
                    function = ".".join(self.place.names) or "(module)"
                    name = operator.__name__.removeprefix("operator_")
                    place = (function, self.place.statement, at_import, self.index)
                    self.found.append((node, wrong, name, *place))
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.place.names.append(node.name.value)
            if isinstance(node, cst.FunctionDef):
                self.place.in_function += 1
                self.place.cached += _cached(node)
                self.may_return_none.append(_may_return_none(node))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._skipped(original_node):
            return
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self.place.names.pop()
            if isinstance(original_node, cst.FunctionDef):
                self.place.in_function -= 1
                self.place.cached -= _cached(original_node)
                self.may_return_none.pop()
        if isinstance(original_node, cst.BaseStatement | cst.BaseCompoundStatement):
            self.place.statement = self.held.pop()

    def _skipped(self, node: cst.CSTNode) -> bool:
        """Besides what is left alone everywhere: fields of dataclasses, whose values stand in YAML as well."""
        field_of_class = isinstance(node, cst.AnnAssign) and not self.place.in_function
        return field_of_class or id(node) in self.skipped or left_alone(node)

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        position: Any = self.get_metadata(PositionProvider, node)
        last = position.end.line
        body = getattr(node, "body", None)
        if isinstance(node, cst.BaseCompoundStatement) and isinstance(body, cst.IndentedBlock):
            inner: Any = self.get_metadata(PositionProvider, body.body[0])
            last = max(position.start.line, inner.start.line - 1)
        return position.start.line, last


def _may_return_none(node: cst.FunctionDef) -> bool:
    """Whether the annotation lets a function return None or a truth value, where None is an answer like another."""
    if node.returns is None:
        return True
    text = cst.Module([]).code_for_node(node.returns.annotation)
    return any(word in text for word in ("None", "Any", "bool", "Optional", "object"))


def _cached(node: cst.FunctionDef) -> bool:
    """Whether a function keeps what it returned: its lines run in the first test alone."""
    return any("cache" in cst.Module([]).code_for_node(decorator.decorator) for decorator in node.decorators)


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a file that Python can compile and that differs from it and from each other."""
    wrapper = MetadataWrapper(cst.parse_module(text))
    finder = _Finder(wrapper.module)
    wrapper.visit(finder)
    # Only the outermost statement that holds the fault is written and read anew: files are long, faults many.
    pieces = [_code(wrapper.module, part) for part in wrapper.module.body]
    head = wrapper.module.with_changes(body=[], footer=[]).code if wrapper.module.header else ""
    foot = text[len(head) + sum(map(len, pieces)) :]
    assert text == head + "".join(pieces) + foot, f"{module} is not put together as it was"
    seen = {(index, ast.dump(ast.parse(piece))) for index, piece in enumerate(pieces)}
    before = text.split("\n")
    turns: Counter[tuple[str, str, str]] = Counter()
    for node, wrong, operator, function, (first, last), at_import, index in finder.found:
        changed = wrapper.module.body[index].deep_replace(node, wrong)
        piece = _code(wrapper.module, changed)
        try:
            tree = ast.parse(piece)
            compile(tree, module, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        if (index, ast.dump(tree)) in seen:
            continue
        seen.add((index, ast.dump(tree)))
        source = head + "".join([*pieces[:index], piece, *pieces[index + 1 :]]) + foot
        was, now = _changed(before, source.split("\n"))
        turns[function, was, now] += 1
        turn = turns[function, was, now] - 1
        yield Mutant(module, function, operator, was, now, turn, first, last, at_import, source)


def _code(module: cst.Module, part: Any) -> str:
    """A statement of a module as text, with the lines before it that are its own."""
    return module.with_changes(body=[part], header=[], footer=[], has_trailing_newline=True).code


def _changed(before: list[str], after: list[str]) -> tuple[str, str]:
    """The lines that differ, stripped."""
    was: list[str] = []
    now: list[str] = []
    for kind, start, stop, new_start, new_stop in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        if kind != "equal":
            was += [line.strip() for line in before[start:stop]]
            now += [line.strip() for line in after[new_start:new_stop]]
    return "\n".join(was), "\n".join(now)
