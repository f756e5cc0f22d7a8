"""The FiD trainer: what it reads, what it learns from, and that no way of computing a step changes it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch

from rag_experiments.algorithms import sft
from rag_experiments.algorithms.fid import FiDConfig, FiDTrainer, passage_rows, with_gold
from rag_experiments.config.schema import FidSettings, LoraConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.prompts import TruncationCounts
from tests.algorithms.reader_parts import losses, make_trainer, small_set
from tests.examples import ListStore, WordRetriever
from tests.numeric import assert_near

KINDS = ["llama", "t5"]


@pytest.fixture(params=KINDS)
def model(request, tiny_llama, tiny_t5) -> ReaderConfig:
    more = {"kind": "encoder_decoder", "max_input_length": 300} if request.param == "t5" else {"max_input_length": 900}
    return ReaderConfig(
        path=str(tiny_t5 if request.param == "t5" else tiny_llama),
        precision="fp32",
        max_new_tokens=16,
        fid=FidSettings(sub_batch_size=3),
        **more,
    )


def trainer_of(model: ReaderConfig, tmp_path, **arguments) -> FiDTrainer:
    return make_trainer(FiDTrainer, None, tmp_path, model=model, **arguments)


def test_it_learns_and_every_parameter_moves(model, tmp_path):
    trainer = trainer_of(model, tmp_path, max_steps=6, learning_rate=3e-3, algorithm_answer="first")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    found = losses(trainer)
    assert found[-1] < found[0]
    assert not [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])]


def step(model: ReaderConfig, tmp_path, name: str, **arguments) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and weights after one plain gradient step, dropout off, on the same eight questions."""
    trainer = trainer_of(model, tmp_path / name, learning_rate=0.1, optim="sgd", **arguments)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    trainer.train()
    return losses(trainer)[0], {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize(
    "other",
    [
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"gradient_checkpointing": True},
    ],
    ids=["accumulated", "recomputed"],
)
def test_batch_of_eight_equals(model, tmp_path, other):
    plain_loss, plain = step(model, tmp_path, "plain", per_device_train_batch_size=8)
    loss, weights = step(model, tmp_path, "other", **{"per_device_train_batch_size": 8, **other})
    assert_near(loss, plain_loss)
    start = dict(trainer_of(model, tmp_path).model.named_parameters())
    for name, value in plain.items():  # against how far the step went: random T5s have large gradients
        moved = (value - start[name]).abs().max()
        assert (weights[name] - value).abs().max() <= 1e-4 * moved + 1e-6, name


def test_it_reads_what_the_retriever_finds_over_the_whole_corpus(model, tmp_path):
    """`retriever.k` passages, and among them ones that are nobody's gold."""
    trainer = trainer_of(model, tmp_path)
    store = trainer.components.data.passages
    read = [store.ids(rows) for rows in trainer.rows.values()]
    assert {len(ids) for ids in read} == {2}
    assert any(passage.startswith("x") for ids in read for passage in ids)
    assert {len(ids) for ids in map(store.ids, trainer_of(model, tmp_path, algorithm_train_k=5).rows.values())} == {5}


def test_gold_is_added_only_where_asked(model, tmp_path):
    _, questions = small_set()
    hidden = [dataclasses.replace(question, question="Is it raining?") for question in questions]
    trainer = trainer_of(model, tmp_path, questions=hidden)
    store = trainer.components.data.passages
    assert not all(q.positive_ids[0] in store.ids(rows) for q, rows in zip(hidden, trainer.rows.values(), strict=True))
    trainer = trainer_of(model, tmp_path, questions=hidden, algorithm_add_gold=True)
    assert all(q.positive_ids[0] in store.ids(rows) for q, rows in zip(hidden, trainer.rows.values(), strict=True))
    assert {len(rows) for rows in trainer.rows.values()} == {2}


def test_gold_takes_the_last_place():
    assert with_gold([1, 2, 3], [9, 8], 3) == [1, 2, 9]
    assert with_gold([1, 2, 3], [2], 3) == [1, 2, 3]
    assert with_gold([1], [], 3) == [1]
    assert with_gold([1, 2, 3, 4], [9], 2) == [1, 9]
    assert with_gold([1, 2], [3, 9], 1) == [3]
    assert with_gold([], [9], 3) == [9]


def test_the_datas_own_passages(model, tmp_path):
    _, questions = small_set()
    listed = [dataclasses.replace(question, candidate_ids=("x1", "p3", "x0")) for question in questions]
    trainer = trainer_of(model, tmp_path, questions=listed, algorithm_passages="data")
    assert trainer.components.data.passages.ids(next(iter(trainer.rows.values()))) == ["x1", "p3"]


