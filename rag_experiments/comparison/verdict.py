"""Which is better than the baseline, by how much, and is it noise.

Every p value that is shown enters one Holm correction: over candidates, metrics, and both questions (other
questions, other seeds). Intervals are 95 % each, not corrected, and are said to be.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rag_experiments.comparison.fields import bare, higher_is_better, split_metric
from rag_experiments.comparison.grid import Grid
from rag_experiments.comparison.loading import RunRecord
from rag_experiments.comparison.pairing import Paired, pair, seed_means
from rag_experiments.comparison.statistics import (
    FEW_CLUSTERS,
    QuestionTest,
    SeedTest,
    holm,
    question_test,
    seed_test,
)
from rag_experiments.comparison.table import Group, RunTable, Section, number
from rag_experiments.errors import RequestError

ALPHA = 0.05
RELEVANT = 0.02
"""Two points: what a difference must be worth to be looked for. Below it lies "no relevant difference"."""


@dataclass(frozen=True)
class Verdict:
    """A candidate group against the baseline on one metric."""

    candidate: Group
    metric: str
    baseline_mean: float
    candidate_mean: float
    questions: QuestionTest | None
    """None where the metric has no value a question (seconds, BLEU)."""
    seeds: SeedTest
    drift: float = 0.0
    """How far the means of `predictions/` are from `metrics.json`; anything but rounding is a broken run."""
    incomplete: str = ""
    """Why these figures are not all that was asked for."""
    p_questions: float | None = None
    """Holm-adjusted."""
    p_seeds: float | None = None

    @property
    def difference(self) -> float:
        return self.candidate_mean - self.baseline_mean

    @cached_property
    def outcome(self) -> str:
        """better | worse | same (no relevant difference) | undecided: by the questions, where there are any."""
        if self.questions is None:
            return self._direction(self.p_seeds, self.seeds.difference)
        found = self._direction(self.p_questions, self.questions.difference)
        if found == "undecided" and self.questions.low > -RELEVANT and self.questions.high < RELEVANT:
            return "same"
        return found

    def _direction(self, p: float | None, difference: float) -> str:
        if p is None or p >= ALPHA:
            return "undecided"
        return "better" if (difference > 0) == higher_is_better(self.metric) else "worse"

    @property
    def underpowered(self) -> bool:
        """Undecided, and a relevant difference would have been missed more often than one time in five."""
        return self.outcome == "undecided" and self.questions is not None and self.questions.detectable > RELEVANT

    @property
    def question_sentence(self) -> str:
        """The answer to: would other questions agree?"""
        test = self.questions
        if test is None:
            return "no figure per question"
        words = {"better": "yes", "worse": "yes, worse", "same": "no relevant difference", "undecided": "cannot tell"}
        word = words[self.outcome]
        if test.clusters < FEW_CLUSTERS:
            word += f" (only {test.clusters} independent questions: interval too narrow)"
        elif self.underpowered:
            needed = int(test.clusters * (test.detectable / RELEVANT) ** 2)
            word += f" (underpowered: finds {test.detectable:.3f}; {RELEVANT:g} needs ~{needed} independent questions)"
        return word

    @property
    def seed_sentence(self) -> str:
        """The answer to: would other seeds agree?"""
        if self.seeds.p is None:
            return f"cannot tell: {self.seeds.note}"
        counts = f"{self.seeds.candidate_seeds} against {self.seeds.baseline_seeds} seeds"
        word = self._direction(self.p_seeds, self.seeds.difference)
        if word == "undecided":
            few = min(self.seeds.candidate_seeds, self.seeds.baseline_seeds) < 5
            return f"cannot tell ({'underpowered: ' if few else ''}{counts})"
        return f"{'yes' if word == 'better' else 'yes, worse'} ({counts})"


@dataclass(frozen=True)
class Comparison:
    """All verdicts against one baseline, and what must be said with them."""

    baseline: Group
    verdicts: list[Verdict]
    tests: int
    """p values in the Holm correction."""
    notes: list[str]

    def grid(self) -> Grid:
        """One row a verdict."""
        headers = ["candidate", "metric", "baseline", "candidate", "difference [95 %]", "p (Holm)", "verdict"]
        headers += ["would other questions agree?", "would other seeds agree?"]
        rows = [
            [
                v.candidate.label,
                v.metric,
                number(v.baseline_mean),
                number(v.candidate_mean),
                _with_interval(v),
                "–" if v.p_questions is None else p_text(v.p_questions),
                OUTCOMES[v.outcome],
                v.question_sentence,
                v.seed_sentence + ("" if v.p_seeds is None else f", p {p_text(v.p_seeds)}"),
            ]
            for v in self.verdicts
        ]
        numeric = [False, False, True, True, True, True, False, False, False]
        return Grid(f"against the baseline: {self.baseline.label}", headers, rows, numeric, self.notes)

    def records(self) -> list[dict[str, Any]]:
        """As plain values, for JSON."""
        return [
            {
                "candidate": [str(run.path) for run in v.candidate.counted],
                "baseline": [str(run.path) for run in self.baseline.counted],
                "metric": v.metric,
                "baseline_mean": v.baseline_mean,
                "candidate_mean": v.candidate_mean,
                "difference": v.difference,
                "outcome": v.outcome,
                "underpowered": v.underpowered,
                "incomplete": v.incomplete or None,
                "questions": None if v.questions is None else {**asdict(v.questions), "p_holm": v.p_questions},
                "seeds": {**asdict(v.seeds), "p_holm": v.p_seeds},
            }
            for v in self.verdicts
        ]


OUTCOMES = {"better": "better", "worse": "worse", "same": "no relevant difference", "undecided": "undecided"}


def _with_interval(verdict: Verdict) -> str:
    test = verdict.questions
    if test is None:
        return f"{verdict.difference:+.3f}"
    return f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"


def p_text(p: float) -> str:
    """Three decimals, and never a zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def find_baseline(table: RunTable, directory: Path | str) -> tuple[Section, Group]:
    """The group that the directory holds, or is part of.

    Raises:
        RequestError: it is not among the runs, holds several configs, or has no completed run.
    """
    real = os.path.realpath(directory)
    inside = [r for r in table.runs if (p := os.path.realpath(r.path)) == real or p.startswith(real + os.sep)]
    if not inside:
        raise RequestError(f"--baseline {directory}: none of the compared runs is there; name it among the directories")
    found = [
        (section, group) for section in table.sections for group in section.groups for r in inside if r in group.runs
    ]
    names = {id(group): group.name for _, group in found}
    if len(names) > 1:
        raise RequestError(
            f"--baseline {directory} holds {len(names)} different configs; name one run, such as {min(names.values())}"
        )
    section, group = found[0]
    if not group.counted:
        raise RequestError(f"--baseline {directory}: its run is {group.state}, so it has no final figures")
    return section, group


