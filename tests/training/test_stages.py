"""The stages around training: what is measured when, and what a resumed run does not measure again."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rag_experiments.config.schema import EvaluationConfig, RetrieverConfig, TrackingConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import load_data
from rag_experiments.evaluation.results import EvaluationResult
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.tracking import NullTracker
from rag_experiments.training import cost_clock, stages
from rag_experiments.training.callbacks import SHOWN, Progress, RunLog
from tests.conftest import write_small_data
from tests.stand_in import stand_in


class Told(NullTracker):
    """Remembers what a tracker was told."""

    def __init__(self):
        self.calls = []

    def log(self, metrics, step):
        self.calls.append(("log", dict(metrics), step))

    def summary(self, metrics):
        self.calls.append(("summary", dict(metrics)))

    def table(self, name, rows):
        self.calls.append(("table", name, len(rows)))

    def artifact(self, path, name):
        self.calls.append(("artifact", path, name))


class FakeParts:
    """Measures the share of answers among what it is asked; counts how often."""

    def __init__(self, **evaluation):
        self.config = SimpleNamespace(evaluation=EvaluationConfig(**evaluation))
        self.data = SimpleNamespace(splits={"dev": list(range(6)), "test": list(range(8))})
        self.evaluator = SimpleNamespace(timed=False)
        self.asked = []

    def evaluate(self, questions, persist=False):
        self.asked.append((len(questions), persist, self.evaluator.timed))
        rows = [{"id": f"q{question}"} for question in questions]
        return EvaluationResult(rows=rows, metrics={"recall@1": len(questions) / 10})


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path)


def names(metrics: dict) -> list[str]:
    return [name for name in metrics if "seconds" not in name]


def test_before_training_a_sample_of_each_split_is_measured_written_and_logged(run):
    parts, tracker = FakeParts(max_questions=4), Told()
    metrics = stages.zero_shot(parts, run, RunLog(run, tracker))
    assert names(metrics) == ["zero_shot/dev/recall@1", "zero_shot/test/recall@1"]
    assert metrics["zero_shot/dev/seconds/evaluation"] > 0
    assert parts.asked == [(4, True, False)] * 2
    assert len(run.read_predictions("zero_shot/dev")) == 4
    lines = run.read_metrics()
    assert [(line["step"], line["epoch"]) for line in lines] == [(0, 0.0)] * 2
    assert lines[1]["zero_shot/test/recall@1"] == 0.4
    assert [call[0] for call in tracker.calls] == ["log", "log"]


def test_a_resumed_run_reads_what_it_measured_before_training(run):
    first = stages.zero_shot(FakeParts(), run, RunLog(run, Told()))
    parts, tracker = FakeParts(), Told()
    assert stages.zero_shot(parts, run, RunLog(run, tracker)) == first
    assert (parts.asked, tracker.calls, len(run.read_metrics())) == ([], [], 2)


@pytest.mark.parametrize("lost", ["figures", "predictions"])
def test_what_a_kill_left_half_is_measured_again(run, lost):
    stages.zero_shot(FakeParts(), run, RunLog(run, Told()))
    if lost == "figures":
        run.history_path.unlink()
    else:
        run.predictions_path("zero_shot/test").unlink()
    parts = FakeParts()
    assert len(names(stages.zero_shot(parts, run, RunLog(run, Told())))) == 2
    assert len(parts.asked) == (2 if lost == "figures" else 1)


def test_zero_shot_can_be_turned_off_and_splits_chosen(run):
    assert stages.zero_shot(FakeParts(zero_shot=False), run, RunLog(run, Told())) == {}
    assert names(stages.zero_shot(FakeParts(splits=["dev"]), run, RunLog(run, Told()))) == ["zero_shot/dev/recall@1"]


def test_at_the_end_every_question_is_measured_and_its_time(run):
    parts, tracker = FakeParts(max_questions=4), Told()
    state = SimpleNamespace(global_step=7, epoch=1.5)
    metrics = stages.final(parts, run, RunLog(run, tracker), state)
    assert {name: metrics[name] for name in names(metrics)} == {"dev/recall@1": 0.6, "test/recall@1": 0.8}
    assert parts.asked == [(6, True, True), (8, True, True)]
    assert [(line["step"], line["epoch"]) for line in run.read_metrics()] == [(7, 1.5)] * 2
    assert len(run.read_predictions("test")) == 8
    state.epoch = None
    stages.final(FakeParts(splits=["dev"]), run, RunLog(run, tracker), state)
    assert run.read_metrics()[-1]["epoch"] == 0.0


def test_the_seconds_of_the_log_go_on_after_an_interruption(run):
    log = RunLog(run, Told())
    log.started -= 100
    log.write(1, 0.0, {"a": 1.0})
    log = RunLog(run, Told())
    log.started -= 10
    log.write(2, 0.0, {"a": 1.0})
    first, second = (line["seconds"] for line in run.read_metrics())
    assert 100 <= first < 105
    assert first + 10 <= second < first + 15


def test_what_trainer_logs_is_written_once_by_rank_0(run):
    log, tracker = RunLog(run, Told()), None
    tracker = log.tracker
    state = SimpleNamespace(is_world_process_zero=True, global_step=3, epoch=None)
    log.on_log(None, state, None, logs={"train/loss": 0.5, "epoch": 1.0, "text": "x", "n": 2})
    log.on_log(None, state, None, logs={})
    log.on_log(None, state, None)
    state.is_world_process_zero = False
    log.on_log(None, state, None, logs={"train/loss": 0.5})
    (line,) = run.read_metrics()
    assert {name: line[name] for name in ("step", "epoch", "train/loss", "n")} == {
        "step": 3,
        "epoch": 0.0,
        "train/loss": 0.5,
        "n": 2,
    }
    assert "text" not in line
    assert tracker.calls == [("log", {"train/loss": 0.5, "n": 2}, 3)]


def test_the_console_shows_a_few_figures():
    said = []
    progress = Progress()
    progress.training_bar = SimpleNamespace(write=said.append)
    state = SimpleNamespace(is_world_process_zero=True, global_step=3)
    progress.on_log(None, state, None, logs={"train/loss": 0.123456, "other": 1.0, "dev/f1": 0.5})
    progress.on_log(None, state, None, logs={"other": 1.0})
    progress.on_log(None, state, None, logs=None)
    assert said == ["step     3  train/loss 0.1235  dev/f1 0.5"]
    assert {"train/loss", "dev/f1"} <= set(SHOWN)
    progress.training_bar = None
    progress.on_log(None, state, None, logs={"train/loss": 1.0})


def test_memory_is_in_mebibytes(monkeypatch):
    monkeypatch.setattr(stages.torch.cuda, "is_available", lambda: False)
    stand_in(monkeypatch, stages, "resource", getrusage=lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    monkeypatch.setattr(sys, "platform", "linux")
    assert stages.peak_memory_mb() == 3 * 2**10  # Linux counts kibibytes
    monkeypatch.setattr(sys, "platform", "darwin")
    assert stages.peak_memory_mb() == 3  # macOS bytes
    monkeypatch.setattr(stages.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(stages.torch.cuda, "max_memory_allocated", lambda: 5 * 2**20)
    assert stages.peak_memory_mb() == 5


def test_a_model_is_written_whole_by_rank_0(run, monkeypatch):
    saved = []

    def save(folder):
        assert not run.model_dir.exists()
        saved.append(folder)
        (folder / "weights").touch()

    parts = SimpleNamespace(save=save)
    stages.save_model(parts, run)
    assert [path.name for path in run.model_dir.iterdir()] == ["weights"]
    monkeypatch.setenv("RANK", "1")
    stages.save_model(parts, RunDirectory(run.path))
    assert len(saved) == 1


@pytest.fixture
def reported(run, monkeypatch):
    """Tables and plots are not drawn; says what was asked for."""
    from rag_experiments import comparison
    from rag_experiments.comparison.output import run_plots

    drawn = []
    monkeypatch.setattr(comparison, "print_before_after", lambda run: drawn.append("table"))
    monkeypatch.setattr(run_plots, "write_plots", lambda run: drawn.append("plots"))
    for split in ("dev", "test"):
        run.write_predictions(split, [{"id": f"q{number}"} for number in range(5)])
    return drawn


def test_the_end_is_told_to_the_tracker_and_the_console(run, reported):
    tracker = Told()
    stages.report(run, tracker, {"dev/f1": 0.5}, TrackingConfig(table_rows=3))
    assert tracker.calls == [
        ("summary", {"dev/f1": 0.5}),
        ("table", "predictions/dev", 3),
        ("table", "predictions/test", 3),
    ]
    assert reported == ["table", "plots"]
    tracker.calls.clear()
    stages.report(run, tracker, {}, TrackingConfig(table_rows=0, log_model=True))
    assert tracker.calls == [("summary", {}), ("artifact", run.model_dir, "model")]


def test_plots_that_do_not_fit_on_the_disk_fail_no_run(run, reported, monkeypatch, caplog):
    from rag_experiments.comparison.output import run_plots

    def full(run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_plots, "write_plots", full)
    caplog.set_level(logging.WARNING)
    stages.report(run, Told(), {}, TrackingConfig())
    assert "plots/ could not be written" in caplog.text


def test_another_rank_reports_nothing(run, reported, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    tracker = Told()
    stages.report(RunDirectory(run.path), tracker, {"a": 1}, TrackingConfig(log_model=True))
    assert (tracker.calls, reported) == ([], [])


class FakeTrainer:
    """Prepares for 2 seconds, and trains for 3 and prepares for 1 within, on a clock that it moves itself."""

    args = SimpleNamespace(seed=7)

    def __init__(self, clock: list[float], tokens: int, fails: bool = False):
        self.clock, self.tokens, self.fails, self.seconds_preparing, self.asked = clock, tokens, fails, 0.0, []

    @contextmanager
    def preparing(self):
        before = self.clock[0]
        try:
            yield
        finally:
            self.seconds_preparing += self.clock[0] - before

    def prepare(self):
        torch.manual_seed(99)  # whatever is drawn here
        self.clock[0] += 2

    def train(self, **options):
        self.asked.append(options)
        self.drawn = torch.rand(1).item()
        self.clock[0] += 3
        with self.preparing():
            self.clock[0] += 1
        if self.fails:
            raise KeyboardInterrupt

    def total_seconds(self):
        return 3.0

    def total_tokens(self):
        return self.tokens


@pytest.fixture
def moved(monkeypatch) -> list[float]:
    clock = [100.0]
    stand_in(monkeypatch, cost_clock, "time", perf_counter=lambda: clock[0])
    return clock


@pytest.mark.parametrize(("tokens", "rate"), [(600, 200.0), (0, None)])
def test_what_training_cost(run, moved, tmp_path, tokens, rate):
    trainer = FakeTrainer(moved, tokens)
    clock = cost_clock.CostClock(run)
    with clock.preparing():
        moved[0] += 5  # a run that must come first
    cost = stages.fit(trainer, clock, tmp_path)
    assert (cost["seconds/prepare"], cost["seconds/train"]) == (8.0, 3.0)
    assert cost["peak_memory_mb"] > 0
    assert cost.get("tokens_per_second") == rate
    assert trainer.asked == [{"resume_from_checkpoint": str(tmp_path)}]
    stages.fit(again := FakeTrainer(moved, tokens), cost_clock.CostClock(run), None)
    assert again.asked == [{"resume_from_checkpoint": None}]
    assert again.drawn == trainer.drawn, "what preparing draws does not change the training"


def test_both_trainings_of_a_run_count(run, moved):
    """As `refit=true` has two."""
    clock = cost_clock.CostClock(run)
    for expected in (3.0, 6.0):
        cost = stages.fit(FakeTrainer(moved, 1), clock, None)
        assert (cost["seconds/prepare"], cost["seconds/train"]) == (expected, expected)


def test_every_segment_counts_also_one_that_was_killed(run, moved):
    with pytest.raises(KeyboardInterrupt):
        stages.fit(FakeTrainer(moved, 1, fails=True), cost_clock.CostClock(run), None)
    assert cost_clock.read_cost(run.path) == {"prepare": 3.0, "train": 3.0}
    cost = stages.fit(FakeTrainer(moved, 1), cost_clock.CostClock(run), None)
    assert (cost["seconds/prepare"], cost["seconds/train"]) == (6.0, 6.0)
    killed = cost_clock.CostClock(run)
    killed.trainer = FakeTrainer(moved, 1)
    with killed.training():
        moved[0] += 7
        killed.on_log(None, None, None)
        assert cost_clock.read_cost(run.path) == {"prepare": 6.0, "train": 13.0}, "a kill loses what comes later"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"train": "x"}'])
def test_a_broken_cost_file_counts_nothing(tmp_path, content):
    (tmp_path / "cost.json").write_text(content)
    assert cost_clock.read_cost(tmp_path) == {}


# -- baselines --------------------------------------------------------------------------------------


def parts_with_passages(tmp_path, **evaluation):
    """What a run over the small data has, as far as a baseline looks at it."""
    data = load_data(JsonlConfig(path=str(write_small_data(tmp_path / "data"))), tmp_path / "cache")
    config = SimpleNamespace(
        evaluation=EvaluationConfig(bootstrap=0, **evaluation),
        data=SimpleNamespace(query_history="user"),
        retriever=RetrieverConfig(k=2, bm25_b=0.1, encoder=None),
    )
    return SimpleNamespace(config=config, data=data, models={"encoder": None}, cache=tmp_path / "cache")


def test_a_baseline_finds_what_its_retriever_finds_with_the_runs_settings(run, tmp_path):
    parts = parts_with_passages(tmp_path)
    metrics = stages.baselines(parts, run, RunLog(run, Told()))
    assert {name.rpartition("/")[0] for name in names(metrics)} >= {"baseline/bm25/dev", "baseline/bm25/test"}
    plain = BM25Retriever(RetrieverConfig(type="bm25", bm25_b=0.1), parts.data.passages, None)
    queries = [question.question for question in parts.data.splits["test"]]
    rows = run.read_predictions("baseline/bm25/test")
    expected = [parts.data.passages.ids(found[found >= 0]) for found in plain.search(queries, 20).rows_QK]
    assert [row["retrieved_ids"] for row in rows] == expected
    share = np.mean([row["retrieved_ids"][0] in row["gold_ids"] for row in rows])
    assert metrics["baseline/bm25/test/recall@1"] == pytest.approx(share)


def test_a_resumed_run_measures_no_baseline_again(run, tmp_path, monkeypatch):
    parts = parts_with_passages(tmp_path)
    first = stages.baselines(parts, run, RunLog(run, Told()))
    monkeypatch.setattr(stages, "build_baseline", lambda *_: pytest.fail("built again"))
    again = Told()
    assert stages.baselines(parts, run, RunLog(run, again)) == first
    assert again.calls == []


def test_baselines_stand_beside_trained_encoders_of_corpora_that_are_not_huge(run, tmp_path, monkeypatch):
    reader = parts_with_passages(tmp_path)
    reader.models = {"reader": None}
    none = parts_with_passages(tmp_path, baselines=[])
    assert [stages.baselines(parts, run, RunLog(run, Told())) for parts in (reader, none)] == [{}, {}]
    monkeypatch.setattr(stages, "BASELINE_PASSAGES", 39)
    assert stages.baselines(parts_with_passages(tmp_path), run, RunLog(run, Told())) == {}
