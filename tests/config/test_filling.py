"""Defaults are in a configuration as soon as it is composed, whichever way that is done."""

from __future__ import annotations

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rag_experiments import train
from rag_experiments.config import command_line, filling, surroundings
from rag_experiments.config.filling import fill
from rag_experiments.core.errors import RequestError
from rag_experiments.training.checks import check_common


def test_a_default_can_be_named_in_another_value():
    composed = command_line.compose(["name='t${algorithm.temperature}-k${retriever.k}'", "seed=3"])
    assert composed.name == "t0.05-k4"
    assert str(composed.hydra.run.dir).endswith("t0.05-k4")
    assert composed.hydra.sweep.dir == "multirun_sweeps/t0.05-k4"


def test_cfg_shows_every_key_with_its_value(capsys):
    assert train.start(["--cfg", "job", "data=hub", "data.path=x", "model=smollm2_135m_lora", "algorithm=sft"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    _, resolved = check_common(
        command_line.compose(["data=hub", "data.path=x", "model=smollm2_135m_lora", "algorithm=sft"])
    )
    for group in ("model", "data", "algorithm", "evaluation", "tracking", "sweep"):
        assert OmegaConf.to_container(shown[group]) == resolved[group], group
    assert shown.retriever.encoder.batch_size == 64
    assert (shown.seed, shown.plan, shown.early_stopping) == (0, False, None)


def test_what_is_given_stays_and_the_rest_is_filled_in():
    composed = command_line.compose(
        [
            "data=hub",
            "data.path=x",
            "data.columns.question=q",
            "model=smollm2_135m",
            "algorithm=fid",
            "model.fid.reuse_mb=7",
        ]
    )
    assert composed.data.columns.question == "q"
    assert composed.data.columns.answers == "answers"
    assert composed.model.fid == {
        "passage_tokens": 250,
        "question_with_passage": True,
        "sub_batch_size": 16,
        "reuse_mb": 7,
    }
    splits = command_line.compose(["data=localrqa", "data.splits.train=eval", "data.splits.dev=null"]).data.splits
    assert splits == {"train": "eval", "dev": None, "test": "test"}


def test_a_value_that_must_be_given_is_still_missing():
    with pytest.raises(RequestError, match=r"^data\.path has no value: set data\.path=…$"):
        check_common(command_line.compose(["data=jsonl"]))


def test_a_key_that_is_taken_out_has_its_default():
    assert command_line.compose(["~data.test_fraction"]).data.test_fraction == 0.1


def test_keys_stand_in_one_order_whichever_were_given():
    plain, given = (command_line.compose(more) for more in ([], ["algorithm.symmetric=true", "retriever.bm25_b=0.5"]))
    for group in ("algorithm", "retriever"):
        assert list(plain[group]) == list(given[group])


def test_a_further_model_of_the_algorithm_has_what_its_preset_states():
    """A run's hash holds it so: another key there would make another run of every earlier one."""
    teacher = command_line.compose(["algorithm=rpg"]).algorithm.teacher
    assert set(teacher) == {"kind", "path", "max_input_length", "max_new_tokens", "batch_size"}
    assert "teacher" not in command_line.compose(["algorithm=rpg", "~model@algorithm.teacher"]).algorithm


def test_what_names_nothing_is_left_to_the_checks():
    node = {
        "model": {"kind": "x"},
        "retriever": {"type": "${a.b}"},
        "data": {"format": 3},
        "algorithm": {"_target_": "x.Y"},
    }
    composed = OmegaConf.create({**node, "evaluation": None, "paths": "p", "tracking": {}})
    before = OmegaConf.to_container(composed)
    fill(composed)
    tracking = composed.pop("tracking")
    assert tracking.backend == "wandb"
    del before["tracking"]
    assert OmegaConf.to_container(composed) == before


def test_an_algorithm_from_outside_is_filled_in_as_far_as_its_source_says(tmp_path, monkeypatch):
    (tmp_path / "outside_filled.py").write_text(
        "from dataclasses import dataclass\nfrom rag_experiments.config.schema import ReaderConfig\n"
        "@dataclass(kw_only=True)\nclass Mine:\n    name: str = 'mine'\n    a: int = 3\n    b: float = 1 / 3\n"
        "    reader: ReaderConfig | None = None\n    needed: int\nclass Trainer:\n    Config = Mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    composed = OmegaConf.create({"algorithm": {"_target_": "outside_filled.Trainer", "a": 4}})
    assert fill(composed).algorithm == {"_target_": "outside_filled.Trainer", "name": "mine", "a": 4}


def test_a_run_is_composed_once_and_as_hydra_would_compose_it(tmp_path, monkeypatch):
    composings = []
    settle = filling.settle
    monkeypatch.setattr(filling, "settle", lambda composed: composings.append(1) or settle(composed))
    overrides = ["algorithm=sft", "seed=3", "hydra.output_subdir=null", "hydra.job_logging.root.level=WARNING"]
    more = [*overrides, f"hydra.run.dir='{tmp_path / 'a, run'}'"]
    known = filling.in_directory(command_line.compose(overrides), more, str(tmp_path / "a, run"))
    del composings[:]
    with surroundings.as_before():
        task = Seen()
        command_line.run_hydra(more, task, known)
        assert composings == []
        again = Seen()
        command_line.run_hydra(more, again)
    assert composings
    assert task.hydra == again.hydra
    assert task.composed == again.composed
    assert task.hydra.runtime.output_dir == str(tmp_path / "a, run")


class Seen:
    """A task that keeps what Hydra gives it."""

    __name__, status, started = "train", 0, False

    def __call__(self, composed):
        self.composed, self.hydra = composed, HydraConfig.get()


def test_what_asks_hydra_for_more_than_one_run_is_composed_by_hydra():
    composed = command_line.compose(["hydra.mode=MULTIRUN"])
    assert filling.in_directory(composed, ["hydra.mode=MULTIRUN", "hydra.run.dir=x"], "x") is None
