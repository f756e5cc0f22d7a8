"""The lower bounds of `pyproject.toml` as pip's constraints: `make floors` installs and trains with these versions.

python tests/floors.py > constraints.txt             the lowest version that each dependency is allowed to have
python tests/floors.py --installed                   a Markdown table: what is installed here, beside the bounds

A bound that no job installs is a guess: two of them did not work for months before anyone asked.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
OWN_NAME = "rag-experiments"
LOWER = (">=", "==", "~=")


def requirements(pyproject: Path = PYPROJECT) -> Iterator[tuple[str, Requirement]]:
    """Every dependency, with where it is named: `build`, `main` or the extra. Extras of our own are left out."""
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    groups = {"build": content["build-system"]["requires"], "main": project["dependencies"]}
    for group, lines in (groups | project["optional-dependencies"]).items():
        for line in lines:
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) != OWN_NAME:
                yield group, requirement


def floors(pyproject: Path = PYPROJECT) -> dict[str, str]:
    """Canonical name → lowest allowed version.

    Raises:
        ValueError: a dependency without one lower bound, or one that has two, in two groups.
    """
    found: dict[str, str] = {}
    for group, requirement in requirements(pyproject):
        name = canonicalize_name(requirement.name)
        bounds = [one.version for one in requirement.specifier if one.operator in LOWER]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} ({group}) must have one lower bound")
        if found.setdefault(name, bounds[0]) != bounds[0]:
            raise ValueError(f"{requirement} ({group}): another group says {found[name]}")
    return found


def constraints(without: tuple[str, ...] = ()) -> str:
    """One `name==version` a line, as `pip install -c` reads them."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(floors().items()) if name not in without)


def installed() -> str:
    """A Markdown table of every dependency: its bounds and the version in this environment (`-` where it is not)."""
    specifiers = {canonicalize_name(one.name): str(one.specifier) for _, one in requirements()}
    here = {canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()}
    rows = [f"| {name} | {bounds} | {here.get(name, '-')} |" for name, bounds in sorted(specifiers.items())]
    return "\n".join(["| dependency | allowed | installed |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(installed() if "--installed" in sys.argv[1:] else constraints(tuple(sys.argv[1:])))
