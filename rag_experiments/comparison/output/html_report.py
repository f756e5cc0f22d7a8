"""The HTML report: one file that opens without a network. Its tables are the terminal's, its figures `figures`'.

Passages, questions, answers and names are somebody's text: Jinja escapes them, the JSON of figures is escaped for
its script element, and the page's policy runs no script but its own (by nonce) and loads nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rag_experiments.comparison.analysis import causes, seed_repeats
from rag_experiments.comparison.analysis.judgement import headline
from rag_experiments.comparison.output import figures
from rag_experiments.comparison.output.figure_choice import figure_calls
from rag_experiments.comparison.output.render import Document
from rag_experiments.comparison.records.metric_fields import short_value, split_metric
from rag_experiments.comparison.records.run_records import RunRecord

QUESTIONS = 20
"""The most changed questions shown per candidate."""
CANDIDATES = 3
RETRIEVED = 8
REPEATS = 300


def html_report(document: Document) -> str:
    """The whole page as text."""
    figure_json = make_figures(document)
    template = _environment().get_template("report.html")
    runs = document.table.runs
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    comparison = document.comparison
    return template.render(
        title=f"{len(runs)} run{'s' if len(runs) != 1 else ''} compared",
        subtitle=f"By {document.table.metric or 'nothing: no run has finished'}. Made {when} from run directories.",
        headlines=[(v.outcome, headline(v)) for v in comparison.verdicts[:10]] if comparison else [],
        sections=document.grids(all_columns=True),
        figures=list(figure_json),
        figure_titles={key: figure["layout"]["title"]["text"] for key, figure in figure_json.items()},
        figures_json=Markup(_for_script(figure_json)),
        questions=question_blocks(document),
        repeats=[_repeat(run) for run in runs[:REPEATS]],
        nonce=secrets.token_urlsafe(16),
        plotly=Markup(_plotly()) if figure_json else "",
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def _for_script(value: Any) -> str:
    """JSON that cannot end its script element or begin a comment in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def make_figures(document: Document) -> dict[str, dict[str, Any]]:
    """Element id → figure as plain JSON."""
    results = [getattr(figures, name)(*arguments) for name, arguments in figure_calls(document)]
    return {f"figure-{i}": json.loads(figure.to_json()) for i, figure in enumerate(f for f in results if f is not None)}


def question_blocks(document: Document) -> list[dict[str, Any]]:
    """Per candidate the questions whose figure changed most, both sides beside each other."""
    table, comparison = document.table, document.comparison
    if comparison is None or table.metric is None:
        return []
    blocks = []
    for candidate in comparison.candidates[:CANDIDATES]:
        outcome = causes.outcomes(comparison.baseline, candidate, table.metric)
        if outcome is None:
            continue
        before, after = causes.seed_pairs(comparison.baseline.counted, candidate.counted)[0]
        changed = [(key, change) for key, change in outcome.questions[:QUESTIONS] if change]
        items = [_question(table.metric, key, change, (before, after)) for key, change in changed]
        if items:
            blocks.append({"candidate": candidate.label, "questions": items})
    return blocks


def _question(metric: str, key: str, change: float, sides: tuple[RunRecord, RunRecord]) -> dict[str, Any]:
    stage, name = split_metric(metric)
    rows = [run.predictions(stage)[key] for run in sides]
    answers = [row.get("answer") for row in rows]
    return {
        "change": f"{'won' if change > 0 else 'lost'} {abs(change):.3f}",
        "question": rows[0]["question"],
        "before": short_value(rows[0]["metrics"].get(name)),
        "after": short_value(rows[1]["metrics"].get(name)),
        "answers": [answer or "" for answer in answers] if any(answer is not None for answer in answers) else None,
        "references": " / ".join(rows[0].get("references") or []),
        "retrieved": [_marked(row) for row in rows],
    }


def _marked(row: dict[str, Any]) -> Sequence[tuple[str, bool]]:
    gold = set(row.get("gold_ids") or [])
    return [(passage, passage in gold) for passage in row["retrieved_ids"][:RETRIEVED]]


def _repeat(run: RunRecord) -> dict[str, Any]:
    error = run.status.get("error") or {}
    problem = run.problem or (f"{error.get('type')}: {error.get('message')}" if error else None)
    return {
        "name": run.name,
        "state": run.state,
        "path": str(run.path),
        "command": seed_repeats.command(run),
        "commit": run.status.get("git_commit"),
        "data_hash": run.status.get("data_hash"),
        "problem": problem,
    }
