"""The table of runs. A section holds runs that may be compared; in it, groups (the seeds of one config), best first.

Runs are in one section if they answered the same questions over the same passages on the stage of the primary metric.
The hash of the corpus and the digest of the questions decide this, never paths or names.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rag_experiments.comparison.analysis import table_columns
from rag_experiments.comparison.analysis.labels import Options, labels_of, option_names, setting
from rag_experiments.comparison.records.metric_fields import Fields, group_value, higher_is_better, split_metric
from rag_experiments.comparison.records.run_records import RunRecord


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of a group; `sd` is None for a single seed."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return number(self.mean) if self.sd is None else f"{number(self.mean)} ± {number(self.sd)} ({self.n})"


def number(value: float) -> str:
    """Format a number with three decimals below ten and fewer above."""
    if value != value:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def _seed_order(seed: Any) -> tuple[int, float, str]:
    """Sort key: numbers first, then texts, then None."""
    if seed is None:
        return 2, 0, ""
    return (1, 0, seed) if isinstance(seed, str) else (0, seed, "")


@dataclass
class Group:
    """Runs that differ only in their seed. `label` names the settings that distinguish the group in its table."""

    runs: list[RunRecord]
    label: str = ""

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The newest completed run of each seed, because a repeated run is not a second seed."""
        newest: dict[Any, RunRecord] = {}
        for run in sorted(self.runs, key=lambda run: (str(run.status.get("started") or ""), str(run.path))):
            if run.completed:
                newest[run.seed] = run
        return sorted(newest.values(), key=lambda run: _seed_order(run.seed))

    def count(self, run: RunRecord) -> None:
        """Count this completed run instead of newer ones with its seed, because the user named it."""
        if run.completed and run not in self.counted:
            self.counted = [run if other.seed == run.seed else other for other in self.counted]

    @property
    def seeds(self) -> list[Any]:
        return [run.seed for run in self.counted]

    @property
    def repeated(self) -> int:
        """The number of completed runs that do not count because a newer one has their seed."""
        return sum(run.completed for run in self.runs) - len(self.counted)

    @property
    def name(self) -> str:
        """The name of the run, or the common part of several names."""
        names = [run.name for run in self.runs]
        if len(names) == 1:
            return names[0]
        return f"{min(names)} (+{len(names) - 1})"

    @property
    def state(self) -> str:
        """`completed` if all runs are; else the number of runs in each state."""
        states = Counter(run.state for run in self.runs)
        if len(states) == 1:
            return next(iter(states))
        return ", ".join(f"{count} {state}" for state, count in states.most_common())

    def summary(self, metric: str) -> Summary | None:
        """The metric over the counted runs; None if none of them has it."""
        values = [run.metrics[metric] for run in self.counted if metric in run.metrics]
        if not values:
            return None
        return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def value(self, key: str) -> Any:
        return self.runs[0].flat.get(key)


@dataclass
class Section:
    """Groups that answered the same questions over the same passages."""

    title: str
    groups: list[Group]
    key: tuple[str, str]

    @property
    def runs(self) -> list[RunRecord]:
        return [run for group in self.groups for run in group.runs]


