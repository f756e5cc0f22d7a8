"""What is typed is never overruled by what an option states."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from rag_experiments.config import command_line
from rag_experiments.training.training_arguments import training_arguments
from tests.config.test_config_rules import DATA, checked

LENGTH = ("max_steps", "num_train_epochs")
RHYTHM = ("eval_strategy", "eval_steps", "save_strategy", "save_steps")


def trainer_of(*overrides: str) -> dict:
    return OmegaConf.to_container(command_line.compose([*DATA, *overrides]).trainer)


def shown(names: tuple[str, ...], *overrides: str) -> list:
    trainer = trainer_of(*overrides)
    return [trainer.get(name) for name in names]


@pytest.mark.parametrize("trainer", ["default", "quick", "gpu"])
@pytest.mark.parametrize("algorithm", ["sft", "swr", "fid", "rpg", "dca", "ctl", "rerank", "joint"])
def test_epochs_that_are_typed_decide_the_length(algorithm, trainer, tmp_path):
    config, _ = checked(f"algorithm={algorithm}", f"trainer={trainer}", "trainer.num_train_epochs=3")
    args = training_arguments(config, tmp_path)
    assert (args.max_steps, args.num_train_epochs) == (-1, 3)


def test_steps_that_are_typed_stay():
    assert shown(LENGTH, "algorithm=sft", "trainer.max_steps=7", "trainer.num_train_epochs=3") == [7, 3]
    assert shown(LENGTH, "algorithm=sft", "trainer=quick")[0] == 60, "no epochs were typed"
    assert "max_steps" not in trainer_of("algorithm=ctl", "trainer.num_train_epochs=3"), "nothing hides it"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["trainer.eval_steps=9"], ["steps", 9, "steps", 9]),
        (["++trainer.eval_steps=9"], ["steps", 9, "steps", 9]),
        (["trainer.eval_strategy=steps"], ["steps", None, "steps", None]),
        (["trainer.eval_steps=9", "trainer.save_steps=18"], ["steps", 9, "steps", 18]),
        (["trainer.eval_steps=9", "trainer.save_strategy=epoch"], ["steps", 9, "epoch", 9]),
        (["trainer.eval_steps=9", "trainer.eval_strategy=no"], ["no", 9, "steps", 9]),
        (["trainer.eval_strategy=epoch", "trainer=quick"], ["epoch", 30, "epoch", 30]),
        (["trainer.save_steps=5"], ["epoch", None, "epoch", 5]),
    ],
)
def test_whoever_sets_the_rhythm_of_evaluation_gets_that_of_saving(typed, expected):
    assert shown(RHYTHM, "algorithm=ctl", *typed) == expected
