"""SFT: what is supervised, and that no faster way to compute it changes it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from rag_experiments.algorithms.sft import ByLength, SFTConfig, SFTTrainer, answer_loss
from rag_experiments.config.schema import LoraConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.reader.prompts import DEFAULT_INSTRUCTION
from tests.algorithms.reader_parts import losses, make_trainer, spy
from tests.examples import PASSAGES, QUESTION
from tests.numeric import assert_near

BODY = "[1] Cats\nA cat sleeps in the house.\n"
HISTORY = "\nConversation so far:\nUser: Is there a cat?\nAssistant: Yes.\n"


# -- what is supervised ----------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False])
def test_labels_are_the_answer_and_the_end_token_only(chat, tiny_llama, tiny_plain_llama, tmp_path):
    """One token a byte, so that the masks can be counted off the text."""
    trainer = make_trainer(
        SFTTrainer, tiny_llama if chat else tiny_plain_llama, tmp_path, questions=[QUESTION], passages=PASSAGES
    )
    batch = trainer.collate([trainer.train_dataset[0]])
    if chat:
        before = (
            f"<|im_start|>system\n{DEFAULT_INSTRUCTION}<|im_end|>\n<|im_start|>user\n"
            f"{BODY}{HISTORY}\nQuestion: Where does it sleep?<|im_end|>\n<|im_start|>assistant\n"
        )
        answer = "in the house<|im_end|>"
    else:
        before = f"{DEFAULT_INSTRUCTION}\n\n{BODY}{HISTORY}\nQuestion: Where does it sleep?\nAnswer:"
        answer = " in the house<|im_end|>"
    tokenizer = trainer.components.model.tokenizer
    assert tokenizer.decode(batch["input_ids"][0]) == before + answer
    wanted = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert batch["labels"][0].tolist() == [-100] * (batch["labels"].shape[1] - len(wanted)) + wanted


def test_labels_of_several_rows_leave_out_padding(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path)
    batch = trainer.collate([trainer.train_dataset[i] for i in range(8)])
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 1
    for row, length in enumerate(lengths):
        text = trainer.components.data.splits["train"][row].answers[0] + "<|im_end|>"
        supervised = batch["labels"][row] != -100
        assert not supervised[length:].any()
        assert trainer.components.model.tokenizer.decode(batch["labels"][row][supervised]) == text
        assert torch.equal(batch["input_ids"][row][supervised], batch["labels"][row][supervised])


def test_an_encoder_decoders_labels_are_the_answer(tiny_t5, tmp_path):
    model = ReaderConfig(path=str(tiny_t5), kind="encoder_decoder", precision="fp32", max_input_length=700)
    trainer = make_trainer(SFTTrainer, tiny_t5, tmp_path, model=model)
    batch = trainer.collate([trainer.train_dataset[0], trainer.train_dataset[1]])
    row = batch["labels"][0]
    assert trainer.components.model.tokenizer.decode(row[row != -100]) == "house<|im_end|>"
    trainer.train()
    assert losses(trainer)[0] > 0


def test_a_batch_with_nothing_to_learn_is_refused(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path)
    with pytest.raises(RequestError, match="nothing to learn"):
        trainer.collate([trainer.train_dataset[0], {"input_ids": [1, 2, 3], "answer_ids": []}])
    with pytest.raises(RequestError, match="empty"):
        make_trainer(SFTTrainer, tiny_llama, tmp_path, questions=[Question("q", "Why?", answers=(" ",))])


def test_another_answer_each_epoch(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, algorithm_answer="random")
    question = trainer.components.data.splits["train"][0]
    seen = {tuple(trainer._example(question, epoch)["answer_ids"]) for epoch in range(12)}
    assert len(seen) == 2
    assert trainer._example(question, 3) == trainer._example(question, 3)


def test_a_prompt_has_the_first_max_gold_gold_passages(tiny_llama, tmp_path):
    asked = [Question("q", "Why?", answers=("so",), positive_ids=("p3", "p0", "p2"))]
    for most, wanted in ((None, ["p3", "p0", "p2"]), (2, ["p3", "p0"]), (1, ["p3"])):
        trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, questions=asked, algorithm_max_gold=most)
        assert [passage.id for passage in trainer.passages_for(asked[0], 0)] == wanted
        text = trainer.components.model.tokenizer.decode(trainer.train_dataset[0]["input_ids"])
        found = [text.find(passage.text) for passage in trainer.components.data.passages.passages]
        assert [f"p{row}" for row in sorted(range(8), key=lambda row: found[row]) if found[row] >= 0] == wanted


def test_answers_are_drawn_from_seed_epoch_and_question(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, algorithm_answer="random")
    questions = trainer.components.data.splits["train"]

    def drawn(epoch: int) -> list[list[int]]:
        return [trainer._example(question, epoch)["answer_ids"] for question in questions]

    first = [drawn(epoch) for epoch in range(4)]
    assert len({str(row) for row in first}) > 1, "another epoch, other answers"
    trainer.components.config.seed = 1
    assert [drawn(epoch) for epoch in range(4)] != first
    trainer.config.answer = "first"
    assert drawn(0) == drawn(1) == [trainer.components.model.answer_ids(question.answers[0]) for question in questions]


def test_the_answer_that_was_drawn_has_its_room(tiny_llama, tmp_path):
    """The longest of a question's answers fits behind its prompt, and is not the first."""
    long = [Passage(id="p0", text="word " * 100)]
    asked = [Question("q", "Why?", answers=("so", "because " * 10), positive_ids=("p0",))]
    model = ReaderConfig(path=str(tiny_llama), precision="fp32", max_new_tokens=4, max_input_length=400)
    trainer = make_trainer(
        SFTTrainer, tiny_llama, tmp_path, model=model, questions=asked, passages=long, algorithm_answer="random"
    )
    made = [trainer._example(asked[0], epoch) for epoch in range(12)]
    lengths = {len(example["answer_ids"]): len(example["input_ids"]) for example in made}
    assert len(lengths) == 2
    for answer, prompt in lengths.items():
        assert prompt + max(answer, 4) == 400