def judge(table: RunTable, baseline: Path | str, metrics: Sequence[str] | None = None) -> Comparison:
    """Every group of the baseline's section against it. Groups of other sections are named, not compared.

    Args:
        metrics: full names; None: the table's primary one.

    Raises:
        RequestError: the baseline cannot be found or has no figures.
    """
    section, group = find_baseline(table, baseline)
    wanted = list(metrics or [table.metric])
    verdicts = [
        verdict
        for candidate in section.groups
        if candidate is not group and candidate.counted
        for metric in wanted
        if (verdict := compare_groups(group, candidate, metric)) is not None
    ]
    verdicts, tests = adjust(verdicts)
    return Comparison(group, verdicts, tests, _notes(table, section, group, verdicts, tests))


def compare_groups(baseline: Group, candidate: Group, metric: str) -> Verdict | None:
    """None where one side has no such figure."""
    one, other = candidate.summary(metric), baseline.summary(metric)
    if one is None or other is None:
        return None
    values = [[run.metrics[metric] for run in side.counted if metric in run.metrics] for side in (candidate, baseline)]
    paired = pair_groups(baseline, candidate, metric)
    asked = paired is not None and bool((~_nan(paired)).any())
    test = question_test(paired.difference_Q, paired.clusters_Q) if paired is not None and asked else None
    return Verdict(
        candidate=candidate,
        metric=metric,
        baseline_mean=other.mean,
        candidate_mean=one.mean,
        questions=test,
        seeds=seed_test(*values),
        drift=abs(test.difference - (one.mean - other.mean)) if test and paired and not paired.left_out else 0.0,
        incomplete=incomplete(baseline, candidate),
    )


