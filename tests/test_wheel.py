"""A seventh algorithm is one Python file and one YAML file, added from outside, against the built wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.runs.directory import RunDirectory
from tests.conftest import write_small_data

CHECKOUT = Path(__file__).parents[1]

ALGORITHM = '''
"""TOY: pull each question towards its passage: L = mean (1 - s(q, p))."""

from dataclasses import dataclass

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.config.schema import PositiveFloat


def toy_loss(scores_B, weight):
    return weight * (1 - scores_B).mean()


@dataclass(kw_only=True)
class ToyConfig:
    name: str = "toy"
    weight: PositiveFloat = 1.0


class ToyTrainer(AlgorithmTrainer):
    Config = ToyConfig
    trains = "encoder"
    needs = frozenset({"positives"})

    def training_examples(self):
        return Examples(self.parts.data.splits["train"])

    def collate(self, questions):
        encoder, store = self.parts.model, self.parts.data.passages
        rows = [int(store.rows(question.positive_ids[:1])[0]) for question in questions]
        return {
            "queries": encoder.pad(encoder.tokenize_queries([question.question for question in questions])),
            "passages": encoder.pad(encoder.tokenize_passages(store.full_texts(rows))),
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores_B = (model(**inputs["queries"]) * model(**inputs["passages"])).sum(dim=1)
        return toy_loss(scores_B, self.hyper.weight)
'''

CONFIG = """\
# @package _global_
# A seventh algorithm, from outside the package
algorithm:
  _target_: toy_algorithm.ToyTrainer
  name: toy
  weight: 2.0
trainer:
  learning_rate: 1.0e-3
  max_steps: 4
  eval_strategy: "no"
  save_strategy: "no"
  load_best_model_at_end: false
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout and unpacked where nothing else is."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(dist), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = dist.glob("*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return site


def run_from(folder: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rag_experiments.train", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_seventh_algorithm_trains_against_the_built_wheel(installed, tiny_bert, tmp_path):
    outside = tmp_path / "elsewhere"
    (outside / "my_conf" / "algorithm").mkdir(parents=True)
    (outside / "toy_algorithm.py").write_text(ALGORITHM)
    (outside / "my_conf" / "algorithm" / "toy.yaml").write_text(CONFIG)
    data = write_small_data(outside / "data")
    arguments = ["--config-dir", "my_conf", "algorithm=toy", f"model.path={tiny_bert}", "data=jsonl"]
    arguments += [f"data.path={data}", "tracking=none", f"paths.cache={tmp_path}/cache", "trainer.use_cpu=true"]
    done = run_from(outside, installed, *arguments, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    run = RunDirectory.open(outside / "run")
    assert run.read_status()["state"] == "completed"
    assert run.read_status()["algorithm"] == "toy"
    assert "test/recall@1" in run.read_final_metrics()

    wrong = run_from(outside, installed, *arguments, "algorithm.wait=3")
    assert wrong.returncode == 2
    assert "algorithm.wait" in wrong.stderr
    assert "weight" in wrong.stderr


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
