"""Runs compared, from their directories alone. No torch, no W&B; starts fast.

    runs = load_runs(["outputs", "multirun_sweeps/lr"])   # list[RunRecord], parsed once and cached
    table = RunTable(runs, metric="recall@4")              # sections that compare -> groups (the seeds of a config)
    comparison = verdict.judge(table, baseline)            # a Verdict per candidate group and metric
    figures.forest(comparison), figures.bars(table), …     # plotly Figures; import figures where you need them
    before_after(run)                                      # a run against its own zero shot, paired

`RunRecord`: path, name, state, status, config (nested), flat (dotted), metrics (final), stages (question digests),
seed, choices, history() (metrics.jsonl), predictions(stage) (id -> row). `rag-compare` and the dashboard read these.
"""

from __future__ import annotations

from rag_experiments.comparison.analysis.before_after import before_after, print_before_after
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.records.run_records import RunRecord, load_runs

__all__ = ["RunRecord", "RunTable", "before_after", "load_runs", "print_before_after"]
