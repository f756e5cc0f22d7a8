"""The command line of the mutation run."""

from __future__ import annotations

import argparse
import signal
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

from tests.mutants import report
from tests.mutants.runner import (
    Area,
    Job,
    Mutant,
    Runner,
    copies,
    digest,
    expanded,
    listed,
    matching,
    preload,
    reach,
    read_results,
    sampled,
    tests_digest,
)

SOURCE = Path(__file__).parents[2]


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Plant faults; see which go unnoticed."
    )
    parser.add_argument("--modules", nargs="*", default=[], help="only these files (paths, `*` allowed)")
    parser.add_argument(
        "--functions", nargs="*", default=[], help="only these functions (`*` allowed), as Class.method"
    )
    parser.add_argument("--areas", nargs="*", default=[], help="only these areas of table.toml")
    parser.add_argument("--tests", nargs="*", default=[], help="these test files instead of those of the table")
    parser.add_argument("--sample", type=int, help="so many mutants, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--limit", type=int, default=20, help="seconds of processor time beside what its tests need")
    parser.add_argument("--fresh", action="store_true", help="run again what results are kept of")
    parser.add_argument("--whole", action="store_true", help="survivors again with every test that reaches the module")
    parser.add_argument("--list", action="store_true", help="show the mutants and run none")
    parser.add_argument("--results", type=Path, default=SOURCE / ".mutants", help="where results are kept")
    parser.add_argument("--report", type=Path, help="also write the report to this file")
    return parser.parse_args(given)


def read_table() -> list[Area]:
    with (SOURCE / "tests/mutants/table.toml").open("rb") as file:
        rows = tomllib.load(file)["area"]
    return [Area(row["name"], expanded(SOURCE, row["modules"]), expanded(SOURCE, row["tests"])) for row in rows]


def chosen(areas: list[Area], options: argparse.Namespace) -> list[tuple[Area, Mutant]]:
    """The mutants that were asked for, each with the area that counts it and all the tests that hold its module."""
    first: dict[str, Area] = {}
    tests: dict[str, dict[str, None]] = defaultdict(dict)
    for area in areas:
        for module in area.modules:
            first.setdefault(module, area)
            tests[module] |= dict.fromkeys(area.tests)
    unknown = [name for name in options.areas if name not in {area.name for area in areas}]
    if unknown:
        raise SystemExit(f"mutants: no area {unknown[0]!r}; there are {', '.join(area.name for area in areas)}")
    for pattern in options.modules:
        if not any(matching(module, [pattern]) for module in first):
            path = SOURCE / pattern
            if not (path.is_file() and options.tests):
                raise SystemExit(
                    f"mutants: {pattern!r} stands in no area of tests/mutants/table.toml; name its --tests"
                )
            first[pattern] = Area("others", [pattern], [])
    found = []
    for module, area in first.items():
        if (options.modules and not matching(module, options.modules)) or (
            options.areas and area.name not in options.areas
        ):
            continue
        held = Area(area.name, [module], options.tests or list(tests[module]))
        for mutant in listed(SOURCE, options.results, module):
            if not options.functions or matching(mutant.function, options.functions):
                found.append((held, mutant))
    return sampled(found, options.sample, options.seed)


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    # Ended from outside, as by Ctrl-C: the copies go, what runs in them ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = chosen(read_table(), options)
    equivalent = report.read_equivalent(SOURCE / "tests/mutants")
    if options.list:
        for area, mutant in found:
            print(f"{mutant.key} {area.name}: {mutant.module}:{mutant.first} {mutant.function} ({mutant.operator})")
            print(mutant.diff)
        print(f"{len(found)} mutants")
        return
    options.results.mkdir(parents=True, exist_ok=True)
    kept = {} if options.fresh else read_results(options.results / "results.jsonl")
    by_tests: dict[tuple[str, ...], list[tuple[Area, Mutant]]] = defaultdict(list)
    for area, mutant in found:
        by_tests[tuple(area.tests)].append((area, mutant))
    digests = {module: digest(SOURCE, [module]) for module in {mutant.module for _, mutant in found}}
    with copies(SOURCE, options.jobs) as trees:
        for tests, group in by_tests.items():
            now = tests_digest(SOURCE, list(tests))
            jobs = []
            for area, mutant in group:
                # The module's text counts by the mutant's own lines (the key) and by the rest of the file.
                if report.equivalence(equivalent, mutant.module, mutant.function, mutant.was, mutant.now):
                    continue
                row = kept.get(mutant.key)
                same = row is not None and row["module_digest"] == digests[mutant.module]
                # A test that is added or mended cannot let a mutant live that was killed: only survivors run again.
                alive = row is not None and row["outcome"] in ("survived", "unreached")
                if same and row is not None and (not alive or (row["tests_digest"] == now and not options.whole)):
                    continue
                jobs.append(Job(mutant, area, list(tests), digests[mutant.module], now))
            if jobs:
                measured = reach(SOURCE, options.results, trees[0], list(tests))
                preload(measured.imported)
                Runner(options.results, trees, options.whole, options.limit).run(jobs, measured)
    rows = read_results(options.results / "results.jsonl")
    text = report.written(found, rows, equivalent, report.title(options.sample, options.seed))
    (options.results / "report.md").write_text(text)
    if options.report:
        options.report.write_text(text)
    print(text)
