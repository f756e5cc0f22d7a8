"""How a line is made wrong: mutmut's operators, those of ours that it lacks, and what is left alone.

An operator is what it is in mutmut: a type of libcst node and a function that yields replacements for such a node.
mutmut's that only break (every value to None, every argument to None) or only change a text are not taken: the first
are noticed by any test that comes by and make the score look good, the second are no wrong results. Ours are faults
that programmers make: an argument forgotten, `max` for `min`, a sum for a mean, the first value for the mean, an
ingredient of a key left out, a statement or a condition dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import libcst as cst
from mutmut.mutation import mutators

CALLS = {
    "max": "min",
    "min": "max",
    "amax": "amin",
    "amin": "amax",
    "argmax": "argmin",
    "argmin": "argmax",
    "nanmax": "nanmin",
    "maximum": "minimum",
    "minimum": "maximum",
    "clamp_min": "clamp_max",
    "sum": "mean",
    "mean": "sum",
    "nanmean": "mean",
    "fmean": "sum",
    "median": "mean",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "softmax": "log_softmax",
    "log_softmax": "softmax",
    "logsumexp": "sum",
    "startswith": "endswith",
    "endswith": "startswith",
    "nlargest": "nsmallest",
    "union": "intersection",
    "intersection": "union",
    "zeros": "ones",
    "ones": "zeros",
}
"""A call's name and what is written for it by mistake."""

UNWRAPPED_METHODS = {
    *("strip", "lstrip", "rstrip", "lower", "upper", "casefold", "detach", "float", "double", "t", "exp", "log"),
    *("abs", "sqrt", "unique", "clone", "copy", "eval", "resolve", "split", "tolist", "transpose", "mT", "T"),
}
"""Methods without arguments that can be forgotten: `x.detach()` becomes `x`."""
UNWRAPPED_FUNCTIONS = {
    "abs": "{}",
    "round": "{}",
    "reversed": "{}",
    "sorted": "list({})",
    "set": "list({})",
    "frozenset": "list({})",
    "Counter": "Counter(set({}))",
    "exp": "{}",
    "log": "{}",
    "sqrt": "{}",
    "softmax": "{}",
}
"""Functions of one argument that can be forgotten, and what stands there then."""

QUIET_KEYWORDS = {
    *("indent", "timeout", "maxsize", "desc", "stacklevel", "disable", "unit", "leave", "mininterval", "flush"),
    *("encoding", "progress", "title", "help", "color", "width", "height", "hovertemplate", "daemon", "description"),
    *("missing_ok", "parents", "ignore_errors"),
    *("ensure_ascii", "digest_size", "mmap_mode", "strict", "sort_keys", "usedforsecurity", "allow_pickle"),
    *("newline", "check", "total", "dynamic_ncols", "file", "initial", "smoothing", "legend", "margin", "font"),
}
"""Keywords of looks, waiting and memory, not of results."""
LOGS = {"debug", "info", "warning", "warn", "error", "exception", "log", "set_postfix", "set_description", "update"}
LOGGERS = {"log", "logger", "logging", "warnings", "bar", "progress", "LOG"}
QUIET_CONTEXTS = {"no_grad", "inference_mode", "tqdm", "catch_warnings"}


def parsed(text: str) -> cst.BaseExpression:
    return cst.parse_expression(text)


def called_name(node: cst.CSTNode) -> str:
    """`mean` of `mean(x)`, `np.mean(x)`, `x.mean()`; empty where what is called has no name."""
    function = node.func if isinstance(node, cst.Call) else node
    if isinstance(function, cst.Attribute):
        return function.attr.value
    return function.value if isinstance(function, cst.Name) else ""


def is_log(node: cst.CSTNode) -> bool:
    """Whether a call only tells somebody something."""
    if not isinstance(node, cst.Call):
        return False
    if isinstance(node.func, cst.Name):
        return node.func.value == "print"
    owner = node.func.value if isinstance(node.func, cst.Attribute) else None
    return called_name(node) in LOGS and isinstance(owner, cst.Name) and owner.value in LOGGERS


