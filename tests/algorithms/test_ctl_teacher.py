"""A reranker that teaches CTL: its losses by hand and against sentence-transformers, a step, what is scored ahead."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from sentence_transformers.sentence_transformer import losses as theirs

from rag_experiments.algorithms import ctl
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.algorithms.ctl_options import CTLConfig, check_negatives, check_options
from rag_experiments.algorithms.ctl_teacher import PrepareTeaching, Teaching, own_passages, teacher_loss
from rag_experiments.algorithms.shared import batches
from rag_experiments.algorithms.shared.pair_scoring import PairJudge
from rag_experiments.config.schema import CrossEncoderConfig, EncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from tests.algorithms.plain_encoder import TableEncoder
from tests.algorithms.test_ctl_masks import PASSAGES, cosine, feature, trainer_of
from tests.algorithms.test_distillation import loaders
from tests.algorithms.test_guide import Lengths
from tests.retrieval.fakes import ListPassages


def exactly(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl(student: list[float], teacher: list[float], temperature: float, teacher_temperature: float) -> float:
    p, q = softmax(teacher, teacher_temperature), softmax(student, temperature)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def margins(student: list[float], teacher: list[float], positives: int, teacher_temperature: float) -> float:
    errors = [
        ((student[p] - student[n]) - (teacher[p] - teacher[n]) / teacher_temperature) ** 2
        for p in range(positives)
        for n in range(positives, len(student))
    ]
    return sum(errors) / max(1, len(errors))


# -- the losses ------------------------------------------------------------------------------------------

STUDENT = exactly([0.5, 0.2, -0.1], [0.3, 0.9, 0.0])
TEACHER = exactly([4.0, 1.0, -2.0], [2.0, 3.0, 0.0])
PRESENT = torch.tensor([[True, True, True], [True, True, False]])
POSITIVE = torch.tensor([[True, False, False], [True, False, False]])


def test_kl_by_hand():
    wanted = (
        kl([0.5, 0.2, -0.1], [4.0, 1.0, -2.0], 0.4, 3.0) + kl([0.3, 0.9], [2.0, 3.0], 0.4, 3.0)
    ) / 2  # the third place of the second question is empty
    found = teacher_loss(STUDENT, TEACHER, POSITIVE, PRESENT, "kl", 0.4, 3.0)
    assert found.item() == pytest.approx(wanted, abs=1e-12)


def test_margins_by_hand():
    first = ((0.3 - 1.5) ** 2 + (0.6 - 3.0) ** 2) / 2
    second = (-0.6 + 0.5) ** 2
    found = teacher_loss(STUDENT, TEACHER, POSITIVE, PRESENT, "margin_mse", 0.4, 2.0)
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-12)


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_a_teacher_that_agrees_teaches_nothing_and_gets_no_gradient(kind):
    student, teacher = STUDENT.clone().requires_grad_(), (STUDENT * 5).requires_grad_()
    temperature = 0.2 if kind == "kl" else 1.0
    agreed = teacher_loss(student, teacher, POSITIVE, PRESENT, kind, temperature, 1.0 if kind == "kl" else 5.0)
    assert agreed.item() == pytest.approx(0, abs=1e-12)
    loss = teacher_loss(student, TEACHER.clone().requires_grad_(), POSITIVE, PRESENT, kind, 0.2, 1.0)
    loss.backward()
    assert teacher.grad is None
    assert student.grad[0, 0] < 0, "the teacher puts the positive further up than the encoder does"
    assert student.grad[1, 2] == 0


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_a_question_that_shows_one_passage_costs_nothing(kind):
    one = exactly([0.4, 0.0])
    present, positive = torch.tensor([[True, False]]), torch.tensor([[True, False]])
    assert teacher_loss(one, one + 3, positive, present, kind, 0.5, 1.0).item() == pytest.approx(0, abs=1e-9)


def test_losses_are_those_of_sentence_transformers():
    """MarginMSELoss on dot products, DistillKLDivLoss, which is multiplied by the square of the temperature."""
    draw = torch.Generator().manual_seed(1)
    query, *passages = [torch.randn(4, 6, generator=draw, dtype=torch.float64) for _ in range(4)]
    teacher = 3 * torch.randn(4, 3, generator=draw, dtype=torch.float64)
    student = torch.stack([(query * passage).sum(1) for passage in passages], dim=1)
    present, positive = torch.ones(4, 3, dtype=torch.bool), torch.tensor([[True, False, False]]).expand(4, 3)
    labels = teacher[:, :1] - teacher[:, 1:]
    peer = theirs.MarginMSELoss(model=None).compute_loss_from_embeddings([query, *passages], labels)
    ours = teacher_loss(student, teacher, positive, present, "margin_mse", 0.05, 1.0)
    assert ours.item() == pytest.approx(peer.item(), rel=1e-9)
    distil = theirs.DistillKLDivLoss(model=None, student_temperature=0.5, teacher_temperature=2.0)
    peer = distil.compute_loss_from_embeddings([query, *passages], teacher)
    ours = teacher_loss(student, teacher, positive, present, "kl", 0.5, 2.0)
    assert ours.item() * 0.5**2 == pytest.approx(peer.item(), rel=1e-9)


# -- a step ----------------------------------------------------------------------------------------------


def numbered(features: list[dict]) -> list[dict]:
    return [{**f, "number": n} for n, f in enumerate(features)]


FEATURES = numbered([feature(0, 0, negatives=[7, 8]), feature(1, 1, negatives=[0]), feature(2, 2), feature(3, 1)])


def queries() -> list[str]:
    return [" ".join([str(number)] * (1 + number % 3)) for number in range(6)]


def taught(encoder: TableEncoder, cache=None, **options) -> CTLTrainer:
    trainer = trainer_of(encoder, **options)
    judge = PairJudge(Lengths(), queries(), ListPassages(PASSAGES), cache)  # type: ignore[arg-type]
    trainer.teaching = Teaching(judge, trainer.config, trainer.record)
    return trainer


def batch_of(trainer: CTLTrainer, features: list[dict]) -> dict:
    batch = trainer.collate(features)
    return {**batch, "teacher_BK": trainer.teaching.scores(batch)}


def teachers_part(encoder: TableEncoder, features: list[dict], options: CTLConfig, width: int = 6) -> float:
    table = encoder.table.detach().numpy()[:, :width]
    total = 0.0
    for f in features:
        rows = [*f["targets"], *f["negatives"]]
        query = int(f["query"].split()[0])
        student = [cosine(table[query], table[encoder.SHIFT + row]) for row in rows]
        teacher = [Lengths.logit(f["query"], PASSAGES[row]) for row in rows]
        if options.teacher_loss == "kl":
            total += kl(student, teacher, options.temperature, options.teacher_temperature)
        else:
            total += margins(student, teacher, len(f["targets"]), options.teacher_temperature)
    return total / len(features)


def test_a_batch_says_which_passages_are_whose_own():
    found = own_passages([{"targets": [5, 6], "negatives": [9]}, {"targets": [9], "negatives": []}], {9: 0, 5: 1, 6: 2})
    assert found["own_columns_BK"].tolist() == [[1, 2, 0], [0, 0, 0]]
    assert found["own_present_BK"].tolist() == [[True, True, True], [True, False, False]]
    assert found["own_positive_BK"].tolist() == [[True, True, False], [True, False, False]]


def test_scores_are_of_each_questions_own_passages():
    trainer = taught(TableEncoder())
    batch = batch_of(trainer, FEATURES)
    wanted = [[Lengths.logit(f["query"], PASSAGES[row]) for row in (*f["targets"], *f["negatives"])] for f in FEATURES]
    assert batch["teacher_BK"].tolist() == [row + [0.0] * (3 - len(row)) for row in wanted]


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0), (2.0, 0.0)])
@pytest.mark.parametrize("dims", [None, [2]])
def test_the_teachers_loss_stands_beside_the_contrastive_one_or_in_its_place(kind, weights, dims):
    options = {
        "temperature": 0.5,
        "teacher_loss": kind,
        "teacher_weight": weights[0],
        "contrastive_weight": weights[1],
        "teacher_temperature": 4.0,
        "matryoshka_dims": dims,
    }
    encoder = TableEncoder()
    trainer, plain = taught(encoder, **options), trainer_of(encoder, temperature=0.5, matryoshka_dims=dims)
    loss = trainer.compute_loss(encoder, batch_of(trainer, FEATURES)).item()
    contrastive = plain.compute_loss(encoder, plain.collate(FEATURES)).item()
    widths = [6, *(dims or [])]
    parts = [teachers_part(encoder, FEATURES, CTLConfig(**options), width) for width in widths]
    teacher = sum(parts) / len(parts)
    assert loss == pytest.approx(weights[1] * contrastive + weights[0] * teacher, abs=1e-6)
    assert trainer.recorded["teacher_loss"] == pytest.approx(parts[0 if dims is None else -1], abs=1e-6)
    assert ("contrastive_loss" in trainer.recorded) is (weights[1] > 0)


def test_several_positives_are_each_compared_with_the_negatives():
    features = numbered([{**feature(0, 0, [0, 3], [7, 8]), "targets": [0, 3]}, feature(1, 1, negatives=[2])])
    options = {"positives": "multi", "teacher_loss": "margin_mse", "contrastive_weight": 0.0, "temperature": 0.5}
    encoder = TableEncoder()
    trainer = taught(encoder, **options)
    loss = trainer.compute_loss(encoder, batch_of(trainer, features)).item()
    assert loss == pytest.approx(teachers_part(encoder, features, CTLConfig(**options)), abs=1e-6)


def test_how_often_the_teacher_puts_a_gold_passage_first_is_recorded():
    trainer = taught(TableEncoder())
    trainer.compute_loss(trainer.components.model, batch_of(trainer, FEATURES))
    first = [
        max((*f["targets"], *f["negatives"]), key=lambda row, f=f: Lengths.logit(f["query"], PASSAGES[row]))
        for f in FEATURES
    ]
    wanted = sum(row in f["targets"] for row, f in zip(first, FEATURES, strict=True)) / 4
    assert trainer.recorded["teacher_agrees_with_gold"] == pytest.approx(wanted)
    assert 0 < wanted < 1


def test_a_process_learns_of_its_own_passages(monkeypatch):
    encoder = TableEncoder()
    options = {"temperature": 0.5, "contrastive_weight": 0.0}
    halves = [FEATURES[:1], FEATURES[1:]]
    trainers = [taught(encoder, **options) for _ in halves]
    inputs = [batch_of(trainer, half) for trainer, half in zip(trainers, halves, strict=True)]
    vectors = [batches.encode_chunks(encoder, one["passages"]) for one in inputs]
    rows = torch.cat([one["passage_rows_P"] for one in inputs])
    for rank, trainer in enumerate(trainers):
        offset = 0 if rank == 0 else len(vectors[0])
        monkeypatch.setattr(ctl, "gather_with_gradient", lambda own, offset=offset: (torch.cat(vectors), offset))
        monkeypatch.setattr(ctl, "gather_rows", lambda own: rows)
        loss = trainer.compute_loss(encoder, inputs[rank]).item()
        assert loss == pytest.approx(teachers_part(encoder, halves[rank], CTLConfig(**options)), abs=1e-6)


# -- what is scored ahead --------------------------------------------------------------------------------


def drawing(trainer: CTLTrainer) -> CTLTrainer:
    """With a draw of its own in each epoch: example `n` shows passages n and n + 5 + epoch."""
    trainer._feature = lambda number, epoch: {
        **feature(number, number, negatives=[number + 5 + epoch]),
        "number": number,
    }
    trainer.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
    trainer.seconds_preparing = 0.0
    return trainer


def test_what_was_prepared_is_not_scored_in_the_step():
    trainer = drawing(taught(TableEncoder()))
    trainer.prepare_scores([0, 1, 3], 1)
    judge = trainer.teaching.judge
    assert (judge.lookups, judge.computed) == (6, 6)
    assert trainer.seconds_preparing > 0
    batch_of(trainer, [trainer._feature(number, 1) for number in (0, 1, 3)])
    assert judge.computed == 6
    batch_of(trainer, [trainer._feature(0, 2)])
    assert judge.computed == 7, "what was not prepared is scored now"


def test_each_process_prepares_a_share(monkeypatch):
    trainer = drawing(taught(TableEncoder()))
    monkeypatch.setattr(ctl.distributed, "own_share", lambda items: items[1::2])
    trainer.prepare_scores([0, 1, 2, 3], 0)
    assert {query for query, _ in trainer.teaching.judge.reranker.pairs} == {queries()[1], queries()[3]}


@pytest.mark.parametrize("every", [0, 3])
def test_the_coming_steps_are_prepared_as_their_epochs_show_them(every, caplog):
    """Of 8 examples, 2 a step: epochs of four steps."""
    calls: list[tuple[list[int], int]] = []
    trainer = SimpleNamespace(
        config=SimpleNamespace(refresh_every=every),
        args=SimpleNamespace(gradient_accumulation_steps=1, world_size=1),
        prepare_scores=lambda numbers, epoch: calls.append((numbers, epoch)),
        teaching=SimpleNamespace(judge=SimpleNamespace(cost=lambda: "7 pairs")),
    )
    callback = PrepareTeaching(trainer)
    loader = loaders(8, 2, 1, drop_last=False, shuffled=False)[0]
    orders = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        loader.batch_sampler.sampler.set_epoch(epoch)
        orders.append([number for batch in loader for number in batch.tolist()])
    state = SimpleNamespace(global_step=0, max_steps=7)
    callback.on_train_begin(None, state, None, train_dataloader=loader)
    for state.global_step in range(1, 8):
        callback.on_step_end(None, state, None, train_dataloader=loader)
    found = [(sorted(numbers), epoch) for numbers, epoch in calls]
    if every:
        wanted = [(orders[0][:6], 0), (orders[0][6:], 0), (orders[1][:4], 1), (orders[1][4:6], 1)]
    else:
        wanted = [(orders[0], 0), (orders[1][:6], 1)]
    assert found == [(sorted(numbers), epoch) for numbers, epoch in wanted]
    calls.clear()
    state.global_step = 5
    callback.on_train_begin(None, state, None, train_dataloader=loader)
    left = orders[1][2:4] if every else orders[1][2:6]
    assert [(sorted(numbers), epoch) for numbers, epoch in calls] == [(sorted(left), 1)], "a resumed run: what is left"
    with caplog.at_level(logging.INFO):
        callback.on_train_end(None, state, None)
    assert "teacher: 7 pairs" in caplog.text


def test_an_epoch_has_its_last_step_where_batches_are_accumulated():
    """Ten examples in five batches, two a step: the third step has the last batch alone, the fourth is of epoch 1."""
    calls: list[tuple[list[int], int]] = []
    trainer = SimpleNamespace(
        config=SimpleNamespace(refresh_every=0),
        args=SimpleNamespace(gradient_accumulation_steps=2, world_size=1),
        prepare_scores=lambda numbers, epoch: calls.append((numbers, epoch)),
    )
    loader = loaders(10, 2, 1, drop_last=False, shuffled=False)[0]
    PrepareTeaching(trainer).prepare(2, 4, loader)
    assert [(len(numbers), epoch) for numbers, epoch in calls] == [(2, 0), (4, 1)]


# -- requests --------------------------------------------------------------------------------------------

TEACHER_MODEL = CrossEncoderConfig(path="c")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher_loss": "margin_mse"}, r"algorithm\.teacher_loss=margin_mse is about a teacher: add model@algorithm"),
        ({"teacher_weight": 2.0}, r"algorithm\.teacher_weight=2\.0 is about a teacher"),
        ({"contrastive_weight": 0.0}, r"algorithm\.contrastive_weight=0\.0 is about a teacher"),
        ({"teacher_temperature": 2.0}, r"algorithm\.teacher_temperature=2\.0 is about a teacher"),
        (
            {"teacher": TEACHER_MODEL, "hard_negatives": 0},
            r"algorithm\.hard_negatives=0 leaves the teacher one passage",
        ),
        (
            {"teacher": TEACHER_MODEL, "contrastive_weight": 0.0, "symmetric": True},
            r"algorithm\.symmetric=true is about the contrastive loss, and algorithm\.contrastive_weight=0",
        ),
        (
            {"teacher": TEACHER_MODEL, "contrastive_weight": 0.0, "guide": EncoderConfig(path="e")},
            r"algorithm\.guide\.path=e is about the contrastive loss",
        ),
    ],
)
def test_options_without_effect_are_refused(values, message):
    with pytest.raises(RequestError, match=message):
        check_options(CTLConfig(**values))


def test_options_that_go_together_are_taken():
    check_options(CTLConfig(teacher=TEACHER_MODEL, contrastive_weight=0.0, teacher_loss="margin_mse"))
    check_options(CTLConfig(teacher=TEACHER_MODEL, symmetric=True, guide=EncoderConfig(path="e")))


def test_a_teacher_without_negatives_is_refused():
    data = SimpleNamespace(passages=range(6), splits={"train": [Question("q", "?", positive_ids=("p",))] * 3})
    config = SimpleNamespace(algorithm=CTLConfig(teacher=TEACHER_MODEL), trainer={})
    with pytest.raises(RequestError, match=r"algorithm\.teacher compares .*add algorithm\.negatives=mined"):
        check_negatives(config, data, 3)
    config.algorithm.negatives = "mined"
    check_negatives(config, data, 3)
