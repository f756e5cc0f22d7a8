"""The tool itself: what it plants, what it leaves alone, and that its tables name what is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.mutants.command import SOURCE, read_table
from tests.mutants.mutate import mutants
from tests.mutants.report import Counter, _row, equivalence, read_equivalent
from tests.mutants.runner import expanded, sampled


def planted(line: str) -> set[str]:
    """The changed lines of the mutants of a function with one line."""
    return {mutant.now for mutant in mutants("m.py", f"def f(a, b, c) -> int:\n    {line}\n")}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("return g(a, b=c)", "return g(a)"),  # an argument forgotten
        ("return g(a, b)", "return g(a)"),
        ("return max(a, b)", "return min(a, b)"),
        ("return a.mean()", "return a.sum()"),
        ("return a.mean()", "return a[0]"),
        ("return mean(a)", "return a[0]"),
        ("return sorted(a)", "return (list(a))"),
        ("return a.strip()", "return a"),
        ("return digest((a, b))", "return digest((a,))"),  # an ingredient of a key
        ("return a and b", "return a"),
        ("return [x for x in a if x]", "return [x for x in a]"),
        ("return a[:b]", "return a[:]"),
        ("return a < b", "return a <= b"),
        ("return a + 1", "return a + 2"),
        ("return a + 1", "return a - 1"),
        ("return a is None", "return a is not None"),
        ("a.b = c", "pass"),
        ("a.append(c)", "pass"),
        ('return f" {a} "', 'return f"{a} "'),
    ],
)
def test_a_fault_that_programmers_make_is_planted(line, wrong):
    assert wrong in planted(line)


def test_a_branch_and_a_lock_are_dropped():
    text = "def f(a) -> int:\n    if a:\n        a = 2\n    with a:\n        a = g(a)\n    return a\n"
    assert {"if False:", "if True:"} <= {mutant.now for mutant in mutants("m.py", text)}


@pytest.mark.parametrize(
    "line",
    ['log.info("a %d", 1)', 'raise ValueError("a" + b)', "assert a < b", "import os", 'return "text"', "return a"],
)
def test_what_changes_no_result_is_left_alone(line):
    assert all(now == "pass" for now in planted(line))  # that it is raised at all is a rule


def test_fields_of_a_dataclass_are_left_alone():
    assert list(mutants("m.py", "class C:\n    a: int = 1\n")) == []


def test_a_mutant_is_known_by_its_lines_wherever_they_are():
    text = "def f(a) -> int:\n    return a + 1\n"
    here, below = (next(mutants("m.py", given)) for given in (text, f"import os\n\n\n{text}"))
    assert here.key == below.key
    assert here.first + 3 == below.first


def test_every_mutant_differs_and_compiles():
    text = Path(SOURCE / "rag_experiments/evaluation/metrics.py").read_text("utf-8")
    sources = [mutant.source for mutant in mutants("m.py", text)]
    assert len(sources) > 50
    assert len({*sources, text}) == len(sources) + 1
    for source in sources:
        compile(source, "m.py", "exec", dont_inherit=True)


def test_the_table_names_files_that_are_there():
    """A file that was moved would leave its faults unplanted, or end the run."""
    areas = read_table()
    assert {area.name for area in areas} >= {"losses", "evaluation", "comparison", "data", "runs"}
    assert all(area.modules and area.tests for area in areas)
    with pytest.raises(SystemExit, match="names no file"):
        expanded(SOURCE, ["tests/no_such_file.py"])


def test_what_is_called_equivalent_is_still_there():
    """The lines of the entries stand in their modules, up to blanks."""

    def bare(text: str) -> str:
        return "".join(text.split())

    stale = []
    for file in sorted((SOURCE / "tests/mutants").glob("equivalent*.toml")):
        for row in tomllib.loads(file.read_text("utf-8"))["equivalent"]:
            module = SOURCE / row["module"]
            assert row["reason"]
            if not module.is_file() or bare(row["was"]) not in bare(module.read_text("utf-8")):
                stale.append((file.name, row["function"], row["was"]))
    assert stale == []


def test_an_equivalent_is_found_by_what_is_changed_where(tmp_path):
    (tmp_path / "equivalent.toml").write_text(
        '[[equivalent]]\nmodule = "m.py"\nfunction = "f"\nwas = "a"\nnow = "b"\nreason = "same"\n'
    )
    known = read_equivalent(tmp_path)
    assert equivalence(known, "m.py", "f", " a ", "b") == "same"
    assert equivalence(known, "m.py", "g", "a", "b") is None


def test_a_larger_sample_contains_a_smaller_one():
    text = Path(SOURCE / "rag_experiments/evaluation/metrics.py").read_text("utf-8")
    found = [(None, mutant) for mutant in mutants("m.py", text)]
    small, large, other = (
        {mutant.key for _, mutant in sampled(found, count, seed)} for count, seed in ((5, 0), (20, 0), (5, 1))
    )
    assert len(small) == 5
    assert small < large
    assert other != small


def test_the_score_counts_neither_equivalents_nor_what_was_not_run():
    row = _row("area", Counter(killed=6, timeout=1, survived=2, unreached=1, equivalent=4, **{"not run": 5}))
    assert row == "| area | 19 | 6 | 1 | 3 | 4 | 70.0% |"
