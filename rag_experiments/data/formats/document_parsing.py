"""Read documents of five kinds as plain text with its headings.

Text, Markdown (markdown-it-py; MyST by mdit-py-plugins), HTML (Beautiful Soup), reStructuredText (docutils) and PDF
(pypdf). Files and scripts that a document refers to are not fetched, included or run.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError, first_line
from rag_experiments.data.formats import directives
from rag_experiments.data.formats.lines import decoded, not_in, open_bytes

INSTALL = "pip install 'rag_experiments[documents]'"


class Unreadable(Exception):
    """A document that cannot be read, and why."""


@dataclass
class Document:
    """Plain text and the positions of its headings.

    Attributes:
        headings: `(character, text)` in order; a heading is part of the text too.
    """

    title: str
    text: str
    headings: list[tuple[int, str]] = field(default_factory=list)

    def heading_at(self, place: int) -> str:
        """The last heading at or before character `place`."""
        heading = ""
        for at, text in self.headings:
            if at > place:
                break
            heading = text
        return heading


def parse(path: Path, encoding: str = "utf-8") -> Document:
    """Read one document; its title is its own, or the file's name.

    Raises:
        Unreadable: damaged, encrypted, or in another encoding.
        RequestError: the library that reads this kind is not installed.
    """
    document = PARSERS[path.suffix.lower()](path, encoding)
    document.title = " ".join((document.title or path.stem.replace("_", " ").replace("-", " ")).split())
    return document


def _text(path: Path, encoding: str) -> str:
    try:
        with open_bytes(path) as file:
            content = file.read()
        return decoded(content, encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Unreadable(not_in(encoding, f"byte {error.start}")) from None
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable(f"it begins like a gzipped file, and is cut short or damaged ({error})") from None


def _from_blocks(title: str, blocks: Iterable[tuple[str, bool]]) -> Document:
    """Blocks of text, each a heading or not, with an empty line between."""
    parts: list[str] = []
    headings: list[tuple[int, str]] = []
    length = 0
    for text, is_heading in blocks:
        text = text.strip()
        if not text:
            continue
        if is_heading:
            headings.append((length, " ".join(text.split())))
        parts.append(text)
        length += len(text) + 2
    return Document(title, "\n\n".join(parts), headings)


def parse_text(path: Path, encoding: str = "utf-8") -> Document:
    """A plain text file."""
    return Document("", _text(path, encoding).strip())


def parse_markdown(path: Path, encoding: str = "utf-8") -> Document:
    """Markdown and MyST: front matter removed (its `title:` becomes the title), markup removed, code kept."""
    text = _text(path, encoding)
    title = ""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if front:
        title_match = re.search(r"^title:\s*[\"']?(.+?)[\"']?\s*$", front.group(1), re.MULTILINE)
        title, text = title_match.group(1) if title_match else "", text[front.end() :]
    blocks = list(_markdown_blocks(text))
    first = next((text for text, level in blocks if level == 1), "")
    return _from_blocks(title or first, ((text, level > 0) for text, level in blocks))


def _markdown_blocks(text: str) -> Iterator[tuple[str, int]]:
    """Blocks of text with the level of a heading, 0 for others."""
    markdown_it = _library("markdown_it", "markdown-it-py")
    reader = markdown_it.MarkdownIt("commonmark").enable("table")
    for plugin in ("myst_role", "myst_blocks", "colon_fence", "admon"):
        module = _library(f"mdit_py_plugins.{plugin}", "mdit-py-plugins")
        reader.use(getattr(module, f"{plugin.removesuffix('s')}_plugin"))
    tokens = reader.parse(text)
    for index, token in enumerate(tokens):
        if token.type == "inline":
            heading = tokens[index - 1].type == "heading_open"
            yield _inline(token), int(tokens[index - 1].tag[1]) if heading else 0
        elif token.type in ("fence", "colon_fence") and token.info.strip().startswith("{"):
            yield from _myst_blocks(token.info, token.content)
        elif token.type == "colon_fence":  # :::note, as other generators of sites write it
            yield from _markdown_blocks(token.content)
        elif token.type in ("fence", "code_block"):
            yield token.content, 0


def _myst_blocks(info: str, content: str) -> Iterator[tuple[str, int]]:
    directive = directives.from_myst(info, content)
    if directive is None:
        return
    yield directive.argument, 0
    if directive.is_code:
        yield directive.body, 0
    elif directive.name == "eval-rst":
        yield from ((text, 2 * heading) for text, heading in _rst_blocks(directive.body))
    else:
        yield from _markdown_blocks(directive.body)


def _inline(token: Any) -> str:
    """What a reader sees of an inline token: text, code, the words of links, images and roles, line breaks."""
    kinds = {"softbreak": "\n", "hardbreak": "\n", "html_inline": ""}
    parts = []
    for child in token.children or []:
        if child.type == "myst_role":
            parts.append(directives.role_text(child.content))
        elif child.type == "text":
            parts.append(_without_templates(child.content))
        else:
            parts.append(kinds.get(child.type, child.content))
    return "".join(parts)


def _without_templates(text: str) -> str:
    """Text without attribute lists (`{#id .class}`), footnote marks and the marks of a template language."""
    text = re.sub(r"\{%.*?%\}|\[\^[\w-]+\]|\s*\{:?\s*[#.][^{}]*\}", "", text)
    return re.sub(r"\{\{[<%]?\s*(.*?)\s*[%>]?\}\}", r"\1", text)


def parse_html(path: Path, encoding: str = "utf-8") -> Document:
    """HTML, without scripts, styles, navigation and forms."""
    bs4 = _library("bs4", "beautifulsoup4")
    soup = bs4.BeautifulSoup(_text(path, encoding), "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for element in soup(["script", "style", "nav", "form", "header", "footer", "noscript", "template", "svg", "head"]):
        element.decompose()
    for anchor in soup("a"):
        if anchor.get_text(strip=True) in ("¶", "#", "§"):  # a heading's link to itself
            anchor.decompose()
    root = soup.find("main") or soup.find("article") or soup
    names = ["h1", "h2", "h3", "h4", "h5", "h6", "p", "pre", "li", "td", "th", "dt", "dd", "blockquote", "figcaption"]
    blocks: list[tuple[str, bool]] = []
    for element in root.find_all(names):
        if element.find_parent(names) is not None:
            continue  # its text is part of its parent's
        text = element.get_text() if element.name == "pre" else _spaces(element.get_text(" "))
        blocks.append((text, element.name[0] == "h"))
    if not blocks:
        blocks = [(_spaces(line), False) for line in root.get_text("\n").splitlines()]
    first = next((text for text, heading in blocks if heading), "")
    return _from_blocks(title or first, blocks)


def parse_rst(path: Path, encoding: str = "utf-8") -> Document:
    """reStructuredText. Nothing is included; of directives unknown to docutils the text is read, not the options."""
    blocks = list(_rst_blocks(_text(path, encoding), str(path)))
    return _from_blocks(next((text for text, heading in blocks if heading), ""), blocks)


def _rst_blocks(text: str, source: str | None = None) -> Iterator[tuple[str, bool]]:
    core, nodes = _library("docutils.core", "docutils"), _library("docutils.nodes", "docutils")
    settings = {
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "report_level": 5,
        "halt_level": 5,
        "warning_stream": io.StringIO(),
        "_disable_config": True,
    }
    tree = core.publish_doctree(text, source_path=source, settings_overrides=settings)
    text_nodes = (nodes.title, nodes.subtitle, nodes.paragraph, nodes.literal_block, nodes.term, nodes.field_name)
    for node in tree.findall(lambda node: isinstance(node, text_nodes)):
        if _parent(node, nodes.system_message) is not None:
            if isinstance(node, nodes.literal_block):  # the source of a directive, or of options, unknown to docutils
                yield from _unknown_directive(node.astext())
        elif _parent(node, nodes.docinfo) is None and not _is_of_the_file(node, nodes):
            words = node.astext() if isinstance(node, nodes.literal_block) else _words(node, nodes)
            yield words, isinstance(node, nodes.title | nodes.subtitle)


def _unknown_directive(source: str) -> Iterator[tuple[str, bool]]:
    directive = directives.from_rst(source)
    if directive is None:
        return
    yield directive.argument, False
    if directive.is_code:
        yield directive.body, False
    else:
        yield from _rst_blocks(directive.body)


def _is_of_the_file(node: Any, nodes: Any) -> bool:
    """Whether a node is of Sphinx's settings of a file, such as `:orphan:`."""
    field_node = _parent(node, nodes.field)
    return field_node is not None and field_node[0].astext() in ("orphan", "nocomments", "nosearch", "tocdepth")


