"""Read documents of five kinds as plain text with its headings.

Text, Markdown (markdown-it-py), HTML (Beautiful Soup), reStructuredText (docutils) and PDF (pypdf). Files and scripts
that a document refers to are not fetched, included or run.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
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
    """Markdown: front matter removed (its `title:` becomes the title), markup removed, code kept."""
    markdown_it = _library("markdown_it", "markdown-it-py")
    text = _text(path, encoding)
    title = ""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if front:
        title_match = re.search(r"^title:\s*[\"']?(.+?)[\"']?\s*$", front.group(1), re.MULTILINE)
        title, text = title_match.group(1) if title_match else "", text[front.end() :]
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    blocks: list[tuple[str, bool]] = []
    for index, token in enumerate(tokens):
        if token.type == "inline":
            heading = tokens[index - 1].type == "heading_open"
            blocks.append((_inline(token), heading))
            if heading and not title and tokens[index - 1].tag == "h1":
                title = _inline(token)
        elif token.type in ("fence", "code_block"):
            blocks.append((token.content, False))
    return _from_blocks(title, blocks)


def _inline(token: Any) -> str:
    """What a reader sees of an inline token: text, code, the words of links and images, line breaks."""
    kinds = {"softbreak": "\n", "hardbreak": "\n", "html_inline": ""}
    return "".join(kinds.get(child.type, child.content) for child in token.children or [])


def parse_html(path: Path, encoding: str = "utf-8") -> Document:
    """HTML, without scripts, styles, navigation and forms."""
    bs4 = _library("bs4", "beautifulsoup4")
    soup = bs4.BeautifulSoup(_text(path, encoding), "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for element in soup(["script", "style", "nav", "form", "header", "footer", "noscript", "template", "svg", "head"]):
        element.decompose()
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
    """reStructuredText. Includes and raw parts are ignored; the text of directives unknown to docutils is kept."""
    core, nodes = _library("docutils.core", "docutils"), _library("docutils.nodes", "docutils")
    settings = {
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "report_level": 5,
        "halt_level": 5,
        "warning_stream": io.StringIO(),
        "_disable_config": True,
    }
    tree = core.publish_doctree(_text(path, encoding), source_path=str(path), settings_overrides=settings)
    text_nodes = (nodes.title, nodes.subtitle, nodes.paragraph, nodes.literal_block, nodes.term, nodes.field_name)
    blocks: list[tuple[str, bool]] = []
    for node in tree.findall(lambda node: isinstance(node, text_nodes)):
        message = _parent(node, nodes.system_message)
        if message is not None:
            if isinstance(node, nodes.literal_block) and "Unknown directive" in message.astext():
                blocks.append((re.sub(r"^\.\. [\w:-]+::.*\n?", "", node.astext()), False))
            continue
        blocks.append((_no_roles(node), isinstance(node, nodes.title | nodes.subtitle)))
    title = next((text for text, heading in blocks if heading), "")
    return _from_blocks(title, blocks)


def _parent(node: Any, kind: type) -> Any:
    while node is not None and not isinstance(node, kind):
        node = node.parent
    return node


def _no_roles(node: Any) -> str:
    """The text of a node. Sphinx's roles (:func:`~a.b`), which docutils does not know, become their words."""
    text = re.sub(r":[\w:+-]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`", r"\1", node.rawsource or node.astext())
    return re.sub(r"``([^`]*)``|`([^`<]+?)(?:\s*<[^`>]*>)?`_{0,2}", lambda m: m.group(1) or m.group(2), text)


def parse_pdf(path: Path, encoding: str = "utf-8") -> Document:
    """The text of a PDF's pages; a scanned one has none."""
    pypdf = _library("pypdf", "pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except Exception as error:  # a damaged PDF can raise any exception
        raise Unreadable(
            f"not readable as PDF: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
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
