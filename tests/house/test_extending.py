"""Parts from outside work against the built wheel: the worked examples of docs/extending/, copied elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.runs.directory import RunDirectory
from tests import warm
from tests.conftest import write_small_data
from tests.tiny_readers import tiny_llama  # noqa: F401 - a fixture

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "extending"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout and unpacked where nothing else is."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(dist), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = dist.glob("*.whl")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=300)
    return site


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of a user's own, with the examples in it."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLES, folder)
    write_small_data(folder / "data")
    return folder


def run_from(
    folder: Path, site: Path, module: str, *arguments: str, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"rag_experiments.{module}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    if cold:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    source_name = (
        "heavy" if module == "train" else "another heavy"
    )  # what a run left is read by whatever seed of hashes
    return warm.run(command, source_name=source_name, cwd=folder, env=environment, timeout=300)


def trained(folder: Path, site: Path, *arguments: str, data: str = "data=jsonl") -> RunDirectory:
    """A run of a few steps in `folder`/run, without tracking."""
    path = "data.path=pairs.tsv" if data == "data=pairs" else "data.path=data"
    common = [data, path, "tracking=none", f"paths.cache={folder}/cache", "trainer.use_cpu=true"]
    done = run_from(folder, site, "train", "--config-dir", "conf", *arguments, *common, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    run = RunDirectory.open(folder / "run")
    assert run.read_status()["state"] == "completed"
    return run


def test_an_algorithm_is_one_python_file_and_one_yaml(installed, outside, tiny_bert):
    run = trained(outside, installed, "algorithm=pull", f"model.path={tiny_bert}")
    assert run.read_status()["algorithm"] == "pull"
    assert "test/recall@1" in run.read_final_metrics()
    wrong = ["--config-dir", "conf", "algorithm=pull", f"model.path={tiny_bert}", "data=jsonl", "data.path=data"]
    refused = run_from(outside, installed, "train", *wrong, "algorithm.wait=3")
    assert refused.returncode == 2
    assert "algorithm.wait" in refused.stderr
    assert "weight" in refused.stderr


def test_a_kind_of_model_and_a_retriever_come_from_outside(installed, outside, tiny_bert):
    run = trained(outside, installed, "algorithm=late", f"model.path={tiny_bert}")
    metrics = run.read_final_metrics()
    assert {"zero_shot/test/recall@1", "test/recall@1", "seconds/prepare", "seconds/train"} <= metrics.keys()
    again = run_from(outside, installed, "evaluate", "run=run", "--config-dir", "conf", cold=True)
    assert again.returncode == 0, again.stderr
    asked = run_from(
        outside, installed, "ask", "run=run", "--config-dir", "conf", "where", "is", "the", "cat", cold=True
    )
    assert asked.returncode == 0, asked.stderr
    assert "[1]" in asked.stdout
    exported = run_from(outside, installed, "export", "run=run", "out", "--config-dir", "conf", cold=True)
    assert exported.returncode == 0, exported.stderr
    assert "LateRetriever.save` wrote" in (outside / "out" / "README.md").read_text(encoding="utf-8")


def test_an_algorithm_trains_two_roles_at_once(installed, outside, tiny_bert, tiny_llama):  # noqa: F811
    reader = [f"algorithm.reader.path={tiny_llama}", "algorithm.reader.max_new_tokens=8", "evaluation.latency=0"]
    plan = [
        "--config-dir",
        "conf",
        "algorithm=both",
        f"model.path={tiny_bert}",
        *reader,
        "data=jsonl",
        "data.path=data",
    ]
    planned = run_from(outside, installed, "train", *plan, "plan=true", "tracking=none")
    assert planned.returncode == 0, planned.stderr
    assert "encoder parameters" in planned.stdout
    assert "reader parameters" in planned.stdout
    run = trained(outside, installed, "algorithm=both", f"model.path={tiny_bert}", *reader, "trainer.logging_steps=1")
    assert sorted(folder.name for folder in run.model_dir.iterdir()) == ["encoder", "reader"]
    metrics = run.read_final_metrics()
    assert {"test/recall@1", "test/exact_match", "zero_shot/test/f1"} <= metrics.keys()
    rates = [line for line in run.read_metrics() if "train/answer_loss" in line]
    assert rates
    again = run_from(outside, installed, "evaluate", "run=run", "--config-dir", "conf")
    assert again.returncode == 0, again.stderr
    asked = run_from(outside, installed, "ask", "run=run", "--config-dir", "conf", "where", "is", "the", "cat")
    assert asked.returncode == 0, asked.stderr
    exported = run_from(outside, installed, "export", "run=run", "out", "--config-dir", "conf")
    assert exported.returncode == 0, exported.stderr
    assert (outside / "out" / "model" / "reader" / "config.json").is_file()
    # One of a run's models is what another run starts from, by its role.
    sft = ["algorithm=sft", "model=run", "retriever=bm25", "trainer.max_steps=1", "evaluation.latency=0"]
    common = ["data=jsonl", "data.path=data", "tracking=none", "trainer.use_cpu=true", "hydra.run.dir=next"]
    short = ["trainer.eval_strategy=no", "trainer.save_strategy=no", "trainer.load_best_model_at_end=false"]
    one = run_from(outside, installed, "train", *sft, *common, *short, "model.path='run://run#reader'")
    assert one.returncode == 0, one.stderr
    common[-1] = "hydra.run.dir=unnamed"
    unnamed = run_from(outside, installed, "train", *sft, *common, *short, "model.path=run://run")
    assert unnamed.returncode == 2
    assert "run://run#encoder or run://run#reader" in unnamed.stderr


def test_a_data_format_comes_from_outside(installed, outside, tiny_bert):
    lines = [f"where is place {n}\tstone {n}\tplace {n} is at stone {n} by the river" for n in range(60)]
    (outside / "pairs.tsv").write_text("\n".join([*lines, ""]))
    run = trained(outside, installed, "algorithm=pull", f"model.path={tiny_bert}", data="data=pairs")
    assert run.read_status()["data"]["format"] == "pairs"
    (outside / "pairs.tsv").write_text("\n".join([*lines, "a question without more", ""]))
    wrong = ["--config-dir", "conf", "algorithm=pull", f"model.path={tiny_bert}", "data=pairs", "data.path=pairs.tsv"]
    refused = run_from(outside, installed, "train", *wrong, "tracking=none", f"paths.cache={outside}/cache")
    assert refused.returncode == 2
    assert "pairs.tsv:61" in refused.stderr


def test_the_wheel_carries_the_configuration(installed):
    assert (installed / "rag_experiments" / "conf" / "algorithm" / "ctl.yaml").is_file()
    done = subprocess.run(
        [sys.executable, "-c", "import rag_experiments.config.groups as g; print(g.conf_dir())"],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(installed / "rag_experiments" / "conf")


def test_the_wheel_has_types_for_whoever_imports_the_package(installed, tmp_path):
    package = installed / "rag_experiments"
    assert (package / "py.typed").is_file()
    (tmp_path / "mine.py").write_text(
        "import rag_experiments as rag\n"
        'run = rag.train("algorithm=ctl", {"seed": 1}, name="x")\n'
        "reveal_type(run)\n"
        'reveal_type(run.ask("who", [("user", "is it there")]).answer)\n'
        "rag.train(3)\n"
        'run.search(question="who", k="four")\n'
        "rag.trian\n"
    )
    # Not on MYPYPATH, where types are read from any source: among the installed packages py.typed decides.
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "wheel.pth").write_text(f"{installed}\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(environment / "bin" / "python")]
    command += ["--cache-dir", str(tmp_path / "cache"), "--ignore-missing-imports", "--no-error-summary", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout.splitlines()
    assert len(said) == 5, done.stdout + done.stderr
    for line, word in zip(
        said, ("api.opened_run.Run", "str | None", "[arg-type]", "[arg-type]", "attr-defined"), strict=True
    ):
        assert word in line


def test_the_example_of_a_loss_has_tests_that_pass(installed, outside):
    done = warm.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pull.py"],
        cwd=outside,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
