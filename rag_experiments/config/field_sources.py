"""The fields of a configuration's dataclass, read from its source: type, default and docstring. Imports no class.

A class is named as `module:Class`.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rag_experiments.config.source_modules import SourceError, SourceModule, class_at

REQUIRED = object()
"""The default of a field without one."""
UNREAD = object()
"""The default of a field whose source does not say it as a plain value."""

MODEL_CONFIG = "rag_experiments.config.schema:ModelConfig"


@dataclass(frozen=True)
class ConfigField:
    """One field of a dataclass."""

    name: str
    type: str
    """In words, such as `whole number, 1 or more | null`."""
    default: Any
    """The value; `REQUIRED` or `UNREAD` where there is none to be had."""
    doc: str
    """The docstring under the field, in one line; empty if there is none."""
    inner: str = ""
    """The dataclass that a value of this field has the keys of, as `module:Class`."""
    is_model: bool = False
    """Whether that is a model, which a preset fills."""


def fields_of(place: str) -> list[ConfigField]:
    """The fields of the dataclass `module:Class`, its bases' first.

    Raises:
        SourceError: the module has no source, or no such class.
    """
    return list(_fields(*class_at(place)).values())


def class_doc(place: str) -> str:
    """The class's own docstring, in one line for each paragraph."""
    return _plain(ast.get_docstring(class_at(place)[1]) or "")


def config_of(target: str) -> str:
    """The `Config` of the trainer class `module.Class`, its own or a base's, as `module:Class`.

    Raises:
        SourceError: the source does not show it.
    """
    module_name, _, name = target.rpartition(".")
    module, node = class_at(f"{module_name}:{name}")
    while True:
        for statement in node.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="Config")], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id="Config"), value=ast.expr() as value):
                    pass
                case _:
                    continue
            source, definition = module.resolve(value)
            if isinstance(definition, ast.ClassDef):
                return f"{source.name}:{definition.name}"
        if not node.bases:
            raise SourceError(f"{target} has no Config")
        module, base = module.resolve(node.bases[0])
        if not isinstance(base, ast.ClassDef):
            raise SourceError(f"{target} has no Config")
        node = base


def defaults_of(place: str) -> dict[str, Any]:
    """The defaults of the dataclass `module:Class` that can be read, models left out."""
    return {
        field.name: field.default
        for field in fields_of(place)
        if not field.is_model and field.default not in (REQUIRED, UNREAD)
    }


def place_of(cls: type) -> str:
    """`module:Class` of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


# -- fields ----------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _fields(module: SourceModule, node: ast.ClassDef) -> dict[str, ConfigField]:
    fields: dict[str, ConfigField] = {}
    for base in node.bases:
        base_module, definition = module.resolve(base)
        if isinstance(definition, ast.ClassDef):
            fields |= _fields(base_module, definition)
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        annotation = _annotation(statement.annotation)
        if "ClassVar" in ast.unparse(annotation):
            continue
        name = statement.target.id
        doc = ""
        match following:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                doc = _plain(inspect.cleandoc(text))
        earlier = fields.get(name)
        inner, is_model = _inner(module, annotation)
        fields[name] = ConfigField(
            name,
            _words(module, annotation),
            _default(module, statement.value),
            doc or (earlier.doc if earlier else ""),
            inner,
            is_model,
        )
    return fields


def _annotation(node: ast.expr) -> ast.expr:
    """The annotation itself where it is written in quotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def _default(module: SourceModule, node: ast.expr | None) -> Any:
    match node:
        case None:
            return REQUIRED
        case ast.Call(func=ast.Name(id="field"), keywords=keywords):
            arguments = {keyword.arg: keyword.value for keyword in keywords}
            if "default" in arguments:
                return _value(module, arguments["default"])
            if "default_factory" in arguments:
                return _of_factory(module, arguments["default_factory"])
            return REQUIRED
    return _value(module, node)


