"""DCA's teacher: what its scores are kept under, how it is trained, and which key of the request reaches what."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainingArguments

from rag_experiments.algorithms import dca, fid_teacher
from rag_experiments.algorithms.base import SAME_FIGURES, EpochsOrder, FirstRun
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.algorithms.dca import DCAConfig, DCATrainer, _Listed
from rag_experiments.algorithms.fid import FiDTrainer
from rag_experiments.algorithms.fid_teacher import PassageTeacher
from rag_experiments.algorithms.sft import SFTTrainer
from rag_experiments.config.schema import (
    CrossEncoderConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FidSettings,
    LoraConfig,
    PathsConfig,
    ReaderConfig,
    RetrieverConfig,
    RunConfig,
    SweepConfig,
    TrackingConfig,
)
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.training import first_runs
from tests.algorithms.fid_parts import make_dca_trainer, teacher_config
from tests.algorithms.reader_parts import make_trainer as make_reader_trainer
from tests.algorithms.rpg_parts import corpus
from tests.algorithms.rpg_parts import make_trainer as make_rpg_trainer
from tests.examples import ListStore
from tests.tiny_readers import tiny_llama  # noqa: F401 - fixture


class Reader:
    """A reader whose prompts are the passages' numbers."""

    kind = "decoder"
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, batch_size: int = 2):
        self.config = SimpleNamespace(batch_size=batch_size)
        self.prompts = self

    def for_question(self, question, passages, answer=None) -> Prompt:
        return Prompt(head=(int(question.id),), passages=tuple((int(p.id),) for p in passages), tail=(0,))

    def fingerprint(self) -> str:
        return "print"

    def kept_states(self) -> str:
        return "states"

    def _evaluating(self):
        return contextlib.nullcontext()


def asked_for(monkeypatch, kind="cross_attention", cache=None, batch_size=2):
    """A teacher whose score of a passage is its number; the prompts and answers of each call of the model."""
    calls = []

    def passage_scores(reader, prompts, kind, texts, states):
        calls.append((prompts, texts))
        return [torch.tensor([float(part[0]) for part in prompt.passages]) for prompt in prompts], 1

    monkeypatch.setattr(fid_teacher, "passage_scores", passage_scores)
    return PassageTeacher(Reader(batch_size), kind, cache), calls


def passages(*numbers: int) -> list[Passage]:
    return [Passage(id=str(number), text="") for number in numbers]


def test_scores_come_in_the_order_asked_and_a_set_is_computed_once(monkeypatch):
    """Whatever the order of its passages, and however often it comes."""
    made, calls = asked_for(monkeypatch)
    one, two = Question("1", "?"), Question("2", "?")
    found = made.scores([one, two, one, one], [passages(3, 1, 2), passages(5, 4), passages(2, 3, 1), passages(2, 3)])
    assert [row.tolist() for row in found] == [[3, 1, 2], [5, 4], [2, 3, 1], [2, 3]]
    assert (made.lookups, made.hits) == (4, 1)
    assert sum(len(prompts) for prompts, _ in calls) == 3
    assert all(len(prompts) <= 2 for prompts, _ in calls)
    assert made.underflowed == len(calls) == 2
    again = made.scores([one], [passages(1, 2, 3)])
    assert [row.tolist() for row in again] == [[1, 2, 3]]
    assert (made.lookups, made.hits, len(calls)) == (5, 2, 2)
    mixed = made.scores([two, one], [passages(4, 5), passages(6, 7)])  # one that is known, one that is not
    assert [row.tolist() for row in mixed] == [[4, 5], [6, 7]]


@pytest.mark.parametrize(("kind", "given"), [("cross_attention", None), ("adist", ["so"]), ("adist_peak", ["so"])])
def test_the_first_answer_is_shown_only_where_the_score_asks_for_one(kind, given, monkeypatch):
    made, calls = asked_for(monkeypatch, kind)
    made.scores([Question("1", "?", answers=("so", "no"))], [passages(1)])
    assert calls[0][1] == given


