"""Simulate how often two equal configurations are called better or worse, depending on the spread over seeds.

    python -m benchmarks.false_positives                 the table of docs/compare.md (a few minutes)
    python -m benchmarks.false_positives --trials 2000

Both sides have the same expected accuracy. A training seed changes a run's true accuracy by a normal random number
whose standard deviation is the given spread. A run answers a question if its ability exceeds the question's difficulty
plus random noise; so two runs mostly succeed on the same questions, like real runs. The verdicts are those of
`rag-compare` for one candidate and one metric.
"""

from __future__ import annotations

import argparse

import numpy as np

SPREADS = (0.0, 0.01, 0.02, 0.04, 0.06)
SEEDS = (1, 3, 5)
ACCURACY, SHARED = 0.6, 0.7
"""Mean share of right answers, and correlation of the latent success of two runs on a question."""
RESAMPLES = 999


def side(chance: np.random.Generator, difficulty_Q: np.ndarray, seeds: int, spread: float) -> np.ndarray:
    """Right or wrong per seed and question, `[seeds, questions]`."""
    from scipy.stats import norm

    accuracy_S = np.clip(ACCURACY + spread * chance.standard_normal(seeds), 0.01, 0.99)
    own_SQ = chance.standard_normal((seeds, len(difficulty_Q)))
    latent_SQ = np.sqrt(SHARED) * difficulty_Q + np.sqrt(1 - SHARED) * own_SQ
    return (latent_SQ < norm.ppf(accuracy_S)[:, None]).astype(float)


def trial(chance: np.random.Generator, questions: int, seeds: int, spread: float) -> tuple[bool, bool, bool]:
    """Whether equals were called better or worse: at all, without a warning in the verdict, and by the seeds' test."""
    from rag_experiments.comparison.analysis.judgement import Verdict
    from rag_experiments.comparison.analysis.statistics import question_test, seed_test
    from rag_experiments.comparison.analysis.table import Group
    from rag_experiments.comparison.analysis.verdict import adjust

    difficulty_Q = chance.standard_normal(questions)
    base, other = (side(chance, difficulty_Q, seeds, spread) for _ in range(2))
    test = question_test(other.mean(0) - base.mean(0), np.arange(questions), int(chance.integers(2**31)), RESAMPLES)
    by_seed = seed_test(other.mean(1), base.mean(1))
    found = Verdict(Group([], "candidate"), "test/exact_match", base.mean(), other.mean(), test, by_seed)
    (verdict,), _ = adjust([found])
    called = verdict.outcome in ("better", "worse")
    return called, called and not verdict.lead, verdict.p_seeds is not None and verdict.p_seeds < 0.05


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--questions", type=int, default=167)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.questions} questions, {options.trials} comparisons of equals per row\n")
    print(
        "| spread over seeds (sd) | seeds per side | called better or worse | without a warning first | seeds' test |"
    )
    print("|---:|---:|---:|---:|---:|")
    for spread in SPREADS:
        for seeds in SEEDS:
            chance = np.random.default_rng([options.seed, seeds, round(spread * 1000)])
            found = np.array([trial(chance, options.questions, seeds, spread) for _ in range(options.trials)])
            called, plain, by_seeds = found.mean(axis=0)
            seen = "–" if seeds == 1 else f"{by_seeds:.1%}"
            print(f"| {100 * spread:g} points | {seeds} | {called:.1%} | {plain:.1%} | {seen} |", flush=True)


if __name__ == "__main__":
    main()