def test_truncation_is_counted(tiny_llama, tmp_path, caplog):
    long = [Passage(id="p0", text="word " * 500)]
    asked = [Question("q", "Why?", answers=("because",), positive_ids=("p0",))]
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, questions=asked, passages=long)
    assert trainer.truncation.passages_shortened == 1
    assert "1 of 1 prompts were too long" in caplog.text
    trainer.train()
    assert trainer.state.log_history[0]["train/truncation/passages_shortened"] == 1


@pytest.mark.parametrize(
    ("model", "algorithm", "message"),
    [
        ({"load_in_4bit": True, "lora": LoraConfig()}, {}, "needs a CUDA GPU"),
        ({"kind": "encoder_decoder"}, {"packing": True}, "packing=true needs a decoder"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_weights_are_read(model, algorithm, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = SimpleNamespace(model=ReaderConfig(path="nowhere", **model), algorithm=SFTConfig(**algorithm))
    with pytest.raises(RequestError, match=message):
        SFTTrainer.check_config(config)


# -- the loss --------------------------------------------------------------------------------------


def test_loss_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64))
    loss = answer_loss(logits, torch.tensor([0, 1]), items=4)
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 4, abs=1e-12)


@pytest.mark.parametrize(("across", "processes", "items", "wanted"), [
    (True, 1, 8, 1 / 8), (True, 3, 8, 3 / 8), (False, 3, 8, 1 / 8), (True, 3, None, 1 / 2),
])  # fmt: skip
def test_loss_is_a_share_of_the_steps_tokens_on_every_process(across, processes, items, wanted, monkeypatch):
    """Gradients of processes are averaged: where `items` counts the tokens of all, each gives its sum that often."""
    logits, targets = torch.tensor([[0.3, 1.0], [2.0, -1.0]], dtype=torch.float64), torch.tensor([0, 1])
    monkeypatch.setattr("rag_experiments.models.reader.answer_tokens.answer_logits", lambda *_: (logits, targets))
    trainer = SFTTrainer.__new__(SFTTrainer)
    trainer.components = SimpleNamespace(models={"reader": SimpleNamespace(kind="decoder")})
    trainer.args = SimpleNamespace(average_tokens_across_devices=across)
    trainer.accelerator = SimpleNamespace(num_processes=processes)
    summed = -logits.log_softmax(-1)[[0, 1], [0, 1]].sum().item()
    loss, outputs = trainer.compute_loss(None, {}, return_outputs=True, num_items_in_batch=items)
    assert loss.item() == pytest.approx(summed * wanted, abs=1e-12)
    assert outputs["logits"] is logits
    assert trainer.compute_loss(None, {}, num_items_in_batch=items).item() == loss.item()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_accumulating_8_times_1_is_8_at_once(kind, tiny_llama, tiny_t5, tmp_path):
    """Answers differ in length, so a mean of means would differ. Plain SGD: weights show the gradients."""
    folder = tiny_llama if kind == "llama" else tiny_t5
    model = ReaderConfig(
        path=str(folder),
        kind="decoder" if kind == "llama" else "encoder_decoder",
        precision="fp32",
        max_input_length=700,
    )
    results = []
    for size, steps in ((8, 1), (1, 8)):
        trainer = make_trainer(
            SFTTrainer, folder, tmp_path, model=model, optim="sgd", learning_rate=0.1,
            per_device_train_batch_size=size, gradient_accumulation_steps=steps,
        )  # fmt: skip
        before = {name: p.detach().clone() for name, p in trainer.components.model.module.named_parameters()}
        trainer.train()
        after = dict(trainer.components.model.module.named_parameters())
        results.append((losses(trainer)[0], {name: after[name].detach() - before[name] for name in before}))
    (first_loss, first), (second_loss, second) = results
    assert_near(second_loss, first_loss)
    for name, moved in first.items():
        assert_near(second[name], moved, share=1e-3, what=name)


def test_every_parameter_moves(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, max_steps=2)
    before = {name: p.detach().clone() for name, p in trainer.components.model.module.named_parameters()}
    trainer.train()
    for name, parameter in trainer.components.model.module.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_only_adapters_move(tiny_llama, tmp_path):
    model = ReaderConfig(
        path=str(tiny_llama), precision="fp32", lora=LoraConfig(r=4, dropout=0.0), max_input_length=700
    )
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, model=model, max_steps=2)
    before = {name: p.detach().clone() for name, p in trainer.components.model.module.named_parameters()}
    trainer.train()
    for name, parameter in trainer.components.model.module.named_parameters():
        assert torch.equal(parameter, before[name]) == ("lora" not in name), name