def test_many_sets_are_all_kept(monkeypatch, tmp_path):
    """More than are committed at once, and no whole number of commits."""
    monkeypatch.setattr(fid_teacher, "SETS_A_COMMIT", 3)
    made, _ = asked_for(monkeypatch, cache=tmp_path)
    questions = [Question(str(number), "?") for number in range(11)]
    sets = [passages(number, number + 1) for number in range(11)]
    first = made.scores(questions, sets)
    assert len(made.cache) == 11
    other, calls = asked_for(monkeypatch, cache=tmp_path)
    again = other.scores(questions, sets)
    assert not calls
    assert [row.tolist() for row in again] == [row.tolist() for row in first] == [[n, n + 1] for n in range(11)]


def test_the_key_of_a_set_changes_with_all_that_the_reader_sees():
    made = PassageTeacher(Reader(), "adist", None)
    base = Prompt(head=(1, 2), passages=((3, 4), (5,)), tail=(6,))
    others = [
        (dataclasses.replace(base, head=(1, 9)), "a"), (dataclasses.replace(base, tail=(9,)), "a"),
        (dataclasses.replace(base, passages=((3, 4), (9,))), "a"),
        (dataclasses.replace(base, passages=((3,), (4, 5))), "a"),
        (dataclasses.replace(base, head=(1,), passages=((2, 3, 4), (5,))), "a"), (base, "b"), (base, None),
    ]  # fmt: skip
    keys = {made._key(prompt, answer) for prompt, answer in [(base, "a"), *others]}
    assert len(keys) == len(others) + 1
    assert made._key(dataclasses.replace(base, passages_shortened=1), "a") in keys


# -- a teacher that is trained ---------------------------------------------------------------------

OTHER = {
    "path": "other", "revision": "r", "precision": "bf16", "attn_implementation": "eager", "init": "random",
    "architecture": {"model_type": "llama"}, "kind": "encoder_decoder", "max_input_length": 9, "max_new_tokens": 9,
    "batch_size": 9, "chat_template": "none", "instruction": "i", "lora": LoraConfig(), "load_in_4bit": True,
    "fid": FidSettings(passage_tokens=9), "template_date": "2024-01-02",
}  # fmt: skip

OTHER_FID = {"name": "other", "answer": "first", "passages": "data", "train_k": 9, "add_gold": True}
OTHER_RETRIEVER = {
    "type": "bm25", "k": 9, "encoder": EncoderConfig(path="other"), "index": "ivf", "nlist": 9, "nprobe": 9,
    "hnsw_m": 9, "ef_construction": 9, "ef_search": 9, "device": "cpu", "bm25_k1": 0.9, "bm25_b": 0.9,
    "fusion": "weighted", "rrf_k": 9, "dense_weight": 0.9, "reranker": CrossEncoderConfig(path="other"),
    "rerank_depth": 9, "rerank_batch_size": 9,
}  # fmt: skip
OTHER_DATA = {
    "format": "beir", "path": "other", "titles": False, "dev_fraction": 0.2, "test_fraction": 0.2, "split_seed": 9,
    "query_history": "all", "max_train": 9, "max_dev": 9, "max_test": 9, "encoding": "cp1252",
}  # fmt: skip


def run_config(**algorithm) -> RunConfig:
    own = {"teacher": ReaderConfig(path="model"), "teacher_steps": 7, "teacher_batch_size": 6, **algorithm}
    return RunConfig(
        seed=9,
        name="mine",
        resume=None,
        plan=False,
        early_stopping=None,
        model=EncoderConfig(path="encoder"),
        algorithm=DCAConfig(**own),
        data=DataConfig(format="jsonl"),
        retriever=RetrieverConfig(),
        trainer={"use_cpu": True, "disable_tqdm": True, "learning_rate": 1.0, "ddp_timeout": 77},
        evaluation=EvaluationConfig(),
        tracking=TrackingConfig(),
        sweep=SweepConfig(),
        paths=PathsConfig(),
    )


def first_run(config: RunConfig | None = None, ids=("q1", "q2")) -> FirstRun:
    return fid_teacher.teacher_run(config or run_config(), [Question(i, "?", answers=("x",)) for i in ids])


