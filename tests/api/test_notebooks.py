"""The notebooks run as they are, show what they are stored with, and show the figures of the runs that they made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.notebooks import NOTEBOOKS, execute, shown

PRESENT = [path.stem for path in NOTEBOOKS]


def kinds(outputs):
    """What sort of thing each cell shows: printed text, a table, an array."""
    return [[(one.output_type, one.get("name"), sorted(one.get("data", {}))) for one in cell] for cell in outputs]


def test_there_is_a_first_notebook():
    assert "first_run" in PRESENT


@pytest.mark.parametrize("path", NOTEBOOKS, ids=PRESENT)
def test_what_is_stored_names_no_place_of_whoever_stored_it(path):
    import nbformat

    nodes = nbformat.read(path, as_version=4)
    nbformat.validate(nodes)
    said = json.dumps([cell.get("outputs") for cell in nodes.cells])
    for place in ("/tmp", "/root", "/home", "/Users"):
        assert place not in said
    assert all(shown(nodes)[1:]), "every cell but the import shows something"
    numbers = [cell.execution_count for cell in nodes.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1)), "run once, from top to bottom"


@pytest.mark.real
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=PRESENT)
def test_it_runs_from_top_to_bottom_and_shows_what_was_run(path, tmp_path):
    import nbformat

    stored = nbformat.read(path, as_version=4)
    ran = execute(path, tmp_path)
    assert kinds(shown(ran)) == kinds(shown(stored))
    text = json.dumps(shown(ran))
    runs = sorted(Path(tmp_path).glob("outputs/*/*/metrics.json"))
    assert runs
    for file in runs:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        assert f"{metrics['test/recall@4']:.3f}" in text
