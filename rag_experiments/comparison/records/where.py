"""`--where "algorithm=ctl and trainer.learning_rate<1e-4"`: a small language; `ast` parses it, nothing evaluates it.

    comparison   name = value, !=, <, <=, >, >=; `name in [a, b]`, `name not in [a, b]`; `"part" in name`
    expression   comparisons joined with `and`, `or`, `not` and parentheses; a name alone means: it is set and not false

Names are those of `metric_fields`. A word on the right of a comparison is a string, so `algorithm=ctl` needs no quotes
(a path does). A run without the name satisfies only `!=`, `not in` and `= null`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Sequence
from typing import Any

from rag_experiments.comparison.records.metric_fields import Fields, short_value, value_of
from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.errors import RequestError

Test = Callable[[RunRecord], bool]

_WORDS = {"true": True, "false": False, "null": None, "none": None, "True": True, "False": False, "None": None}
_DEPTH = 50
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def filter_runs(runs: Sequence[RunRecord], expression: str) -> list[RunRecord]:
    """The runs that satisfy the expression.

    Raises:
        RequestError: the expression cannot be parsed, or has a name that no run has.
    """
    test = compile_where(expression, Fields(runs))
    return [run for run in runs if test(run)]


def compile_where(expression: str, fields: Fields) -> Test:
    """A function that tests one run for the expression."""
    try:
        tree = ast.parse(_equals_twice(expression).strip(), mode="eval")
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise _unreadable(expression, getattr(error, "msg", None) or "it does not parse") from error
    return _Compiler(expression, fields).boolean(tree.body, 0)


def _equals_twice(expression: str) -> str:
    """Replace `=` by `==` outside strings."""
    tokens = tokenize.generate_tokens(io.StringIO(expression).readline)
    parts, column = [], 0
    for token in tokens:
        if token.start[0] > 1 or token.type in (tokenize.ENDMARKER, tokenize.NEWLINE):
            continue
        parts += [expression[column : token.start[1]], "==" if token.string == "=" else token.string]
        column = token.end[1]
    return "".join(parts)


def _unreadable(expression: str, why: str) -> RequestError:
    return RequestError(f'--where {expression!r}: {why}; write it like "algorithm=ctl and trainer.learning_rate<1e-4"')


class _Compiler:
    def __init__(self, expression: str, fields: Fields):
        self.expression = expression
        self.fields = fields

    def boolean(self, node: ast.AST, depth: int) -> Test:
        if depth > _DEPTH:
            raise _unreadable(self.expression, "it is nested too deeply")
        if isinstance(node, ast.BoolOp):
            tests = [self.boolean(value, depth + 1) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda run: all(t(run) for t in tests) if every else any(t(run) for t in tests)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.boolean(node.operand, depth + 1)
            return lambda run: not inner(run)
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        name = self.fields.resolve(self.name(node))
        return lambda run: bool(value_of(run, name))

    def comparison(self, node: ast.Compare) -> Test:
        operands = [node.left, *node.comparators]
        tests = [
            self.single(left, operator, right)
            for left, operator, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        return lambda run: all(test(run) for test in tests)

    def single(self, left: ast.AST, operator: ast.cmpop, right: ast.AST) -> Test:
        if isinstance(operator, ast.In | ast.NotIn):
            positive = self.member(left, right)
            return positive if isinstance(operator, ast.In) else lambda run: not positive(run)
        if self.is_value(left) and not self.is_quoted_name(left):  # `1e-4 < learning_rate`
            left, right, operator = right, left, _MIRRORED.get(type(operator), type(operator))()
        compare = _COMPARE.get(type(operator))
        if compare is None:
            raise _unreadable(self.expression, "only =, !=, <, <=, >, >=, in and not in compare")
        name, operand = self.fields.resolve(self.name(left)), self.value(right)
        return lambda run: compare(value_of(run, name), operand)

    def member(self, left: ast.AST, right: ast.AST) -> Test:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            name, options = self.fields.resolve(self.name(left)), [self.value(item) for item in right.elts]
            return lambda run: any(_equal(value_of(run, name), option) for option in options)
        part, name = self.value(left), self.fields.resolve(self.name(right))
        return lambda run: _contains(value_of(run, name), part)

    def is_value(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub))

    def is_quoted_name(self, node: ast.AST) -> bool:
        """Whether the node is a quoted text that is a name of the runs, such as `"test/recall@1"`."""
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            return False
        try:
            self.fields.resolve(node.value)
        except RequestError:
            return False
        return True

    def name(self, node: ast.AST) -> str:
        """The name in a node, such as `trainer.lr` or `test/recall@4` (Python takes `/` and `@` as operators)."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        self.check_word(node)
        return "".join(ast.unparse(node).split())

    def value(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self.value(node.operand)
            if isinstance(number, int | float):
                return -number
        self.check_word(node)
        word = "".join(ast.unparse(node).split())
        return _WORDS.get(word, word)

    def check_word(self, node: ast.AST) -> None:
        """Raise unless the node consists of names, dots and the operators that occur inside names."""
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, int | float):
                continue
            if not isinstance(part, _WORD_PARTS):
                shown = ast.unparse(node)
                raise _unreadable(self.expression, f"{shown!r} is neither a name nor a value (put text in quotes)")


_WORD_PARTS = (ast.Name, ast.Attribute, ast.BinOp, ast.Div, ast.MatMult, ast.Sub, ast.Load)
_MIRRORED: dict[type, type] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}


def _number(value: Any) -> float | None:
    """The number in `value`, also if it is a string, because YAML 1.1 reads `1e-4` as text."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _equal(have: Any, want: Any) -> bool:
    one, other = _number(have), _number(want)
    if one is not None and other is not None:
        return one == other
    if isinstance(want, str) and isinstance(have, str):
        return want in (have, short_value(have))
    return have == want and isinstance(have, bool) == isinstance(want, bool)


def _contains(have: Any, part: Any) -> bool:
    if isinstance(have, list):
        return any(_equal(item, part) for item in have)
    return have is not None and str(part) in str(have)


def _ordered(test: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def compare(have: Any, want: Any) -> bool:
        one, other = _number(have), _number(want)
        return one is not None and other is not None and test(one, other)

    return compare


_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda have, want: not _equal(have, want),
    ast.Lt: _ordered(lambda a, b: a < b),
    ast.LtE: _ordered(lambda a, b: a <= b),
    ast.Gt: _ordered(lambda a, b: a > b),
    ast.GtE: _ordered(lambda a, b: a >= b),
}
