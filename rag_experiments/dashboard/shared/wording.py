"""Format numbers, times and keys for the pages, and mark words of an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rag_experiments.comparison.analysis.labels import Options
from rag_experiments.comparison.records.metric_fields import short_labels, short_value
from rag_experiments.comparison.records.run_records import RunRecord

NOTHING = "–"
_WORD = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the"}


def value(item: Any) -> str:
    """A value of a configuration: short numbers, a dash for None."""
    if item is None or item == "":
        return NOTHING
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return number(item)
    return short_value(item)


def setting(run: RunRecord, key: str, options: Options) -> str:
    """A run's value of a configuration key; an option of a group is shown by its name."""
    item = run.flat.get(key)
    return options.get(key, {}).get(str(item)) or value(item)


PLAIN_WORDS = {
    "per_device_train_batch_size": "batch size",
    "num_train_epochs": "epochs",
    "learning_rate": "learning rate",
    "gradient_accumulation_steps": "accumulation",
}
"""Usual names of these settings; the title of the column has the full key."""


def labels(keys: Iterable[str]) -> dict[str, str]:
    """Headings for keys, as short as possible while they stay different."""
    return {key: PLAIN_WORDS.get(short, short) for key, short in short_labels(dict.fromkeys(keys)).items()}


def number(item: float | None, digits: int = 4) -> str:
    """A number with four significant digits, and exponents without leading zeros: `2e-5`, `0.5132`, `1,432`."""
    if item is None or math.isnan(item):
        return NOTHING
    if math.isinf(item):
        return "∞" if item > 0 else "−∞"
    if item == int(item) and abs(item) < 1e15:
        return f"{int(item):,}".replace("-", "−")
    if abs(item) >= 1000:
        return f"{item:,.0f}".replace("-", "−")
    text = f"{item:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text if item > 0 else text.replace("-", "−", 1)


def metric(name: str, item: float | None) -> str:
    """A figure in the format of its column, so that figures align: shares have three decimals."""
    if item is None or math.isnan(item):
        return NOTHING
    if is_seconds(name):
        return duration(item)
    if abs(item) <= 1.5 and "questions" not in name and "tokens" not in name and "rate" not in name:
        return f"{item:.3f}".replace("-", "−")
    return number(item)


def difference(name: str, item: float) -> str:
    """A signed difference between two figures of the same name."""
    if item == 0:
        return "±0"
    text = metric(name, abs(item))
    return ("+" if item > 0 else "−") + text


def duration(seconds: float | None) -> str:
    """`7.3 s`, `4 min 05 s`, `2 h 08 min`: shorter than humanize's words, to fit a column."""
    if seconds is None:
        return NOTHING
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def moment(iso: Any) -> str:
    """A time stamp as `23 Nov 14:05` in local time, with the year if it is not the present one."""
    try:
        when = datetime.fromisoformat(str(iso)).astimezone()
    except ValueError:
        return NOTHING
    year = "" if when.year == datetime.now().astimezone().year else f" {when.year}"
    return f"{when.day} {when:%b}{year} {when:%H:%M}"


def is_seconds(name: str) -> bool:
    """Whether a metric is measured in seconds."""
    return "seconds" in name.split("/")[-2:] or name.rsplit("/", 1)[-1].startswith(("seconds", "latency"))


def mark(text: str, against: Sequence[str]) -> list[tuple[str, bool]]:
    """`text` in pieces, each with whether its words occur in one of the texts `against`; articles never count."""
    words = {word.lower() for other in against for word in _WORD.findall(other)} - _ARTICLES
    pieces: list[tuple[str, bool]] = []
    end = 0
    for match in _WORD.finditer(text):
        pieces += [(text[end : match.start()], False), (match.group(), match.group().lower() in words)]
        end = match.end()
    pieces.append((text[end:], False))
    return [piece for piece in pieces if piece[0]]
