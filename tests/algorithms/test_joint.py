"""Joint training: a step by hand, each objective, accumulation, resume, and a run from the command line."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from benchmarks.storm import differences
from rag_experiments import ask, evaluate, export, train
from rag_experiments.algorithms.base import RunComponents
from rag_experiments.algorithms.dca import dca_loss, standardised
from rag_experiments.algorithms.joint import JointConfig, JointTrainer
from rag_experiments.algorithms.rpg import rpg_loss
from rag_experiments.config.schema import EncoderConfig, EvaluationConfig, FidSettings, ReaderConfig, RetrieverConfig
from rag_experiments.core.bounded_files import read_yaml
from rag_experiments.core.errors import RequestError
from rag_experiments.models.component import load_model
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.fid.fid_attention import passage_scores
from rag_experiments.retrieval.candidates import FILE
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.runs.directory import RunDirectory
from tests.algorithms.rpg_parts import Store, corpus
from tests.numeric import assert_all_near, assert_near
from tests.training.test_resume_anywhere import killed_after
from tests.training.test_run import run_at

QUIET = {"use_cpu": True, "report_to": [], "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}


def make_trainer(encoder: Path, reader: Path, root: Path, kind: str = "decoder", **arguments: Any) -> JointTrainer:
    """`algorithm_…` arguments go to `JointConfig`, the rest to TrainingArguments. Without dropout."""
    passages, questions = corpus()
    store = Store(passages)
    own = {key.removeprefix("algorithm_"): arguments.pop(key) for key in list(arguments) if "algorithm_" in key}
    fid = FidSettings(sub_batch_size=4) if own.get("reader_loss") == "fid" else None
    limit = 300 if kind == "encoder_decoder" and fid else 900
    reader_config = ReaderConfig(
        path=str(reader), kind=kind, precision="fp32", max_new_tokens=8, max_input_length=limit, batch_size=4, fid=fid
    )
    config = SimpleNamespace(
        seed=0,
        algorithm=JointConfig(**{"reader": reader_config, "candidates": 4, "refresh_every": 0, **own}),
        data=SimpleNamespace(query_history="user"),
        retriever=SimpleNamespace(k=2),
        evaluation=EvaluationConfig(bootstrap=0),
    )
    torch.manual_seed(0)
    model = Encoder.load(EncoderConfig(path=str(encoder), precision="fp32", pooling="mean", similarity="cosine"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    retriever = DenseRetriever(RetrieverConfig(), store, model, None)
    retriever.progress = False
    parts = RunComponents(
        config=config,
        data=SimpleNamespace(passages=store, splits={"train": questions, "dev": questions[:2], "test": questions[2:4]}),
        models={"encoder": model, "reader": load_model(reader_config, None)},
        retriever=retriever,
        evaluator=None,
        cache=root / "cache",
    )
    defaults = {
        "output_dir": str(root / "checkpoints"),
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "max_steps": 2,
        "remove_unused_columns": False,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
    }
    trainer = JointTrainer(parts, TrainingArguments(**{**defaults, **QUIET, **arguments}))
    trainer.prepare()
    trainer.candidates.progress = False
    return trainer


def batch(trainer: JointTrainer, numbers: list[int]) -> dict[str, Any]:
    """What a step computes its loss from."""
    return trainer._prepare_inputs(trainer.collate(numbers))


def gradients(trainer: JointTrainer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of all weights by name, zero where the loss does not reach one."""
    trainer.model.zero_grad()
    loss.backward()
    named = trainer.model.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def weights(trainer: JointTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def logged(trainer: JointTrainer, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line and "train/runtime" not in line]


# -- a step by hand ------------------------------------------------------------------------------------


def test_a_step_is_the_readers_loss_and_the_encoders_each_computed_apart(tiny_bert, tiny_llama, tmp_path):
    weighted = {"algorithm_reader_weight": 2.0, "algorithm_encoder_weight": 0.5}
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, **weighted, algorithm_train_k=3)
    encoder, reader, store = trainer.components.model, trainer.desk.reader, trainer.components.data.passages
    numbers = [5, 0, 3]
    rows_BK = trainer.candidates.rows_QK[numbers]
    loss, parts = trainer.compute_loss(trainer.model.eval(), batch(trainer, numbers), return_outputs=True)

    answers = [trainer.questions[number].answers[0] for number in numbers]
    prompts = [
        reader.prompts.for_question(trainer.questions[number], [store[row] for row in rows_K[:3]], answer)
        for number, rows_K, answer in zip(numbers, rows_BK.tolist(), answers, strict=True)
    ]
    learnt = reader.score(prompts, answers, include_end=True).tokens
    by_reader = -torch.cat(learnt).mean()
    asked = torch.from_numpy(encoder.embed_queries([trainer.queries[number] for number in numbers]))
    vectors = torch.from_numpy(encoder.embed_passages(store.full_texts(rows_BK.ravel().tolist()))).reshape(3, 4, -1)
    alone = [
        reader.score(
            [reader.prompts.for_question(trainer.questions[n], [store[row]], answer) for row in rows_K], [answer] * 4
        ).tokens
        for n, rows_K, answer in zip(numbers, rows_BK.tolist(), answers, strict=True)
    ]
    longest = max(len(tokens[0]) for tokens in alone)
    token_log_probs_BKT, mask_BT = torch.zeros(3, 4, longest), torch.zeros(3, longest, dtype=torch.bool)
    for b, tokens in enumerate(alone):
        mask_BT[b, : len(tokens[0])] = True
        token_log_probs_BKT[b, :, : len(tokens[0])] = torch.stack(tokens)
    by_encoder = rpg_loss(
        torch.einsum("bd,bkd->bk", asked, vectors), token_log_probs_BKT, mask_BT, "pdist", "mean", 0.05
    )

    assert_near(parts["reader"].detach(), by_reader)
    assert_near(parts["encoder"].detach(), by_encoder)
    assert_near(loss.detach(), 2 * by_reader + by_encoder / 2)


