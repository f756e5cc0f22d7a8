"""Every option of every group composes and passes the checks that need no weights."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from rag_experiments import cli
from rag_experiments.config import check_algorithm, check_common
from rag_experiments.errors import RequestError
from rag_experiments.groups import conf_dir, model_kinds

OPTIONS = {
    group: sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    for group in ("algorithm", "model", "data", "retriever", "trainer", "evaluation", "tracking", "experiment")
}
MADE_HERE = ("pydocs", "keyvalue")
"""Data that is made, not read: it takes no path."""


def checked(overrides: list[str]):
    composed = cli.compose(overrides)
    if composed.data.format not in MADE_HERE:
        composed = cli.compose([*overrides, "data.path=somewhere"])
    config, resolved = check_common(composed)
    check_algorithm(config)
    return config, resolved


@pytest.mark.parametrize("algorithm", OPTIONS["algorithm"])
def test_an_algorithm_alone_is_a_whole_run(algorithm):
    config, _ = checked([f"algorithm={algorithm}"])
    assert config.algorithm.name == algorithm


@pytest.mark.parametrize("algorithm", OPTIONS["algorithm"])
def test_a_preset_states_the_defaults_that_its_dataclass_has(algorithm):
    stated = checked([f"algorithm={algorithm}"])[0].algorithm
    defaults = type(stated)()
    keys = [field.name for field in fields(stated) if field.name != "teacher"]  # a model preset, of the model group
    assert {key: getattr(stated, key) for key in keys} == {key: getattr(defaults, key) for key in keys}


@pytest.mark.parametrize(
    ("algorithm", "data", "retriever"),
    list(itertools.product(OPTIONS["algorithm"], OPTIONS["data"], OPTIONS["retriever"])),
)
def test_algorithm_data_retriever_compose(algorithm, data, retriever):
    overrides = [f"algorithm={algorithm}", f"data={data}", f"retriever={retriever}"]
    if retriever == "bm25" and checked([f"algorithm={algorithm}"])[0].model.kind == "encoder":
        with pytest.raises(RequestError, match="bm25"):
            checked(overrides)
    else:
        config, _ = checked(overrides)
        assert config.data.format


# The kind of `model=run` is read from the run: tests/test_reopen.py has such runs.
PRESETS = [model for model in OPTIONS["model"] if model != "run"]


@pytest.mark.parametrize(("algorithm", "model"), list(itertools.product(OPTIONS["algorithm"], PRESETS)))
def test_models_fit_or_are_refused_by_name(algorithm, model):
    overrides = [f"algorithm={algorithm}", f"model={model}"]
    trains = checked([f"algorithm={algorithm}"])[0]
    kind = model_kinds()[model]
    from rag_experiments.config import import_algorithm

    trainer_class = import_algorithm(cli.compose([f"algorithm={algorithm}"]).algorithm._target_)
    fitting = trainer_class.trains if isinstance(trainer_class.trains, tuple) else (trainer_class.trains,)
    if kind in fitting:
        assert checked(overrides)[0].model.kind == kind
    else:
        with pytest.raises(RequestError, match="choose model="):
            checked(overrides)
    assert trains.algorithm.name == algorithm


@pytest.mark.parametrize("trainer", OPTIONS["trainer"])
@pytest.mark.parametrize("tracking", OPTIONS["tracking"])
@pytest.mark.parametrize("evaluation", OPTIONS["evaluation"])
def test_the_other_groups_compose(trainer, tracking, evaluation):
    config, _ = checked([f"trainer={trainer}", f"tracking={tracking}", f"evaluation={evaluation}"])
    assert config.trainer["learning_rate"] > 0


@pytest.mark.parametrize("experiment", OPTIONS["experiment"])
def test_every_experiment_composes(experiment):
    config, _ = checked([f"experiment={experiment}"])
    assert config.algorithm.name in OPTIONS["algorithm"]


def test_a_model_on_the_command_line_wins_over_the_algorithms():
    config, _ = checked(["algorithm=ctl", "model=e5_small"])
    assert "e5" in config.model.path


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("hydra.run.dirr=x", "hydra.run.dirr is an unknown key (did you mean 'dir'?)"),
        ("hydra.sweper.n_trials=3", "hydra.sweper.n_trials is an unknown key (did you mean 'sweeper' or 'sweep'?)"),
        ("hydra.launcher.n_job=3", "did you mean 'n_jobs'?); another hydra/launcher may have it (local, ray"),
        ("hydra.sweeper.n_trials=3", "another hydra/sweeper may have it (grid, optuna, random)"),
        ("hydra/swep=optuna", "hydra/swep is an unknown config group (did you mean 'hydra/sweeper'?)"),
        ("hydra/sweeper=optun", "hydra/sweeper=optun is not one of the hydra/sweeper options (did you mean 'optuna'?)"),
        ("hydra.job.chdir=maybe", "hydra.job.chdir: value 'maybe' is not a valid bool"),
        ("hydra=x", "hydra is no config group"),
        ("seed.x=1", "seed.x is an unknown key: seed has no keys of its own"),
        ("sedd=1", "sedd is an unknown key (did you mean 'seed'?)"),
        ("experiments=demo", "experiments is an unknown key (did you mean 'experiment'?)"),
        ("experiment=dem", "experiment=dem is not one of the experiment options (did you mean 'demo'?)"),
        ("model@retriver.encoder=minilm", "unknown place (did you mean 'model@retriever.encoder'?)"),
        ("paths=x", "paths='x' is no configuration: set its keys, as paths.<key>=…"),
    ],
)
def test_what_does_not_compose_is_said_with_what_would(override, sentence):
    with pytest.raises(RequestError) as refused:
        checked([override])
    assert sentence in str(refused.value)


def test_every_yaml_says_what_it_is():
    for file in conf_dir().rglob("*.yaml"):
        assert len(cli.first_comment(file)) > 10, file


def test_help_is_quick_and_lists_every_option(capsys):
    page = cli.help_page("train", "purpose")
    for group in ("algorithm", "model", "data", "retriever"):
        for option in OPTIONS[group]:
            assert option in page
    assert Path(conf_dir(), "config.yaml").is_file()
