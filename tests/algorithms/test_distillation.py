"""DCA and RPG from candidates to loss, against loops over plain numbers: empty places, options, what is recorded."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms import distillation
from rag_experiments.algorithms.dca import DCAConfig, DCATrainer, dca_loss, standardised
from rag_experiments.algorithms.distillation import PrepareScores, candidate_log_probs, entropy
from rag_experiments.algorithms.rpg import RPGConfig, RPGTrainer, emdr2_loss, rpg_loss, target_values
from tests.algorithms.plain_encoder import TableEncoder


@pytest.fixture(autouse=True)
def nothing_moves(monkeypatch):
    """Trainer's own part of preparing inputs: there is no other device here."""
    monkeypatch.setattr(distillation.Trainer, "_prepare_inputs", lambda self, given: given)


ROWS = [[3, 1, 0, 2], [2, 5, -1, -1], [4, 3, 1, -1], [5, 6, -1, 4]]  # an index may leave any place empty
QUESTIONS = len(ROWS)


class Trainer:
    """`compute_loss` of a trainer whose candidates are `ROWS`, without the rest of a Trainer."""

    def __init__(self, of: type, hyper: Any, similarity: str = "cosine"):
        made = of.__new__(of)
        encoder = TableEncoder(similarity=similarity)
        store = SimpleNamespace(full_texts=lambda rows: [str(row) for row in rows])
        made.config, made.tokens_seen, self.recorded, made._known = hyper, 0, {}, {}
        encoder.device = torch.device("cpu")
        made.components = SimpleNamespace(model=encoder, data=SimpleNamespace(passages=store))
        made.candidates = SimpleNamespace(rows_QK=np.array(ROWS))
        made.queries = [str(number) for number in range(QUESTIONS)]
        made.questions = list(range(QUESTIONS))
        made.golds = [[1], [5], [], [0, 4]]
        made.record = lambda name, value: self.recorded.update({name: float(value)})
        self.made, self.encoder = made, encoder

    def loss(self, numbers: list[int]) -> torch.Tensor:
        return self.made.compute_loss(self.encoder, self.made._prepare_inputs(self.made.collate(numbers)))

    def student(self, number: int) -> dict[int, float]:
        """Place to s(q, p_k), for the places that hold a candidate."""
        table = torch.nn.functional.normalize(self.encoder.table.detach(), dim=-1)
        if self.encoder.config.similarity == "dot":
            table = self.encoder.table.detach()
        return {k: float(table[number] @ table[100 + row]) for k, row in enumerate(ROWS[number]) if row >= 0}


def softmax(values: dict[int, float], temperature: float) -> dict[int, float]:
    powers = {k: math.exp(value / temperature) for k, value in values.items()}
    return {k: power / sum(powers.values()) for k, power in powers.items()}


def kl(p: dict[int, float], q: dict[int, float]) -> float:
    return sum(p[k] * math.log(p[k] / q[k]) for k in p)


# -- DCA -------------------------------------------------------------------------------------------

G = np.array([[0.3, -1.2, 2.0, 0.1], [1.0, 0.4, 0.0, 0.0], [-0.5, 0.2, 0.9, 0.0], [0.7, -0.3, 0.0, 1.1]])


def dca(**options) -> Trainer:
    found = Trainer(DCATrainer, DCAConfig(**options))
    found.made.teacher_scores = lambda numbers, rows_BK, progress=False: [
        {"scores": torch.tensor(G[n])} for n in numbers
    ]
    return found


def teacher_of(number: int, standardise: bool) -> dict[int, float]:
    scores = {k: float(G[number, k]) for k, row in enumerate(ROWS[number]) if row >= 0}
    if not standardise:
        return scores
    mean = sum(scores.values()) / len(scores)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in scores.values()) / len(scores))
    return {k: (value - mean) / deviation for k, value in scores.items()}


@pytest.mark.parametrize("numbers", [[0], [1], [3], [0, 1, 2, 3], [2, 1]])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(0.5, 1.0), (0.2, 0.4)])
def test_dca_step_is_the_kl_over_the_candidates_present(numbers, standardise, temperature, teacher_temperature):
    trainer = dca(teacher_standardise=standardise, temperature=temperature, teacher_temperature=teacher_temperature)
    expected, entropies = [], []
    for number in numbers:
        teacher = softmax(teacher_of(number, standardise), teacher_temperature)
        expected.append(kl(teacher, softmax(trainer.student(number), temperature)))
        entropies.append(-sum(p * math.log(p) for p in teacher.values()))
    assert trainer.loss(numbers).item() == pytest.approx(sum(expected) / len(numbers), abs=1e-9)
    assert trainer.recorded["teacher_entropy"] == pytest.approx(sum(entropies) / len(numbers), abs=1e-9)


