"""Which groups are better than the baseline, by how much, and whether that is noise.

One Holm correction covers all p values that are shown: all candidates, all metrics, and both tests (other questions,
other seeds). Each interval is a 95 % interval without correction; a note says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.comparison.analysis.judgement import Comparison, Verdict
from rag_experiments.comparison.analysis.pairing import Paired, pair, seed_means
from rag_experiments.comparison.analysis.statistics import holm, question_test, seed_test
from rag_experiments.comparison.analysis.table import Group, RunTable, Section
from rag_experiments.comparison.records.metric_fields import split_metric
from rag_experiments.core.errors import RequestError


def find_baseline(table: RunTable, directory: Path | str) -> tuple[Section, Group]:
    """The group of the run in `directory`, or of the runs below it.

    Raises:
        RequestError: the directory is not among the runs, holds several configs, or has no completed run.
    """
    real = os.path.realpath(directory)
    inside = [run for run in table.runs if os.path.realpath(run.path) == real]  # itself, not the evaluations in it
    inside = inside or [run for run in table.runs if os.path.realpath(run.path).startswith(real + os.sep)]
    if not inside:
        raise RequestError(f"--baseline {directory}: none of the compared runs is there; name it among the directories")
    places = [
        (section, group) for section in table.sections for group in section.groups for r in inside if r in group.runs
    ]
    names = {id(group): group.name for _, group in places}
    if len(names) > 1:
        raise RequestError(
            f"--baseline {directory} holds {len(names)} different configs; name one run, such as {min(names.values())}"
        )
    section, group = places[0]
    if len(inside) == 1:
        group.count(inside[0])  # not a newer run with its configuration and seed
    if not group.counted:
        raise RequestError(f"--baseline {directory}: its run is {group.state}, so it has no final figures")
    return section, group


def judge(table: RunTable, baseline: Path | str, metrics: Sequence[str] | None = None) -> Comparison:
    """Compare every group of the baseline's section with it. Groups of other sections are named, not compared.

    Args:
        metrics: full names; None: the table's primary metric.

    Raises:
        RequestError: the baseline cannot be found or has no figures.
    """
    section, group = find_baseline(table, baseline)
    if table.metric is None:
        raise RequestError("--baseline: the finished runs have no figures to compare")
    metric_names = list(metrics or [table.metric])
    verdicts = [
        verdict
        for candidate in section.groups
        if candidate is not group
        for metric in metric_names
        if (verdict := compare_groups(group, candidate, metric)) is not None
    ]
    verdicts, tests = adjust(verdicts)
    return Comparison(group, verdicts, tests, _notes(table, section, group, verdicts, tests))


def compare_groups(baseline: Group, candidate: Group, metric: str) -> Verdict | None:
    """The verdict on one metric; None if one side does not have it."""
    one, other = candidate.summary(metric), baseline.summary(metric)
    if one is None or other is None:
        return None
    values = [[run.metrics[metric] for run in side.counted if metric in run.metrics] for side in (candidate, baseline)]
    paired = pair_groups(baseline, candidate, metric)
    test, drift = None, 0.0
    if paired is not None and not np.isnan(paired.difference_Q).all():
        test = question_test(paired.difference_Q, paired.clusters_Q)
        drift = 0.0 if paired.left_out else abs(test.difference - (one.mean - other.mean))
    return Verdict(
        candidate=candidate,
        metric=metric,
        baseline_mean=other.mean,
        candidate_mean=one.mean,
        questions=test,
        seeds=seed_test(*values),
        drift=drift,
        incomplete=incomplete(baseline, candidate),
    )


def pair_groups(baseline: Group, candidate: Group, metric: str) -> Paired | None:
    """The means over seeds for each question on both sides; None if there are no predictions of the metric's stage."""
    stage, name = split_metric(metric)
    before, _ = seed_means(baseline.counted, stage, name)
    after, rows = seed_means(candidate.counted, stage, name)
    return pair(before, after, rows) if before and after else None


def incomplete(baseline: Group, candidate: Group) -> str:
    """Which runs or seeds are missing from the two groups; empty if none are."""
    missing = [f"{group.label}: {group.state}" for group in (baseline, candidate) if group.state != "completed"]
    if set(baseline.seeds) != set(candidate.seeds) and not missing:
        missing.append(f"seeds {_listed(candidate.seeds)} against {_listed(baseline.seeds)}")
    return "; ".join(missing)


def _listed(seeds: Sequence[Any]) -> str:
    return ", ".join(map(str, seeds))


def adjust(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], int]:
    """Apply Holm's correction to all p values of all verdicts; returns the verdicts and the number of p values."""
    p_values = [v.questions.p for v in verdicts if v.questions] + [v.seeds.p for v in verdicts if v.seeds.p is not None]
    adjusted = iter(holm(p_values))
    questions = [next(adjusted) if v.questions else None for v in verdicts]
    seeds = [next(adjusted) if v.seeds.p is not None else None for v in verdicts]
    done = [replace(v, p_questions=q, p_seeds=s) for v, q, s in zip(verdicts, questions, seeds, strict=True)]
    return done, len(p_values)


def _notes(table: RunTable, section: Section, baseline: Group, verdicts: Sequence[Verdict], tests: int) -> list[str]:
    notes = []
    with_questions = [v for v in verdicts if v.questions]
    if with_questions:
        test = with_questions[0].questions
        assert test is not None
        notes.append(
            f"Over {test.questions} questions in {test.clusters} clusters that share no gold passage. Difference: "
            "candidate minus baseline, 95 % bootstrap interval over clusters, not corrected for their number."
        )
        notes.append(
            f"p: randomisation test over clusters (other questions), Welch's t test (other seeds); "
            f"Holm-corrected over all {tests} tests shown."
        )
    notes += [f"INCOMPLETE, read with care: {v.candidate.label} ({v.incomplete})." for v in verdicts if v.incomplete]
    notes += [
        f"INCONSISTENT: the predictions of {v.candidate.label} or of the baseline give {v.metric} another difference "
        f"than their metrics.json, by {v.drift:.3f}; the figures with an interval are of the predictions."
        for v in verdicts
        if v.drift > 1e-6
    ]
    others = sum(bool(group.counted) for other in table.sections if other is not section for group in other.groups)
    if others:
        notes.append(f"NOT COMPARED: {others} groups with other questions or another corpus than the baseline.")
    unfinished = sum(not group.counted for group in section.groups)
    if unfinished:
        notes.append(f"NOT COMPARED: {unfinished} groups without a completed run: the sweep is incomplete.")
    silent = [
        g.name
        for g in section.groups
        if g.counted and g is not baseline and not any(v.candidate is g for v in verdicts)
    ]
    if silent:
        notes.append(f"NOT COMPARED: {', '.join(silent)} have no such figure.")
    return notes