def test_what_the_data_lacks_is_refused_before_weights_are_read(monkeypatch):
    monkeypatch.setattr(sft, "check_examples", lambda config, data: None)
    data = SimpleNamespace(splits={"train": [Question("q0", "Why?", answers=("so",))]})

    def check(**settings):
        FiDTrainer.check_data(SimpleNamespace(algorithm=FiDConfig(**settings)), data)

    check()
    with pytest.raises(RequestError, match="question 'q0' lists no passages of its own"):
        check(passages="data")
    with pytest.raises(RequestError, match="no training question has positive_ids"):
        check(add_gold=True)


def test_labels_are_the_answer_only(model, tmp_path):
    trainer = trainer_of(model, tmp_path, algorithm_answer="first")
    batch = trainer.collate([trainer.train_dataset[0], trainer.train_dataset[1]])
    reader: FidReader = trainer.components.model
    for row, question in zip(batch["labels"], trainer.components.data.splits["train"], strict=False):
        assert row[row != -100].tolist() == reader.answer_ids(question.answers[0])


def test_another_answer_each_epoch(model, tmp_path):
    trainer = trainer_of(model, tmp_path)
    seen = {tuple(trainer._example(trainer.components.data.splits["train"][0], epoch)["answer"]) for epoch in range(12)}
    assert len(seen) == 2
    assert trainer._example(trainer.components.data.splits["train"][0], 3) == trainer._example(
        trainer.components.data.splits["train"][0], 3
    )


def test_what_was_cut_is_counted_and_said_and_nothing_else(model, tmp_path, caplog):
    """One warning, with the number of prompts cut, of prompts, and of passages and turns that they lost."""
    passages = [Passage(id="p0", text="word " * 500), Passage(id="p1", text="short"), Passage(id="p2", text="word")]
    asked = [Question("q0", "word?", answers=("so",)), Question("q1", "short?", answers=("so",))]
    asked = [
        dataclasses.replace(asked[0], candidate_ids=("p0", "p1")),
        dataclasses.replace(asked[1], candidate_ids=("p1",)),
    ]
    trainer_of(model, tmp_path, questions=asked, passages=passages, algorithm_passages="data")
    (said,) = [record.getMessage() for record in caplog.records if record.name == sft.__name__]
    assert [int(number) for number in re.findall(r"\d+", said)] == [1, 2, 0, 1, 0]
    caplog.clear()
    trainer_of(model, tmp_path, questions=asked[1:], passages=passages, algorithm_passages="data")
    assert not [record for record in caplog.records if record.name == sft.__name__]


@pytest.mark.parametrize(("across", "processes", "items", "wanted"), [
    (True, 1, 8, 1 / 8), (True, 3, 8, 3 / 8), (False, 3, 8, 1 / 8), (True, 3, None, 1 / 2),
])  # fmt: skip
def test_loss_is_a_share_of_the_steps_tokens_on_every_process(across, processes, items, wanted):
    """Gradients of processes are averaged: where `items` counts the tokens of all, each gives its sum that often."""
    logits, targets = torch.tensor([[0.3, 1.0], [2.0, -1.0]], dtype=torch.float64), torch.tensor([0, 1])
    asked = []

    def answer_logits(inputs, model, recompute):
        asked.append((inputs, model, recompute))
        return logits, targets

    trainer = FiDTrainer.__new__(FiDTrainer)
    trainer.components = SimpleNamespace(models={"reader": SimpleNamespace(answer_logits=answer_logits)})
    trainer.args = SimpleNamespace(average_tokens_across_devices=across)
    trainer.accelerator = SimpleNamespace(num_processes=processes, autocast=contextlib.nullcontext)
    trainer.recompute = True
    summed = -logits.log_softmax(-1)[[0, 1], [0, 1]].sum().item()
    loss, outputs = trainer.compute_loss("model", "inputs", return_outputs=True, num_items_in_batch=items)
    assert loss.item() == pytest.approx(summed * wanted, abs=1e-12)
    assert outputs["logits"] is logits
    assert trainer.compute_loss("model", "inputs", num_items_in_batch=items).item() == loss.item()
    assert asked == [("inputs", "model", True)] * 2


@pytest.mark.parametrize("given", [{}, {"gradient_checkpointing": True}])
def test_checkpointing_is_ours_and_not_hugging_faces(given, model, tmp_path):
    """Theirs would drop a decoder's states."""
    trainer = trainer_of(model, tmp_path, **given)
    assert trainer.recompute is bool(given)
    assert trainer.args.gradient_checkpointing is False