def key_of(first: FirstRun, content_hash="hash", retriever="words", **more) -> str:
    return first_runs.key_of(
        first, SimpleNamespace(content_hash=content_hash), SimpleNamespace(fingerprint=lambda: retriever), **more
    )


def test_a_first_run_is_kept_under_all_that_it_was_made_from():
    """Every field of its configuration, walked through, and what its configuration does not say."""
    base = first_run()
    key = key_of(base)
    assert key_of(first_run()) == key
    seen = [key]

    def follows(first: FirstRun, where: str, expected: bool = True, **more) -> None:
        found = key_of(first, **more)
        assert (found not in seen) == expected, where
        seen.append(found)

    def other(part: str, name: str, value: Any) -> FirstRun:
        changed = dataclasses.replace(getattr(base.config, part), **{name: value})
        return dataclasses.replace(base, config=dataclasses.replace(base.config, **{part: changed}))

    walked = {"model": OTHER, "algorithm": OTHER_FID, "retriever": OTHER_RETRIEVER, "data": OTHER_DATA}
    for part, values in walked.items():
        fields = {field.name for field in dataclasses.fields(getattr(base.config, part))}
        assert fields == set(values), f"{part}: give a new field another value here"
        for name, value in values.items():
            shown = {"data": first_runs._IN_THE_CONTENT, "retriever": {"encoder"}}.get(part, ())
            follows(other(part, name, value), f"{part}.{name}", expected=name not in shown)
    for name in base.config.trainer:
        trainer = {**base.config.trainer, name: 17}
        first = dataclasses.replace(base, config=dataclasses.replace(base.config, trainer=trainer))
        follows(first, f"trainer.{name}", expected=name not in SAME_FIGURES)
    sums = {"ddp_bucket_cap_mb", "ddp_static_graph"}  # they decide what is summed together
    processes = {field.name for field in dataclasses.fields(TrainingArguments) if field.name.startswith("ddp_")}
    assert processes - sums <= set(SAME_FIGURES), "what several processes do is how, not what"
    rest = {field.name for field in dataclasses.fields(RunConfig)} - {*walked, "trainer"}
    assert rest - set(first_runs.NOT_LEARNT_FROM) == {"seed"}, "a part is new: say whether it is part of the key"
    follows(dataclasses.replace(base, config=dataclasses.replace(base.config, seed=1)), "seed")
    follows(base, "data", content_hash="other")
    follows(base, "retriever", retriever="others")
    follows(base, "weights", weights="others")
    follows(first_run(ids=("q1", "q3")), "questions")
    follows(dataclasses.replace(base, trainer_class=SFTTrainer), "trainer_class")
    follows(dataclasses.replace(base, role="other"), "role")


def test_processes_that_share_a_step_share_the_run():
    """With a mean over the whole step the step's size counts; with one over each process's batch, who has what."""

    def key(size: int, accumulation: int, processes: int, trainer_class: Any = FiDTrainer) -> str:
        base = first_run()
        trainer = {
            **base.config.trainer,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
        }
        config = dataclasses.replace(base.config, trainer=trainer)
        return key_of(dataclasses.replace(base, config=config, trainer_class=trainer_class), processes=processes)

    ways = [(6, 1, 1), (3, 1, 2), (3, 2, 1), (1, 3, 2)]
    assert len({key(*way) for way in ways}) == 1
    assert key(3, 1, 1) != key(6, 1, 1) != key(6, 1, 2)
    assert len({key(*way, trainer_class=CTLTrainer) for way in ways}) == len(ways)


def test_a_first_run_is_kept_under_the_weights_that_it_starts_from(tmp_path):
    def model(path: Path, **more) -> ReaderConfig:
        return ReaderConfig(path=str(path), **more)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "tokenizer.json").write_text("{}")
        save_file({"w": torch.zeros(2)}, tmp_path / name / "model.safetensors")
    before = first_runs.weights_behind(model(tmp_path / "a"))
    assert first_runs.weights_behind(model(tmp_path / "b")) == before, "not where they lie"
    save_file({"w": torch.ones(2)}, tmp_path / "a" / "model.safetensors")
    assert first_runs.weights_behind(model(tmp_path / "a")) != before
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "b")}))
    save_file({"w": torch.zeros(1)}, adapters / "adapter_model.safetensors")
    on_zeros = first_runs.weights_behind(model(adapters))
    save_file({"w": torch.ones(2)}, tmp_path / "b" / "model.safetensors")
    assert first_runs.weights_behind(model(adapters)) != on_zeros, "of the model below them, too"


