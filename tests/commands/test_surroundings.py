"""What a command writes does not depend on where it runs: locale, time zone, home directory, the folder's name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.config import command_line
from rag_experiments.runs.directory import RunDirectory
from tests import warm
from tests.conftest import write_small_data

ROOT = Path(__file__).parents[2]
# Neither ASCII nor UTF-8 mode, half an hour off the full hour, nobody's home.
ODD = {"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "America/St_Johns"}
COMMANDS = {
    "check": ["rag_experiments.data.check", "data=jsonl", "data.path='dätå'", "paths.cache=cache"],
    "plan": ["rag_experiments.train", "plan=true"],
    "train": ["rag_experiments.train"],
    "compare": ["rag_experiments.compare", "läufe", "--format", "json", "--output", "table.json"],
}
REQUEST = [
    "algorithm=ctl", "model.path=model", "model.pooling=mean", "model.precision=fp32", "data=jsonl",
    "data.path='dätå'", "tracking=none", "paths.outputs='läufe'", "paths.cache=cache", "hydra.run.dir='läufe/é'",
    "trainer.use_cpu=true", "trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "evaluation.bootstrap=50",
]  # fmt: skip


def run_all(folder: Path, model: Path, surroundings: dict[str, str] | None) -> tuple[dict[str, str], dict, Path]:
    """Every command in `folder`: what each printed, the run's figures, and the run.

    `surroundings`: variables of a start without a home; None: those of the tests, where no start need be cold.
    """
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    data = write_small_data(folder / "dätå")
    passages = (data / "passages.jsonl").read_text(encoding="utf-8").replace("the red", "the çok büyük İ red")
    (data / "passages.jsonl").write_text(passages, encoding="utf-8")
    variables = {**os.environ, "TZ": "UTC"}
    if surroundings is not None:
        own = ("HOME", "LANG", "LC_CTYPE", "PYTHONUTF8", "WANDB_MODE")  # wandb says its mode when it is imported
        variables = {name: value for name, value in os.environ.items() if name not in own} | surroundings
    variables |= {"PYTHONPATH": str(ROOT), "RAG_EXPERIMENTS_CACHE": "cache"}
    printed = {}
    for name, (module, *arguments) in COMMANDS.items():
        more = REQUEST if module == "rag_experiments.train" else []
        command = [sys.executable, "-m", module, *more, *arguments]
        if surroundings is None:
            done = warm.run(command, cwd=folder, env=variables, timeout=300)
        else:
            done = subprocess.run(
                command, cwd=folder, env=variables, capture_output=True, encoding="utf-8", timeout=300, check=False
            )
        assert done.returncode == 0, done.stderr
        printed[name] = done.stdout.replace(str(folder), "FOLDER")
    run = RunDirectory.open(folder / "läufe" / "é")
    figures = {name: value for name, value in run.read_final_metrics().items() if "/" in name and "second" not in name}
    return printed, figures, run.path


@pytest.mark.timeout(900)
def test_commands_print_and_compute_the_same_in_odd_surroundings(tiny_bert: Path, tmp_path: Path) -> None:
    printed, figures, _ = run_all(tmp_path / "plain", tiny_bert, None)
    odd_printed, odd_figures, run = run_all(tmp_path / "a b" / "Müller rag", tiny_bert, ODD)
    assert odd_printed["check"] == printed["check"]
    assert odd_printed["plan"] == printed["plan"]
    assert figures
    assert odd_figures == figures
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "completed"
    assert status["started"].endswith("+00:00"), "times are written in UTC"
    tables = [
        json.loads((root / "table.json").read_text(encoding="utf-8")) for root in (tmp_path / "plain", run.parents[1])
    ]
    assert [list(table) for table in tables[:1]] == [list(table) for table in tables[1:]]


def test_a_letter_outside_ascii_is_taken_as_it_is() -> None:
    assert command_line.compose(["data=jsonl", "data.path=dätå"]).data.path == "dätå"


def test_a_path_below_a_home_that_there_is_not_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """As for a user of a container who has a number and no entry in the password file."""

    def asks(arguments: list[str]) -> int:
        return len(Path("~nobody-of-this-name/x").expanduser().parts)

    with pytest.raises(SystemExit) as leaving:
        command_line.exit_with(asks, [])
    assert leaving.value.code == command_line.WRONG_REQUEST
    assert "HOME" in capsys.readouterr().err


def test_another_runtime_error_is_no_wrong_request() -> None:
    def fails(arguments: list[str]) -> int:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        command_line.exit_with(fails, [])
