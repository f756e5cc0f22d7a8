"""Both directions, defaults, seeds, parallel trials: what a search chooses and says."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest

from rag_experiments.errors import RequestError
from rag_experiments.sweeps import report, space, study
from rag_experiments.sweeps.jobs import Job, Result
from rag_experiments.sweeps.search import OptunaSweeper
from tests.sweeps.test_search import SEARCH, trials


def rows(*values: float | None) -> list[tuple[Job, Result]]:
    return [
        (Job(f"j{number}", [], metric="dev/loss"), Result("completed" if value is not None else "failed", value=value))
        for number, value in enumerate(values)
    ]


def test_the_best_of_rows_by_direction():
    found = rows(0.5, None, 0.2, 0.9, 0.9, 0.2)
    assert report.best(found, True)[0].label == "j3"
    assert report.best(found, False)[0].label == "j2"  # of equals the first
    assert report.best(rows(None), True) is None
    assert report.best([], False) is None


@pytest.mark.parametrize(("direction", "best"), [("minimize", min), ("maximize", max)])
def test_the_named_best_is_the_best_in_the_direction_searched(sweep, capsys, direction, best):
    arguments = ("hydra.sweeper.n_trials=3", f"hydra.sweeper.direction={direction}", "hydra.sweeper.sampler=random")
    sweep.action = lambda request, run: {"dev/ndcg@10": request.config.algorithm.temperature}
    assert sweep(*SEARCH, *arguments) == 0
    chosen = best(trials(sweep), key=lambda trial: trial.value)
    out = capsys.readouterr().out
    assert f"best: {chosen.user_attrs['directory']}, dev/ndcg@10 {chosen.value:.4f}: algorithm.temperature=" in out
    assert f"the study: optuna-dashboard {sweep.folder().resolve()}/study.log" in out


def test_the_study_is_searched_in_the_direction_asked_for(tmp_path):
    for direction in ("minimize", "maximize"):
        made = study.open_study(str(tmp_path / direction), direction, optuna.samplers.RandomSampler(), None)
        assert made.direction.name.lower() == direction


@pytest.mark.parametrize("given", [{"n_trials": 0}, {"n_trials": -1}, {"direction": "up"}])
def test_a_search_that_cannot_be_is_refused(given):
    with pytest.raises(RequestError, match="n_trials of 1 or more and a direction"):
        OptunaSweeper(**given)
    OptunaSweeper(n_trials=1, direction="minimize")


def test_the_default_is_tried_first_only_where_asked_and_only_once(sweep):
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=1", "hydra.sweeper.try_default=false") == 0
    assert trials(sweep)[0].params["algorithm.temperature"] != 0.05
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=2") == 0  # it is no longer the first
    assert all(trial.params["algorithm.temperature"] != 0.05 for trial in trials(sweep))


def test_a_default_outside_the_space_is_not_tried(sweep):
    two = ("hydra/sweeper=optuna", "algorithm.temperature=interval(0.2,1.0)", "seed=choice(3,0)")
    assert sweep(*two, "hydra.sweeper.n_trials=1") == 0
    (first,) = trials(sweep)
    assert 0.2 <= first.params["algorithm.temperature"] <= 1.0
    assert first.params["seed"] == 0  # this one is inside


def test_a_seeded_search_draws_the_same_and_another_seed_others(sweep):
    def drawn(name: str, *more: str) -> list[float]:
        arguments = ("hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=2", "hydra.sweeper.try_default=false")
        assert sweep(*SEARCH, *arguments, *more, name=name) == 0
        return [trial.params["algorithm.temperature"] for trial in trials(sweep, name)]

    first = drawn("a")
    assert drawn("b") == first
    assert drawn("c", "hydra.sweeper.seed=1") != first


def test_a_plan_says_the_space_and_makes_nothing(sweep, capsys):
    assert sweep(*SEARCH, "plan=true") == 0
    out = capsys.readouterr().out
    assert "algorithm.temperature: FloatDistribution" in out
    assert "nothing was started" in out
    assert not sweep.folder().exists()


def test_a_search_without_a_figure_is_refused(sweep):
    none = "trainer.metric_for_best_model=null", "trainer.load_best_model_at_end=false"
    with pytest.raises(RequestError, match=r"set sweep\.metric"):
        sweep(*SEARCH, *none)


def test_fixed_overrides_go_to_every_trial(sweep):
    seen = []
    sweep.action = lambda request, run: seen.append(request.config.seed) or {"dev/ndcg@10": 0.5}
    assert sweep(*SEARCH, "seed=7", "hydra.sweeper.n_trials=2") == 0
    assert seen == [7, 7]


def test_a_trial_knows_its_study_and_number(sweep):
    seen = []

    def action(request, run):
        seen.append((request.config.sweep.study, request.config.sweep.trial))
        return {"dev/ndcg@10": 0.5}

    sweep.action = action
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=2") == 0
    assert seen == [(str(sweep.folder().resolve() / "study.log"), number) for number in (0, 1)]


@pytest.mark.parametrize(("places", "parallel"), [(1, False), (2, True), (None, False)])
def test_trials_that_run_at_once_know_of_each_other(monkeypatch, places, parallel):
    asked = []
    monkeypatch.setattr(space, "make_sampler", lambda *arguments: asked.append(arguments))
    sweeper = OptunaSweeper(seed=5)
    sweeper.launcher = SimpleNamespace(**({} if places is None else {"places": places}))  # one of Hydra's own has none
    sweeper._sampler(1000)
    assert asked == [("tpe", {}, 1005, parallel)]
    assert space.SAMPLERS["tpe"] == "TPESampler"


def test_a_sampler_of_parallel_trials_takes_running_ones_into_account():
    assert space._class(optuna.samplers, space.SAMPLERS, "tpe", "sampler") is optuna.samplers.TPESampler
    made = space.make_sampler("tpe", {}, 0, parallel=True)
    assert made._constant_liar


# -- samplers, pruners, values -------------------------------------------------------------------------


@pytest.mark.parametrize("name", space.SAMPLERS)
def test_every_short_name_of_a_sampler_is_one(name):
    needs = {"gp": "torch", "cmaes": "cmaes"}
    if name in needs:
        pytest.importorskip(needs[name])
    made = space.make_sampler(name, {}, 3, parallel=True)
    assert type(made).__name__ == space.SAMPLERS[name]
    assert type(space.make_sampler(space.SAMPLERS[name], {}, 3, parallel=False)) is type(made)


def test_a_sampler_takes_its_seed_and_options_win():
    def first(**options):
        made = space.make_sampler("random", options, 3, parallel=False)
        return optuna.create_study(sampler=made).ask().suggest_float("x", 0, 1)

    assert first() == first() != first(seed=4)


@pytest.mark.parametrize("name", sorted(set(space.PRUNERS) - {"percentile", "patient", "threshold", "wilcoxon"}))
def test_every_short_name_of_a_pruner_is_one(name):
    assert type(space.make_pruner(name, {})).__name__ == space.PRUNERS[name]


def test_pruners_with_options():
    made = space.make_pruner("percentile", {"percentile": 25.0, "n_startup_trials": 2})
    assert (made._percentile, made._n_startup_trials) == (25.0, 2)
    with pytest.raises(RequestError, match=r"hydra\.sweeper\.pruner_options"):
        space.make_pruner("percentile", {"percentile": 250.0})
    for wrong in ("BaseSampler", "nonsense", "make_pruner"):
        with pytest.raises(RequestError, match=rf"hydra\.sweeper\.sampler={wrong} is unknown"):
            space.make_sampler(wrong, {}, 0, parallel=False)


@pytest.mark.parametrize(
    ("value", "override"),
    [(None, "k=null"), (0.1, "k=0.1"), (1e-7, "k=1e-07"), (1 / 3, "k=0.3333333333333333"), (3, "k=3"), ("a", "k=a")],
)
def test_a_trials_value_reads_back_exactly(value, override):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert space.override_of("k", value) == override
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert parsed.value() == value


def test_values_in_names_are_short():
    assert [space.short_value(value) for value in (1 / 3, 12, "x", 1e-7)] == ["0.333", "12", "x", "1e-07"]


# -- the study -----------------------------------------------------------------------------------------


def test_where_a_study_lies(tmp_path):
    assert study.study_address(None, tmp_path) == str(tmp_path / "study.log")
    assert study.study_address("sqlite", tmp_path) == f"sqlite:///{tmp_path}/study.db"
    address = study.study_address("postgresql://db/x", tmp_path / "my_sweep")
    assert study.split_address(address) == ("postgresql://db/x", "my_sweep")
    assert study.split_address(str(tmp_path / "study.log")) == (str(tmp_path / "study.log"), "sweep")


def test_a_storage_that_does_not_open_is_a_sentence(tmp_path):
    with pytest.raises(RequestError, match=r"hydra\.sweeper\.storage=nosuch://x does not open"):
        study.open_study("nosuch://x", "maximize", None, None)


def test_jobs_judge_by_the_pruner_of_the_sweep(tmp_path):
    address = str(tmp_path / "study.log")
    made = study.open_study(address, "maximize", optuna.samplers.RandomSampler(), None)
    assert isinstance(study.stored_pruner(address), optuna.pruners.NopPruner)
    study.remember_pruner(made, "percentile", {"percentile": 10.0})
    pruner = study.stored_pruner(address)
    assert isinstance(pruner, optuna.pruners.PercentilePruner)
    assert pruner._percentile == 10.0
    made.ask()
    assert isinstance(study.load_trial(address, 0).study.pruner, optuna.pruners.PercentilePruner)
    with pytest.raises(RequestError, match=r"sweep\.trial=5: .* has no such trial"):
        study.load_trial(address, 5)
