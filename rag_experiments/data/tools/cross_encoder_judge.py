"""Which mined passages a reranker finds worse than the gold ones: a run of ours, or a cross-encoder of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_experiments.algorithms.shared.score_cache import ScoreCache, pair_key, score_file
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core.errors import RequestError
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
            self.model = load_model(config, cache, frozen=True)
        except RequestError as error:
            raise RequestError(str(error).replace("model.path", "mine.cross_encoder")) from error
        self.scores = ScoreCache(score_file(cache, "reranker_scores", self.model.fingerprint()))
        self.margin = margin

    def __call__(self, query: str, gold_texts: Sequence[str], texts: Sequence[str]) -> list[bool]:
        """Whether to keep each of `texts`. A pair that is too long is cut as the reranker cuts it elsewhere."""
        scores = self.score(query, [*gold_texts, *texts])
        limit = min(scores[: len(gold_texts)]) - self.margin
        return [score <= limit for score in scores[len(gold_texts) :]]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The logit of each text with the query, computed once for all runs that share the cache."""
        pairs = self.model.tokenize_pairs([query] * len(texts), list(texts))
        keys = [pair_key(pair.ids, pair.types or []) for pair in pairs]
        known = self.scores.get(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            found = self.model.score([query] * len(missing), list(missing.values()))
            known |= {key: np.array([score], dtype=np.float32) for key, score in zip(missing, found, strict=True)}
            self.scores.put({key: known[key] for key in missing})
        return [float(known[key][0]) for key in keys]
