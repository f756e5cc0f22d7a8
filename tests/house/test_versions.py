"""What must work with every version that `pyproject.toml` allows: `make floors` and `make newest` run this file.

Small on purpose: each algorithm trains two steps from random weights and writes a whole run; the commands that read
runs read them; a search draws two.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments import compare, evaluate, train
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from tests import floors
from tests.conftest import write_small_data
from tests.dashboard.conftest import serve  # noqa: F401 - a fixture
from tests.tiny_readers import write_tiny_llama, write_tiny_t5
from tests.training.test_run import request

STEPS = ("trainer.max_steps=2", "trainer.logging_steps=1", "trainer.eval_strategy=steps", "trainer.eval_steps=2")
READS = ("model.max_new_tokens=2", "retriever=bm25", "model.max_input_length=512")
BRIEF = (
    *STEPS,
    "trainer.save_strategy=steps",
    "trainer.save_steps=2",
    "trainer.per_device_train_batch_size=2",
    "evaluation.max_questions=2",
    "evaluation.zero_shot=false",
)
ALGORITHMS = ("ctl", "dca", "rpg", "sft", "swr", "fid", "rerank", "joint")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Folders: `data`, `encoder`, `decoder`, `t5`, and `root` for the runs of this file."""
    root = tmp_path_factory.mktemp("versions")
    return {
        "root": root,
        "data": write_small_data(root / "data", passages=16),
        "encoder": tiny_bert,
        "decoder": write_tiny_llama(root / "llama"),
        "t5": write_tiny_t5(root / "t5"),
    }


def arguments(algorithm: str, place: dict[str, Path]) -> list[str]:
    """The command line of a run of two steps."""
    own = {
        "ctl": [],
        "dca": [f"algorithm.teacher.path={place['decoder']}", "algorithm.teacher_steps=1", "algorithm.candidates=3"],
        "rpg": [f"algorithm.teacher.path={place['decoder']}", "algorithm.candidates=3"],
        "sft": [*READS, "model.lora={r: 4}"],
        "swr": READS,
        "fid": ["model=flan_t5_small", *READS],
        "rerank": ["retriever=bm25", "algorithm.candidates=3"],
        "joint": [
            *[f"algorithm.reader.path={place['decoder']}", "algorithm.candidates=3", "retriever.k=2"],
            *["algorithm.reader.max_new_tokens=2", "algorithm.reader.max_input_length=512"],
        ],
    }[algorithm]
    model = place[
        "encoder"
        if algorithm in ("ctl", "dca", "rpg", "rerank", "joint")
        else "t5"
        if algorithm == "fid"
        else "decoder"
    ]
    given = [one for one in request(model, place["data"], place["root"], *BRIEF, *own) if one != "algorithm=ctl"]
    if model != place["encoder"] or algorithm == "rerank":
        given = [one for one in given if one != "model.pooling=mean"]
    return [f"algorithm={algorithm}", *given]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_trains_evaluates_and_saves(algorithm, place):
    directory = place["root"] / "runs" / algorithm
    assert train.start([*arguments(algorithm, place), f"hydra.run.dir={directory}"]) == 0
    run = RunDirectory.open(directory)
    assert run.state == "completed"
    losses = [line["train/loss"] for line in run.read_metrics() if "train/loss" in line]
    assert len(losses) == 2
    assert any(loss != 0 for loss in losses)
    assert list(run.model_dir.rglob("*.safetensors"))


def test_a_run_is_evaluated_again_and_compared(place, tmp_path):
    directory = place["root"] / "runs" / "again"
    given = [*arguments("ctl", place), "tracking=wandb_offline", f"hydra.run.dir={directory}"]
    assert train.start([one for one in given if one != "tracking=none"]) == 0
    assert list(directory.rglob("*.wandb"))
    assert evaluate.start([f"run={directory}", "retriever=hybrid"]) == 0
    assert list(directory.glob("evaluations/*/metrics.json"))
    assert compare.start([str(place["root"] / "runs"), "--output", str(tmp_path / "table.html")]) == 0
    assert "ctl" in (tmp_path / "table.html").read_text(encoding="utf-8")


def test_the_dashboard_answers(place, serve, tmp_path):  # noqa: F811
    RunDirectory.create(place["root"] / "runs" / "one").update_status(state="completed", algorithm="ctl")
    page = serve(place["root"] / "runs", cache=tmp_path / "cache").get("/runs")
    assert page.status == 200
    assert "one" in page.text


def test_a_search_of_two_trains_both(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    given = [one for one in arguments("ctl", place) if not one.startswith("paths.outputs=")]
    search = ["-m", "name=search", "hydra/sweeper=optuna", "hydra/launcher=serial", "hydra.sweeper.n_trials=2"]
    assert train.start([*search, *given, "algorithm.temperature=interval(0.01,1.0)"]) == 0
    found = list(find_runs(tmp_path / "multirun_sweeps" / "search"))
    assert [run.state for run in found] == ["completed", "completed"]


def test_every_dependency_has_one_lower_bound():
    """And the same where two groups name it, or no environment can hold both."""
    assert set(floors.floors()) >= {"torch", "transformers", "pyarrow", "optuna", "hatchling"}
    for line in floors.constraints().splitlines():
        name, version = line.split("==")
        assert floors.floors()[name] == version


@pytest.mark.parametrize("bounds", [("a", "a>=1"), ("a<2", "a"), ("a>=1", "a>=2")])
def test_floors_refuses_a_dependency_without_one_bound(bounds, tmp_path):
    file = tmp_path / "pyproject.toml"
    lists = {"main": f"['{bounds[0]}']", "extra": f"['{bounds[1]}']"}
    file.write_text(
        f"[build-system]\nrequires = []\n[project]\ndependencies = {lists['main']}\n"
        f"[project.optional-dependencies]\nextra = {lists['extra']}\n"
    )
    with pytest.raises(ValueError, match=r"lower bound|another group"):
        floors.floors(file)
