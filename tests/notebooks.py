"""Notebooks of docs/notebooks, run from top to bottom in a kernel of their own.

    python -m tests.notebooks        runs each and stores what it shows (make notebooks)

Standard error, which has progress bars and log lines, is left out of what is stored.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def execute(notebook: Path, folder: Path) -> Any:
    """The notebook after a run in `folder`, which is its working directory and has its cache.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell ended with an error.
    """
    import nbformat
    from nbclient import NotebookClient

    nodes = nbformat.read(notebook, as_version=4)
    environment = {**os.environ, "RAG_EXPERIMENTS_CACHE": "cache"}
    environment.pop("WANDB_MODE", None)  # wandb prints a line about it; the notebook tracks nothing
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(nodes, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    return nodes


def shown(nodes: Any) -> list[list[Any]]:
    """What each code cell shows, standard error apart; what it printed in several pieces is one."""
    found: list[list[Any]] = []
    for cell in (cell for cell in nodes.cells if cell.cell_type == "code"):
        outputs: list[Any] = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                continue
            if outputs and output.get("name") == outputs[-1].get("name") == "stdout":
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        found.append(outputs)
    return found


def store(notebook: Path) -> None:
    """Run a notebook and write what it shows into its file."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        nodes = execute(notebook, Path(folder))
    cells = [cell for cell in nodes.cells if cell.cell_type == "code"]
    for cell, outputs in zip(cells, shown(nodes), strict=True):
        cell.outputs = outputs
        cell.metadata = {}
    nodes.metadata = {"kernelspec": nodes.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(nodes, notebook)


if __name__ == "__main__":
    for path in NOTEBOOKS:
        print(path)
        store(path)