@pytest.mark.parametrize("objective", ["pdist", "emdr2", "loop", "adist"])
def test_each_half_learns_from_its_own_loss_alone(tiny_bert, tiny_llama, tmp_path, objective):
    reading = {"algorithm_objective": objective, "algorithm_reader_loss": "fid" if objective == "adist" else "sft"}
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, **reading)
    inputs = batch(trainer, [1, 4, 6])
    both = gradients(trainer, trainer.compute_loss(trainer.model, inputs))
    for kept, left_out in (("encoder", "reading"), ("reader", "judged")):
        one = gradients(
            trainer, trainer.compute_loss(trainer.model, {k: v for k, v in inputs.items() if k != left_out})
        )
        for name, gradient in one.items():
            if name.startswith(f"{kept}."):
                assert torch.equal(gradient, both[name]), name
            else:
                assert not gradient.any(), name
        assert any(gradient.any() for gradient in one.values())


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("objective", ["adist", "adist_peak"])
def test_attention_is_that_of_the_reader_over_all_candidates(tiny_bert, tiny_llama, tiny_t5, tmp_path, objective, kind):
    folder = tiny_llama if kind == "decoder" else tiny_t5
    reading = {"algorithm_reader_loss": "fid", "algorithm_objective": objective}
    trainer = make_trainer(tiny_bert, folder, tmp_path, kind, **reading)
    encoder, reader, store = trainer.components.model.eval(), trainer.desk.reader, trainer.components.data.passages
    reader.module.eval()
    numbers = [2, 7]
    trainer.candidates.rows_QK[7, 3] = -1  # a question with three candidates
    inputs = batch(trainer, numbers)
    expected = torch.zeros(2, 4)
    scores = torch.zeros(2, 4)
    for b, number in enumerate(numbers):
        question = trainer.questions[number]
        rows = [row for row in trainer.candidates.rows_QK[number].tolist() if row >= 0]
        prompt = reader.prompts.for_question(question, [store[row] for row in rows], question.answers[0])
        expected[b, : len(rows)] = passage_scores(reader, [prompt], objective, [question.answers[0]])[0][0]
        vectors = encoder.embed_passages(store.full_texts(rows)) @ encoder.embed_queries([trainer.queries[number]])[0]
        scores[b, : len(rows)] = torch.from_numpy(vectors)
    assert_near(inputs["judged"]["attention"], expected)
    present = torch.tensor([[True] * 4, [True] * 3 + [False]])
    loss = trainer.encoder_loss(encoder, inputs)
    assert_near(loss.detach(), dca_loss(scores, standardised(expected, present), 0.05, 0.5, present))


