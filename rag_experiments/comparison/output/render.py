"""A table, its verdicts and its pivot → text in every format. All formats show the same figures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag_experiments.comparison.analysis import causes, matrix, seed_repeats
from rag_experiments.comparison.analysis.before_after import BeforeAfter
from rag_experiments.comparison.analysis.judgement import Comparison
from rag_experiments.comparison.analysis.labels import telling_keys
from rag_experiments.comparison.analysis.matrix import Matrix
from rag_experiments.comparison.analysis.table import Group, RunTable, Section
from rag_experiments.comparison.analysis.table_columns import BOOKKEEPING, MAX_SHOWN, config_columns, metric_label
from rag_experiments.comparison.records.metric_fields import Fields, short_labels, short_value, value_of
from rag_experiments.core import text_table
from rag_experiments.core.text_table import Grid
from rag_experiments.core.visible import json_visible

BESIDE = 4
"""Settings before the figures in the report; the others come after them."""
REPEATED = 4
"""Runs up to which the terminal names questions and commands."""
FORMATS = ("table", "csv", "markdown", "latex", "json", "html")


@dataclass
class Document:
    """Everything one call shows."""

    table: RunTable
    comparison: Comparison | None = None
    pivot: tuple[str, str] | None = None
    changes: BeforeAfter | None = None
    beside: list[BeforeAfter] = field(default_factory=list)
    """A single run beside the baselines that were measured with it."""
    """A single run's before and after."""
    notes: list[str] = field(default_factory=list)
    """What was said about the choice of runs."""

    def grids(self, all_columns: bool = False) -> list[Grid]:
        """The runs, then the pivot, before/after, the verdicts and their causes."""
        grids = table_grids(self.table, all_columns)
        if grids:
            grids[-1].notes = [*self.notes, *grids[-1].notes]
        if self.pivot:
            grids += [pivot.grid() for pivot in pivots(self.table, *self.pivot)]
        if self.changes is not None and self.changes:
            grids.append(
                self.changes.grid("before and after training, with 95 % intervals (the difference's is paired)")
            )
        grids += [table.grid(f"beside {table.baseline}, with 95 % intervals") for table in self.beside if table]
        for section in self.table.sections:
            if (by_reader := matrix.retriever_by_reader(self.table, section)) is not None:
                grids.append(by_reader.grid())
        if self.comparison:
            grids.append(self.comparison.grid())
            grids += causes.grids(self.table, self.comparison.baseline, self.comparison.candidates)
        return grids

    def all_grids(self) -> list[Grid]:
        """With `details`."""
        return [*self.grids(), *self.details()]

    def details(self) -> list[Grid]:
        """What the report shows at length, in short: the questions that changed most, how to repeat a run."""
        if self.comparison is None or len(self.table.runs) > REPEATED:
            return []
        baseline, metric = self.comparison.baseline, self.table.metric or ""
        question_grids = [causes.changed_grid(baseline, candidate, metric) for candidate in self.comparison.candidates]
        rows = [[run.name, line] for run in self.table.runs if (line := seed_repeats.command(run))]
        repeats = [Grid("repeat a run", ["run", "command"], rows, [False, False])] if rows else []
        return [*(one for one in question_grids if one is not None), *repeats]


def render(document: Document, form: str) -> str:
    """The document as one of `FORMATS`, html apart (see `report`)."""
    if form == "json":
        return json_visible(json.dumps(records(document), ensure_ascii=False, indent=2, allow_nan=False))
    if form == "csv":
        return _csv(document.table)
    writers = {"table": text_table.to_text, "markdown": text_table.to_markdown, "latex": text_table.to_latex}
    return writers[form](document.grids() if form == "latex" else document.all_grids())


def table_grids(table: RunTable, all_columns: bool = False) -> list[Grid]:
    """A grid a section, with the settings that differ in it and the metrics that it has."""
    grids = []
    for index, section in enumerate(table.sections):
        keys = section_keys(table, section)
        shown = keys if all_columns else keys[:MAX_SHOWN]
        before = shown[:BESIDE] if all_columns else shown
        grids.append(_section_grid(table, section, before, shown[len(before) :]))
        if len(table.sections) > 1:
            grids[-1].title = f"{chr(65 + index % 26)}. {section.title}"
        if len(keys) > len(shown):
            grids[-1].notes = [f"Differ as well (in csv, json, html): {', '.join(keys[len(shown) :])}."]
    if grids:
        grids[-1].notes += table.notes
    return grids


def section_keys(table: RunTable, section: Section) -> list[str]:
    """What the runs are, then the settings that differ among the section's, those that tell them apart first."""
    differ = table.config if len(table.sections) == 1 else config_columns([run for run in section.runs if run.config])
    telling = [key for key in telling_keys([group.runs[0] for group in section.groups]) if key in differ.shown]
    names = [key for key in ("algorithm.name", "model.path") if key in table.config.shown]
    rest = sorted(differ.shown, key=lambda key: key.removeprefix("trainer.").startswith(BOOKKEEPING))  # those last
    return list(dict.fromkeys([*names, *telling, *rest]))


