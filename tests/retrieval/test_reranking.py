"""A retriever behind which a reranker orders: by hand, as a law, in an evaluation, and in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.storm import differences
from rag_experiments import ask, compare, evaluate, train
from rag_experiments.config.schema import EvaluationConfig, RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Question
from rag_experiments.evaluation.generation_evaluator import GenerationEvaluator
from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator
from rag_experiments.export import encoder_of
from rag_experiments.retrieval.reranking import RerankingRetriever
from rag_experiments.retrieval.retriever import Retriever, SearchResult
from rag_experiments.runs.directory import RunDirectory
from tests.conftest import write_small_data
from tests.evaluation.test_generation import Parrot, run_config
from tests.examples import ListStore
from tests.retrieval.fakes import ListPassages
from tests.training.test_resume_anywhere import killed_after

TEXTS = [f"text {number}" for number in range(8)]


class Passages(ListPassages):
    def ids(self, rows):
        return [f"p{int(row)}" for row in rows]


class Listed(Retriever):
    """Finds the rows of `lists`, as many as there are."""

    def __init__(self, lists):
        self.passages = Passages(TEXTS)  # type: ignore[assignment]
        self.lists = lists
        self.searches = 0

    def search(self, queries, k):
        self.searches += 1
        rows_QK = np.full((len(queries), min(k, len(TEXTS))), -1, dtype=np.int64)
        for q, query in enumerate(queries):
            rows = self.lists[int(query)][: rows_QK.shape[1]]
            rows_QK[q, : len(rows)] = rows
        scores_QK = np.where(rows_QK >= 0, -np.arange(rows_QK.shape[1], dtype=np.float32), -np.inf)
        return SearchResult(rows_QK, scores_QK.astype(np.float32))

    def fingerprint(self):
        return "listed"

    def save(self, folder):
        folder.mkdir()


class ByNumber:
    """A reranker that prefers high numbers; those of `equal` it cannot tell apart."""

    def __init__(self, equal=()):
        self.equal = set(equal)
        self.seen: list[tuple[str, str]] = []
        self.batch_sizes: list[int | None] = []

    def score(self, queries, passages, batch_size=None):
        self.seen += list(zip(queries, passages, strict=True))
        self.batch_sizes.append(batch_size)
        numbers = [int(text.split()[1]) for text in passages]
        return np.array([100 if number in self.equal else number for number in numbers], dtype=np.float32)

    def fingerprint(self):
        return f"by number {sorted(self.equal)}"

    def save(self, folder):
        folder.mkdir()


def reranking(lists, equal=(), **settings) -> RerankingRetriever:
    return RerankingRetriever(RetrieverConfig(type="bm25", **settings), Listed(lists), ByNumber(equal))  # type: ignore


def test_the_first_passages_come_in_the_rerankers_order_and_the_others_follow():
    retriever = reranking([[1, 5, 3, 7, 0, 2]], rerank_depth=3, rerank_batch_size=9)
    found = retriever.search(["0"], 6)
    assert found.rows_QK.tolist() == [[5, 3, 1, 7, 0, 2]]
    assert found.scores_QK.tolist() == [[5, 3, 1, 0, -1, -2]]
    assert retriever.reranker.seen == [("0", "text 1"), ("0", "text 5"), ("0", "text 3")]  # type: ignore[attr-defined]
    assert retriever.reranker.batch_sizes == [9]  # type: ignore[attr-defined]


def test_fewer_passages_than_asked_for_are_reranked_from_the_whole_depth():
    retriever = reranking([[1, 5, 3, 7, 0, 2]], rerank_depth=5)
    assert retriever.search(["0"], 2).rows_QK.tolist() == [[7, 5]]
    both = retriever.search_both(["0"], 2)
    assert both.first.rows_QK.tolist() == [[1, 5]]
    assert both.pairs == 5


def test_places_without_a_passage_stay_last_and_are_not_scored():
    retriever = reranking([[2, 4], [1], [6, 7, 5]], rerank_depth=3)
    found = retriever.search(["0", "1", "2"], 5)
    assert found.rows_QK.tolist() == [[4, 2, -1, -1, -1], [1, -1, -1, -1, -1], [7, 6, 5, -1, -1]]
    assert np.isneginf(found.scores_QK[found.rows_QK < 0]).all()
    assert found.scores_QK.dtype == np.float32, "as every retriever's"
    assert len(retriever.reranker.seen) == 6  # type: ignore[attr-defined]
    assert retriever.search([], 5).rows_QK.shape[0] == 0


def test_equal_scores_keep_the_retrievers_order():
    assert reranking([[3, 1, 2, 7]], equal=[1, 2, 3]).search(["0"], 4).rows_QK.tolist() == [[3, 1, 2, 7]]


def test_a_fingerprint_is_of_both_and_of_the_depth():
    one = reranking([[1]])
    assert one.fingerprint() == reranking([[1]], rerank_batch_size=3).fingerprint()
    assert one.fingerprint() != reranking([[1]], rerank_depth=3).fingerprint()
    assert one.fingerprint() != reranking([[1]], equal=[1]).fingerprint()
    assert one.fingerprint() != one.first.fingerprint()
    assert encoder_of(one) is None


def test_an_evaluation_measures_both_lists_of_one_search():
    retriever = reranking([[1, 5, 3, 7], [2, 0]], rerank_depth=4)
    questions = [Question("a", "0", positive_ids=("p7",)), Question("b", "1", positive_ids=("p2",))]
    evaluator = RetrievalEvaluator(retriever, EvaluationConfig(bootstrap=0, latency=2), "none", seed=0)
    result = evaluator.evaluate(questions)
    assert retriever.first.searches == 1  # type: ignore[attr-defined]
    assert result.metrics["recall@1"] == 1.0
    assert result.metrics["first_stage/recall@1"] == 0.5
    assert result.metrics["first_stage/mrr@10"] == pytest.approx((1 / 4 + 1) / 2)
    assert result.rows[0]["retrieved_ids"][:4] == ["p7", "p5", "p3", "p1"]
    assert result.rows[0]["first_stage_ids"][:4] == ["p1", "p5", "p3", "p7"]
    assert result.rows[0]["metrics"]["first_stage/recall@1"] == 0.0
    assert result.metrics["pairs_per_second"] > 0
    assert "seconds/rerank_p50" not in result.metrics
    evaluator.timed = True
    timed = evaluator.evaluate(questions).metrics
    assert 0 < timed["seconds/rerank_p50"] <= timed["seconds/rerank_p95"]
    assert evaluator.evaluate([]).rows == []


def test_behind_a_reader_the_reranker_is_timed_where_the_reader_is():
    questions = [Question("a", "0", positive_ids=("p7",)), Question("b", "1", positive_ids=("p2",))]
    retriever = reranking([[1, 7], [2, 0]], rerank_depth=2)
    retriever.passages = ListStore([Passage(f"p{number}", text) for number, text in enumerate(TEXTS)])  # type: ignore
    evaluator = GenerationEvaluator(Parrot(), retriever, run_config(latency=2))
    assert "seconds/rerank_p50" not in evaluator.evaluate(questions).metrics
    evaluator.timed = True
    assert evaluator.evaluate(questions).metrics["seconds/rerank_p50"] > 0


# -- whole runs ------------------------------------------------------------------------------------------


def rerank_request(encoder: Path, data: Path, root: Path, *more: str) -> list[str]:
    """A rerank run of a few steps on the CPU in full precision."""
    return [
        "algorithm=rerank",
        f"model.path={encoder}",
        "model.precision=fp32",
        "model.max_length=32",
        "retriever=bm25",
        "data=jsonl",
        f"data.path={data}",
        "tracking=none",
        f"paths.outputs={root}/outputs",
        f"paths.cache={root}/cache",
        "trainer.use_cpu=true",
        "trainer.learning_rate=3e-3",
        "trainer.max_steps=6",
        "trainer.eval_steps=2",
        "trainer.save_steps=2",
        "trainer.logging_steps=1",
        "evaluation.bootstrap=20",
        "evaluation.latency=2",
        "retriever.rerank_depth=5",
        "algorithm.candidates=4",
        *more,
    ]


def run_at(directory: Path, arguments: list[str]) -> RunDirectory:
    assert train.start([*arguments, f"hydra.run.dir={directory}"]) == 0
    return RunDirectory.open(directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert) -> RunDirectory:
    root = tmp_path_factory.mktemp("finished_reranker")
    return run_at(root / "run", rerank_request(tiny_bert, write_small_data(root / "data"), root))


def test_a_run_measures_before_and_after_and_beside_the_first_retriever(finished):
    metrics = finished.read_final_metrics()
    for stage in ("zero_shot/dev", "zero_shot/test", "dev", "test"):
        for name in ("recall@1", "mrr@10", "ndcg@10"):
            assert 0 <= metrics[f"{stage}/{name}"] <= 1
            assert metrics[f"{stage}/first_stage/{name}"] == metrics[f"{stage.split('/')[-1]}/first_stage/{name}"]
        rows = finished.read_predictions(stage)
        assert all(sorted(row["retrieved_ids"][:5]) == sorted(row["first_stage_ids"][:5]) for row in rows)
    assert metrics["test/seconds/rerank_p50"] <= metrics["test/seconds/rerank_p95"]
    assert {"seconds/prepare", "seconds/train", "test/pairs_per_second"} <= set(metrics)
    lines = finished.read_metrics()
    assert {"train/loss", "train/gold_first", "train/candidates"} <= {name for line in lines for name in line}


@pytest.mark.parametrize("more", [[], ["algorithm.ordered_by=reranker", "algorithm.refresh_every=3"]])
def test_a_run_that_was_killed_goes_on_bit_by_bit(tiny_bert, tmp_path, more):
    arguments = rerank_request(
        tiny_bert, write_small_data(tmp_path / "data"), tmp_path, "trainer.save_total_limit=9", *more
    )
    whole = run_at(tmp_path / "whole", arguments)
    resumed = killed_after(whole, 4, tmp_path / "resumed")
    assert train.start([f"resume={resumed.path}"]) == 0
    assert list(differences(whole.path, resumed.path)) == []


def test_it_is_evaluated_asked_and_compared(finished, capsys):
    before = finished.read_final_metrics()
    assert evaluate.start([f"run={finished.path}", "name=again"]) == 0
    again = json.loads((finished.path / "evaluations" / "again" / "metrics.json").read_text())
    for name in ("test/ndcg@10", "test/first_stage/ndcg@10"):
        assert again[name] == before[name]
    deeper = ["name=deeper", "retriever.rerank_depth=12"]
    assert evaluate.start([f"run={finished.path}", *deeper]) == 0
    capsys.readouterr()
    assert ask.start([f"run={finished.path}", "where is the red cat one"]) == 0
    assert "[4]" in capsys.readouterr().out
    assert compare.start([str(finished.path)]) == 0
    assert "rerank" in capsys.readouterr().out


def test_its_model_reranks_for_an_encoder_and_not_for_itself(finished, tiny_bert, tmp_path):
    from tests.training.test_run import request

    data = write_small_data(tmp_path / "data")
    more = ["trainer.max_steps=2", "trainer.eval_steps=2", "trainer.save_steps=2", "evaluation.latency=2"]
    reranker = ["model@retriever.reranker=run", f"retriever.reranker.path=run://{finished.path}"]
    encoder = run_at(tmp_path / "run", request(tiny_bert, data, tmp_path, *more))
    assert evaluate.start([f"run={encoder.path}", "name=reranked", *reranker, "retriever=hybrid"]) == 0
    found = json.loads((encoder.path / "evaluations" / "reranked" / "metrics.json").read_text())
    assert found["test/first_stage/recall@20"] == found["test/recall@20"]
    assert found["test/seconds/rerank_p50"] > 0
    with pytest.raises(RequestError, match=r"retriever\.reranker is set, but this algorithm trains"):
        train.start([*rerank_request(tiny_bert, data, tmp_path), *reranker, f"hydra.run.dir={tmp_path}/x"])
    headless = ["model@retriever.reranker=minilm_reranker", f"retriever.reranker.path={tiny_bert}"]
    with pytest.raises(RequestError, match=r"retriever\.reranker\.path=.* is an encoder without a head"):
        evaluate.start([f"run={encoder.path}", "name=headless", *headless])


@pytest.mark.parametrize("role", ["algorithm.teacher", "algorithm.guide", "retriever.reranker"])
@pytest.mark.parametrize("more", [[], ["init=random"]])
def test_a_reranker_that_has_not_learnt_to_score_is_refused_before_weights_are_read(role, more, tiny_bert, tmp_path):
    from tests.training.test_run import request

    untrained = [f"model@{role}=minilm_reranker", f"{role}.path={tiny_bert}", *[f"{role}.{value}" for value in more]]
    negatives = ["algorithm.negatives=mined"] if role == "algorithm.guide" else []
    asked = request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path, *negatives, *untrained)
    key = role.replace(".", r"\.")
    with pytest.raises(RequestError, match=rf"{key}\.path=.* is an encoder without a head that scores; train it first"):
        train.start([*asked, "plan=true"])