def test_dca_options_of_the_loss_each_change_it():
    base = {"teacher_standardise": True, "temperature": 0.5, "teacher_temperature": 1.0}
    changes = [{}, {"teacher_standardise": False}, {"temperature": 0.4}, {"teacher_temperature": 0.8}]
    losses = [dca(**{**base, **change}).loss([0, 1, 2, 3]).item() for change in changes]
    assert all(abs(a - b) > 1e-5 for a, b in itertools.combinations(losses, 2)), losses


def test_dca_agreement_with_gold_is_counted_where_a_gold_passage_is_a_candidate():
    """Golds 1 (place 1), 5 (place 1), none known, 4 (place 3): the teacher puts 2, 0, -, 3 first."""
    trainer = dca()
    trainer.loss([0, 1, 2, 3])
    assert trainer.recorded["gold_in_candidates"] == 1.0
    assert trainer.recorded["teacher_agrees_with_gold"] == pytest.approx(1 / 3)
    best = [max(trainer.student(number).items(), key=lambda item: item[1])[0] for number in (0, 1, 3)]
    wanted = sum(place == gold for place, gold in zip(best, (1, 1, 3), strict=True)) / 3
    assert trainer.recorded["student_agrees_with_gold"] == pytest.approx(wanted)


def test_gold_in_candidates_leaves_out_questions_without_gold():
    trainer = dca()
    trainer.made.golds = [[9], [5], [], []]
    trainer.loss([0, 1, 2, 3])
    assert trainer.recorded["gold_in_candidates"] == 0.5
    trainer = dca()
    trainer.made.golds = [[9], [], [], []]
    trainer.loss([0, 1, 2, 3])
    assert trainer.recorded["gold_in_candidates"] == 0.0
    assert not [name for name in trainer.recorded if name.endswith("agrees_with_gold")]


def test_teacher_scores_go_to_the_places_of_their_candidates():
    """Only the passages present are judged, each with its question; empty places get 0."""
    trainer = dca().made
    del trainer.teacher_scores
    trainer.components.data.passages = [f"passage {row}" for row in range(10)]
    asked = []

    def scores(questions, passages, progress):
        asked.append((questions, passages))
        return [np.array([float(passage.split()[1]) for passage in given], dtype=np.float32) for given in passages]

    trainer.teacher = SimpleNamespace(scores=scores)
    found = trainer.teacher_scores([3, 1], np.array(ROWS)[[3, 1]])
    assert [row["scores"].tolist() for row in found] == [[5, 6, 0, 4], [2, 5, 0, 0]]
    assert asked == [([3, 1], [["passage 5", "passage 6", "passage 4"], ["passage 2", "passage 5"]])]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.booleans()), min_size=4, max_size=4),
        min_size=1,
        max_size=3,
    ),
    order=st.permutations(range(4)),
)
def test_dca_loss_laws(rows, order):
    """No less than 0; the same in any order of candidates; empty places are as if cut out; a batch is a mean."""
    student, teacher, present = (torch.tensor([[cell[i] for cell in row] for row in rows]) for i in range(3))
    student, teacher = student.double(), teacher.double()
    loss = dca_loss(student, teacher, 0.7, 1.3, present).item()
    assert loss >= -1e-12
    turned = dca_loss(student[:, order], teacher[:, order], 0.7, 1.3, present[:, order]).item()
    assert turned == pytest.approx(loss, abs=1e-9)
    apart = []
    for s, t, there in zip(student, teacher, present, strict=True):
        apart.append(dca_loss(s[there][None], t[there][None], 0.7, 1.3).item() if there.any() else 0.0)
    assert loss == pytest.approx(sum(apart) / len(apart), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-50, 50), min_size=1, max_size=5), empty=st.integers(0, 3))