@dataclass
class RunTable:
    """Runs arranged for reading.

    Args:
        runs: from `load_runs`.
        metric: the primary metric, in full or short (`recall@4`); None: one that most runs have, on test if possible.
        metrics: the metrics shown as columns; None: the usual ones for the primary metric.
        grouped: False gives each seed a row of its own.

    Raises:
        RequestError: no run has the metric.
    """

    runs: Sequence[RunRecord]
    metric: str | None = None
    metrics: Sequence[str] | None = None
    grouped: bool = True
    sections: list[Section] = field(init=False)
    notes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        fields = Fields(self.runs)
        self.metric = fields.metric(self.metric) if self.metric else table_columns.default_metric(self.runs)
        if self.metrics is None:
            self.metrics = table_columns.default_metrics(self.runs, self.metric) if self.metric else []
        else:
            self.metrics = list(dict.fromkeys(fields.metric(name) for name in self.metrics))
        readable = [run for run in self.runs if run.config]
        self.config = table_columns.config_columns(readable)
        self.stage = split_metric(self.metric)[0] if self.metric else ""
        self.sections = self._sections()
        self._label_groups()
        self.notes = notes(self)

    @property
    def groups(self) -> list[Group]:
        return [group for section in self.sections for group in section.groups]

    def shown(self, group: Group, key: str) -> str:
        """A config value as the table shows it; an option of a group is shown by its name."""
        return setting(group.runs[0], key, self._options)

    @cached_property
    def _options(self) -> Options:
        return option_names(self.runs)

    def _label_groups(self) -> None:
        groups = self.groups
        for group, label in zip(groups, labels_of([group.runs for group in groups], self._options), strict=True):
            group.label = label or group.name

    def _sections(self) -> list[Section]:
        by_key: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
        home: dict[tuple[Any, Any], tuple[str, str]] = {}
        later = []
        for run in self.runs:
            if run.completed or self.stage in run.stages:
                key = run.comparable_key(self.stage)
                by_key[key].append(run)
                home.setdefault((run.status.get("data_hash"), run.status.get("corpus_hash")), key)
            else:
                later.append(run)
        for run in later:  # unfinished: put it with the runs on the same data
            data = (run.status.get("data_hash"), run.status.get("corpus_hash"))
            by_key[home.setdefault(data, run.comparable_key(self.stage))].append(run)
        sections = [Section(section_title(runs, self.stage), self._grouped(runs), key) for key, runs in by_key.items()]
        return sorted(sections, key=lambda section: -len(section.runs))

    def _grouped(self, runs: Sequence[RunRecord]) -> list[Group]:
        members: dict[str, list[RunRecord]] = defaultdict(list)
        for run in sorted(runs, key=lambda run: str(run.path)):  # not as they were named: the order must be stable
            members[table_columns.group_key(run) if self.grouped else str(run.path)].append(run)
        sign = -1 if self.metric and higher_is_better(self.metric) else 1

        # Readers behind one retriever have one recall: where encoders make that the first figure, their own decides.
        own = next(name for name in (f"{self.stage}/f1", f"{self.stage}/exact_match") if name != self.metric)

        def rank(group: Group) -> tuple[bool, float, float, str]:
            summary = group.summary(self.metric) if self.metric else None
            second = group.summary(own)
            best = sign * summary.mean if summary else 0.0
            return summary is None, best, -second.mean if second else 0.0, str(group.runs[0].path)

        return sorted((Group(runs) for runs in members.values()), key=rank)


def section_title(runs: Sequence[RunRecord], stage: str) -> str:
    """The section's title: its data, and the number of questions and passages."""
    run = next((run for run in runs if stage in run.stages), runs[0])
    data = run.status.get("data") or {}
    name = group_value(run, "data") or data.get("format") or "unknown data"
    path = data.get("path") or run.flat.get("data.path")
    where = f" {path}" if path else ""
    info = run.stages.get(stage)
    counts = [f"{info.questions} {stage} questions"] if info else []
    counts += [f"{data['passages']} passages"] if "passages" in data else []
    return f"{name}{where}" + (f": {' over '.join(counts)}" if counts else "")


def notes(table: RunTable) -> list[str]:
    """Notes that a reader of the table needs."""
    lines = []
    with_runs = [section for section in table.sections if any(run.completed for run in section.runs)]
    if len(with_runs) > 1:
        lines.append(
            f"{len(with_runs)} different sets of questions or passages: figures of different sections do not compare."
        )
    for section in with_runs:
        done = [run for run in section.runs if run.completed]
        if len({run.status.get("data_hash") for run in done}) > 1:
            lines.append(
                f"{section.title}: same questions and passages, but the data differs elsewhere (training set?)."
            )
        unknown = sum(table.stage not in run.stages for run in done) if table.stage else 0
        if unknown:
            lines.append(
                f"{unknown} runs have no {table.stage} predictions: that they share their questions is assumed."
            )
    states = Counter(run.state for run in table.runs if not run.completed)
    if states:
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        lines.append(f"Not completed, so without final figures: {counts}.")
    lines += [f"{run.name}: {run.problem}." for run in table.runs if run.problem]
    repeated = sum(group.repeated for group in table.groups)
    if repeated and table.grouped:
        lines.append(f"{repeated} runs repeat the config and seed of a newer one and are not counted.")
    sizes = {len(group.counted) for group in table.groups if group.counted}
    if table.grouped and len(sizes) > 1:
        lines.append(f"Incomplete: groups have between {min(sizes)} and {max(sizes)} finished seeds.")
    commits = {run.status.get("git_commit") for run in table.runs if run.completed} - {None}
    if len(commits) > 1:
        lines.append(f"The runs were made by {len(commits)} versions of the code (git_commit in status.json).")
    by_selector: dict[str, list[str]] = defaultdict(list)
    for key, selector in table.config.hidden.items():
        holders = {str(run.flat.get(selector)) for run in table.runs if key in run.flat}
        if len(holders) > 1:  # a key that only one option has belongs to that option
            by_selector[selector].append(key)
    for selector, keys in by_selector.items():
        more = f" and {len(keys) - 6} more" if len(keys) > 6 else ""
        lines.append(f"Differ together with {selector}: {', '.join(keys[:6])}{more}.")
    return lines
