"""Which mined passages a reranker finds worse than the gold ones: a run of ours, or a cross-encoder of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag_experiments.algorithms.shared.pair_scoring import PairScorer
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.negatives import highest_score
from rag_experiments.models.component import load_model


class CrossEncoderJudge:
    """Keeps a passage unless a reranker finds it as good as the gold one."""

    def __init__(self, path: str, margin: float, cache: Path | None = None, batch_size: int = 32) -> None:
        """
        Args:
            path: what `model.path` takes.
            cache: the folder of all runs' caches, in which scores are kept; None keeps them for this run.

        Raises:
            RequestError: no model there, or one that has not learnt to score.
        """
        try:
            config = CrossEncoderConfig(path=path, batch_size=batch_size, precision="fp32")
            model = load_model(config, cache, frozen=True)
        except RequestError as error:
            raise RequestError(str(error).replace("model.path", "mine.cross_encoder")) from error
        self.scorer = PairScorer(model, cache)
        self.margin = margin

    def __call__(self, query: str, gold_texts: Sequence[str], texts: Sequence[str]) -> list[bool]:
        """Whether to keep each of `texts`. A pair that is too long is cut as the reranker cuts it elsewhere."""
        scores = self.score(query, [*gold_texts, *texts])
        limit = highest_score(scores[: len(gold_texts)], None, self.margin)
        return [score <= limit for score in scores[len(gold_texts) :]]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The logit of each text with the query, computed once for all runs that share the cache."""
        return self.scorer.of_pairs([(query, text) for text in texts])