def _of_factory(module: SourceModule, factory: ast.expr) -> Any:
    """What a default factory makes."""
    match factory:
        case ast.Lambda(body=body):
            return _value(module, body)
        case ast.Name(id="list"):
            return []
        case ast.Name(id="dict"):
            return {}
    source, definition = module.resolve(factory)
    if isinstance(definition, ast.ClassDef):
        return defaults_of(f"{source.name}:{definition.name}")
    return UNREAD


def _value(module: SourceModule, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(module.resolve(node)[1])
    except (ValueError, TypeError):
        return UNREAD


def _inner(module: SourceModule, node: ast.expr) -> tuple[str, bool]:
    """The dataclass among the members of an annotation, and whether it is a model's."""
    for member in _members(module, node):
        source, definition = module.resolve(member)
        if not isinstance(definition, ast.ClassDef):
            continue
        if any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list):
            return f"{source.name}:{definition.name}", MODEL_CONFIG in _lineage(source, definition)
    return "", False


def _lineage(module: SourceModule, node: ast.ClassDef) -> list[str]:
    lineage = [f"{module.name}:{node.name}"]
    for base in node.bases:
        source, definition = module.resolve(base)
        if isinstance(definition, ast.ClassDef):
            lineage += _lineage(source, definition)
    return lineage


# -- types in words --------------------------------------------------------------------------------

_PLAIN_TYPES = {"int": "whole number", "float": "number", "bool": "true | false", "str": "text", "Any": "any value"}


def _members(module: SourceModule, node: ast.expr) -> list[ast.expr]:
    """The members of a union, or the node alone."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_members(module, left), *_members(module, right)]
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return [*_members(module, inner), ast.Constant(None)]
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=elements)):
            return [member for element in elements for member in _members(module, element)]
    return [node]


def _words(module: SourceModule, node: ast.expr) -> str:
    """An annotation in words."""
    words = [_member_words(module, member, {}) for member in _members(module, node)]
    return " | ".join(dict.fromkeys(word for word in words if word))


def _member_words(module: SourceModule, node: ast.AST, limits: dict[str, Any]) -> str:
    source, definition = module.resolve(node)
    match definition:
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name) if name in _PLAIN_TYPES:
            return _limited(_PLAIN_TYPES[name], limits)
        case ast.Name(id="list"):
            return "a list"
        case ast.Name(id="dict"):
            return "keys and values"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            choices = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return " | ".join(str(ast.literal_eval(choice)) for choice in choices)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[base, *more])):
            for limit in more:
                limits = _limits(source, limit) | limits
            return _member_words(source, base, limits)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return f"a list of: {_words(source, inner)}"
        case ast.Subscript(value=ast.Name(id="dict")):
            return "keys and values"
        case ast.BinOp():
            return _words(source, definition)
        case ast.ClassDef(name=name):
            return "a model" if MODEL_CONFIG in _lineage(source, definition) else "keys of its own"
    return ast.unparse(node) if isinstance(node, ast.expr) else ""


def _limits(module: SourceModule, node: ast.expr) -> dict[str, Any]:
    """The bounds that an item of `Annotated` sets."""
    match node:
        case ast.Call(func=ast.Name(id="Field"), keywords=keywords):
            return {keyword.arg: _value(module, keyword.value) for keyword in keywords if keyword.arg}
        case ast.Call(func=ast.Name(id="Matching"), args=[_, what]):
            return {"what": _value(module, what)}
    return {}


def _limited(word: str, limits: dict[str, Any]) -> str:
    if "what" in limits:
        return str(limits["what"])
    low, high = limits.get("ge"), limits.get("le")
    if low is not None and high is not None:
        return f"{word} from {low} to {high}"
    parts = [f"{low} or more"] if low is not None else []
    bounds = (("gt", "above"), ("lt", "below"), ("le", "at most"))
    parts += [f"{text} {limits[key]}" for key, text in bounds if key in limits]
    return f"{word}, {', '.join(parts)}" if parts else word


def _plain(text: str) -> str:
    """Each paragraph as one line."""
    return "\n".join(" ".join(part.split()) for part in text.split("\n\n"))
