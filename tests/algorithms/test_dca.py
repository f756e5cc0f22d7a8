"""DCA: the loss by hand, gradients of known sign, the teacher's cache, and a teacher that is made first."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rag_experiments.algorithms import fid_teacher as teachers
from rag_experiments.algorithms.dca import DCAConfig, DCATrainer, dca_loss, fitting_score, standardised
from rag_experiments.algorithms.fid_teacher import PassageTeacher
from rag_experiments.config.schema import FidSettings, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import first_runs
from tests.algorithms.fid_parts import make_dca_trainer, teacher_config
from tests.examples import PASSAGES, QUESTION
from tests.numeric import assert_near

STUDENT = [[0.3, 0.1, -0.2]]
TEACHER = [[-4.0, -1.0, -2.0]]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def float64(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_loss_by_hand():
    """KL(teacher ‖ student), in that direction, each with its own temperature."""
    p = softmax([value / 2.0 for value in TEACHER[0]])
    q = softmax([value / 0.5 for value in STUDENT[0]])
    by_hand = sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True))
    other_way = sum(qk * math.log(qk / pk) for pk, qk in zip(p, q, strict=True))
    loss = dca_loss(float64(STUDENT), float64(TEACHER), 0.5, 2.0)
    assert loss.item() == pytest.approx(by_hand, abs=1e-12)
    assert abs(by_hand - other_way) > 1e-2, "values with which both directions agree show nothing"


def test_mean_over_questions_not_over_candidates():
    one = dca_loss(float64(STUDENT), float64(TEACHER), 1.0, 1.0)
    two = dca_loss(float64(STUDENT * 2), float64(TEACHER * 2), 1.0, 1.0)
    assert two.item() == pytest.approx(one.item())


def test_gradient_of_each_passage():
    """softmax(student) − softmax(teacher), over T: descent raises the one that the reader attends to most."""
    student = float64(STUDENT).requires_grad_()
    teacher = float64(TEACHER).requires_grad_()
    dca_loss(student, teacher, 0.5, 1.0).backward()
    p, q = softmax(TEACHER[0]), softmax([value / 0.5 for value in STUDENT[0]])
    assert student.grad[0].tolist() == pytest.approx([(qk - pk) / 0.5 for pk, qk in zip(p, q, strict=True)], abs=1e-12)
    assert torch.sign(student.grad[0]).tolist() == [1, -1, -1]
    assert teacher.grad is None


def test_constants_padding_and_order_change_nothing():
    student, teacher = float64(STUDENT), float64(TEACHER)
    loss = dca_loss(student, teacher, 0.5, 1.0)
    assert dca_loss(student, teacher + 17.0, 0.5, 1.0).item() == pytest.approx(loss.item(), abs=1e-12)
    order = [2, 0, 1]
    assert dca_loss(student[:, order], teacher[:, order], 0.5, 1.0).item() == pytest.approx(loss.item(), abs=1e-12)
    padded = [torch.cat([values, float64([[50.0, 50.0]])], dim=1) for values in (student, teacher)]
    present = torch.tensor([[True, True, True, False, False]])
    assert dca_loss(*padded, 0.5, 1.0, present).item() == pytest.approx(loss.item(), abs=1e-12)
    padded[0].requires_grad_(True)
    dca_loss(*padded, 0.5, 1.0, present).backward()
    assert padded[0].grad[0, 3:].tolist() == [0, 0]


def test_one_candidate_teaches_nothing():
    student = torch.tensor([[0.3, 0.0]], requires_grad=True)
    loss = dca_loss(student, torch.tensor([[5.0, 9.0]]), 1.0, 1.0, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().sum() == 0


def test_standardised_by_hand():
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    assert standardised(values, present).tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.fixture(params=["llama", "t5"])
def reader(request, tiny_llama, tiny_t5) -> ReaderConfig:
    return teacher_config(tiny_t5 if request.param == "t5" else tiny_llama, request.param)


def test_it_learns_and_every_parameter_moves(tiny_bert, reader, tmp_path):
    trainer = make_dca_trainer(tiny_bert, reader, tmp_path, max_steps=6, algorithm_teacher_steps=0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    losses = [line["train/loss"] for line in trainer.state.log_history if "train/loss" in line]
    assert losses[-1] < losses[0]
    still = [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name in still if "pooler" not in name]


def test_candidates_and_scores_stand_in_one_order(tiny_bert, reader, tmp_path):
    trainer = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=0)
    rows = trainer.candidates.rows_QK[[0, 1]]
    scores = trainer.scores_of([0, 1], rows)["scores"]
    turned = trainer.scores_of([0, 1], rows[:, ::-1].copy())["scores"]
    assert_near(turned, scores.flip(1))
    store = trainer.components.data.passages
    best = int(scores[0].argmax())
    alone = PassageTeacher(trainer.teacher.reader, trainer.teacher.kind, None)
    found = alone.scores([trainer.questions[0]], [[store[int(row)] for row in rows[0]]])[0]
    assert int(np.argmax(found)) == best


def test_scores_are_computed_once(tiny_bert, reader, tmp_path, monkeypatch):
    trainer = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=0)
    trainer.prepare_scores(range(8))
    assert (trainer.teacher.lookups, trainer.teacher.hits) == (8, 0)
    again = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=0)

    def fails(*args, **kwargs):
        raise AssertionError("a score that is known was computed again")

    monkeypatch.setattr(teachers, "passage_scores", fails)
    again.prepare_scores(range(8))
    assert again.teacher.hits == 8
    rows = again.candidates.rows_QK
    assert torch.equal(trainer.scores_of(range(8), rows)["scores"], again.scores_of(range(8), rows)["scores"])


def test_another_reader_or_score_is_another_cache(tiny_llama, tmp_path):
    first = FidReader.load(teacher_config(tiny_llama, "llama"), device="cpu")
    second = FidReader.load(
        ReaderConfig(**{**vars(teacher_config(tiny_llama, "llama")), "fid": FidSettings(passage_tokens=9)}),
        device="cpu",
    )
    files = {
        PassageTeacher(r, kind, tmp_path).cache.file for r in (first, second) for kind in ("cross_attention", "adist")
    }
    assert len(files) == 4


def test_value_weighted_scores_need_an_answer(tiny_llama, tmp_path):
    teacher = PassageTeacher(FidReader.load(teacher_config(tiny_llama, "llama"), device="cpu"), "adist", None)
    scores = teacher.scores([QUESTION], [PASSAGES])[0]
    assert scores.shape == (3,)
    assert (scores > 0).all()
    unanswered = SimpleNamespace(**{key: getattr(QUESTION, key) for key in ("id", "question", "history")}, answers=())
    with pytest.raises(RequestError, match="q1"):
        teacher.scores([unanswered], [PASSAGES])


def test_the_score_fits_reader_and_questions():
    answered, unanswered = SimpleNamespace(answers=("a",)), SimpleNamespace(answers=())
    assert fitting_score("decoder", [answered]) == "adist_peak"
    assert fitting_score("decoder", [answered, unanswered]) == "cross_attention"
    assert fitting_score("encoder_decoder", [answered]) == "cross_attention"


def test_without_answers_the_default_still_trains(tiny_bert, tiny_llama, tmp_path):
    trainer = make_dca_trainer(
        tiny_bert, teacher_config(tiny_llama, "llama"), tmp_path, answered=False, algorithm_teacher_steps=0, max_steps=2
    )
    assert trainer.teacher.kind == "cross_attention"
    trainer.train()


def test_a_reader_that_is_no_fid_run_is_trained_once(tiny_bert, reader, tmp_path, monkeypatch):
    options = {"algorithm_teacher_steps": 2, "algorithm_teacher_batch_size": 2}

    def with_teacher(teacher, **more):
        """A trainer whose first run was made, as `training.run` does it."""
        trainer = make_dca_trainer(tiny_bert, teacher, tmp_path, **options, **more)
        components = trainer.components
        components.config.trainer = {"use_cpu": True, "disable_tqdm": True}
        request = SimpleNamespace(config=components.config, data=components.data, trainer_class=DCATrainer)
        first_runs.make_first_runs(request, components)
        trainer.prepare()
        return trainer

    first = with_teacher(reader)
    plain = FidReader.load(reader, device="cpu")
    assert first.teacher.reader.fingerprint() != plain.fingerprint()
    assert not any(p.requires_grad for p in first.teacher.reader.module.parameters())
    made = [RunDirectory(status.parent) for status in (tmp_path / "cache" / "first_runs" / "fid").glob("*/status.json")]
    assert [run.state for run in made] == ["completed"]
    assert made[0].read_metrics()
    assert not made[0].checkpoints_dir.exists()

    def fails(*args, **kwargs):
        raise AssertionError("the teacher was trained again")

    monkeypatch.setattr(first_runs, "_train", fails)
    again = with_teacher(reader, seed=5)
    assert again.teacher.reader.fingerprint() == first.teacher.reader.fingerprint()
    # What it became teaches as it is when it is named, whatever teacher_steps says.
    named = ReaderConfig(**{**vars(reader), "path": str(made[0].model_dir), "fid": None})
    used = with_teacher(named)
    assert used.teacher.reader.fingerprint() == first.teacher.reader.fingerprint()


def test_a_first_run_that_fails_goes_on_when_it_is_asked_for_again(tiny_bert, reader, tmp_path, monkeypatch):
    trainer = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=2, algorithm_teacher_batch_size=2)
    components = trainer.components
    components.config.trainer = {"use_cpu": True, "disable_tqdm": True}
    request = SimpleNamespace(config=components.config, data=components.data, trainer_class=DCATrainer)
    inner = first_runs._train

    def fails(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(first_runs, "_train", fails)
    with pytest.raises(OSError, match="No space"):
        first_runs.make_first_runs(request, components)
    (status,) = (tmp_path / "cache" / "first_runs" / "fid").glob("*/status.json")
    assert RunDirectory(status.parent).state == "failed"
    monkeypatch.setattr(first_runs, "_train", inner)
    first_runs.make_first_runs(request, components)
    assert RunDirectory(status.parent).state == "completed"
    assert components.config.algorithm.teacher.path == str(status.parent / "model")

    weights = status.parent / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    components.config.algorithm.teacher = reader
    first_runs.make_first_runs(request, components)
    assert weights.read_bytes() == whole, "a model that was cut short is trained again"


def test_candidates_of_the_data_may_be_uneven(tiny_bert, reader, tmp_path):
    lists = [("p1", "p2", "p3"), ("p4",), ("p5", "p5", "p6")] + [("p0", "p1")] * 5
    trainer = make_dca_trainer(
        tiny_bert, reader, tmp_path, candidate_ids=lists, algorithm_passages="data", algorithm_teacher_steps=0
    )
    assert trainer.candidates.rows_QK[:3].tolist() == [[1, 2, 3, -1], [4, -1, -1, -1], [5, 6, -1, -1]]
    trainer.train()
    assert all(math.isfinite(line["train/loss"]) for line in trainer.state.log_history if "train/loss" in line)


def test_gold_only_on_request(tiny_bert, tiny_llama, tmp_path):
    reader = teacher_config(tiny_llama, "llama")
    without = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=0)
    with_gold = make_dca_trainer(tiny_bert, reader, tmp_path, algorithm_teacher_steps=0, algorithm_add_gold=True)
    has = [
        all(set(golds) & set(rows) for golds, rows in zip(t.golds, t.candidates.rows_QK.tolist(), strict=True))
        for t in (without, with_gold)
    ]
    assert has == [False, True]


def test_candidates_are_refreshed_and_scored(tiny_bert, tiny_llama, tmp_path):
    trainer = make_dca_trainer(
        tiny_bert,
        teacher_config(tiny_llama, "llama"),
        tmp_path,
        algorithm_teacher_steps=0,
        algorithm_refresh_every=2,
        max_steps=4,
        learning_rate=2e-2,
    )
    before = trainer.candidates.rows_QK.copy()
    trainer.train()
    assert not np.array_equal(before, trainer.candidates.rows_QK)
    assert any("train/candidates_changed" in line for line in trainer.state.log_history)


def test_what_the_data_lacks_is_refused_before_weights_are_read(tiny_llama):
    def check(*questions, **settings):
        given = {"teacher": ReaderConfig(path=str(tiny_llama)), **settings}
        data = SimpleNamespace(splits={"train": list(questions)})
        DCATrainer.check_data(SimpleNamespace(algorithm=DCAConfig(**given)), data)

    bare, answered = Question("q1", "Why?"), Question("q2", "Why?", answers=("so",))
    check(bare, answered)
    check(bare, teacher_steps=0)
    with pytest.raises(RequestError, match=r"trains a reader first.*teacher_steps=0"):
        check(bare)
    for score in ("adist", "adist_peak"):
        check(answered, answered, teacher_score=score)
        with pytest.raises(RequestError, match=rf"teacher_score={score} needs answers, and question 'q1'"):
            check(answered, bare, teacher_score=score)
    check(answered, bare, teacher_score="cross_attention")
    listed, golden = Question("q3", "Why?", candidate_ids=("p",)), Question("q4", "Why?", positive_ids=("p",))
    check(listed, passages="data", teacher_steps=0)
    check(golden, add_gold=True, teacher_steps=0)
    with pytest.raises(RequestError, match="question 'q1' lists no passages"):
        check(bare, passages="data", teacher_steps=0)
    with pytest.raises(RequestError, match="no training question has positive_ids"):
        check(answered, add_gold=True)


def test_requests_that_cannot_work():
    with pytest.raises(RequestError, match="needs a reader"):
        DCATrainer.check_config(SimpleNamespace(algorithm=DCAConfig()))
    for fits in ({"passages": "data"}, {"refresh_every": 5}):
        DCATrainer.check_config(SimpleNamespace(algorithm=DCAConfig(teacher=ReaderConfig(path="x"), **fits)))
    both = DCAConfig(teacher=ReaderConfig(path="x"), passages="data", refresh_every=5)
    with pytest.raises(RequestError, match="refresh_every"):
        DCATrainer.check_config(SimpleNamespace(algorithm=both))
