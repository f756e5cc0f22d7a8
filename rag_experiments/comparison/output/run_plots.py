"""Pictures in the run directory, as each run ends: `plots/learning_curves.svg` and `plots/before_after.svg`.

Written as SVG by hand: no drawing library is needed where a run trains, text stays text, and a browser, GitHub and
an editor show the file as it is, light or dark. Static: what moves is in the report and the dashboard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rag_experiments.comparison.analysis.before_after import BeforeAfter, Change, before_after
from rag_experiments.comparison.analysis.table_columns import ANSWERS, RANKINGS
from rag_experiments.comparison.records.history import Points, points
from rag_experiments.comparison.records.run_records import read_config
from rag_experiments.core.files import atomic_write_text
from rag_experiments.core.text_table import one_line
from rag_experiments.runs.directory import RunDirectory

CURVES, BARS = "learning_curves.svg", "before_after.svg"
PANELS = 6
SPAN = 0.1
"""What an axis of shares spans at least: one question more or less must not look like a climb."""
WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 780, 380, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 30, 34
"""Around the plotted area of a panel."""
ROW, LABELS, VALUES = 38, 132, 170
"""Of the bars: height a metric, room for names on the left and figures on the right."""
_STYLE = """
.ground{fill:#fff}text{font:12px system-ui,sans-serif;fill:#1c2430}.title{font-size:15px;font-weight:600}
.name{font-weight:600}.soft{fill:#5d6875;font-size:11px}.grid{stroke:#e3e8ee}.axis{stroke:#aab4c0}
.line{fill:none;stroke:#2f6fd0;stroke-width:2}.dot,.after{fill:#2f6fd0}.before{fill:#a9b4c2}
.zero{stroke:#8a5a00;stroke-dasharray:5 4}.zeroname{fill:#8a5a00;font-size:11px}.span{stroke:#1c2430;stroke-width:1.2}
@media (prefers-color-scheme:dark){.ground{fill:#12161c}text{fill:#e4e9f0}.soft{fill:#9aa6b5}.grid{stroke:#262d37}
.axis{stroke:#4a5564}.line{stroke:#6ea3f5}.dot,.after{fill:#6ea3f5}.before{fill:#5c6878}.zero{stroke:#e3b341}
.zeroname{fill:#e3b341}.span{stroke:#e4e9f0}}
"""


@dataclass(frozen=True)
class Curve:
    """What a run logged of a metric, and its value before training."""

    name: str
    points: Points
    zero_shot: float | None = None


def write_plots(run: RunDirectory) -> list[str]:
    """Draw what the run has to show; returns the files written, below the run's directory."""
    folder, written = run.path / "plots", []
    drawn = {CURVES: curves_svg(curves_of(run), run.path.name), BARS: bars_svg(before_after(run), run.path.name)}
    for name, text in drawn.items():
        if text is not None and run.writes:
            folder.mkdir(exist_ok=True)
            atomic_write_text(folder / name, text)
            written.append(f"plots/{name}")
    return written


def curves_of(run: RunDirectory) -> list[Curve]:
    """The loss, then what the best model was chosen by, then the usual figures on dev, as far as they were logged."""
    lines = run.read_metrics()
    chosen = (read_config(run.config_path).get("trainer") or {}).get("metric_for_best_model")
    names = ["train/loss", chosen, "dev/loss", *(f"dev/{name}" for name in (*ANSWERS, *RANKINGS))]
    found = []
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        curve, before = points(lines, name), points(lines, f"zero_shot/{name}")
        zero = before[0][1] if before else None
        if zero is not None and name != chosen and all(value == zero for _, value in curve):
            continue  # the half of the system that this run does not train
        if curve:
            found.append(Curve(name, curve, zero))
    return found[:PANELS]


# -- learning curves -----------------------------------------------------------------------------------


def curves_svg(curves: Sequence[Curve], title: str) -> str | None:
    """A panel a figure over steps, zero shot as a dashed line; None where nothing was logged."""
    if not curves:
        return None
    parts = [_panel(curve, 10 + (i % 2) * PANEL_WIDTH, 40 + (i // 2) * PANEL_HEIGHT) for i, curve in enumerate(curves)]
    height = 40 + -(-len(curves) // 2) * PANEL_HEIGHT
    return _document(f"Learning curves of {title}", height, parts)


def _panel(curve: Curve, x: float, y: float) -> str:
    steps, values = [step for step, _ in curve.points], [value for _, value in curve.points]
    seen = values + ([curve.zero_shot] if curve.zero_shot is not None else [])
    x_ticks = _ticks(min(0, *steps), max(1, *steps), whole=True)
    low, high = min(seen), max(seen)
    if curve.name.startswith("dev/") and 0 <= low <= high <= 1 and high - low < SPAN:  # of a share
        low = min(max(0.0, (low + high - SPAN) / 2), 1 - SPAN)
        high = low + SPAN
    y_ticks = _ticks(low, high)
    left, right, top, bottom = x + LEFT, x + PANEL_WIDTH - RIGHT, y + TOP, y + PANEL_HEIGHT - BOTTOM

    def across(step: float) -> float:
        return left + (step - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    def up(value: float) -> float:
        return bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    parts = [_text(left, y + 18, curve.name, "name")]
    for tick in y_ticks:
        parts.append(_line(left, up(tick), right, up(tick), "grid"))
        parts.append(_text(left - 6, up(tick) + 4, f"{tick:.4g}", "soft", "end"))
    for tick in x_ticks:
        parts.append(_text(across(tick), bottom + 16, f"{tick:.6g}", "soft", "middle"))
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text(right, bottom + 30, "step", "soft", "end"))
    if curve.zero_shot is not None:
        parts.append(_line(left, up(curve.zero_shot), right, up(curve.zero_shot), "zero"))
        parts.append(_text(right, y + 18, f"zero shot {curve.zero_shot:.3f} (dashed)", "zeroname", "end"))
    points = [(across(step), up(value)) for step, value in curve.points]
    if len(points) > 1:
        parts.append(f'<polyline class="line" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
    if len(points) <= 40:
        parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in points]
    return "\n".join(parts)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers that span the values."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.floor(low / step + 1e-9)
    return [(first + i) * step for i in range(math.ceil(high / step - 1e-9) - first + 1)]


# -- before and after ----------------------------------------------------------------------------------


def bars_svg(changes: BeforeAfter, title: str) -> str | None:
    """Two bars a metric with their 95 % intervals, from 0 to 1, and the paired difference beside them.

    What training left as it was for every question (a reader's retriever) is left out.
    """
    kept = [change for change in changes if (change.difference.low, change.difference.high) != (0, 0)] or changes
    if not kept:
        return None
    parts, y = [], 62
    parts += [_box(10, 34, 12, 12, "before"), _text(27, 45, "before training"), _box(132, 34, 12, 12, "after")]
    parts.append(_text(149, 45, "after, with 95 % intervals; right: the paired difference"))
    for split in dict.fromkeys(change.split for change in kept):
        rows = [change for change in kept if change.split == split]
        parts.append(_text(10, y + 14, f"{split}, {rows[0].questions} questions", "name"))
        y += 24
        bottom = y + ROW * len(rows)
        for tick in (0, 0.25, 0.5, 0.75, 1):
            parts.append(_line(_place(tick), y, _place(tick), bottom, "axis" if tick == 0 else "grid"))
            parts.append(_text(_place(tick), bottom + 14, f"{tick:g}", "soft", "middle"))
        parts += [_bars(change, y + ROW * i) for i, change in enumerate(rows)]
        y = bottom + 30
    return _document(f"Before and after training: {title}", y, parts)


def _place(value: float) -> float:
    return 10 + LABELS + min(max(value, 0.0), 1.0) * (WIDTH - 20 - LABELS - VALUES)


def _bars(change: Change, y: float) -> str:
    parts = [_text(LABELS, y + 23, change.metric, "", "end")]
    for offset, name in ((4, "before"), (19, "after")):
        interval = getattr(change, name)
        parts.append(_box(_place(0), y + offset, _place(interval.mean) - _place(0), 13, name))
        middle = y + offset + 6.5
        parts.append(_line(_place(interval.low), middle, _place(interval.high), middle, "span"))
    d = change.difference
    parts.append(_text(WIDTH - 10, y + 23, f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", "", "end"))
    return "\n".join(parts)


# -- SVG -----------------------------------------------------------------------------------------------


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    name = escape(one_line(title))
    size = f'width="{WIDTH}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" {size} role="img">'
    ground = f'<rect class="ground" {size}/>'
    body = "\n".join([ground, _text(10, 22, title, "title"), *parts])
    return f"{head}\n<title>{name}</title>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    shown = escape(one_line(text))
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{shown}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"/>'
