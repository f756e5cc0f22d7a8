"""Labels from scores that the data list: read by the formats, drawn, learnt from, and refused where there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rag_experiments import train
from rag_experiments.algorithms.rerank import RerankConfig, RerankTrainer
from rag_experiments.algorithms.shared.listed_scores import ListedScores, check_scores
from rag_experiments.algorithms.shared.multiple_positives import make_examples
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.formats.tevatron import TevatronConfig
from rag_experiments.data.load import RagData, load_data
from rag_experiments.data.records import Question
from rag_experiments.data.tools.native_writer import write_native
from tests.conftest import write_small_data
from tests.retrieval.fakes import ListPassages
from tests.training.test_run import run_at


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FLAG = {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [9.5, 4], "neg_scores": [-1.5]}
PLAIN = {"query": "other", "pos": ["a"], "neg": ["c"]}
SCORED = {
    "query_id": "1", "query": "q", "positive_passages": [{"docid": "1", "text": "a", "score": 2.5}],
    "negative_passages": [{"docid": "2", "text": "b", "score": 0}, {"docid": "3", "text": "c"}],
}  # fmt: skip
NATIVE = {"id": "q", "question": "q", "positive_ids": ["1"], "scores": {"1": 2.5, "2": -3}}


def read(folder: Path, name: str) -> RagData:
    from rag_experiments.config import command_line
    from rag_experiments.training.checks import check_common

    if name == "flag":
        write(folder / "train.jsonl", FLAG, PLAIN)
        for split in ("dev", "test"):
            write(folder / f"{split}.jsonl", {**PLAIN, "query": split})
        words = [f"data.path={folder}", "data=auto", "algorithm=rerank"]
        config: Any = command_line.compose(words)
        return load_data(check_common(config)[0].data, folder / "cache")
    if name == "tevatron":
        write(folder / "train.jsonl", SCORED, {**SCORED, "query_id": "2", "query": "r", "negative_passages": []})
        for split in ("dev", "test"):
            write(folder / f"{split}.jsonl", {**SCORED, "query": split, "positive_passages": [{"text": "a"}]})
        return load_data(TevatronConfig(path=str(folder)), folder / "cache")
    write(folder / "passages.jsonl", *({"id": str(number), "text": text} for number, text in enumerate("xabc")))
    for split in ("train", "dev", "test"):
        lines = [NATIVE] if split == "train" else [{"question": split, "positive_ids": ["3"], "scores": {}}]
        write(folder / f"{split}.jsonl", *lines)
    return load_data(JsonlConfig(path=str(folder)), folder / "cache")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("flag", {"a": 9.5, "b": 4.0, "c": -1.5}),
        ("tevatron", {"a": 2.5, "b": 0.0}),
        ("native", {"a": 2.5, "b": -3.0}),
    ],
)
def test_every_form_of_listed_scores_is_read_and_written(name: str, wanted: dict[str, float], tmp_path: Path) -> None:
    data = read(tmp_path / "in", name)
    questions = [question for asked in data.splits.values() for question in asked]
    texts = {passage.id: passage.text for passage in data.passages}
    found = {q.question: {texts[key]: value for key, value in q.scores.items()} for q in questions if q.scores}
    assert found["q"] == wanted
    write_native(tmp_path / "out", data.passages, data.splits)
    again = load_data(JsonlConfig(path=str(tmp_path / "out")), tmp_path / "cache")
    assert {q.id: q.scores for asked in again.splits.values() for q in asked} == {q.id: q.scores for q in questions}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**FLAG, "pos_scores": [1.0]}, r"'pos_scores' has 1 numbers for 2 passages"),
        ({**FLAG, "neg_scores": ["high"]}, r"'neg_scores' must hold numbers, and one is 'high'"),
        ({**FLAG, "pos_scores": [True, 1]}, r"'pos_scores' must hold numbers, and one is True"),
        ({**SCORED, "positive_passages": [{"docid": "1", "text": "a", "score": "2"}]}, r"'score' must hold numbers"),
        ({**NATIVE, "scores": [1, 2]}, r"'scores' must map passage ids to numbers, and is \[1, 2\]"),
        ({**NATIVE, "scores": {"1": None}}, r"'scores' must hold numbers, and one is None"),
        ({**NATIVE, "scores": {"nobody": 1.0}}, r"scores has 'nobody', and no passage has that id"),
    ],
)
def test_what_is_no_score_is_named_with_its_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", row)
    if "question" in row:
        write(tmp_path / "passages.jsonl", {"id": "1", "text": "a"}, {"id": "2", "text": "b"})
        config: Any = JsonlConfig(path=str(tmp_path))
    else:
        config = TevatronConfig(path=str(path))
        if "pos" in row:
            config.columns.positives, config.columns.negatives = "pos", "neg"
    with pytest.raises(RequestError, match=rf"train\.jsonl:1: {message}"):
        load_data(config, tmp_path / "cache")


def test_rows_of_one_question_pool_their_scores_and_lost_ones_go(tmp_path: Path) -> None:
    intake = Intake(tmp_path, collect=True)
    for name in "abc":
        intake.passage(name, name)
    intake.question("train", Question("1", "q", positive_ids=("a",), scores={"a": 1.0, "gone": 2.0}))
    intake.question("train", Question("2", "q", positive_ids=("a",), scores={"a": 5.0, "b": 3.0}))
    intake.finish()
    (one,) = intake.splits["train"]
    assert one.question.scores == {"a": 1.0, "b": 3.0}
    assert [problem.kind for problem in intake.problems] == ["listed passage missing"]


# -- candidates ------------------------------------------------------------------------------------------


class Numbered(ListPassages):
    """Passages whose ids are the numbers of their rows."""

    def rows(self, names: Sequence[str]) -> np.ndarray:
        return np.array([int(name) for name in names], dtype=np.int64)


PASSAGES: Any = Numbered([f"p{number}" for number in range(9)])


def listed(scores: dict[int, float], golds: tuple[int, ...] = (0, 1), count: int = 4, seed: int = 0) -> ListedScores:
    by_id = {str(row): score for row, score in scores.items()}
    question = Question("q", "q", positive_ids=tuple(map(str, golds)), scores=by_id)
    return ListedScores(make_examples([question], PASSAGES, "multi"), PASSAGES, count, seed)


def test_only_passages_with_a_score_are_candidates_with_that_score() -> None:
    made = listed({0: 3.0, 5: -1.0, 6: 0.5})
    rows = made.rows([0], [0])
    assert sorted(rows[0].tolist()) == [-1, 0, 5, 6]
    labels = dict(zip(rows[0].tolist(), made.scores([0], rows)[0].tolist(), strict=True))
    assert labels == {-1: 0.0, 0: 3.0, 5: -1.0, 6: 0.5}
    assert dict(zip(rows[0].tolist(), made.grades([0], rows)[0].tolist(), strict=True)) == {-1: 0, 0: 1, 5: 0, 6: 0}


def test_more_than_k_are_drawn_anew_each_epoch_and_gold_takes_half_where_it_can() -> None:
    made = listed({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0, 5: 6.0}, golds=(0, 1, 2))
    seen = [tuple(row) for row in made.rows([0] * 40, [*range(40)]).tolist()]
    assert all(len(set(row)) == 4 and sum(number < 3 for number in row) == 2 for row in seen)
    assert len(set(seen)) > 5
    np.testing.assert_array_equal(made.rows([0], [7]), made.rows([0], [7]))
    few = listed({0: 1.0, 1: 2.0, 2: 3.0, 5: 6.0}, golds=(0, 1, 2))
    assert sorted(few.rows([0], [0])[0].tolist()) == [0, 1, 2, 5]


@pytest.mark.parametrize("objective", ["listwise", "kl"])
def test_labels_are_the_softmax_of_the_scores(objective: str) -> None:
    config = RerankConfig(labels="scores", objective=objective, target_temperature=2.0)  # type: ignore[arg-type]
    trainer = SimpleNamespace(config=config)
    labels, present = torch.tensor([[4.0, 0.0, 99.0]]), torch.tensor([[True, True, False]])
    logits = torch.zeros(1, 3)
    found = RerankTrainer.loss(trainer, logits, labels, torch.zeros(1, 3).bool(), present)  # type: ignore[arg-type]
    target = torch.tensor([4.0, 0.0]).div(2).softmax(0)
    cross_entropy = float(np.log(2))
    entropy = float(-(target * target.log()).sum())
    assert found.item() == pytest.approx(cross_entropy - (entropy if objective == "kl" else 0))


def test_margins_and_pairs_follow_the_listed_scores() -> None:
    labels, present = torch.tensor([[4.0, 1.0, 2.0]]), torch.ones(1, 3).bool()
    gold, logits = torch.tensor([[True, False, False]]), torch.zeros(1, 3)

    def loss(objective: str) -> float:
        trainer = SimpleNamespace(config=RerankConfig(labels="scores", objective=objective))  # type: ignore[arg-type]
        return RerankTrainer.loss(trainer, logits, labels, gold, present).item()  # type: ignore[arg-type]

    assert loss("margin_mse") == pytest.approx((3**2 + 2**2) / 2)
    assert loss("pairwise") == pytest.approx(1.0)
    assert loss("ranknet") == pytest.approx(np.log(2))


# -- requests and runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "lambda"}, "needs grades, and a score is none"),
        ({"pool": 30}, r"algorithm\.pool is of candidates that a retriever finds"),
        ({"ordered_by": "reranker"}, r"algorithm\.ordered_by is of candidates"),
        ({"ordered_by": "reranker", "refresh_every": 3}, "is of candidates"),
        ({"teacher": SimpleNamespace()}, r"algorithm\.labels=reader only"),
    ],
)
def test_what_listed_scores_cannot_be_used_for_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RerankTrainer.check_config(SimpleNamespace(algorithm=RerankConfig(labels="scores", **values)))


@pytest.mark.parametrize(("labels", "wanted"), [("scores", 1.0), ("positives", 0.1)])
def test_the_temperature_of_labels_is_settled(labels: str, wanted: float) -> None:
    config = RerankConfig(labels=labels)  # type: ignore[arg-type]
    RerankTrainer.check_config(SimpleNamespace(algorithm=config))
    assert config.target_temperature == wanted


def arguments(root: Path, model: Path, share: float, *more: str) -> list[str]:
    """A reranker's run on data of which a share of the training questions lists scores."""
    data = write_small_data(root / "data")
    rows = [json.loads(line) for line in (data / "train.jsonl").open()]
    for number, row in enumerate(rows):
        if number < share * len(rows):
            gold = row["positive_ids"][0]
            names = [gold, *(f"p{(int(gold[1:]) + step) % 40}" for step in (1, 2, 3))]
            row["scores"] = {name: 4.0 * (int(name[1:]) % 3 - 1) for name in names}  # cats -4, dogs 0, fish 4
    write(data / "train.jsonl", *rows)
    return [
        "algorithm=rerank", "algorithm.labels=scores", "retriever=bm25", "~model@retriever.encoder", "model=run",
        f"model.path={model}", "model.kind=cross_encoder", "model.precision=fp32", "data=jsonl", f"data.path={data}",
        "tracking=none", f"paths.outputs={root}/outputs", f"paths.cache={root}/cache", "trainer.use_cpu=true",
        "trainer.max_steps=60", "trainer.learning_rate=3e-3", "trainer.logging_steps=5", "evaluation.bootstrap=50",
        "evaluation.latency=0", "evaluation.zero_shot=false", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("objective", ["kl", "margin_mse"])
def test_a_reranker_learns_them(objective: str, tiny_bert: Path, tmp_path: Path) -> None:
    run = run_at(tmp_path / "run", arguments(tmp_path, tiny_bert, 1.0, f"algorithm.objective={objective}"))
    losses = [line["train/loss"] for line in run.read_metrics() if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    shown = [line["train/candidates"] for line in run.read_metrics() if "train/candidates" in line]
    assert set(shown) == {4.0}, "the scored passages and no other"


def test_questions_without_scores_are_counted_and_without_any_refused(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = arguments(tmp_path / "half", tiny_bert, 0.5)
    assert train.start([*half, "plan=true"]) == 0
    out = capsys.readouterr().out
    assert "20 of the 40 training questions list no scores of two passages, and are left out" in out
    assert "of 20 examples per step" in out
    data = SimpleNamespace(
        notes=[], splits={"train": [Question("a", "?"), Question("b", "?", scores={"p": 1, "q": 2})]}
    )
    for _ in range(2):
        check_scores(data)  # type: ignore[arg-type]
    assert len(data.notes) == 1, "asked twice, it is noted once"
    none = arguments(tmp_path / "none", tiny_bert, 0.0)
    with pytest.raises(RequestError, match=r"algorithm\.labels=scores: no training question lists the scores"):
        train.start(none)
    assert not (tmp_path / "none" / "outputs").exists()