def test_standardised_has_mean_0_and_deviation_1_among_those_present(values, empty):
    given_BK = torch.tensor([[*values, *[99.0] * empty]], dtype=torch.float64)
    present = torch.tensor([[True] * len(values) + [False] * empty])
    found = standardised(given_BK, present)[0]
    assert found[len(values) :].abs().sum() == 0
    kept, spread = found[: len(values)].numpy(), float(np.std(values))
    assert float(np.mean(kept)) == pytest.approx(0, abs=1e-6)
    if spread > 1e-5:
        assert kept == pytest.approx((np.array(values) - np.mean(values)) / spread, abs=1e-6)
    else:
        assert np.abs(kept).max() <= np.sqrt(len(values)) + 1e-6, "no value of n is further from their mean"


def test_standardised_without_any_candidate_is_0():
    assert standardised(torch.full((1, 3), 4.0), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0] * 3]


# -- RPG -------------------------------------------------------------------------------------------

LOG_PROBS = -np.random.default_rng(0).uniform(0.1, 4.0, (QUESTIONS, 4, 3))
LENGTHS = [3, 2, 1, 2]


def teacher_scores(numbers, rows_BK, progress=False) -> list[dict[str, torch.Tensor]]:
    found = []
    for number, rows_K in zip(numbers, rows_BK, strict=True):
        values_KT = np.where((rows_K >= 0)[:, None], LOG_PROBS[number, :, : LENGTHS[number]], 0.0)
        mask_T = torch.ones(LENGTHS[number], dtype=torch.bool)
        found.append({"token_log_probs": torch.tensor(values_KT), "token_mask": mask_T})
    return found


def rpg(**options) -> Trainer:
    found = Trainer(RPGTrainer, RPGConfig(**options))
    found.made.teacher_scores = teacher_scores
    return found


def rpg_by_loops(trainer: Trainer, number: int) -> float:
    hyper: RPGConfig = trainer.made.config
    p = softmax(trainer.student(number), hyper.temperature)
    tokens = {k: LOG_PROBS[number, k, : LENGTHS[number]] for k in p}
    if hyper.objective == "emdr2":
        each = [math.log(sum(p[k] * math.exp(tokens[k][t]) for k in p)) for t in range(LENGTHS[number])]
        return -sum(each) / len(each)
    kinds = {"mean": np.mean, "sum": np.sum, "probability": lambda row: math.exp(np.sum(row))}
    values = {k: float(kinds[hyper.target](row)) for k, row in tokens.items()}
    if hyper.objective == "loop":
        values = {k: -value for k, value in values.items()}
    q = softmax(values, hyper.target_temperature)
    return kl(p, q) if hyper.objective == "replug" else kl(q, p)


@pytest.mark.parametrize("target", ["mean", "sum", "probability"])
@pytest.mark.parametrize("objective", ["replug", "pdist", "loop", "emdr2"])
def test_rpg_step_is_the_objective_over_the_candidates_present(objective, target):
    """Answers of one to three tokens, rows with one to four candidates, a batch and each alone."""
    options = {"objective": objective, "target": target, "temperature": 0.3, "target_temperature": 0.7}
    for numbers in ([0], [1], [3], [0, 1, 2, 3]):
        trainer = rpg(**options)
        expected = sum(rpg_by_loops(trainer, number) for number in numbers) / len(numbers)
        assert trainer.loss(numbers).item() == pytest.approx(expected, abs=1e-9), numbers


def test_rpg_options_of_the_loss_each_change_it():
    base = {"objective": "pdist", "target": "mean", "temperature": 0.3, "target_temperature": 0.7}
    changes = [
        {}, {"objective": "replug"}, {"objective": "loop"}, {"objective": "emdr2"}, {"target": "sum"},
        {"target": "probability"}, {"temperature": 0.25}, {"target_temperature": 0.5},
    ]  # fmt: skip
    losses = [rpg(**{**base, **change}).loss([0, 1, 2, 3]).item() for change in changes]
    assert all(abs(a - b) > 1e-5 for a, b in itertools.combinations(losses, 2)), losses


