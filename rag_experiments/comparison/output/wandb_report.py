"""`--wandb-report`: the same comparison as a W&B report, through `wandb-workspaces` (extra `report`).

The plan of the report is plain data and needs neither the package nor a network; where there is no key, or W&B is
set offline, the plan is what is printed. Only `publish` imports the package.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from rag_experiments.comparison.analysis.judgement import headline
from rag_experiments.comparison.analysis.table_columns import MAX_SHOWN
from rag_experiments.comparison.output.figure_choice import costs
from rag_experiments.comparison.output.render import Document
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text_table import to_markdown
from rag_experiments.runs.tracking_names import metric_name, session_mode


@dataclass(frozen=True)
class Panel:
    """One chart: `kind` is line, bar, scatter, parallel or comparer; the other fields are what it shows."""

    kind: str
    metrics: tuple[str, ...] = ()
    config: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = {
            "line": "curves of {} by step",
            "bar": "bars of {}",
            "scatter": "{} against {}",
            "parallel": "parallel coordinates of {} to {}",
            "comparer": "the runs' settings side by side",
        }
        if self.kind == "parallel":
            return words["parallel"].format(", ".join(self.config), self.metrics[0])
        return words[self.kind].format(*reversed(self.metrics)) if self.metrics else words[self.kind]


@dataclass(frozen=True)
class ReportPlan:
    """What the report holds. `runs`: (entity, project) → W&B run ids."""

    title: str
    text: list[str]
    """Markdown: headlines, tables, notes."""
    runs: dict[tuple[str | None, str], list[str]]
    panels: list[Panel]
    untracked: int
    """Compared runs that W&B does not know."""

    def __str__(self) -> str:
        lines = [f"W&B report {self.title!r}:"]
        for (entity, project), ids in self.runs.items():
            lines.append(f"  {len(ids)} runs of {entity or '(your default entity)'}/{project}: {', '.join(ids)}")
        if self.untracked:
            lines.append(f"  {self.untracked} runs are left out: they have no W&B run (tracking=none)")
        lines += ["  text:"] + [f"    {line}" for block in self.text for line in block.splitlines()]
        return "\n".join([*lines, "  panels:", *(f"    {panel}" for panel in self.panels)])


def make_report(document: Document) -> str:
    """Publish the report where W&B can be reached and a key is there, else say what it would hold.

    Raises:
        RequestError: no compared run is known to W&B, the package is missing, or W&B did not take the report.
    """
    plan = plan_report(document)
    if not plan.runs:
        raise RequestError("--wandb-report: none of these runs was tracked by W&B (tracking=wandb)")
    if session_mode("auto") != "online":
        return f"W&B is offline here (no key, or WANDB_MODE says so). Online this would create:\n{plan}"
    try:
        return f"W&B report: {publish(plan)}"
    except RequestError:
        raise
    except Exception as error:  # the package raises bare Exceptions for a refused key and for a lost network
        raise RequestError(f"--wandb-report: W&B did not take the report: {str(error).splitlines()[0]}") from error


def plan_report(document: Document) -> ReportPlan:
    """The report as plain data."""
    table, comparison = document.table, document.comparison
    runs: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    untracked = 0
    for run in table.runs:
        run_id = run.status.get("wandb_run_id")
        if run_id is None:
            untracked += 1
            continue
        entity, project = run.flat.get("tracking.entity"), run.flat.get("tracking.project") or "rag_experiments"
        runs[entity, project].append(run_id)
    headlines = [headline(verdict) for verdict in comparison.verdicts] if comparison else []
    text = [*(["\n".join(f"- {line}" for line in headlines)] if headlines else []), to_markdown(document.grids())]
    title = f"{len(table.runs)} runs by {table.metric}" + (
        f" against {comparison.baseline.label}" if comparison else ""
    )
    return ReportPlan(title, text, dict(runs), _panels(document), untracked)


def _panels(document: Document) -> list[Panel]:
    table = document.table
    if table.metric is None:
        return [Panel("comparer")]
    metric = final_name(table.metric)
    curve = metric_name(table.metric).replace("test/", "dev/")  # what is logged during training is on dev
    panels = [Panel("bar", (metric,)), Panel("line", (curve,)), Panel("line", ("train/loss",))]
    panels += [Panel("scatter", (final_name(price), metric)) for price in costs(table)]
    numeric = [
        key for key in table.config.shown if any(isinstance(run.flat.get(key), int | float) for run in table.runs)
    ]
    if len(numeric) > 1:
        panels.append(Panel("parallel", (metric,), tuple(numeric[:MAX_SHOWN])))
    return [*panels, Panel("comparer")]


def final_name(metric: str) -> str:
    """A final figure's name in a run's summary: under the bare name W&B keeps the best and last of the curve."""
    return f"final/{metric_name(metric)}"


def publish(plan: ReportPlan) -> str:
    """Save the report under the first project and return its address.

    Raises:
        RequestError: the package is not installed.
    """
    return build(plan).save().url


def build(plan: ReportPlan) -> Any:
    """The plan as `wandb_workspaces` objects; no network is needed until it is saved."""
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise RequestError("--wandb-report needs wandb-workspaces: pip install 'rag_experiments[report]'") from error
    runsets = [
        wr.Runset(name=project, filters=f"ID in {ids!r}", **_place(entity, project))
        for (entity, project), ids in plan.runs.items()
    ]
    blocks: list[Any] = [wr.MarkdownBlock(text=text) for text in plan.text]
    blocks.append(wr.PanelGrid(runsets=runsets, panels=[_panel(wr, panel) for panel in plan.panels]))
    return wr.Report(title=plan.title, blocks=blocks, **_place(*next(iter(plan.runs))))


def _place(entity: str | None, project: str) -> dict[str, Any]:
    """Without an entity W&B takes the account's own."""
    return {"project": project} if entity is None else {"project": project, "entity": entity}


def _panel(wr: Any, panel: Panel) -> Any:
    if panel.kind == "line":
        return wr.LinePlot(x="step", y=list(panel.metrics), title=panel.metrics[0])
    if panel.kind == "bar":
        return wr.BarPlot(metrics=[wr.SummaryMetric(panel.metrics[0])], title=panel.metrics[0])
    if panel.kind == "scatter":
        x, y = (wr.SummaryMetric(name) for name in panel.metrics)
        return wr.ScatterPlot(x=x, y=y, title=f"{panel.metrics[1]} against {panel.metrics[0]}")
    if panel.kind == "parallel":
        columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in panel.config]
        columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(panel.metrics[0])))
        return wr.ParallelCoordinatesPlot(columns=columns)
    return wr.RunComparer()