def _nan(paired: Paired) -> Any:
    return paired.difference_Q != paired.difference_Q


def pair_groups(baseline: Group, candidate: Group, metric: str) -> Paired | None:
    """Per question the seeds' means on both sides; None where the metric's stage kept no predictions."""
    stage, name = split_metric(metric)
    before, _ = seed_means(baseline.counted, stage, name)
    after, rows = seed_means(candidate.counted, stage, name)
    return pair(before, after, rows) if before and after else None


def incomplete(baseline: Group, candidate: Group) -> str:
    """What is missing from the two groups, in words; empty where nothing is."""
    missing = [f"{group.label}: {group.state}" for group in (baseline, candidate) if group.state != "completed"]
    if set(baseline.seeds) != set(candidate.seeds) and not missing:
        missing.append(f"seeds {_listed(candidate.seeds)} against {_listed(baseline.seeds)}")
    return "; ".join(missing)


def _listed(seeds: Sequence[Any]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def adjust(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], int]:
    """Holm over every p value of all verdicts; how many those are."""
    p_values = [v.questions.p for v in verdicts if v.questions] + [v.seeds.p for v in verdicts if v.seeds.p is not None]
    adjusted = iter(holm(p_values))
    questions = [next(adjusted) if v.questions else None for v in verdicts]
    seeds = [next(adjusted) if v.seeds.p is not None else None for v in verdicts]
    done = [replace(v, p_questions=q, p_seeds=s) for v, q, s in zip(verdicts, questions, seeds, strict=True)]
    return done, len(p_values)


def _notes(table: RunTable, section: Section, baseline: Group, verdicts: Sequence[Verdict], tests: int) -> list[str]:
    said = []
    with_questions = [v for v in verdicts if v.questions]
    if with_questions:
        test = with_questions[0].questions
        assert test is not None
        said.append(
            f"Over {test.questions} questions in {test.clusters} clusters that share no gold passage. Difference: "
            "candidate minus baseline, 95 % bootstrap interval over clusters, not corrected for their number."
        )
        said.append(
            f"p: randomisation test over clusters (other questions), Welch's t test (other seeds); "
            f"Holm-corrected over all {tests} tests shown."
        )
    said += [f"INCOMPLETE, read with care: {v.candidate.label} ({v.incomplete})." for v in verdicts if v.incomplete]
    said += [
        f"INCONSISTENT: the predictions of {v.candidate.label} or of the baseline give {v.metric} another difference "
        f"than their metrics.json, by {v.drift:.3f}; the figures with an interval are of the predictions."
        for v in verdicts
        if v.drift > 1e-6
    ]
    others = sum(bool(group.counted) for other in table.sections if other is not section for group in other.groups)
    if others:
        said.append(f"NOT COMPARED: {others} groups with other questions or another corpus than the baseline.")
    unfinished = sum(not group.counted for group in section.groups)
    if unfinished:
        said.append(f"NOT COMPARED: {unfinished} groups without a completed run: the sweep is incomplete.")
    silent = [
        g.name
        for g in section.groups
        if g.counted and g is not baseline and not any(v.candidate is g for v in verdicts)
    ]
    if silent:
        said.append(f"NOT COMPARED: {', '.join(silent)} have no such figure.")
    return said


def headline(verdict: Verdict) -> str:
    """One sentence a verdict, for people in a hurry."""
    name, metric = verdict.candidate.label, bare(verdict.metric)
    direction = {"better": "is better", "worse": "is worse", "same": "makes no relevant difference"}
    says = direction.get(verdict.outcome, "cannot be told from the baseline")
    return f"{name} {says} on {metric}: {_with_interval(verdict)}; other seeds: {verdict.seed_sentence}."


def runs_of(groups: Sequence[Group]) -> list[RunRecord]:
    """All runs of the groups."""
    return [run for group in groups for run in group.runs]