@pytest.mark.parametrize("objective", ["pdist", "loop"])
def test_rpg_records_its_kl_entropy_and_agreement(objective):
    options = {"objective": objective, "temperature": 0.3, "target_temperature": 0.7, "target": "sum"}
    trainer = rpg(**options)
    trainer.loss([0, 1, 2, 3])
    kls, entropies, first = [], [], {}
    for number in range(4):
        p = softmax(trainer.student(number), 0.3)
        values = {k: float(LOG_PROBS[number, k, : LENGTHS[number]].sum()) for k in p}
        q = softmax({k: -v for k, v in values.items()} if objective == "loop" else values, 0.7)
        kls.append(kl(p, q))
        entropies.append(-sum(v * math.log(v) for v in q.values()))
        first[number] = (max(q, key=q.get), max(p, key=p.get))
    assert trainer.recorded["kl"] == pytest.approx(sum(kls) / 4, abs=1e-9)
    assert trainer.recorded["target_entropy"] == pytest.approx(sum(entropies) / 4, abs=1e-9)
    golds = {0: 1, 1: 1, 3: 3}
    for place, name in enumerate(("target", "retriever")):
        share = sum(first[number][place] == gold for number, gold in golds.items()) / 3
        assert trainer.recorded[f"{name}_agrees_with_gold"] == pytest.approx(share), name


def test_emdr2_divides_by_each_answers_tokens_by_hand():
    """One candidate: −(log ½ + log ⅛) / 2 = 2 log 2; beside it an answer of one token, −log ¼ = 2 log 2."""
    log = torch.tensor([[[0.5, 0.125]], [[0.25, 1.0]]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, False]])
    only = torch.zeros(2, 1, dtype=torch.float64)
    assert emdr2_loss(only, log, mask).item() == pytest.approx(2 * math.log(2), abs=1e-12)
    # Two candidates that are equally near: of each token the mean of its two probabilities, not of the logarithms.
    half = torch.full((1, 2), 0.5, dtype=torch.float64).log()
    log = torch.tensor([[[0.5, 0.25], [0.1, 0.75]]], dtype=torch.float64).log()
    expected = -(math.log(0.3) + math.log(0.5)) / 2
    assert emdr2_loss(half, log, torch.tensor([[True, True]])).item() == pytest.approx(expected, abs=1e-12)


def test_targets_leave_out_what_stands_at_padding():
    log = torch.tensor([[[-1.0, -3.0, -50.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    found = [target_values(log, mask, kind).item() for kind in ("mean", "sum", "probability")]
    assert found == pytest.approx([-2.0, -4.0, math.exp(-4.0)], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.floats(-1, 1), st.floats(-5, 0), st.floats(-5, 0)), min_size=3, max_size=3),
        min_size=1,
        max_size=3,
    ),
    lengths=st.lists(st.integers(1, 2), min_size=3, max_size=3),
    order=st.permutations(range(3)),
    objective=st.sampled_from(["replug", "pdist", "loop", "emdr2"]),
    target=st.sampled_from(["mean", "sum", "probability"]),
)
def test_rpg_loss_laws(rows, lengths, order, objective, target):
    """The same in any order of candidates; a batch is the mean of its questions; padded tokens and places add 0."""
    scores = torch.tensor([[cell[0] for cell in row] for row in rows]).double()
    log = torch.tensor([[cell[1:] for cell in row] for row in rows]).double()
    mask = torch.tensor([[t < lengths[b] for t in range(2)] for b in range(len(rows))])
    log = log * mask[:, None, :]

    def loss(s, v, m, present=None) -> float:
        return rpg_loss(s, v, m, objective, target, 0.4, 0.6, present).item()

    whole = loss(scores, log, mask)
    assert objective == "emdr2" or whole >= -1e-12
    assert loss(scores[:, order], log[:, order], mask) == pytest.approx(whole, abs=1e-9)
    alone = [
        loss(scores[b : b + 1], log[b : b + 1, :, : lengths[b]], mask[b : b + 1, : lengths[b]])
        for b in range(len(rows))
    ]
    assert whole == pytest.approx(sum(alone) / len(alone), abs=1e-9)
    wide = torch.cat([scores, torch.full((len(rows), 2), 7.0)], 1).double()
    more = torch.nn.functional.pad(log, (0, 1, 0, 2))
    present = torch.tensor([[True] * 3 + [False] * 2] * len(rows))
    assert loss(wide, more, torch.nn.functional.pad(mask, (0, 1)), present) == pytest.approx(whole, abs=1e-9)


# -- what both share -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dca, rpg])
@pytest.mark.parametrize(
    ("options", "queries", "passages"), [({}, [4], [7]), ({"mini_batch_size": 3}, [3, 1], [3, 3, 1])]
)
def test_each_passage_of_a_batch_is_encoded_once_so_many_at_a_time(make, options, queries, passages):
    """Rows 0 to 6 stand at twelve places."""
    trainer = make(**options)
    loss = trainer.loss([0, 1, 2, 3])
    assert trainer.encoder.sizes == queries + passages
    assert trainer.made.tokens_seen == 7, "tokens of passages, which no collated batch shows"
    trainer.encoder.sizes.clear()
    loss.backward()
    assert sum(trainer.encoder.sizes) == (11 if options else 0), "encoded again only where gradients are cached"
    assert make(**options, sub_batch_size=2).made._chunk_size == options.get("mini_batch_size", 2)


@pytest.mark.parametrize("make", [dca, rpg])
def test_outputs_are_the_scores_only_where_asked(make):
    trainer = make()
    inputs = trainer.made._prepare_inputs(trainer.made.collate([1, 0]))
    assert inputs["questions_B"].tolist() == [1, 0]
    loss, outputs = trainer.made.compute_loss(trainer.encoder, inputs, return_outputs=True)
    for b, number in enumerate([1, 0]):
        for k, score in trainer.student(number).items():
            assert outputs["scores"][b, k].item() == pytest.approx(score, abs=1e-12)
    assert trainer.loss([1, 0]).item() == loss.item()


def test_log_probs_and_entropy_by_hand():
    found = candidate_log_probs(torch.tensor([[1.0, 2.0, 9.0]]), 0.5, torch.tensor([[True, True, False]])).exp()
    p = 1 / (1 + math.exp(2))
    assert found[0].tolist() == pytest.approx([p, 1 - p, 0.0], abs=1e-6)
    two = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).clamp(min=1e-300).log()
    assert entropy(two).item() == pytest.approx(math.log(2) / 2, abs=1e-12)