def _section_grid(table: RunTable, section: Section, keys: Sequence[str], later: Sequence[str]) -> Grid:
    """`later`: settings that stand after the figures, so that a wide table does not begin with many of them."""
    with_seed = not table.grouped
    labels = short_labels([*keys, *later])
    metrics = [m for m in table.metrics or [] if m == table.metric or any(group.summary(m) for group in section.groups)]
    headers = ["run", *(labels[key] for key in keys), *(["seed"] if with_seed else [])]
    config_width = len(headers)
    headers += [metric_label(metric, table.stage) for metric in metrics]
    states = any(group.state != "completed" for group in section.groups)
    headers += ["state"] if states else []
    headers += [labels[key] for key in later]
    rows = []
    for group in section.groups:
        row = [group.name, *(table.shown(group, key) for key in keys)]
        row += [short_value(group.runs[0].seed)] if with_seed else []
        row += [str(group.summary(metric) or "–") for metric in metrics]
        row += [group.state] if states else []
        rows.append(row + [table.shown(group, key) for key in later])
    numeric = [0 < index < config_width and _is_numeric(rows, index) for index in range(config_width)]
    numeric += [True] * len(metrics) + ([False] if states else [])
    numeric += [_is_numeric(rows, index) for index in range(len(numeric), len(headers))]
    return Grid(section.title, headers, rows, numeric)


def _is_numeric(rows: Sequence[Sequence[str]], index: int) -> bool:
    return all(row[index].lstrip("-").replace(".", "").replace("e-", "").isdigit() or row[index] == "–" for row in rows)


def pivots(table: RunTable, down: str, across: str) -> list[Matrix]:
    """Mean of the primary metric per value of two keys, a matrix a section.

    Raises:
        RequestError: no run has one of the keys.
    """
    fields = Fields(table.runs)
    down, across = fields.resolve(down), fields.resolve(across)
    matrices = []
    for section in table.sections:
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for group in section.groups:
            for run in group.counted:
                if table.metric in run.metrics:
                    key = short_value(value_of(run, down)), short_value(value_of(run, across))
                    values[key].append(run.metrics[table.metric])
        if values and (len(values) > 1 or len(table.sections) == 1):  # a single cell says nothing beside the table
            title = f"{table.metric}: {down} (rows) × {across} (columns), mean ± sd (runs); {section.title}"
            matrices.append(matrix.build(title, values))
    return matrices


def records(document: Document) -> dict[str, Any]:
    """Everything with full precision and full names."""
    table = document.table
    value: dict[str, Any] = {
        "metric": table.metric,
        "notes": [*document.notes, *table.notes],
        "sections": [
            {"title": section.title, "corpus_hash": section.key[0], "questions": section.key[1]}
            | {"groups": [_group_record(table, group) for group in section.groups]}
            for section in table.sections
        ],
    }
    if document.pivot:
        value["pivot"] = [asdict(pivot) for pivot in pivots(table, *document.pivot)]
    if document.changes is not None:
        value["before_after"] = {"rows": document.changes.records(), "notes": document.changes.notes}
    if document.beside:
        value["baselines"] = {str(table.baseline): table.records() for table in document.beside}
    if document.comparison:
        value["verdicts"] = document.comparison.records()
        value["verdict_notes"] = document.comparison.notes
    return _finite(value)


def _group_record(table: RunTable, group: Group) -> dict[str, Any]:
    summaries = {metric: group.summary(metric) for metric in table.metrics or []}
    return {
        "runs": [
            {"path": str(run.path), "name": run.name, "seed": run.seed, "state": run.state, "metrics": run.metrics}
            for run in group.runs
        ],
        "label": group.label,
        "state": group.state,
        "config": {key: group.value(key) for key in table.config.shown},
        "metrics": {m: {"mean": s.mean, "sd": s.sd, "n": s.n} for m, s in summaries.items() if s is not None},
    }


def _finite(value: Any) -> Any:
    """NaN and infinities become null: JSON has none."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _csv(table: RunTable) -> str:
    """A row a group, every config key that differs, full precision."""
    keys = [*table.config.shown, *table.config.hidden]
    metrics = list(table.metrics or [])
    headers = ["section", "run", "state", "seeds", *keys]
    headers += [f"{metric}{suffix}" for metric in metrics for suffix in ("", " sd", " n")]
    rows = []
    for index, section in enumerate(table.sections):
        for group in section.groups:
            seeds = " ".join(map(str, group.seeds))
            row: list[object] = [index + 1, str(group.runs[0].path), group.state, seeds]
            row += [_plain(group.value(key)) for key in keys]
            for metric in metrics:
                summary = group.summary(metric)
                row += [summary.mean, summary.sd, summary.n] if summary else [None, None, 0]
            rows.append(row)
    return text_table.to_csv(headers, rows)


def _plain(value: Any) -> object:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
