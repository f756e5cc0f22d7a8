"""Which runs a page looks at, what differs between them, which figures they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.dashboard.shared import scope
from rag_experiments.dashboard.shared.address import View
from rag_experiments.dashboard.shared.scope import (
    comparable,
    differing,
    metric_names,
    plain,
    scope_of,
    telling,
)
from rag_experiments.dashboard.shared.watch import Run


def made(key: str, algorithm: str = "ctl", seed: int = 0, state: str = "completed", **more: Any) -> Run:
    config = {"seed": seed, "algorithm": {"name": algorithm}, "trainer": more.pop("trainer", {"learning_rate": 1.0})}
    status = {"data_hash": "d", "corpus_hash": "c"} | more.pop("status", {})
    metrics = more.pop("metrics", {"test/f1": 0.5})
    return Run(Path(f"/runs/{key}"), key, state, status, config, metrics, {}, {}, key=key, **more)


def view(**values: Any) -> View:
    return View("runs", {"q": "", "state": (), "algorithm": (), "sel": ()}, values)


RUNS = {
    run.key: run
    for run in (
        made("a"),
        made("b", algorithm="rpg", state="failed"),
        made("c", algorithm="rpg", seed=1),
        made("d", state="running", trainer={"learning_rate": 2.0}),
    )
}


@pytest.mark.parametrize(
    ("choices", "keys"),
    [
        ({}, "abcd"),
        ({"state": ("failed", "running")}, "bd"),
        ({"algorithm": ("rpg",)}, "bc"),
        ({"algorithm": ("rpg",), "state": ("completed",)}, "c"),
        ({"q": "learning_rate>1"}, "d"),
        ({"q": "learning_rate=1", "algorithm": ("ctl",)}, "a"),
        ({"state": ("gone",)}, ""),
    ],
)
def test_what_matches_passes_every_choice(choices: dict[str, Any], keys: str) -> None:
    found = scope_of(RUNS, view(**choices))
    assert "".join(run.key for run in found.matching) == keys
    assert found.shown == found.matching
    assert [run.key for run in found.everything] == ["a", "b", "c", "d"]
    assert found.problem is None


def test_the_ticked_stand_for_themselves_in_the_order_they_were_ticked() -> None:
    found = scope_of(RUNS, view(sel=("d", "gone", "a"), algorithm=("rpg",)))
    assert [run.key for run in found.selected] == ["d", "a"]
    assert found.shown == found.selected
    assert [run.key for run in found.matching] == ["b", "c"]


def test_a_filter_that_cannot_be_read_is_said() -> None:
    found = scope_of(RUNS, view(q="learning_rat<1"))
    assert "learning_rate" in (found.problem or "")
    assert len(found.matching) == 4


def test_values_that_cannot_be_sorted_are_text() -> None:
    assert plain([1, 2]) == "[1, 2]"
    assert plain({"b": 1, "a": 2}) == '{"a": 2, "b": 1}'
    assert (plain(3), plain("x"), plain(None)) == (3, "x", None)


def test_keys_that_differ_and_the_seed_where_asked() -> None:
    seeds = [made("a"), made("b", seed=1)]
    assert differing(seeds) == []
    assert differing(seeds, seed=True) == ["seed"]
    assert differing([made("a"), made("b")], seed=True) == []
    rates = [made("a"), made("b", trainer={"learning_rate": 2.0}, seed=1)]
    assert differing(rates) == ["trainer.learning_rate"]
    assert differing(rates, seed=True) == ["trainer.learning_rate", "seed"]
    broken = made("c", state="unreadable")
    broken.config = {}
    assert differing([*rates[:1], broken]) == [], "a run that cannot be read differs in nothing"


def test_settings_that_tell_runs_apart_and_the_seed_where_there_is_room() -> None:
    runs = [made("a"), made("b", trainer={"learning_rate": 2.0}, seed=1), made("c", algorithm="rpg")]
    assert telling(runs, 3) == ["algorithm.name", "trainer.learning_rate", "seed"]
    assert telling(runs, 2) == ["algorithm.name", "trainer.learning_rate"]
    assert telling(runs, 1) == ["algorithm.name"]
    assert telling(runs[:1], 3) == []


def test_what_is_known_of_the_same_runs_is_not_found_again_and_not_kept_for_ever() -> None:
    asked = []

    def find(runs: Any) -> list[str]:
        asked.append(list(runs))
        return [run.key for run in runs]

    scope._results.clear()
    runs = list(RUNS.values())
    assert scope._remembered(find, runs) == scope._remembered(find, runs) == ["a", "b", "c", "d"]
    assert len(asked) == 1
    assert scope._remembered(find, runs[:2]) == ["a", "b"], "other runs"
    assert scope._remembered(lambda runs: ["x"], runs) == ["x"], "another question"
    for _ in range(scope.KNOWN + 3):
        scope._remembered(find, [made("fresh")])
    assert len(scope._results) == scope.KNOWN
    count = len(asked)
    scope._remembered(find, runs)
    assert len(asked) == count + 1, "the oldest is forgotten first"
    scope._results.clear()


def test_the_usual_figures_come_first_then_what_most_runs_have_then_by_name() -> None:
    runs = [
        made("a", metrics={"z": 1.0, "b": 1.0, "train/loss": 1.0, "test/f1": 1.0, "test/f1_ci_low": 0.0}),
        made("b", metrics={"z": 1.0, "a": 1.0, "test/recall@1": 1.0, "test/f1_ci_high": 0.0, "test/questions": 9.0}),
    ]
    assert metric_names(runs) == ["test/recall@1", "test/f1", "train/loss", "z", "a", "b"]
    assert metric_names([]) == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, None),
        ({"data_hash": "e"}, "different data (2 of them)"),
        ({"corpus_hash": "e"}, "different corpora (2 of them)"),
        ({"data_hash": None}, None),
        ({"corpus_hash": ""}, None),
    ],
)
def test_other_data_or_another_corpus_does_not_compare(status: dict[str, Any], says: str | None) -> None:
    found = comparable([made("a"), made("b"), made("c", status=status)])
    assert (found is None) == (says is None)
    assert says is None or says in found