def test_how_a_first_run_is_computed_is_no_part_of_its_key():
    config = run_config()
    config.trainer |= {"ddp_timeout": 5, "disable_tqdm": False}
    assert key_of(first_run(config)) == key_of(first_run())
    config = run_config()
    config.seed, config.name = 4, "other"
    assert key_of(first_run(config)) == key_of(first_run()), "runs with other seeds share one teacher"


@pytest.mark.parametrize(("processes", "each"), [(1, 6), (2, 3), (9, 1)])
def test_keys_of_dca_reach_the_teachers_run(processes, each, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    first = first_run(run_config(teacher_learning_rate=3e-4, teacher_passages=3))
    wanted = {
        "max_steps": 7, "per_device_train_batch_size": each, "learning_rate": 3e-4, "use_cpu": True,
        "disable_tqdm": True, "ddp_timeout": 77, "warmup_steps": 0.1, "weight_decay": 0.01, "eval_strategy": "no",
        "lr_scheduler_type": "linear",
    }  # fmt: skip
    assert {name: first.config.trainer[name] for name in wanted} == wanted
    assert (first.config.seed, first.config.algorithm.train_k, first.config.model.path) == (0, 3, "model")
    assert first.config.model.fid == FidSettings()
    assert (first.trainer_class, first.role) == (FiDTrainer, "reader")


def test_a_teacher_learns_from_answered_questions_alone(monkeypatch):
    monkeypatch.setattr(fid_teacher, "saved_settings", lambda *_: None)
    monkeypatch.setattr(dca, "needs_training", fid_teacher.needs_training)
    questions = [Question("a", "?", answers=("x",)), Question("b", "?"), Question("c", "?", answers=("y",))]
    data = SimpleNamespace(splits={"train": questions})
    made = DCATrainer.before_run(run_config(), data)
    assert [question.id for question in made["teacher"].questions] == ["a", "c"]
    assert DCATrainer.before_run(run_config(teacher_steps=0), data) == {}
    monkeypatch.setattr(fid_teacher, "saved_settings", lambda *_: FidSettings())
    assert DCATrainer.before_run(run_config(), data) == {}, "a FiD run teaches as it is"


# -- keys of the request that reach trainers --------------------------------------------------------


def test_dca_keys_reach_the_teachers_training_and_the_candidates(tiny_bert, tiny_llama, tmp_path, monkeypatch):  # noqa: F811
    seen = {}

    def open_reader(config, cache):
        seen.update(config=config)
        return SimpleNamespace(kind="decoder", fingerprint=lambda: "f")

    monkeypatch.setattr(dca, "open_reader", open_reader)
    config = teacher_config(tiny_llama, "llama")
    trainer = make_dca_trainer(
        tiny_bert, config, tmp_path, algorithm_candidates=5, algorithm_refresh_every=9,
        algorithm_teacher_score="adist",
    )  # fmt: skip
    assert seen["config"] is config
    assert trainer.teacher.kind == "adist"
    assert trainer.candidates.rows_QK.shape == (8, 5)
    kinds = {type(callback).__name__: callback for callback in trainer.callback_handler.callbacks}
    assert kinds["RefreshCandidates"].every == 9
    assert "PrepareScores" in kinds
    assert make_dca_trainer(tiny_bert, config, tmp_path).teacher.kind == "adist_peak"


def test_rpg_keys_reach_the_judge_and_the_candidates(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    for objective, prescore, refresh in (("loop", True, "questions"), ("pdist", False, "corpus")):
        trainer = make_rpg_trainer(
            tiny_bert, tiny_llama, tmp_path, algorithm_objective=objective, algorithm_prescore=prescore,
            algorithm_refresh=refresh, algorithm_refresh_every=3, algorithm_candidates=6,
            algorithm_add_gold=prescore,
        )  # fmt: skip
        assert trainer.judge.leave_one_out is (objective == "loop")
        assert trainer.candidates.mode == refresh
        assert trainer.candidates.rows_QK.shape == (8, 6)
        assert (trainer.candidates.golds is not None) is prescore
        kinds = {type(callback).__name__: callback for callback in trainer.callback_handler.callbacks}
        assert kinds["RefreshCandidates"].every == 3
        assert "PrepareScores" in kinds
        assert not any(parameter.requires_grad for parameter in trainer.judge.scorer.reader.module.parameters())


@pytest.mark.parametrize("add_gold", [False, True])
def test_listed_candidates_get_gold_only_where_asked(add_gold, tiny_bert, tiny_llama, tmp_path, monkeypatch):  # noqa: F811
    reader = SimpleNamespace(kind="decoder", fingerprint=lambda: "f")
    monkeypatch.setattr(dca, "open_reader", lambda *_: reader)
    trainer = make_dca_trainer(
        tiny_bert, teacher_config(tiny_llama, "llama"), tmp_path, candidate_ids=[("p8", "p9", "p10", "p11")] * 8,
        algorithm_passages="data", algorithm_add_gold=add_gold,
    )  # fmt: skip
    golds = [number if add_gold else 11 for number in range(8)]
    assert trainer.candidates.rows_QK.tolist() == [[8, 9, 10, gold] for gold in golds]


def test_callbacks_that_are_given_are_called(tiny_bert, tiny_llama, tmp_path, monkeypatch):  # noqa: F811
    class Mine(TrainerCallback):
        pass

    monkeypatch.setattr(dca, "open_reader", lambda *_: SimpleNamespace(kind="decoder", fingerprint=lambda: "f"))
    makers = (
        lambda: make_dca_trainer(tiny_bert, teacher_config(tiny_llama, "llama"), tmp_path),
        lambda: make_rpg_trainer(tiny_bert, tiny_llama, tmp_path),
        lambda: make_reader_trainer(SFTTrainer, tiny_llama, tmp_path),
        lambda: make_reader_trainer(FiDTrainer, tiny_llama, tmp_path, model=teacher_config(tiny_llama, "llama")),
    )
    for make in makers:
        made = make()
        again = type(made)(made.components, made.args, [Mine()])
        kinds = [type(callback) for callback in again.callback_handler.callbacks]
        assert Mine in kinds, type(made)
        assert EpochsOrder in kinds, type(made)


def test_listed_candidates_are_the_datas_in_order_each_once_golds_last():
    stored, questions = corpus()
    listed = [
        dataclasses.replace(questions[0], candidate_ids=("p4", "p1", "p4", "p3", "p2")),
        dataclasses.replace(questions[1], candidate_ids=("p9",)),
    ]
    parts = SimpleNamespace(data=SimpleNamespace(passages=ListStore(stored)))
    assert _Listed(parts, listed, 3, None).rows_QK.tolist() == [[4, 1, 3], [9, -1, -1]]
    assert _Listed(parts, listed, 3, [[0], [1]]).rows_QK.tolist() == [[4, 1, 0], [9, 1, -1]]
    assert _Listed(parts, listed, 3, None).rows_QK.dtype == np.int64


@pytest.mark.parametrize(("init", "tokens"), [("pretrained", 7), ("random", FidSettings().passage_tokens)])
def test_only_weights_that_learnt_to_read_so_bring_the_settings_of_their_folder(init, tokens, monkeypatch):
    monkeypatch.setattr(fid_teacher, "saved_settings", lambda *_: FidSettings(passage_tokens=7))
    monkeypatch.setattr(fid_teacher.FidReader, "load", lambda config, cache, frozen: (config.fid, frozen))
    settings, frozen = fid_teacher.open_reader(ReaderConfig(path="x", init=init), None)
    assert settings.passage_tokens == tokens
    assert frozen