def test_the_reader_judges_with_the_weights_of_the_step_and_without_dropout(tiny_bert, tiny_t5, tmp_path):
    trainer = make_trainer(tiny_bert, tiny_t5, tmp_path, "encoder_decoder", max_steps=3, learning_rate=5e-2)
    reader = trainer.desk.reader
    for module in reader.module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    seen = []
    original = trainer.compute_loss

    def watched(model, inputs, *rest, **named):
        assert model.training
        assert reader.module.training
        again = trainer.desk.judged(inputs["questions_B"].tolist(), inputs["rows_BK"])
        assert torch.equal(again["token_log_probs"], inputs["judged"]["token_log_probs"])
        assert not inputs["judged"]["token_log_probs"].requires_grad
        seen.append(trainer.desk.judged([0], trainer.candidates.rows_QK[:1])["token_log_probs"])
        first, second = (original(model, inputs, return_outputs=True)[1]["reader"] for _ in range(2))
        assert first != second  # the reader that learns has dropout
        return original(model, inputs, *rest, **named)

    trainer.compute_loss = watched
    trainer.train()
    assert len({tuple(scores.flatten().tolist()) for scores in seen}) == 3  # three steps, three readers


@pytest.mark.parametrize("frozen", ["reader", "encoder"])
def test_a_half_of_weight_0_stays_as_it_is(tiny_bert, tiny_llama, tmp_path, frozen):
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, weight_decay=0.1, **{f"algorithm_{frozen}_weight": 0.0})
    before = weights(trainer)
    trainer.train()
    moved = {name.split(".")[0] for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert moved == {"reader", "encoder"} - {frozen}


def test_with_refresh_questions_the_passages_have_no_gradient(tiny_bert, tiny_llama, tmp_path):
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, algorithm_refresh="questions")
    encoder = trainer.components.model
    inputs = batch(trainer, [1, 2, 3])
    whole = gradients(trainer, trainer.parts(trainer.model, inputs)["encoder"])
    store, rows_BK = trainer.components.data.passages, inputs["rows_BK"]
    queries = encoder(**encoder.pad(encoder.tokenize_queries([trainer.queries[n] for n in (1, 2, 3)])))
    vectors = torch.from_numpy(encoder.embed_passages(store.full_texts(rows_BK.ravel().tolist()))).reshape(3, 4, -1)
    judged = inputs["judged"]
    loss = rpg_loss(
        torch.einsum("bd,bkd->bk", queries, vectors),
        judged["token_log_probs"],
        judged["token_mask"],
        "pdist",
        "mean",
        0.05,
    )
    assert_all_near(whole, gradients(trainer, loss))
    trainer.passages_learn = True
    corpus = gradients(trainer, trainer.parts(trainer.model, inputs)["encoder"])
    assert any((corpus[name] - whole[name]).abs().max() > 1e-4 for name in whole)


def test_a_known_gold_passage_is_a_candidate_and_is_read(tiny_bert, tiny_llama, tmp_path):
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, algorithm_add_gold=True)
    for number, rows_K in enumerate(trainer.candidates.rows_QK):
        read = trainer.desk._read(number, rows_K)
        assert len(read) == 2
        assert number in rows_K.tolist()  # passage i is question i's
        assert number in read
        assert read[0] == rows_K[0]


