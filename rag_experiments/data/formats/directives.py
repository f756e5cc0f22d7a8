"""The words of Sphinx's and MyST's directives and roles, which neither docutils nor CommonMark knows."""

from __future__ import annotations

import re
from dataclasses import dataclass

NO_PROSE = frozenset(
    (
        *("toctree", "index", "currentmodule", "module", "automodule", "autoclass", "autofunction", "automethod"),
        *("autodata", "autoexception", "autosummary", "include", "literalinclude", "highlight", "image", "raw"),
        *("tabularcolumns", "sectionauthor", "codeauthor", "moduleauthor", "graphviz", "plot", "mermaid"),
        *(
            "inheritance-diagram",
            "bibliography",
            "contents",
            "sectnum",
            "meta",
            "default-domain",
            "program",
            "cmake-module",
        ),
    )
)
"""Directives with settings, names of files or drawings, and no text to read."""
CODE = frozenset(
    (
        *("code", "code-block", "code-cell", "sourcecode", "parsed-literal", "prompt", "console", "ipython", "doctest"),
        *("testcode", "testsetup", "testoutput", "math"),
    )
)
"""Directives whose body is kept as it is."""
BODY_ONLY = frozenset(
    (
        *("figure", "only", "container", "class", "rst-class", "tabs", "tab-set", "grid", "grid-item", "table"),
        "list-table",
    )
)
"""Directives whose argument is a file, a condition, or layout."""
VERSIONS = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "versionremoved": "Removed in version",
    "deprecated": "Deprecated since version",
}
_OPTION = re.compile(r"\s*:[\w-]+:(\s|$)")
_OPENING = re.compile(r"\.\.\s+(?:\|[^|]*\|\s+)?([\w:+.-]+)::[ \t]*(.*)")


@dataclass(frozen=True)
class Directive:
    """A directive without its options. `argument` is what a reader sees of the words behind its name."""

    name: str
    argument: str
    body: str

    @property
    def is_code(self) -> bool:
        """Whether `body` is kept as it is, and not read as markup."""
        return self.name in CODE


def from_rst(source: str) -> Directive | None:
    """The directive in `source`, which begins with `.. name::`; None where it has nothing to read."""
    opening, _, rest = source.strip("\n").partition("\n")
    match = _OPENING.match(opening)
    return _directive(match[1], match[2], rest.splitlines()) if match else None


def from_myst(info: str, content: str) -> Directive | None:
    """The directive of a fence that is opened with `{name} argument`; None where it has nothing to read."""
    name, _, argument = info.strip().removeprefix("{").partition("}")
    lines = content.splitlines()
    if lines and lines[0].strip() == "---":  # the options as YAML
        end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
        lines = lines[end + 1 :]
    return _directive(name, argument, lines)


def role_text(text: str) -> str:
    """What a reader sees of the text of a role: `title <target>` is its title, `~` and `!` are marks."""
    title = re.fullmatch(r"(.+?)\s+<[^<>]*>", text.strip(), re.DOTALL)
    return title[1] if title else text.strip().lstrip("~!")


def without_roles(text: str) -> str:
    """The source of what docutils does not know: roles and substitutions become words, footnote marks nothing."""
    text = re.sub(r":[A-Za-z][\w:+.-]*:`([^`]*)`", lambda match: role_text(match[1]), text)
    return re.sub(r"\[[\w#*]+\]_", "", re.sub(r"\|([\w .-]+)\|", r"\1", text))


def _directive(name: str, argument: str, lines: list[str]) -> Directive | None:
    name = name.rpartition(":")[2].lower()  # py:function
    if name in NO_PROSE:
        return None
    first = next((number for number, line in enumerate(lines) if not _OPTION.match(line)), len(lines))
    argument = argument.strip()
    if name in VERSIONS:
        argument = f"{VERSIONS[name]} {argument}"
    elif name in CODE or name in BODY_ONLY:
        argument = ""
    return Directive(name, without_roles(argument), _dedented(lines[first:]))


def _dedented(lines: list[str]) -> str:
    depth = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[depth:] for line in lines).strip("\n")
