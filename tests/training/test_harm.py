"""A training that harms: noticed by the paired test, its causes looked up, the base kept where that is wanted."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from rag_experiments import train
from rag_experiments.comparison.analysis.before_after import Change, harm_sentence
from rag_experiments.config import command_line
from rag_experiments.core import text as texts
from rag_experiments.data.records import Question
from rag_experiments.evaluation.bootstrap import Interval
from rag_experiments.training import harm, stages
from tests.training.test_run import request, run_at, weights


def rows(values: list[float]) -> list[dict]:
    return [
        {"id": str(number), "gold_ids": [str(number)], "metrics": {"ndcg@10": value}}
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("after", "worse"),
    [([0.2] * 12, True), ([0.9] * 12, False), ([0.2, 0.9] * 6, False), ([0.6] * 12, False)],
    ids=["all fall", "all rise", "as many rise", "equal"],
)
def test_a_fall_counts_where_the_paired_test_says_so(after, worse):
    assert harm.is_worse(harm.against_base(rows([0.6] * 12), rows(after), "ndcg@10")) == worse


def test_questions_of_one_side_do_not_count():
    assert harm.against_base(rows([0.6]), [{**rows([0.1])[0], "id": "other"}], "ndcg@10") is None
    assert harm.against_base(rows([0.6]), rows([0.1]), "f1") is None
    assert harm.against_base(rows([0.6] * 3), rows([0.1] * 2), "").questions == 2


def test_near_equal_passages_are_counted_as_a_plain_loop_counts_them():
    draw = random.Random(3)
    words = [f"w{number}" for number in range(40)]
    passages = [" ".join(draw.sample(words, 10)) for _ in range(30)]
    passages += [f"{passage} more" for passage in passages[:7]] + ["", ""]
    sets = [set(texts.index_runs(passage)) for passage in passages]
    near = {
        one
        for one, first in enumerate(sets)
        for two, second in enumerate(sets)
        if one != two and len(first & second) >= harm.NEARLY_EQUAL * len(first | second) and first & second
    }
    assert harm.near_equal_share(passages) == pytest.approx(len(near) / len(passages))


def named(**changes) -> list[str]:
    """The reasons of a made-up CTL run."""
    store = {str(number): f"passage {number} about {'abcdefghijkl'[number] * 9}" for number in range(12)}
    store |= changes.pop("texts", {})
    questions = [Question(str(number), f"what is {number}", positive_ids=(str(number),)) for number in range(12)]
    encoder = SimpleNamespace(
        config=SimpleNamespace(pooling="mean", max_passage_length=changes.pop("length", 64)),
        tokenize_passages=lambda passages: [passage.split()[:8] for passage in passages],
    )
    dev = [Question("d", changes.pop("dev", "what else is there"))]
    components = SimpleNamespace(
        models={"encoder": encoder},
        data=SimpleNamespace(
            splits={"train": questions, "dev": dev},
            passages=SimpleNamespace(rows=list, full_texts=lambda rows: [store[row] for row in rows]),
        ),
    )
    model = SimpleNamespace(path=changes.pop("path", "/nowhere"), revision=None, lora=changes.pop("lora", None))
    made = SimpleNamespace(
        config=SimpleNamespace(trainer={"learning_rate": changes.pop("rate", 5e-5)}, model=model),
        trainer_class=SimpleNamespace(contrasts_in_batch=True),
    )
    return list(harm.reasons(made, components))


def test_a_sound_run_has_none_of_the_reasons():
    assert named() == []
    assert named(rate=1e-3, lora={"r": 8}) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rate": 1e-3}, "trainer.learning_rate=0.001 is high"),
        ({"texts": {"0": "one two three four five six", "1": "one two three four five six seven"}}, "17% of the gold"),
        ({"length": 4}, "100% of the gold passages are cut at the 4 tokens"),
        ({"dev": "What is 3"}, "1 of the 1 questions of dev"),
    ],
    ids=["rate", "near copies", "cut", "shared"],
)
def test_each_reason_is_named_where_it_holds(changes, sentence):
    (reason,) = named(**changes)
    assert sentence in reason


def test_another_pooling_than_the_models_own_is_named(tiny_bert, small_data, tmp_path):
    run = run_at(tmp_path / "run", request(tiny_bert, small_data, tmp_path, "trainer.max_steps=1"))
    assert named(path=str(run.model_dir)) == []
    config = run.model_dir / "rag_experiments.json"
    config.write_text(config.read_text().replace('"mean"', '"cls"'))
    assert any("model.pooling='mean', and the model was made with 'cls'" in reason for reason in
               named(path=str(run.model_dir)))  # fmt: skip


@pytest.fixture(scope="module")
def harmed(tmp_path_factory, tiny_bert):
    from tests.conftest import write_small_data

    root = tmp_path_factory.mktemp("harmed")
    ruinous = ("trainer.learning_rate=0.3", "trainer.max_steps=6", "trainer.warmup_steps=0", "keep=base")
    rhythm = ("trainer.eval_strategy=steps", "trainer.eval_steps=3", "trainer.save_steps=3")
    return run_at(
        root / "run", request(tiny_bert, write_small_data(root / "data", passages=80), root, *ruinous, *rhythm)
    )


def test_the_log_tells_it_at_once_and_why(harmed):
    log = (harmed.path / "train.log").read_text()
    assert log.count("is worse than before training") == 1
    assert "after 3 steps dev/ndcg@10 is worse" in log
    assert "trainer.learning_rate=0.3 is high" in log


def test_the_base_is_kept_where_that_is_wanted(harmed, tiny_bert, small_data, tmp_path):
    figures = harmed.read_final_metrics()
    assert harmed.read_status()["kept"] == "base"
    for split in ("dev", "test"):
        assert figures[f"{split}/ndcg@10"] == figures[f"zero_shot/{split}/ndcg@10"]
    base = run_at(tmp_path / "base", request(tiny_bert, small_data, tmp_path, "trainer.max_steps=1"))
    assert all(torch.equal(tensor, weights(base)[name]) for name, tensor in weights(harmed).items()), (
        "the first step of a warm-up changes nothing"
    )


def test_a_sound_training_is_kept_and_measured_once(tiny_bert, small_data, tmp_path, monkeypatch):
    measured, inner = [], stages.evaluate
    monkeypatch.setattr(
        stages, "evaluate", lambda parts, run, stage, of: measured.append(stage) or inner(parts, run, stage, of)
    )
    run = run_at(tmp_path / "run", request(tiny_bert, small_data, tmp_path, "trainer.max_steps=2", "keep=base"))
    assert "kept" not in run.read_status()
    assert measured == ["zero_shot/dev", "zero_shot/test", "dev", "test"]
    plain = run_at(tmp_path / "plain", request(tiny_bert, small_data, tmp_path, "trainer.max_steps=2"))
    kept, same = run.read_final_metrics(), plain.read_final_metrics()
    assert kept.keys() == same.keys()
    assert {name: kept[name] for name in same if "second" not in name and "memory" not in name} == {
        name: value for name, value in same.items() if "second" not in name and "memory" not in name
    }
    assert "worse than before" not in (run.path / "train.log").read_text()


def test_keeping_the_base_needs_its_figures(tiny_bert, small_data, tmp_path, capsys):
    words = request(tiny_bert, small_data, tmp_path, "keep=base", "evaluation.zero_shot=false")
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(train.start, words)
    assert ended.value.code == command_line.WRONG_REQUEST
    assert "keep=base compares dev with the model before training" in capsys.readouterr().err


def change(split: str, metric: str, high: float, clusters: int = 100) -> Change:
    around = Interval(0.5, 0.4, 0.6)
    return Change(split, metric, around, around, Interval(high - 0.1, high - 0.2, high), 100, clusters)


def test_the_end_begins_with_it_where_the_interval_lies_below_zero():
    assert harm_sentence([change("dev", "ndcg@10", -0.1), change("test", "ndcg@10", -0.1)]).startswith(
        "The model before training is better: test ndcg@10"
    )
    assert harm_sentence([change("dev", "ndcg@10", -0.1)]).startswith("The model before training is better: dev")
    assert harm_sentence([change("test", "ndcg@10", 0.1), change("dev", "ndcg@10", -0.1)]) == "", "test decides"
    assert harm_sentence([change("test", "recall@4", -0.1), change("test", "f1", 0.1)]) == "", "answers decide"
    assert harm_sentence([change("test", "ndcg@10", -0.1, clusters=5)]) == "", "too few to tell"
    assert harm_sentence([]) == ""