# -- whole steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader_loss", ["sft", "fid"])
def test_two_micro_batches_are_one_batch(tiny_bert, tiny_llama, tmp_path, reader_loss):
    """Of five and of three questions, with answers of different lengths."""
    plain = {"optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 1, "max_steps": -1}
    plain["algorithm_reader_loss"] = reader_loss
    once = make_trainer(tiny_bert, tiny_llama, tmp_path / "a", per_device_train_batch_size=8, **plain)
    before = weights(once)
    once.train()
    twice = make_trainer(
        tiny_bert, tiny_llama, tmp_path / "b", per_device_train_batch_size=5, gradient_accumulation_steps=2, **plain
    )
    twice.train()
    assert once.state.global_step == twice.state.global_step == 1
    moved = [{name: value - before[name] for name, value in weights(one).items()} for one in (twice, once)]
    assert_all_near(*moved)
    assert_near(logged(twice, "train/loss"), logged(once, "train/loss"))
    assert logged(once, "train/loss")[0] == pytest.approx(
        logged(once, "train/reader_loss")[0] + logged(once, "train/encoder_loss")[0], rel=1e-5
    )


@pytest.mark.parametrize("recompute", ["algorithm_mini_batch_size", "gradient_checkpointing"])
@pytest.mark.parametrize("reader_loss", ["sft", "fid"])
def test_recomputing_changes_no_number(tiny_bert, tiny_llama, tmp_path, reader_loss, recompute):
    same = {"algorithm_reader_loss": reader_loss, "optim": "sgd", "max_steps": 1}
    plain = make_trainer(tiny_bert, tiny_llama, tmp_path / "a", **same)
    plain.train()
    again = make_trainer(
        tiny_bert, tiny_llama, tmp_path / "b", **{recompute: 2 if "size" in recompute else True}, **same
    )
    again.train()
    assert_all_near(weights(again), weights(plain))


def test_resume_in_the_middle_gives_the_uninterrupted_result(tiny_bert, tiny_llama, tmp_path):
    same = {"max_steps": 6, "algorithm_refresh_every": 2, "learning_rate": 2e-2, "algorithm_objective": "loop"}
    whole = make_trainer(tiny_bert, tiny_llama, tmp_path / "whole", **same)
    whole.train()
    # Interrupted after step 3, between two refreshes: step 4's candidates are those found after step 2.
    first = make_trainer(tiny_bert, tiny_llama, tmp_path / "cut", save_strategy="steps", save_steps=3, **same)
    first.train()
    checkpoint = tmp_path / "cut" / "checkpoints" / "checkpoint-3"
    assert (checkpoint / FILE).is_file()
    second = make_trainer(tiny_bert, tiny_llama, tmp_path / "cut", **same)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert all(torch.equal(weights(second)[name], value) for name, value in weights(whole).items())
    assert np.array_equal(second.candidates.rows_QK, whole.candidates.rows_QK)
    assert logged(second, "train/loss")[-3:] == logged(whole, "train/loss")[-3:]


def test_what_is_logged(tiny_bert, tiny_llama, tmp_path):
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, max_steps=4, algorithm_refresh_every=2)
    trainer.train()
    for name in ("reader_loss", "encoder_loss", "kl", "target_entropy", "gold_in_candidates"):
        assert len(logged(trainer, f"train/{name}")) == 4, name
    assert len(logged(trainer, "train/refresh_seconds")) == 1
    assert all(0 <= value <= math.log(4) + 1e-6 for value in logged(trainer, "train/target_entropy"))


# -- runs --------------------------------------------------------------------------------------------------


def run_request(data: Path, reader: Path, root: Path, *more: str) -> list[str]:
    """A run through the entrypoint, from an encoder of random weights."""
    return [
        "algorithm=joint",
        "model=bert_tiny_scratch",
        "model.precision=fp32",
        f"algorithm.reader.path={reader}",
        "algorithm.reader.precision=fp32",
        "algorithm.reader.max_input_length=700",
        "data=jsonl",
        f"data.path={data}",
        "tracking=none",
        f"paths.outputs={root}/outputs",
        f"paths.cache={root}/cache",
        "evaluation.bootstrap=0",
        "evaluation.latency=0",
        "evaluation.max_questions=4",
        "retriever.k=2",
        "algorithm.candidates=3",
        "algorithm.refresh_every=2",
        "trainer.use_cpu=true",
        "trainer.max_steps=4",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "trainer.logging_steps=1",
        *more,
    ]