def _parent(node: Any, kind: type) -> Any:
    while node is not None and not isinstance(node, kind):
        node = node.parent
    return node


def _words(node: Any, nodes: Any) -> str:
    """What a reader sees of a node; docutils leaves the source of roles and substitutions that it does not know."""
    if isinstance(node, nodes.problematic):
        return directives.without_roles(node.astext())
    if isinstance(node, nodes.footnote_reference | nodes.citation_reference | nodes.image):
        return ""
    if not node.children:
        return str(node.astext())
    return "".join(_words(child, nodes) for child in node.children)


def parse_pdf(path: Path, encoding: str = "utf-8") -> Document:
    """The text of a PDF's pages; a scanned one has none."""
    pypdf = _library("pypdf", "pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except Exception as error:  # a damaged PDF can raise any exception
        raise Unreadable(f"not readable as PDF: {first_line(error)}") from error
    return _from_blocks(title if isinstance(title, str) else "", ((page, False) for page in pages))


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _library(module: str, distribution: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(f"reading this kind of document needs {distribution}: {INSTALL}") from error


PARSERS: dict[str, Callable[[Path, str], Document]] = {
    ".txt": parse_text,
    ".text": parse_text,
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".html": parse_html,
    ".htm": parse_html,
    ".rst": parse_rst,
    ".pdf": parse_pdf,
}
"""Parser by file suffix in lower case."""
