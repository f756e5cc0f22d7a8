"""A finished run, evaluated again: on other data, behind another retriever, with another k or decoding.

    python -m rag_experiments.evaluate run=<dir> [name=…] [overrides]
    python -m rag_experiments.evaluate run=outputs/swr/… retriever.k=8 evaluation.oracle=true
    python -m rag_experiments.evaluate run=… model@retriever.encoder=run retriever.encoder.path=run://outputs/ctl/…

The run itself is not changed: figures and predictions go to `<run>/evaluations/<name>/`. The code is that of the run's
own evaluation, so the same overrides give the same figures; only a second model with random weights (`init=random`) is
drawn again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag_experiments.config import command_line
from rag_experiments.core.credentials import mask_secrets, refuse_secrets
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import (
    atomic_directory,
    atomic_write_json,
    atomic_write_jsonl,
    atomic_write_text,
    safe_name,
)
from rag_experiments.core.visible import say
from rag_experiments.training.reopen import Reopened, reopen, split_run

log = logging.getLogger(__name__)

PURPOSE = "Evaluate a finished run again: on other data, with another retriever, k or decoding."
USAGE = f"""{PURPOSE}

    python -m rag_experiments.evaluate run=<dir> [name=<word>] [group=option …] [key=value …]

The figures go to <run>/evaluations/<name>/. What made the model (algorithm, model, seed, trainer) cannot be changed;
data, retriever, evaluation, model.batch_size, model.max_new_tokens and model.precision can. With
retriever=bm25 the run of an encoder is shown before and after training beside BM25."""


def main() -> None:
    """The console script and `python -m`."""
    command_line.exit_with(start)


def start(arguments: list[str]) -> int:
    """From the typed arguments to an exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return command_line.DONE
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    line = command_line.parse(arguments)
    refuse_secrets(line.overrides)
    directory, changes = split_run(line.overrides, "evaluate")
    folder, changes = split_name(directory, changes)
    opened = reopen(directory, changes, line.config_dir)
    metrics = evaluate(opened, folder, arguments)
    if opened.run.writes:
        print_beside(opened.run.read_final_metrics(), metrics)
        print_paired(opened, folder)
        say(f"\nwritten to {folder}")
    return command_line.DONE


def split_name(directory: Path, changes: list[str]) -> tuple[Path, list[str]]:
    """The folder of an evaluation, which `name=<word>` or the changes name, and the changes without `name=`."""
    named = [value.partition("=")[2] for value in changes if value.startswith("name=")]
    changes = [value for value in changes if not value.startswith("name=")]
    name = safe_name(named[-1] if named else "_".join(changes) or "again")
    return directory / "evaluations" / name, changes


def evaluate(opened: Reopened, folder: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Figures of `evaluation.splits`, written to `folder` whole or not at all.

    Args:
        arguments: what was typed, for `status.json`.

    Raises:
        RequestError: a split without questions.
    """
    from omegaconf import OmegaConf

    from rag_experiments.training import build, stages

    request = opened.request
    splits: list[str] = list(request.config.evaluation.splits)
    for split in splits:
        if not request.data.splits.get(split):
            raise RequestError(f"data.path={request.config.data.path}: the {split} split has no questions")
    components = build.build_components(request)
    components.evaluator.timed = True
    metrics: dict[str, float] = {}
    predictions: dict[str, list[dict[str, Any]]] = {}
    for split in splits:
        log.info("evaluating %s on %d questions", split, len(request.data.splits[split]))
        result = components.evaluate(request.data.splits[split], persist=True)
        metrics |= {f"{split}/{name}": value for name, value in result.metrics.items()}
        predictions[split] = result.rows
    for stage, result in stages.baseline_results(components, stages.baseline_stages(components)):
        metrics |= {f"{stage}/{name}": value for name, value in result.metrics.items()}
        predictions[stage] = result.rows
    if opened.run.writes:
        with atomic_directory(folder) as temporary:
            settings = OmegaConf.to_yaml(OmegaConf.create(mask_secrets(request.resolved)))
            atomic_write_text(temporary / "config.yaml", settings)
            atomic_write_json(temporary / "metrics.json", metrics)
            atomic_write_json(temporary / "status.json", status(opened, arguments))
            for stage, rows in predictions.items():
                atomic_write_jsonl(temporary / "predictions" / f"{stage}.jsonl", rows)
    return metrics


def status(opened: Reopened, arguments: Sequence[str]) -> dict[str, Any]:
    """What lets `rag-compare` hold an evaluation against runs: state, data, and the run that it is of."""
    earlier = opened.run.read_status()
    inherited = ("algorithm", "git_commit", "git_dirty", "versions")
    data = opened.request.data
    return {
        **{key: earlier.get(key) for key in inherited},
        "state": "completed",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_hash": opened.request.config_hash,
        "data_hash": data.content_hash,
        "corpus_hash": data.corpus_hash,
        "data": {
            "format": opened.request.config.data.format,
            "path": opened.request.config.data.path,
            "passages": len(data.passages),
        },
        "evaluation_of": str(opened.run.path),
        "command": " ".join([Path(sys.executable).name, "-m", "rag_experiments.evaluate", *arguments]),
    }


def print_beside(before: dict[str, float], now: dict[str, float]) -> None:
    """One line a metric: before training, in the run, and here."""
    from rag_experiments.core import text_table

    shown = [name for name in now if not name.endswith(("_ci_low", "_ci_high"))]
    columns: list[tuple[str, dict[str, float]]] = [("in the run", before), ("here", now)]
    untrained = {name.removeprefix("zero_shot/"): value for name, value in before.items() if name.startswith("zero")}
    if untrained.keys() & set(shown):
        columns.insert(0, ("before training", untrained))
    rows = [[name, *(f"{of[name]:.4f}" if name in of else "" for _, of in columns)] for name in shown]
    headers = ["metric", *(header for header, _ in columns)]
    text_table.show([text_table.Grid("", headers, rows, [False] + [True] * len(columns))])


def print_paired(opened: Reopened, folder: Path) -> None:
    """For an encoder's run that was measured without its encoder: training against that retriever, paired."""
    from rag_experiments.comparison import before_after
    from rag_experiments.config.kinds import RETRIEVER_KINDS
    from rag_experiments.core import text_table

    retriever = opened.request.config.retriever.type
    if RETRIEVER_KINDS[retriever].needs_encoder or opened.request.config.model.kind != "encoder":
        return
    tables = [before_after(opened.run), before_after(opened.run, baseline=retriever, measured=folder)]
    text_table.show([table.grid() for table in tables if table])


if __name__ == "__main__":
    main()
