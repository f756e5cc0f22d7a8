"""The documentation against the repository: code blocks are the files, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import rag_experiments
from tests import structure

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""Every page a reader may open."""

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
FILE_BLOCK = re.compile(r"^`(docs/extending/[^`]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"")
MODULE = re.compile(r"-m (rag_experiments(?:\.\w+)*|benchmarks(?:\.\w+)*|tests(?:\.\w+)*)")
SCRIPT = re.compile(r"(?<![\w-])python3? ([\w/]+\.py)")
CONSOLE = re.compile(r"(?<![\w/-])(rag-[a-z]+)")
MAKE = re.compile(r"(?:^|`|&& )make ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)(?=[ \n`A-Z]|$)", re.MULTILINE)


def page_ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    """A page less its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}.*$", "", FENCE.sub("", text), flags=re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links of `text`, a page at `page`, that lead nowhere."""
    for match in LINK.finditer(without_code(text)):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


def unknown_commands(text: str) -> Iterator[str]:
    """Commands of `text` that this repository does not have."""
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            yield module
    for script in SCRIPT.findall(text):
        if not (ROOT / script).is_file():
            yield script
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    yield from (name for name in CONSOLE.findall(text) if name not in scripts)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in MAKE.findall(text):
        yield from (f"make {word}" for word in words.split()[:1] if word not in targets)


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_relative_link_leads_somewhere(page):
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_command_named_in_a_page_exists(page):
    assert list(unknown_commands(page.read_text(encoding="utf-8"))) == []


def test_a_broken_link_and_an_unknown_command_are_found():
    page = ROOT / "README.md"
    text = "[a](docs/none.md) [b](LICENSE) [c](docs/glossary.md#none) [d](docs/glossary.md#data) [e](https://x.example)"
    assert list(broken_links(page, text)) == ["docs/none.md", "docs/glossary.md#none"]
    assert list(broken_links(page, "`[a](none.md)`\n\n```\n[a](none.md)\n```\n")) == []
    text = "python -m rag_experiments.trian x\nrag-trian\n`make tset`\nmake demo\npython docs/none.py\n"
    assert list(unknown_commands(text)) == ["rag_experiments.trian", "docs/none.py", "rag-trian", "make tset"]
    assert list(unknown_commands("python -m rag_experiments.dashboard a, python -m rag_experiments.data.check")) == []


def test_code_blocks_of_contributing_are_the_files_of_the_examples():
    blocks = dict(FILE_BLOCK.findall(CONTRIBUTING))
    for place, block in blocks.items():
        assert block == (ROOT / place).read_text(encoding="utf-8").rstrip("\n") + "\n", place
    examples = {p for p in (ROOT / "docs" / "extending").rglob("*") if p.suffix in (".py", ".yaml")}
    assert {ROOT / place for place in blocks} == examples


def test_lengths_of_the_examples_are_those_of_the_files():
    lengths = re.findall(r"`((?:conf/)?[\w/]+\.(?:py|yaml))` \((\d+) lines\)", CONTRIBUTING)
    assert len(lengths) >= 8
    for place, count in lengths:
        text = (ROOT / "docs" / "extending" / place).read_text(encoding="utf-8")
        assert len(text.splitlines()) == int(count), place


def test_contributing_shows_the_rooms_in_their_order():
    (block,) = re.findall(r"```text\n(core .*?)```", CONTRIBUTING, re.DOTALL)
    below = {module for module in structure.COMMANDS if "." in module} | {""}  # commands in rooms
    assert block.split() == [name for name in structure.ORDER if name not in below]


def test_the_tree_of_the_readme_names_every_room_and_command():
    tree = README.partition("## Where things are")[2]
    places = structure.top_level(structure.modules())
    missing = [name for name in places if f"{name}/" not in tree and f"{name}.py" not in tree]
    assert missing == []


def test_the_readme_stays_short():
    assert len(README.splitlines()) < 120


def test_one_version_in_package_citation_and_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [citation["version"], released[0]] == [rag_experiments.__version__] * 2


def test_every_page_of_docs_is_in_the_sites_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if ROOT / "docs" in page.parents}


def test_every_hook_before_a_commit_runs_what_is_installed():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "a hook from elsewhere would need the network"
    assert {hook["language"] for repo in hooks for hook in repo["hooks"]} == {"system"}