def test_answers_are_drawn_from_seed_epoch_and_question(model, tmp_path):
    trainer = trainer_of(model, tmp_path, algorithm_answer="random")

    def drawn(epoch: int) -> list[list[int]]:
        return [
            trainer._example(trainer.components.data.splits["train"][number], epoch)["answer"] for number in range(8)
        ]

    first = [drawn(epoch) for epoch in range(4)]
    assert len({str(row) for row in first}) > 1, "another epoch, other answers"
    trainer.components.config.seed = 1
    assert [drawn(epoch) for epoch in range(4)] != first
    trainer.config.answer = "first"
    assert (
        drawn(0)
        == drawn(1)
        == [trainer.components.model.answer_ids(q.answers[0]) for q in trainer.components.data.splits["train"]]
    )


def test_the_answer_that_was_drawn_has_its_room(tiny_llama, tmp_path):
    long = [Passage(id="p0", text="word " * 100)]
    asked = [Question("q", "Why?", answers=("so", "because " * 10))]
    model = ReaderConfig(
        path=str(tiny_llama),
        precision="fp32",
        max_new_tokens=4,
        max_input_length=400,
        fid=FidSettings(passage_tokens=999),
    )
    trainer = trainer_of(model, tmp_path, questions=asked, passages=long)
    made = [trainer._example(trainer.components.data.splits["train"][0], epoch) for epoch in range(12)]
    lengths = {len(example["answer"]): len(example["prompt"]) for example in made}
    assert len(lengths) == 2
    for answer, prompt in lengths.items():
        assert prompt + max(answer, 4) == 400


def test_no_more_passages_than_there_are_and_none_where_an_index_finds_none(tmp_path):
    passages, questions = small_set()
    retriever = WordRetriever(ListStore(passages))
    search, asked = retriever.search, []

    def gaps(queries, k):
        asked.append(k)
        found = search(queries, k)
        found.rows_QK[0, 1] = -1
        return found

    retriever.search = gaps
    parts = SimpleNamespace(
        config=SimpleNamespace(retriever=SimpleNamespace(k=3), data=SimpleNamespace(query_history="user")),
        data=SimpleNamespace(passages=ListStore(passages)),
        retriever=retriever,
        cache=tmp_path,
    )
    plain = WordRetriever(ListStore(passages)).search([question.question for question in questions], 12).rows_QK
    for train_k, k in ((None, 3), (5, 5), (99, 12)):
        rows = passage_rows(parts, questions, FiDConfig(train_k=train_k))
        assert asked.pop() == k
        assert rows[0] == [row for place, row in enumerate(plain[0, :k].tolist()) if place != 1]
        assert rows[1:] == plain[1:, :k].tolist()


def test_settings_are_filled_in_and_four_bit_needs_a_gpu_and_adapters(model, monkeypatch):
    bare = dataclasses.replace(model, fid=None)
    FiDTrainer.check_config(SimpleNamespace(model=bare))
    assert bare.fid == FidSettings()
    own = FidSettings(passage_tokens=7)
    kept = dataclasses.replace(model, fid=own)
    FiDTrainer.check_config(SimpleNamespace(model=kept))
    assert kept.fid is own
    four_bit = dataclasses.replace(model, load_in_4bit=True, lora=LoraConfig())
    monkeypatch.setattr(sft, "default_device", lambda: torch.device("cpu"))
    with pytest.raises(RequestError, match="needs a CUDA GPU"):
        FiDTrainer.check_config(SimpleNamespace(model=four_bit))
    monkeypatch.setattr(sft, "check_four_bit", lambda device: None)  # as on a GPU
    FiDTrainer.check_config(SimpleNamespace(model=four_bit))
    with pytest.raises(RequestError, match="lora"):
        FiDTrainer.check_config(SimpleNamespace(model=dataclasses.replace(four_bit, lora=None)))


def test_answers_come_end_to_end_from_the_retrieved_passages(model, tmp_path):
    """The evaluator's own call: an answer a question, and counts of what was cut."""
    trainer = trainer_of(model, tmp_path)
    passages, questions = small_set()
    answers, cut = trainer.components.model.answer(questions[:2], [passages[:2], []], num_beams=1)
    assert len(answers) == 2
    assert cut.prompts == 2


def test_what_the_prompts_of_the_first_epoch_lose_is_counted_as_by_sft(tiny_llama, tmp_path):
    _, questions = small_set()
    long = [dataclasses.replace(question, answers=("a" * 200,)) for question in questions]
    counts = {}
    for room in (900, 400):  # with and without a loss
        model = ReaderConfig(path=str(tiny_llama), precision="fp32", max_input_length=room, fid=FidSettings())
        trainer = trainer_of(model, tmp_path, questions=long)
        counts[room] = trainer.truncation
        cut = TruncationCounts()
        for question in long:
            cut.add(trainer.reader.prompts.for_question(question, trainer.passages_for(question, 0), "a" * 200))
        assert trainer.truncation == cut
        assert cut.prompts == len(questions)
    assert counts[400].prompts_truncated > counts[900].prompts_truncated
