"""The result as Markdown: a table by area, and the survivors with what was changed."""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.mutants.mutate import Mutant

Equivalent = dict[tuple[str, str, str, str], str]


def read_equivalent(folder: Path) -> Equivalent:
    """Mutants that change no result, with the reason. Keyed by what is changed where, not by line."""
    found = {}
    for path in sorted(folder.glob("equivalent*.toml")):
        with path.open("rb") as file:
            rows = tomllib.load(file).get("equivalent", [])
        found |= {
            (row["module"], row["function"], row["was"].strip(), row["now"].strip()): row["reason"] for row in rows
        }
    return found


def equivalence(known: Equivalent, module: str, function: str, was: str, now: str) -> str | None:
    """Why a mutant is equivalent, None if it is not known to be."""
    return known.get((module, function, was.strip(), now.strip()))


def title(sample: int | None, seed: int) -> str:
    return "all mutants" if sample is None else f"a sample of {sample} mutants, seed {seed}"


def written(found: list[tuple[Any, Mutant]], rows: dict[str, dict[str, Any]], known: Equivalent, what: str) -> str:
    """`found`: the mutants asked for, each with its area; `rows`: results by key."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    alive: list[tuple[str, Mutant, str]] = []
    for area, mutant in found:
        outcome = rows.get(mutant.key, {}).get("outcome", "not run")
        if equivalence(known, mutant.module, mutant.function, mutant.was, mutant.now):
            outcome = "equivalent"
        counts[area.name][outcome] += 1
        if outcome in ("survived", "unreached"):
            alive.append((area.name, mutant, outcome))
    total: Counter[str] = Counter()
    lines = [f"Mutation run: {what}.", "", "| area | mutants | killed | timeouts | survived | equivalent | score |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, count in counts.items():
        total.update(count)
        lines.append(_row(name, count))
    lines += [_row("**all**", total), ""]
    if total["not run"]:
        lines += [f"{total['not run']} mutants were not run.", ""]
    lines.append(
        "Score: killed and timeouts among those that are not equivalent. Survived: those that no test reaches too."
    )
    if alive:
        lines += ["", "## Survivors", ""]
    for area, mutant, outcome in alive:
        lines += [
            f"- `{mutant.key}` {area}: `{mutant.module}:{mutant.first}` {mutant.function}"
            + (" (no test reaches it)" if outcome == "unreached" else ""),
            "",
            "  ```diff",
            *(f"  {line}" for line in mutant.diff.split("\n")),
            "  ```",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, count: Counter[str]) -> str:
    killed, late, alive = count["killed"], count["timeout"], count["survived"] + count["unreached"]
    ran = killed + late + alive
    score = f"{(killed + late) / ran:.1%}" if ran else "–"
    return f"| {name} | {sum(count.values())} | {killed} | {late} | {alive} | {count['equivalent']} | {score} |"
