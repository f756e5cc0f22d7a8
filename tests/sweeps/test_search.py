"""Searches: the space, the study, resuming, pruning. The jobs are stubs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from transformers import TrainerState

from rag_experiments.config.schema import SweepConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import Pruned
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.sweeps import space
from rag_experiments.training import pruning, study
from rag_experiments.training.pruning import PruningCallback, evaluations_so_far

SEARCH = ("hydra/sweeper=optuna", "algorithm.temperature=tag(log,interval(0.01,1.0))")


def trials(sweep, name: str = "s"):
    address = str(sweep.folder(name) / "study.log")
    return optuna.load_study(study_name=study.STUDY, storage=study.storage_at(address)).get_trials()


def test_a_search_finds_more_than_the_default(sweep, capsys):
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=6") == 0
    found = trials(sweep)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 6
    assert found[0].params["algorithm.temperature"] == pytest.approx(0.05)  # the default comes first
    best = max(found, key=lambda trial: trial.value)
    assert abs(best.params["algorithm.temperature"] - 0.3) < 0.1
    assert best.value > found[0].value
    out = capsys.readouterr().out
    assert "6 jobs: 6 completed" in out
    assert f"best: {best.number:04d}_" in out
    values = sweep.values()
    assert found[0].user_attrs["directory"] == "0000_temperature-0.05"
    assert sorted(values) == [trial.user_attrs["directory"] for trial in found]
    assert all(values[trial.user_attrs["directory"]]["dev/ndcg@10"] == trial.value for trial in found)


def test_a_search_goes_on_where_it_was(sweep):
    def interrupted(request, run):
        if len(sweep.ran) == 2:
            raise KeyboardInterrupt
        return {"dev/ndcg@10": 0.5}

    whole = sweep.action
    sweep.action = interrupted
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=3") == 130
    assert [trial.state.name for trial in trials(sweep)] == ["COMPLETE", "RUNNING"]
    running = trials(sweep)[1].params
    sweep.action = whole
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=3") == 0
    assert [name.endswith(" again") for name in sweep.ran] == [True, False]
    found = trials(sweep)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 3
    assert found[1].params == running
    assert len({trial.params["algorithm.temperature"] for trial in found}) == 3  # not the first call's again
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=3") == 0
    assert sweep.ran == []
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=4") == 0
    assert len(sweep.ran) == 1


def test_failed_trials_run_again_or_are_left(sweep):
    def fails(request, run):
        raise ZeroDivisionError

    sweep.action = fails
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=1") == 1
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=1", "sweep.retry_failed=false") == 1
    assert sweep.ran == []
    sweep.action = lambda request, run: {"dev/ndcg@10": 1.0}
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=1") == 0
    assert len(sweep.ran) == 1
    assert [trial.state.name for trial in trials(sweep)] == ["FAIL", "COMPLETE"]
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=1") == 0
    assert sweep.ran == []


def test_hopeless_trials_are_pruned_and_stay_so(sweep, capsys):
    def reports(request, run):
        config = request.config
        trial = study.load_trial(config.sweep.study, config.sweep.trial)
        for step in (1, 2, 3):
            trial.report(-config.algorithm.temperature * step, step)
            if trial.should_prune():
                raise Pruned(f"at step {step}")
        return {"dev/ndcg@10": -config.algorithm.temperature}

    sweep.action = reports
    pruner = "hydra.sweeper.pruner_options={n_startup_trials: 1}"
    arguments = (*SEARCH, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler=random", pruner)
    assert sweep(*arguments) == 0
    states = {trial.user_attrs["directory"]: trial.state.name for trial in trials(sweep)}
    assert set(states.values()) == {"COMPLETE", "PRUNED"}
    for name, state in states.items():
        status = RunDirectory(sweep.folder() / name).read_status()
        assert status["state"] == ("completed" if state == "COMPLETE" else "interrupted")
        assert (status["error"] or {}).get("kind") == (None if state == "COMPLETE" else "pruned")
    count = list(states.values()).count("PRUNED")
    assert f"{count} pruned" in capsys.readouterr().out
    assert sweep(*arguments) == 0
    assert sweep.ran == []
    assert f"{count} pruned" in capsys.readouterr().out


def test_random_search_and_a_database(sweep):
    arguments = ("hydra/sweeper=random", SEARCH[1], "seed=0,1,2", "hydra.sweeper.n_trials=2")
    assert sweep(*arguments, "hydra.sweeper.storage=sqlite") == 0
    storage = f"sqlite:///{sweep.folder()}/study.db"
    found = optuna.load_study(study_name=study.STUDY, storage=storage).get_trials()
    assert len(found) == 2
    assert all(trial.params["seed"] in (0, 1, 2) for trial in found)


def test_sweeps_in_one_database_have_a_study_each(sweep, tmp_path):
    storage = f"sqlite:///{tmp_path}/all.db"
    for name in ("s", "other"):
        for _ in range(2):
            arguments = ("hydra/sweeper=random", "hydra.sweeper.n_trials=1", f"hydra.sweeper.storage='{storage}'")
            assert sweep(SEARCH[1], *arguments, name=name) == 0
        assert sweep.ran == []
    found = {each.study_name: each.n_trials for each in optuna.get_all_study_summaries(storage=storage)}
    assert found == {"s": 1, "other": 1}


def test_a_search_by_a_figure_that_no_trial_has_ends_badly_and_the_right_name_reuses_the_runs(sweep, capsys):
    two = (*SEARCH, "hydra.sweeper.n_trials=2")
    assert sweep(*two, "sweep.metric=dev/f1") == 1
    assert "no trial has the figure dev/f1" in capsys.readouterr().out
    assert sweep(*two) == 0
    assert sweep.ran == []
    assert "best: " in capsys.readouterr().out


def test_a_trial_that_another_process_told_is_not_told_again(sweep):
    def told_elsewhere(request, run):
        other = optuna.load_study(study_name=study.STUDY, storage=study.storage_at(request.config.sweep.study))
        other.tell(request.config.sweep.trial, 0.5)
        return {"dev/ndcg@10": 0.5}

    sweep.action = told_elsewhere
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=2") == 0
    assert [trial.state.name for trial in trials(sweep)] == ["COMPLETE"] * 2


def test_trials_meet_at_the_same_evaluation_whatever_their_batch_size():
    """The k-th evaluation of one is held against the k-th of another, also where a trial was continued."""
    metric = "dev/ndcg@10"
    direction = {"study_name": study.STUDY, "direction": "maximize", "pruner": optuna.pruners.MedianPruner(1, 0)}
    searched = optuna.create_study(**direction)

    def evaluated(trial, steps, value):
        callback = PruningCallback.__new__(PruningCallback)
        callback.metric, callback.trial = metric, trial
        for count in range(1, len(steps) + 1):
            history = [{"step": step, metric: value} for step in steps[:count]] + [{"step": steps[0], "train/loss": 1}]
            state = TrainerState(global_step=steps[count - 1], log_history=history)
            callback.on_evaluate(None, state, None, metrics={f"eval_{metric}": value})

    good = searched.ask()
    evaluated(good, [26, 52], 0.9)
    searched.tell(good, 0.9)
    assert searched.trials[0].intermediate_values == {1: 0.9, 2: 0.9}
    with pytest.raises(Pruned, match="at step 7"):
        evaluated(searched.ask(), [7, 14], 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hydra/sweeper=optuna",), "nothing to search"),
        ((*SEARCH, "hydra.sweeper.sampler=tpf"), "did you mean 'tpe'"),
        ((*SEARCH, "hydra.sweeper.pruner=mediam"), "did you mean 'median'"),
        ((*SEARCH, "hydra.sweeper.sampler_options={nonsense: 1}"), "sampler_options"),
        (("hydra/sweeper=optuna", "algorithm.temperature=tag(logg,interval(0.1,1))"), "tag"),
        (("hydra/sweeper=optuna", "algorithm.temperature=tag(log,interval(0,1.0))"), "algorithm.temperature"),
        (("hydra/sweeper=optuna", "algorithm.temperatur=interval(0.1,1.0)"), "did you mean"),
        (("algorithm.temperature=interval(0.1,1.0)",), "a grid needs values"),
    ],
)
def test_wrong_searches_are_refused_before_anything_is_made(sweep, arguments, message):
    with pytest.raises(RequestError, match=message):
        sweep(*arguments)
    assert not sweep.folder().exists()


def test_a_space_without_m_is_refused():
    from rag_experiments import train

    with pytest.raises(RequestError, match="add -m"):
        train.start(["sweep=ctl"])


def test_a_space_of_the_package_is_searched(sweep):
    fixed = ("trainer.per_device_train_batch_size=8", "trainer.warmup_steps=0", "trainer.learning_rate=1e-3")
    assert sweep("sweep=ctl", *fixed, "hydra.sweeper.n_trials=2") == 0
    assert [list(trial.params) for trial in trials(sweep)] == [["algorithm.temperature"]] * 2
    assert sweep("sweep=ctl", *fixed, "hydra/sweeper=random", "hydra.sweeper.n_trials=3") == 0


def test_a_study_of_the_other_direction_is_not_mixed(sweep):
    sweep(*SEARCH, "hydra.sweeper.n_trials=1")
    with pytest.raises(RequestError, match="direction"):
        sweep(*SEARCH, "hydra.sweeper.n_trials=1", "hydra.sweeper.direction=minimize")


def test_hydras_syntax_becomes_distributions():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    texts = [
        "a=int(interval(1,8))",
        "b=interval(0.5,8)",
        "c=tag(log,interval(1e-6,1e-3))",
        "d=range(2,9,2)",
        "e=x,y",
        "f=choice(1,2.5)",
        "g=3",
        "h=tag(float,interval(1,8))",
        "i=tag(int,log,interval(1,64))",
    ]
    parsed = OverridesParser.create().parse_overrides(texts)
    found, fixed = space.search_space(parsed)
    d = optuna.distributions
    assert fixed == ["g=3"]
    assert found == {
        "a": d.IntDistribution(1, 8),
        "b": d.FloatDistribution(0.5, 8.0),
        "c": d.FloatDistribution(1e-6, 1e-3, log=True),
        "d": d.IntDistribution(2, 8, step=2),
        "e": d.CategoricalDistribution(["x", "y"]),
        "f": d.CategoricalDistribution([1, 2.5]),
        "h": d.FloatDistribution(1.0, 8.0),
        "i": d.IntDistribution(1, 64, log=True),
    }


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "conf" / "sweep").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_space_composes_and_its_ends_are_valid_requests(file):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from rag_experiments.config import command_line
    from rag_experiments.training.checks import check_algorithm, check_common

    composed = command_line.compose([f"sweep={file.stem}"])
    params = OmegaConf.to_container(composed.hydra.sweeper.params)
    found, fixed = space.search_space(OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()]))
    assert found
    assert not fixed
    assert composed.algorithm.name == file.stem
    for end in ("low", "high"):
        values = {
            k: (d.choices[0 if end == "low" else -1] if hasattr(d, "choices") else getattr(d, end))
            for k, d in found.items()
        }
        config, _ = check_common(
            command_line.compose([f"sweep={file.stem}", *[space.override_of(k, v) for k, v in values.items()]])
        )
        check_algorithm(config)


def test_an_evaluation_that_is_repeated_counts_once():
    """A continued trial logs again what it measured at its checkpoint; it must meet the others where it left them."""
    history = [
        {"step": 5, "train/loss": 1.0},
        {"step": 10, "dev/f1": 0.1},
        {"step": 10, "dev/f1": 0.1},
        {"step": 20, "dev/f1": 0.2, "dev/recall@1": 0.3},
    ]
    state = TrainerState(log_history=history)
    assert evaluations_so_far(state, "dev/f1") == 2
    assert evaluations_so_far(state, "dev/recall@1") == 1
    assert evaluations_so_far(state, "dev/exact_match") == 1, "the one that is being reported"


def pruned_by(monkeypatch, processes="1", **sweep) -> list[str]:
    """The metric of each callback of a run with these sweep keys; it is chosen by dev/f1."""
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setattr(pruning, "PruningCallback", lambda address, number, metric: (address, number, metric))
    config = SimpleNamespace(sweep=SweepConfig(**sweep), trainer={"metric_for_best_model": "dev/f1"})
    return [metric for _, _, metric in pruning.pruning_callbacks(config)]


def test_trials_are_pruned_by_what_they_are_searched_by(monkeypatch):
    trial = {"study": "journal:x", "trial": 0}
    assert pruned_by(monkeypatch, **trial) == ["dev/f1"]
    assert pruned_by(monkeypatch, **trial, metric="dev/recall@1") == ["dev/recall@1"]


def test_only_trials_on_one_process_are_pruned(monkeypatch):
    assert pruned_by(monkeypatch) == pruned_by(monkeypatch, study="journal:x") == pruned_by(monkeypatch, trial=0) == []
    assert pruned_by(monkeypatch, processes="2", study="journal:x", trial=0) == []
