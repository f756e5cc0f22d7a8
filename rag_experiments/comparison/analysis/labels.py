"""Labels of configurations in a table: made of the settings that distinguish them, and of no others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rag_experiments.comparison.analysis.table_columns import config_columns, group_key, role_places, selectors
from rag_experiments.comparison.records.metric_fields import short_labels, short_value
from rag_experiments.comparison.records.run_records import RunRecord

LENGTH = 60
"""Maximum length of a label; instead of a longer one the run's name is used."""
Options = Mapping[str, Mapping[str, str]]


def option_names(runs: Iterable[RunRecord]) -> Options:
    """For each key, the option name of each value. If one option has several values (`model.path=…`), the most common
    value gets the name."""
    runs, options = list(runs), dict[str, dict[str, str]]()
    # Keys that a config group sets, and the name under which Hydra records the group's choice.
    places = role_places({key for run in runs for key in run.flat})
    groups = {"model.path": "model", **{f"{place}.path": f"model@{place}" for place in places}}
    for key, group in groups.items():
        values: dict[str, Counter[str]] = defaultdict(Counter)
        for run in runs:
            if run.flat.get(key) is not None and run.choices.get(group, "null") != "null":
                values[run.choices[group]][str(run.flat[key])] += 1
        options[key] = {}
        for option, counted in values.items():
            (value, most), *others = counted.most_common(2)
            if not others or others[0][1] < most:
                options[key].setdefault(value, option)
    return options


def setting(run: RunRecord, key: str, options: Options) -> str:
    """A run's value of a config key as a table shows it; an option of a group is shown by its name."""
    value = run.flat.get(key)
    return options.get(key, {}).get(str(value)) or short_value(value)


def labels_of(groups: Sequence[Sequence[RunRecord]], options: Options | None = None) -> list[str]:
    """One label per group of runs; empty if settings cannot distinguish it from another, or if it would be too long."""
    if options is None:
        options = option_names(run for group in groups for run in group)
    parts: list[list[str]] = [[] for _ in groups]
    differences, alike = _told_apart([group[0] for group in groups], options)
    short = short_labels(dict.fromkeys(key for key, _, _ in differences))
    selector_keys = selectors(short).values()
    for key, index, value in differences:
        if value != "–":
            parts[index].append(value if key in selector_keys else f"{short[key]}={value}")
    for cell in alike:
        if len({groups[index][0].seed for index in cell}) == len(cell):
            for index in cell:
                parts[index].append(f"seed={groups[index][0].seed}")
    labels = [" ".join(words) for words in parts]
    count = Counter(labels)
    return [label if count[label] == 1 and 0 < len(label) <= LENGTH else "" for label in labels]


def telling_keys(runs: Sequence[RunRecord]) -> list[str]:
    """The settings that distinguish the runs, without redundant ones."""
    firsts = list({group_key(run): run for run in runs if run.config}.values())
    return list(dict.fromkeys(key for key, _, _ in _told_apart(firsts, {})[0]))


def _told_apart(runs: Sequence[RunRecord], options: Options) -> tuple[list[tuple[str, int, str]], list[list[int]]]:
    """(setting, run, value) for each setting that distinguishes a run, and the runs that no setting distinguishes.

    Runs are split by the first setting that differs; each part is split in the same way.
    """
    columns = config_columns([run for run in runs if run.config])
    differences: list[tuple[str, int, str]] = []
    cells = [list(range(len(runs)))] if len(runs) > 1 else []
    for key in (*columns.shown, *columns.hidden):
        split: list[list[int]] = []
        for cell in cells:
            by_value: dict[str, list[int]] = defaultdict(list)
            for index in cell:
                by_value[setting(runs[index], key, options)].append(index)
            split += by_value.values()
            if len(by_value) > 1:
                differences += [(key, index, value) for value, members in by_value.items() for index in members]
        cells = [cell for cell in split if len(cell) > 1]
        if not cells:
            break
    return differences, cells