def test_it_learns_the_answers_by_heart(tiny_llama, tmp_path):
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, max_steps=150, learning_rate=3e-3)
    trainer.train()
    reader, questions = trainer.components.model, trainer.components.data.splits["train"]
    written, _ = reader.answer(questions, [trainer.gold(question) for question in questions])
    assert written == [question.answers[0] for question in questions]


def test_batches_hold_examples_of_like_length(tiny_llama, tmp_path):
    """Lengths are known without making the examples again."""
    trainer = make_trainer(
        SFTTrainer, tiny_llama, tmp_path, per_device_train_batch_size=2, train_sampling_strategy="group_by_length"
    )
    order = list(trainer._get_train_sampler())
    assert sorted(order) == list(range(8))
    lengths = [trainer.lengths[index] for index in order]
    assert lengths[0] == max(lengths)
    example = trainer.train_dataset[3]
    assert trainer.lengths[3] == len(example["input_ids"]) + len(example["answer_ids"])


def test_batches_of_like_length_are_as_large_as_a_step(tiny_llama, tmp_path):
    """Accumulation counts, as in Trainer's own; without `group_by_length` its own sampler is used."""
    grouped = {"per_device_train_batch_size": 2, "train_sampling_strategy": "group_by_length"}
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, **grouped, gradient_accumulation_steps=2)
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, ByLength)
    assert (sampler.batch_size, sampler.seed) == (4, trainer.args.seed)
    assert not isinstance(make_trainer(SFTTrainer, tiny_llama, tmp_path)._get_train_sampler(), ByLength)


def test_order_by_length_is_drawn_from_seed_and_epoch():
    lengths = [(7 * place) % 23 for place in range(64)]

    def order(seed: int, epoch: int) -> list[int]:
        sampler = ByLength(4, lengths, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_every_epochs_rows_are_right_labels_by_loop(tiny_llama, tmp_path):
    """Against the rule, a token at a time: token i is a target where it is the answer's, and stands at its place."""
    trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, algorithm_answer="random")
    features = [trainer.train_dataset[i] for i in (3, 0, 6)]
    batch = trainer.collate(features)
    for row, feature in enumerate(features):
        whole, start = feature["input_ids"] + feature["answer_ids"], len(feature["input_ids"])
        for place in range(batch["input_ids"].shape[1]):
            inside = place < len(whole)
            assert batch["input_ids"][row, place] == (whole[place] if inside else trainer.components.model.pad_id)
            assert batch["attention_mask"][row, place] == int(inside)
            assert batch["labels"][row, place] == (whole[place] if inside and place >= start else -100)


def test_resumed_within_an_epoch_the_order_goes_on(tiny_llama, tmp_path):
    """Four steps an epoch, grouped by length, an answer drawn anew each epoch; interrupted after the sixth of eight."""
    same = {
        "per_device_train_batch_size": 2, "train_sampling_strategy": "group_by_length", "max_steps": 8,
        "save_strategy": "steps", "save_steps": 6, "algorithm_answer": "random",
    }  # fmt: skip
    whole = make_trainer(SFTTrainer, tiny_llama, tmp_path, **same)
    rows = spy(whole)
    whole.train()
    resumed = make_trainer(SFTTrainer, tiny_llama, tmp_path, **same)
    rows_again = spy(resumed)
    torch.rand(7)  # another state of the generators than at the first start
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-6"))
    assert rows_again == rows[6:]
    assert rows[:4] != rows[4:], "the epochs are alike, so the order could not be wrong"
