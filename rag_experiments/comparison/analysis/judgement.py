"""The verdict on a candidate: is it better or worse than the baseline, by how much, and would it happen again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rag_experiments.comparison.analysis.statistics import FEW_CLUSTERS, QuestionTest, SeedTest
from rag_experiments.comparison.analysis.table import Group, number
from rag_experiments.comparison.records.metric_fields import bare, higher_is_better
from rag_experiments.core.text_table import Grid

ALPHA = 0.05
RELEVANT = 0.02
"""Two points: a smaller difference is "no relevant difference"."""


@dataclass(frozen=True)
class Verdict:
    """A candidate group compared with the baseline on one metric."""

    candidate: Group
    metric: str
    baseline_mean: float
    candidate_mean: float
    questions: QuestionTest | None
    """None if the metric has no value per question (seconds, BLEU)."""
    seeds: SeedTest
    drift: float = 0.0
    """Difference between the means of `predictions/` and `metrics.json`; more than rounding means a broken run."""
    incomplete: str = ""
    """Which figures are missing; empty if none are."""
    p_questions: float | None = None
    """p value over questions, Holm-adjusted."""
    p_seeds: float | None = None

    @property
    def difference(self) -> float:
        return self.candidate_mean - self.baseline_mean

    @cached_property
    def outcome(self) -> str:
        """better | worse | same (no relevant difference) | undecided; by the test over questions if there is one."""
        if self.questions is None:
            return self._direction(self.p_seeds, self.seeds.difference)
        direction = self._direction(self.p_questions, self.questions.difference)
        if (
            direction == "undecided"
            and not self.too_few
            and -RELEVANT < self.questions.low <= self.questions.high < RELEVANT
        ):
            return "same"
        return direction

    @property
    def too_few(self) -> bool:
        """Whether there are too few questions to exclude a relevant difference, however narrow the interval is.

        If all questions tie, the bootstrap interval has width zero; but by the rule of three up to 3/n of other
        questions could still differ (Hanley & Lippman-Hand 1983).
        """
        test = self.questions
        if test is None:
            return False
        return test.clusters < FEW_CLUSTERS or (test.low == test.high and 3 / test.clusters > RELEVANT)

    @property
    def lead(self) -> str:
        """The first words of the verdict if another training seed could reverse it; else empty."""
        if min(self.seeds.candidate_seeds, self.seeds.baseline_seeds) < 2:
            two = self.seeds.candidate_seeds == self.seeds.baseline_seeds
            return f"between these {'two ' if two else ''}runs; another seed may change it: "
        if self.seeds.p is None or self.questions is None or self.outcome not in ("better", "worse"):
            return ""
        agrees = self._direction(self.p_seeds, self.seeds.difference) == self.outcome
        return "" if agrees else "with these seeds; others may not agree: "

    def _direction(self, p: float | None, difference: float) -> str:
        if p is None or p >= ALPHA:
            return "undecided"
        return "better" if (difference > 0) == higher_is_better(self.metric) else "worse"

    @property
    def underpowered(self) -> bool:
        """Whether the verdict is undecided and a relevant difference is missed more often than one time in five."""
        return self.outcome == "undecided" and self.questions is not None and self.questions.detectable > RELEVANT

    @property
    def question_sentence(self) -> str:
        """The answer to "would other questions agree?"."""
        test = self.questions
        if test is None:
            return "no figure per question"
        words = {"better": "yes", "worse": "yes, worse", "same": "no relevant difference", "undecided": "cannot tell"}
        word = words[self.outcome]
        if test.clusters < FEW_CLUSTERS:
            return f"{word} (only {test.clusters} independent questions)"
        if self.outcome == "undecided" and test.low == test.high:
            return f"{word} (all {test.questions} questions tie, but they are too few)"
        return f"{word} (underpowered)" if self.underpowered else word

    @property
    def power_sentence(self) -> str:
        """Which difference can be detected, and how many questions a relevant one needs; empty if it is decided."""
        test = self.questions
        if test is None or not self.underpowered:
            return ""
        if not math.isfinite(test.detectable):
            return f"{self.candidate.label}, {self.metric}: a single independent question says nothing of others"
        needed = int(test.clusters * (test.detectable / RELEVANT) ** 2)
        return (
            f"{self.candidate.label}, {self.metric}: with {test.clusters} independent questions only differences of "
            f"{test.detectable:.3f} or more are reliably detected (four times in five); detecting {RELEVANT:g} needs "
            f"about {needed:,}"
        )

    @property
    def seed_sentence(self) -> str:
        """The answer to "would other seeds agree?"."""
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
    """All verdicts against one baseline, with their notes."""

    baseline: Group
    verdicts: list[Verdict]
    tests: int
    """Number of p values in the Holm correction."""
    notes: list[str]

    @property
    def candidates(self) -> list[Group]:
        """The candidates in the order of the verdicts, each once."""
        return list({id(verdict.candidate): verdict.candidate for verdict in self.verdicts}.values())

    def grid(self) -> Grid:
        """A table with one row per verdict."""
        headers = ["candidate", "metric", "baseline", "candidate", "difference [95 %]", "p (Holm)", "verdict"]
        headers += ["other questions agree?", "other seeds agree?"]
        rows = [
            [
                v.candidate.label,
                v.metric,
                number(v.baseline_mean),
                number(v.candidate_mean),
                _with_interval(v),
                "–" if v.p_questions is None else p_text(v.p_questions),
                v.lead + OUTCOMES[v.outcome],
                v.question_sentence,
                v.seed_sentence + ("" if v.p_seeds is None else f", p {p_text(v.p_seeds)}"),
            ]
            for v in self.verdicts
        ]
        numeric = [False, False, True, True, True, True, False, False, False]
        power = [f"UNDERPOWERED: {v.power_sentence}." for v in self.verdicts if v.power_sentence]
        if len(power) > SENTENCES:
            power = [*power[:SENTENCES], f"UNDERPOWERED: {len(power) - SENTENCES} more."]
        few = [v.questions.clusters for v in self.verdicts if v.questions and v.questions.clusters < FEW_CLUSTERS]
        narrow = [f"Fewer than {FEW_CLUSTERS} independent questions: the interval is too narrow."] if few else []
        title = f"against the baseline: {self.baseline.label}"
        return Grid(title, headers, rows, numeric, [*power, *narrow, *self.notes])

    def records(self) -> list[dict[str, Any]]:
        """The verdicts as plain values for JSON."""
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
                "lead": v.lead.removesuffix(": ") or None,
                "incomplete": v.incomplete or None,
                "questions": None if v.questions is None else {**asdict(v.questions), "p_holm": v.p_questions},
                "seeds": {**asdict(v.seeds), "p_holm": v.p_seeds},
            }
            for v in self.verdicts
        ]


SENTENCES = 3
"""Number of notes of one kind that are shown in full; the others are counted."""
OUTCOMES = {"better": "better", "worse": "worse", "same": "no relevant difference", "undecided": "undecided"}


def _with_interval(verdict: Verdict) -> str:
    test = verdict.questions
    if test is None:
        return f"{verdict.difference:+.3f}"
    return f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"


def p_text(p: float) -> str:
    """The p value with three decimals, never as zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    name, metric = verdict.candidate.label, bare(verdict.metric)
    direction = {"better": "is better", "worse": "is worse", "same": "makes no relevant difference"}
    says = direction.get(verdict.outcome, "cannot be told from the baseline")
    return f"{verdict.lead}{name} {says} on {metric}: {_with_interval(verdict)}; other seeds: {verdict.seed_sentence}."
