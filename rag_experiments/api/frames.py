"""What runs wrote, and what comparing them gave, as pandas objects. pandas is imported when one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag_experiments.comparison.analysis.judgement import OUTCOMES, Verdict
from rag_experiments.comparison.analysis.table import Group

if TYPE_CHECKING:
    import pandas as pd

    from rag_experiments.comparison.output.render import Document
    from rag_experiments.data.builder import Problem
    from rag_experiments.data.records import Passage

COMPARED = (
    "run", "metric", "mean", "sd", "seeds", "difference", "low", "high", "p", "p_seeds", "verdict", "questions",
    "state", "section", "paths",
)  # fmt: skip
"""The columns of a comparison."""


def figures(metrics: Mapping[str, float], name: str) -> pd.Series:
    """Figures by `<stage>/<metric>`."""
    import pandas as pd

    return pd.Series(dict(metrics), name=name, dtype="float64")


def history(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each line of `metrics.jsonl`, a column for each figure; NaN where a line does not have it."""
    import pandas as pd

    return pd.DataFrame(list(lines)) if lines else pd.DataFrame(columns=["step", "epoch", "seconds"])


def predictions(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each question, by its id: what the file holds, then a column for each of its metrics."""
    import pandas as pd

    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    flat = [
        {key: value for key, value in row.items() if key != "metrics"}
        | {name: row["metrics"].get(name, float("nan")) for name in names}
        for row in rows
    ]
    return pd.DataFrame(flat).set_index("id")


def passages(hits: Iterable[tuple[float, Passage]]) -> pd.DataFrame:
    """Passages with their scores, by rank from 1, best first."""
    import pandas as pd

    rows = [(score, passage.shown_id, passage.title, passage.text) for score, passage in hits]
    index = pd.RangeIndex(1, len(rows) + 1, name="rank")
    return pd.DataFrame(rows, columns=["score", "id", "title", "text"], index=index)


def problems(entries: Iterable[Problem]) -> pd.DataFrame:
    """A row for each problem of a data set."""
    import pandas as pd

    rows = [(one.where.file + one.where.inside, one.where.line, one.kind, one.reason) for one in entries]
    frame = pd.DataFrame(rows, columns=["file", "line", "kind", "reason"])
    return frame.astype({"line": "Int64"})


def comparison(document: Document) -> pd.DataFrame:
    """`COMPARED`: a row for each group of runs (the seeds of one config) and metric, in the order of `rag-compare`.

    `attrs["notes"]` holds the sentences below its tables.
    """
    import pandas as pd

    table, judged = document.table, document.comparison
    verdicts = {(id(v.candidate), v.metric): v for v in judged.verdicts} if judged else {}
    several = len({v.metric for v in judged.verdicts}) > 1 if judged else False
    metrics = list(table.metrics or []) if several else [table.metric] if table.metric else []
    rows = []
    for number, section in enumerate(table.sections, 1):
        for group in section.groups:
            is_baseline = judged is not None and group is judged.baseline
            rows += [_row(group, name, number, verdicts.get((id(group), name)), is_baseline) for name in metrics]
    frame = pd.DataFrame(rows, columns=list(COMPARED))
    frame.attrs["notes"] = [*document.notes, *table.notes, *(judged.notes if judged else [])]
    return frame


def _row(group: Group, metric: str, section: int, verdict: Verdict | None, baseline: bool) -> tuple[Any, ...]:
    nothing = float("nan")
    summary = group.summary(metric)
    test = verdict.questions if verdict is not None else None
    outcome = "baseline" if baseline else OUTCOMES[verdict.outcome] if verdict is not None else None
    values = {
        "run": group.name,
        "metric": metric,
        "mean": summary.mean if summary else nothing,
        "sd": summary.sd if summary and summary.sd is not None else nothing,
        "seeds": summary.n if summary else 0,
        "difference": verdict.difference if verdict is not None else nothing,
        "low": test.low if test else nothing,
        "high": test.high if test else nothing,
        "p": verdict.p_questions if verdict is not None and verdict.p_questions is not None else nothing,
        "p_seeds": verdict.p_seeds if verdict is not None and verdict.p_seeds is not None else nothing,
        "verdict": outcome,
        "questions": test.questions if test else None,
        "state": group.state,
        "section": section,
        "paths": [str(run.path) for run in group.runs],
    }
    return tuple(values[name] for name in COMPARED)