def in_brackets(expression: cst.BaseExpression) -> cst.BaseExpression:
    """The expression in brackets of its own, if it has none: what stands around it stays around all of it."""
    if isinstance(expression, cst.Name | cst.Call | cst.Attribute | cst.Subscript) or expression.lpar:
        return expression
    return expression.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def arguments(node: cst.Call, kept: Iterable[cst.Arg]) -> cst.Call:
    given = list(kept)
    if given:
        given[-1] = given[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return node.with_changes(args=given)


def drop_keyword(node: cst.Call) -> Iterator[cst.CSTNode]:
    """`f(a, b=c)` becomes `f(a)`. A plain True or False is turned round elsewhere."""
    for index, argument in enumerate(node.args):
        if argument.keyword is None or argument.keyword.value in QUIET_KEYWORDS:
            continue
        if isinstance(argument.value, cst.Name) and argument.value.value in ("True", "False"):
            continue
        yield arguments(node, [*node.args[:index], *node.args[index + 1 :]])


def drop_last_positional(node: cst.Call) -> Iterator[cst.CSTNode]:
    """`f(a, b)` becomes `f(a)`: where b has a default, nothing says so."""
    positional = [index for index, argument in enumerate(node.args) if argument.keyword is None and not argument.star]
    if len(positional) > 1 and called_name(node) not in ("isinstance", "getattr", "open", "zip", "range", "field"):
        last = positional[-1]
        yield arguments(node, [*node.args[:last], *node.args[last + 1 :]])


def swap_call(node: cst.Call) -> Iterator[cst.CSTNode]:
    """`max` for `min`, a sum for a mean. Python has no function `mean`, so `sum(x)` of a plain call stays."""
    name = called_name(node)
    if name not in CALLS:
        return
    if isinstance(node.func, cst.Name):
        if CALLS[name] != "mean":
            yield node.with_changes(func=cst.Name(CALLS[name]))
    else:
        yield node.with_deep_changes(cst.ensure_type(node.func, cst.Attribute).attr, value=CALLS[name])


def first_for_mean(node: cst.Call) -> Iterator[cst.CSTNode]:
    """`mean(values)` becomes `values[0]`, `values_BK.mean(1)` becomes `values_BK.select(1, 0)`'s like."""
    if called_name(node) not in ("mean", "fmean", "nanmean", "median"):
        return
    first = [cst.SubscriptElement(cst.Index(cst.Integer("0")))]
    of_module = isinstance(node.func, cst.Name) or (
        isinstance(node.func, cst.Attribute)
        and isinstance(node.func.value, cst.Name)
        and node.func.value.value in ("np", "numpy", "torch", "statistics", "math")
    )
    if of_module and len(node.args) == 1 and not isinstance(node.args[0].value, cst.GeneratorExp):
        yield cst.Subscript(in_brackets(node.args[0].value), first)
    elif not of_module and not node.args and isinstance(node.func, cst.Attribute):
        yield cst.Subscript(in_brackets(node.func.value), first)


def unwrap(node: cst.Call) -> Iterator[cst.CSTNode]:
    """A conversion is forgotten: `x.strip()` becomes `x`, `sorted(x)` a list as it comes."""
    name = called_name(node)
    if isinstance(node.func, cst.Attribute) and not node.args and name in UNWRAPPED_METHODS:
        yield in_brackets(node.func.value)
    elif name in UNWRAPPED_FUNCTIONS and node.args and not node.args[0].star and node.args[0].keyword is None:
        if isinstance(node.args[0].value, cst.GeneratorExp) and len(node.args) == 1:
            text = cst.Module([]).code_for_node(node.args[0].value.with_changes(lpar=[], rpar=[]))
        else:
            text = cst.Module([]).code_for_node(node.args[0].value)
        yield parsed("(" + UNWRAPPED_FUNCTIONS[name].format(text) + ")")


def drop_element(node: cst.Tuple | cst.List | cst.Set | cst.Dict) -> Iterator[cst.CSTNode]:
    """An element is left out: an ingredient of a key, a field of a row."""
    if len(node.elements) < 2:
        return
    for index in range(len(node.elements)):
        kept = [*node.elements[:index], *node.elements[index + 1 :]]
        if isinstance(node, cst.Tuple) and len(kept) == 1:
            kept[0] = kept[0].with_changes(comma=cst.Comma())
        elif index == len(kept):
            kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        yield node.with_changes(elements=kept)


def drop_condition(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    """`a and b` becomes `a`, and `b`."""
    yield in_brackets(node.left)
    yield in_brackets(node.right)


def drop_filter(node: cst.CompFor) -> Iterator[cst.CSTNode]:
    """`[x for x in y if z]` becomes `[x for x in y]`."""
    if node.ifs:
        yield node.with_changes(ifs=node.ifs[:-1])


def drop_bound(node: cst.Slice) -> Iterator[cst.CSTNode]:
    """`x[:k]` becomes `x[:]`."""
    if node.lower is not None:
        yield node.with_changes(lower=None)
    if node.upper is not None:
        yield node.with_changes(upper=None)
    if node.step is not None:
        yield node.with_changes(step=None, second_colon=cst.MaybeSentinel.DEFAULT)


def only_raises_or_logs(body: cst.BaseSuite) -> bool:
    statements = list(body.body) if isinstance(body, cst.IndentedBlock) else [body]
    for statement in statements:
        small = getattr(statement, "body", [])
        if not isinstance(statement, cst.SimpleStatementLine | cst.SimpleStatementSuite):
            return False
        for part in small:
            told = isinstance(part, cst.Expr) and is_log(part.value)
            if not (isinstance(part, cst.Raise) or told):
                return False
    return True


def drop_branch(node: cst.If) -> Iterator[cst.CSTNode]:
    """`if c: …` without `else` never happens. One that only raises is dropped as a statement."""
    if node.orelse is None and not only_raises_or_logs(node.body):
        yield node.with_changes(test=cst.Name("False"), whitespace_before_test=cst.SimpleWhitespace(" "))


def drop_context(node: cst.With) -> Iterator[cst.CSTNode]:
    """`with lock: …` happens without it."""
    if any(item.asname is not None or called_name(item.item) in QUIET_CONTEXTS for item in node.items):
        return
    yield cst.If(test=cst.Name("True"), body=node.body, leading_lines=node.leading_lines)


def drop_statement(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """A call without result, a `raise`, a `del`, an entry or attribute that is set: gone."""
    if len(node.body) != 1:
        return
    part = node.body[0]
    gone = False
    if isinstance(part, cst.Expr):
        gone = isinstance(part.value, cst.Call | cst.Await | cst.Yield) and not is_log(part.value)
    elif isinstance(part, cst.Assign):
        gone = all(isinstance(target.target, cst.Attribute | cst.Subscript) for target in part.targets)
    elif isinstance(part, cst.Raise | cst.AugAssign):
        gone = True
    if gone:
        yield node.with_changes(body=[cst.Pass()])


def return_nothing(node: cst.Return) -> Iterator[cst.CSTNode]:
    """`return x` becomes `return None`, in functions that may return it (`mutate`): elsewhere anything notices."""
    value = node.value
    if value is not None and not (isinstance(value, cst.Name) and value.value in ("None", "True", "False")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def drop_space(node: cst.FormattedString) -> Iterator[cst.CSTNode]:
    """f" {word} " loses the space at one end: `art` is then in `party`."""
    for index in (0, -1):
        part = node.parts[index] if node.parts else None
        if isinstance(part, cst.FormattedStringText) and part.value.isspace() and len(node.parts) > 1:
            yield node.with_changes(parts=[*node.parts[1:]] if index == 0 else [*node.parts[:-1]])


def small_number(node: cst.BaseNumber) -> Iterator[cst.CSTNode]:
    """mutmut's (one more). Sizes of buffers and blocks stay: one more of a thousand is no fault."""
    if isinstance(node, cst.Integer | cst.Float) and abs(node.evaluated_value) <= 100:
        yield from mutators.operator_number(node)


def swap_operator(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """mutmut's, but not where a text is an operand: `folder / "name"` is a path, and a product of those only breaks."""
    of_text = isinstance(node, cst.BinaryOperation) and not isinstance(node.operator, cst.Multiply)
    if of_text and any(isinstance(side, cst.BaseString) for side in (node.left, node.right)):
        return
    yield from mutators.operator_swap_op(node)


TAKEN = (
    mutators.operator_name,
    mutators.operator_augmented_assignment,
    mutators.operator_remove_unary_ops,
    mutators.operator_symmetric_string_methods_swap,
    mutators.operator_unsymmetrical_string_methods_swap,
    mutators.operator_keywords,
    mutators.operator_match,
    mutators.operator_if_exp,
)
OURS: list[tuple[Any, Any]] = [
    (cst.CSTNode, swap_operator),
    (cst.BaseNumber, small_number),
    (cst.Call, drop_keyword),
    (cst.Call, drop_last_positional),
    (cst.Call, swap_call),
    (cst.Call, first_for_mean),
    (cst.Call, unwrap),
    ((cst.Tuple, cst.List, cst.Set, cst.Dict), drop_element),
    (cst.BooleanOperation, drop_condition),
    (cst.CompFor, drop_filter),
    (cst.Slice, drop_bound),
    (cst.If, drop_branch),
    (cst.With, drop_context),
    (cst.SimpleStatementLine, drop_statement),
    (cst.Return, return_nothing),
    (cst.FormattedString, drop_space),
]
OPERATORS: list[tuple[Any, Any]] = [
    *((kind, operator) for kind, operator in mutators.mutation_operators if operator in TAKEN),
    *OURS,
]


def left_alone(node: cst.CSTNode) -> bool:
    """Whether neither this node nor what stands below it is mutated."""
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.Assert | cst.TypeAlias):
        return True
    if isinstance(node, cst.BaseString | cst.FormattedStringExpression):
        return not isinstance(node, cst.FormattedString)
    if isinstance(node, cst.Raise) or is_log(node):
        return True  # its text; that it is raised at all is the statement's
    if isinstance(node, cst.If) and "TYPE_CHECKING" in cst.Module([]).code_for_node(node.test):
        return True
    if isinstance(node, cst.Param) and node.name.value in QUIET_KEYWORDS:
        return True
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in QUIET_KEYWORDS:
        return True
    if isinstance(node, cst.Call) and called_name(node) in ("cast", "TypeVar", "Literal", "NewType", "getLogger"):
        return True
    return isinstance(node, cst.AssignTarget | cst.Subscript) and _is_type(node)


def length_of_digest(node: cst.CSTNode) -> list[cst.CSTNode]:
    """Of `….hexdigest()[:16]` what stands in brackets: a key one letter longer is no other key."""
    if isinstance(node, cst.Subscript) and called_name(node.value) in ("hexdigest", "digest"):
        return list(node.slice)
    return []


def _is_type(node: cst.CSTNode) -> bool:
    """`Callable[[int], str]`, `Literal["a", "b"]` outside an annotation; `__all__` and `__slots__`."""
    if isinstance(node, cst.AssignTarget):
        return isinstance(node.target, cst.Tuple | cst.List)
    name = called_name(node.value) if isinstance(node, cst.Subscript) else ""
    return name in ("Callable", "Literal", "Union", "Optional", "dict", "list", "tuple", "Trainer", "Generic")