@pytest.mark.parametrize("reading", [[], ["algorithm.reader_loss=fid", "algorithm.objective=adist_peak"]])
def test_a_whole_run_and_what_is_made_of_it(tiny_llama, small_data, tmp_path, capsys, reading):
    arguments = run_request(small_data, tiny_llama, tmp_path, *reading)
    at = f"hydra.run.dir={tmp_path}/run"
    assert train.start([*arguments, at, "plan=true"]) == 0
    plan = capsys.readouterr().out
    assert "encoder parameters" in plan
    assert "reader parameters" in plan
    assert not (tmp_path / "run").exists()
    assert train.start([*arguments, at]) == 0
    run = RunDirectory.open(tmp_path / "run")
    assert sorted(folder.name for folder in run.model_dir.iterdir() if folder.is_dir()) == ["encoder", "reader"]
    names = {name for line in run.read_metrics() for name in line}
    assert {"train/reader_loss", "train/encoder_loss", "train/kl", "train/refresh_seconds"} <= names
    assert {"zero_shot/test/f1", "test/recall@1", "test/exact_match"} <= set(run.read_final_metrics())
    settled = read_yaml(run.config_path)["algorithm"]["reader"]["max_new_tokens"]
    assert settled == 32

    used = ["evaluation.splits=[test]", "algorithm.reader.max_new_tokens=2"]
    assert evaluate.start([f"run={run.path}", "name=again", *used]) == 0
    with pytest.raises(RequestError, match=r"algorithm\.reader\.lora made the model"):
        evaluate.start([f"run={run.path}", "algorithm.reader.lora={r: 2}"])
    assert ask.start([f"run={run.path}", "where is the cat"]) == 0
    assert export.start([f"run={run.path}", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model" / "reader" / "config.json").is_file()
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "`model/`: the trained encoder and reader, safetensors; each in a folder of its own" in readme
    half = [argument for argument in arguments if argument.startswith(("data", "tracking", "paths", "trainer."))]
    half += ["algorithm=ctl", "model=run", f"model.path='run://{run.path}#encoder'", "trainer.max_steps=2"]
    assert train.start([*half, f"hydra.run.dir={tmp_path}/next"]) == 0


def test_resumed_from_a_checkpoint_equals_undisturbed(tiny_llama, small_data, tmp_path):
    steps = ["trainer.eval_strategy=no", "trainer.load_best_model_at_end=false", "trainer.save_total_limit=5"]
    steps += ["trainer.save_strategy=steps", "trainer.save_steps=1"]
    run = run_at(tmp_path / "run", run_request(small_data, tiny_llama, tmp_path, *steps))
    cut = killed_after(run, 3, tmp_path / "cut")  # between two refreshes
    assert train.start([f"resume={cut.path}"]) == 0
    assert list(differences(run.path, cut.path)) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.objective=adist", "add algorithm.reader_loss=fid"),
        ("algorithm.objective=replug", "algorithm.objective='replug'"),
        ("algorithm.train_k=5", "algorithm.train_k=5: the reader reads candidates"),
        ("algorithm.reader_weight=-1", "algorithm.reader_weight=-1"),
        ("algorithm.reader_weight=0 algorithm.encoder_weight=0", "nothing would be learnt"),
        ("algorithm.encoder_weight=0 algorithm.refresh=questions", "algorithm.refresh=questions has no effect"),
        ("algorithm.objective=emdr2 algorithm.target_temperature=0.1", "algorithm.target_temperature has no effect"),
        ("algorithm.objective=emdr2 algorithm.target=sum", "algorithm.target=sum has no effect"),
        ("algorithm.learning_rates.redaer=1e-3", "algorithm.learning_rates.redaer: the roles are encoder and reader"),
        ("algorithm.reader.load_in_4bit=true", "algorithm.reader"),
        ("algorithm.reader.max_input_length=150", "algorithm.reader.max_input_length"),
        ("algorithm.reader=null", "add model@algorithm.reader="),
        ("model@algorithm.reader=minilm", "is an encoder"),
        ("model=smollm2_135m", "trains an encoder"),
        ("retriever=bm25", "has no encoder"),
        ("trainer.neftune_noise_alpha=5", "trains several models"),
    ],
)
def test_wrong_requests(tiny_llama, small_data, tmp_path, override, said):
    arguments = run_request(small_data, tiny_llama, tmp_path, f"hydra.run.dir={tmp_path}/run")
    if override.startswith(("model", "algorithm.reader=")):
        replaced = "algorithm.reader." if "reader" in override else "model."
        arguments = [argument for argument in arguments if not argument.startswith(replaced)]
    with pytest.raises(RequestError) as refused:
        train.start([*arguments, *override.split()])
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()
