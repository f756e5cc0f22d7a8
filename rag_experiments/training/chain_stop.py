"""When a chain of runs that go on from one another has nothing left to gain: `chain.stop=no_gain`.

A stage gains where its dev is better after it than before it, by the paired test over the same questions
(`question_test`: sign flips over clusters of questions). A round without a stage that gains is the chain's last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rag_experiments.comparison.analysis.statistics import QuestionTest
from rag_experiments.core.bounded_files import read_yaml
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training.harm import against_base

GAIN = 0.05
"""The p value below which a rise counts."""


def check_measured(stage: str, composed: DictConfig) -> None:
    """Raise `RequestError` where a stage will not measure dev before and after itself."""
    evaluation = composed.evaluation
    if not evaluation.zero_shot or "dev" not in evaluation.splits:
        raise RequestError(
            f"chain.stop=no_gain compares dev before and after stage {stage}: it needs evaluation.zero_shot=true and "
            "dev among evaluation.splits"
        )


def gain_of(directory: Path) -> QuestionTest | None:
    """Dev after the run in `directory` minus dev before it, by the metric that its checkpoints were chosen by.

    None where the two share no question with that metric.
    """
    run = RunDirectory.open(directory)
    metric = read_yaml(run.config_path)["trainer"].get("metric_for_best_model") or ""
    return against_base(run.read_predictions("zero_shot/dev"), run.read_predictions("dev"), metric.removeprefix("dev/"))


def has_gained(test: QuestionTest | None) -> bool:
    """Whether the test says so."""
    return test is not None and test.difference > 0 and test.p < GAIN


def sentence(tests: Mapping[str, QuestionTest | None]) -> str:
    """What each stage gained, in words: `1_reader +0.031 (p 0.012), 1_encoder +0.002 (p 0.700)`."""
    return ", ".join(f"{stage} {_shown(test)}" for stage, test in tests.items())


def _shown(test: Any) -> str:
    return "without a figure" if test is None else f"{test.difference:+.3f} (p {test.p:.3f})"