# -- scores that are prepared ----------------------------------------------------------------------


def prepared(monkeypatch, share=lambda items: items) -> tuple[Any, list[list[int]]]:
    """A DCA trainer, and the questions that its teacher was asked about, call by call."""
    trainer, asked = dca().made, []
    inner = trainer.teacher_scores
    trainer.teacher_scores = lambda numbers, rows_BK, progress=False: (
        asked.append(list(numbers)) or inner(numbers, rows_BK, progress)
    )
    trainer.seconds_preparing = 0.0
    trainer.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
    monkeypatch.setattr(distillation.distributed, "own_share", share)
    return trainer, asked


def test_scores_are_prepared_in_blocks_by_each_process_for_its_share(monkeypatch):
    trainer, asked = prepared(monkeypatch)
    monkeypatch.setattr(distillation, "SCORED_AT_A_TIME", 3)
    trainer.prepare_scores([0, 1, 2, 3])
    assert asked == [[0, 1, 2], [3]]
    assert trainer.seconds_preparing > 0
    trainer, asked = prepared(monkeypatch, share=lambda items: list(items)[1::2])
    trainer.prepare_scores([3, 1, 0, 2])
    assert asked == [[1, 2]]


def test_a_step_takes_the_scores_that_were_prepared_for_the_same_candidates(monkeypatch):
    trainer, asked = prepared(monkeypatch)
    trainer.prepare_scores([0, 1])
    rows = np.array(ROWS)
    first = trainer.scores_of([1, 0], rows[[1, 0]])["scores"]
    assert first.tolist() == [G[1].tolist(), G[0].tolist()]
    assert asked == [[0, 1]]
    trainer.scores_of([0, 3], rows[[0, 3]])
    assert asked == [[0, 1], [3]], "what was not prepared is asked for now"
    trainer.scores_of([0], rows[[0]][:, ::-1])
    assert asked == [[0, 1], [3], [0]], "other candidates, or another order, have other scores"


def test_padded_stack_by_hand():
    rows = [
        {"a": torch.tensor([[1.0, 2.0]]), "m": torch.tensor([True, True])},
        {"a": torch.tensor([[3.0], [4.0]]), "m": torch.tensor([True])},
    ]
    found = distillation.padded_stack(rows)
    assert found["a"].tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]]
    assert found["m"].tolist() == [[True, True], [True, False]]


class Epochs(torch.utils.data.Sampler):
    """Another order each epoch."""

    def __init__(self, count: int):
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(self.count).tolist())


def loaders(count: int, size: int, processes: int, drop_last: bool, shuffled: bool) -> list[Any]:
    """Every process's data loader of a Trainer, as accelerate makes it."""
    made = []
    for rank in range(processes):
        torch.manual_seed(3)  # each process has the run's seed
        examples = list(range(count))
        sampler: Any = torch.utils.data.RandomSampler(examples) if shuffled else Epochs(count)
        plain: Any = torch.utils.data.DataLoader(examples, batch_size=size, sampler=sampler, drop_last=drop_last)
        made.append(
            prepare_data_loader(
                plain, num_processes=processes, process_index=rank, put_on_device=False, use_seedable_sampler=True
            )
        )
    return made


@settings(max_examples=80, deadline=None)
@example(count=3, size=1, processes=2, accumulation=1, first=1, more=1, drop_last=False, shuffled=True)
@given(
    count=st.integers(1, 30), size=st.integers(1, 4), processes=st.integers(1, 3), accumulation=st.integers(1, 3),
    first=st.integers(0, 12), more=st.integers(1, 12), drop_last=st.booleans(), shuffled=st.booleans(),
)  # fmt: skip
def test_coming_examples_are_those_that_the_steps_will_meet(
    count, size, processes, accumulation, first, more, drop_last, shuffled
):
    """Against what accelerate's loaders hand to all processes, cut into optimiser steps."""
    given_loaders = loaders(count, size, processes, drop_last, shuffled)
    rounds = len(given_loaders[0])
    assume(rounds > 0)
    epoch_steps = math.ceil(rounds / accumulation)
    steps: list[set[int]] = []
    for epoch in range((first + more) // epoch_steps + 1):
        taken = []
        for loader in loaders(count, size, processes, drop_last, shuffled):
            loader.set_epoch(epoch)  # which leaves out the sampler of a share: `EpochsOrder` tells it
            batches = loader.batch_sampler
            (batches.batch_sampler if processes > 1 else batches).sampler.set_epoch(epoch)
            taken.append([set(batch.tolist()) for batch in loader])
        assert {len(batches) for batches in taken} == {rounds}
        for start in range(0, rounds, accumulation):
            steps.append(set().union(*(batch for own in taken for batch in own[start : start + accumulation])))
    expected = set().union(*steps[first : first + more])
    for loader in given_loaders:
        found = distillation.coming_examples(loader, first, first + more, accumulation, processes)
        assert len(found) == len(set(found))
        assert expected <= set(found)
        if more < epoch_steps:
            assert set(found) == expected, "no score is made that no step asks for"


def test_coming_examples_are_all_where_the_order_is_unknown():
    plain = SimpleNamespace(dataset=range(9), batch_sampler=SimpleNamespace(sampler=range(9), batch_size=2))
    plain_loader = type("Plain", (), {"__len__": lambda self: 5, **vars(plain)})()
    assert distillation.coming_examples(plain_loader, 0, 1, 1, 1) == list(range(9))


def told(every: int = 0, **config) -> tuple[PrepareScores, list[list[int]]]:
    """A callback with 2 questions a step out of 8, and what it has the trainer prepare."""
    calls: list[list[int]] = []
    trainer = SimpleNamespace(
        config=SimpleNamespace(refresh_every=every, **config),
        args=SimpleNamespace(gradient_accumulation_steps=1, world_size=1),
        questions=list(range(8)),
        prepare_scores=calls.append,
    )
    return PrepareScores(trainer), calls


def test_scores_are_prepared_for_the_steps_until_the_next_refresh_and_not_after_the_last_step():
    callback, calls = told(every=3)
    given_loader = loaders(8, 2, 1, drop_last=False, shuffled=False)[0]
    order = [np.random.default_rng(epoch).permutation(8).tolist() for epoch in range(3)]
    state = SimpleNamespace(max_steps=8, global_step=0)
    callback.on_train_begin(None, state, None, train_dataloader=given_loader)
    for step in range(1, 9):
        state.global_step = step
        callback.on_step_end(None, state, None, train_dataloader=given_loader)
    assert calls == [order[0][:6], [*order[0][6:], *[n for n in order[1][:4] if n not in order[0][6:]]], order[1][4:]]
    callback, calls = told()
    state.global_step = 6
    callback.on_train_begin(None, state, None, train_dataloader=given_loader)
    assert calls == [order[1][4:]], "a resumed run prepares what is left"
    callback.on_step_end(None, state, None, train_dataloader=given_loader)
    assert len(calls) == 1, "candidates that stay are scored already"


def test_prescore_prepares_all():
    callback, calls = told(prescore=True)
    callback.on_train_begin(
        None,
        SimpleNamespace(max_steps=1, global_step=0),
        None,
        train_dataloader=loaders(8, 2, 1, drop_last=False, shuffled=False)[0],
    )
    assert calls == [list(range(8))]
