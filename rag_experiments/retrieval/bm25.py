"""Retrieval by words: BM25 (Robertson & Zaragoza 2009), with the `bm25s` library (Lù 2024).

Words of every script (`rag_experiments.core.text`); English stop words, and English stemming of Latin-script words, as
in most published baselines. The index is cached by corpus, parameters and the version of the rules for words, and
memory-mapped when it is opened again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import unidata_version

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN

from rag_experiments.core import cache as disk_cache
from rag_experiments.core import text as texts
from rag_experiments.core.digest import digest, without
from rag_experiments.retrieval.retriever import Retriever, SearchResult, best_rows, empty_result

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.data.passage_store import PassageStore

log = logging.getLogger(__name__)

BLOCK = 65_536
"""Passages whose text is in memory at a time while they are tokenised."""
STOP_WORDS = frozenset((*STOPWORDS_EN, "i"))
"""bm25s leaves out every word of one letter, `C` of `vitamin C` too. They are kept here, so that the English pronoun
must be named: it stands in every third question of a person."""
LONGEST_KEPT = 32
"""Characters of the longest run of letters that is remembered while an index is built."""
NOT_OF_WORDS = {
    "type": "the BM25 half of a hybrid is the same",
    "k": "said at each search",
    **dict.fromkeys(("encoder", "device"), "of vectors"),
    **dict.fromkeys(("index", "nlist", "nprobe", "hnsw_m", "ef_construction", "ef_search"), "of an index of vectors"),
    **dict.fromkeys(("fusion", "rrf_k", "dense_weight"), "of a hybrid, whose own fingerprint holds them"),
    **dict.fromkeys(("reranker", "rerank_depth", "rerank_batch_size"), "of what comes after the search"),
}
"""Keys of the retriever that change nothing here, and why."""
FEWEST_QUESTIONS = 4
"""Of a search that is warned about: one question of unknown words says nothing about the data."""


class BM25Retriever(Retriever):
    """The passages that share the rarest words with the question; a passage that shares none is not returned."""

    def __init__(self, config: RetrieverConfig, passages: PassageStore, cache: Path | None) -> None:
        self.config = config
        self.passages = passages
        self.cache = cache
        self._index: bm25s.BM25 | None = None
        self._warned = False

    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """See `Retriever.search`."""
        k = min(k, len(self.passages))
        result = empty_result(len(queries), k)
        if not len(queries):
            return result
        tokens = _tokenize(queries)
        vocabulary = self.index.vocab_dict
        # bm25s refuses a question of unknown words only; such a one finds nothing.
        answerable = [i for i, words in enumerate(tokens) if any(word in vocabulary for word in words)]
        self._warn(len(queries), len(queries) - len(answerable))
        for i in answerable:
            scores_N = self.index.get_scores(tokens[i])
            rows_K = best_rows(scores_N, k)
            rows_K = rows_K[scores_N[rows_K] > 0]
            result.rows_QK[i, : len(rows_K)] = rows_K
            result.scores_QK[i, : len(rows_K)] = scores_N[rows_K]
        return result

    def _warn(self, total: int, lost: int) -> None:
        """Say once that most questions share no word with any passage."""
        if not self._warned and total >= FEWEST_QUESTIONS and 2 * lost > total:
            self._warned = True
            log.warning(
                "retriever=bm25 finds nothing for %d of %d questions: they share no word with any passage. Are "
                "questions and passages in one language?",
                lost,
                total,
            )

    def fingerprint(self) -> str:
        """A hash of the corpus, the two parameters, and what decides the words."""
        words = [texts.VERSION, unidata_version, Stemmer.version()]
        return digest(bm25s.__version__, words, self.passages.content_hash, without(self.config, NOT_OF_WORDS))

    def save(self, folder: Path) -> None:
        """The files that `bm25s.BM25.load` opens."""
        folder.mkdir(parents=True, exist_ok=True)
        self.index.save(folder, show_progress=False)

    @property
    def index(self) -> bm25s.BM25:
        """The index, built or opened now if it was not."""
        if self._index is None:
            self._index = self._open_or_build()
        return self._index

    def _open_or_build(self) -> bm25s.BM25:
        if self.cache is None:
            return self._build()
        folder = disk_cache.entry(
            self.cache, "bm25", self.fingerprint(), lambda making: self._build().save(making, show_progress=False)
        )
        return bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def _build(self) -> bm25s.BM25:
        """Tokenise block by block into word numbers (4 bytes a word, not a Python string), then index."""
        numbers = _Numbers()
        ids: list[np.ndarray] = []
        for start in range(0, len(self.passages), BLOCK):
            rows = slice(start, min(start + BLOCK, len(self.passages)))
            for text in self.passages.full_texts(rows):
                word_numbers = [number for run in texts.index_runs(text) for number in numbers[run]]
                ids.append(np.array(word_numbers, dtype=np.int32))
        index = bm25s.BM25(k1=self.config.bm25_k1, b=self.config.bm25_b, method="lucene")
        index.index(bm25s.tokenization.Tokenized(ids=ids, vocab=numbers.vocabulary), show_progress=False)
        return index


class _Numbers(dict[str, tuple[int, ...]]):
    """A run of letters to the numbers of its terms; a run met before is one look-up."""

    def __init__(self) -> None:
        super().__init__()
        self.vocabulary: dict[str, int] = {}

    def __missing__(self, run: str) -> tuple[int, ...]:
        numbers = tuple(self.vocabulary.setdefault(term, len(self.vocabulary)) for term in _terms(run))
        if len(run) <= LONGEST_KEPT:  # words come again, sentences of a script without spaces do not
            self[run] = numbers
        return numbers


def terms_of(text: str) -> list[str]:
    """What a text is indexed, and asked for, by."""
    return [term for run in texts.index_runs(text) for term in _terms(run)]


def _tokenize(queries: Sequence[str]) -> list[list[str]]:
    return [terms_of(query) for query in queries]


def _terms(run: str) -> list[str]:
    """The terms of a run of letters: stop words left out, Latin-script words stemmed."""
    return [
        _stemmer().stemWord(term) if texts.is_latin(term) else term
        for term in texts.index_terms(run)
        if term not in STOP_WORDS
    ]


@lru_cache(maxsize=1)
def _stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("english")
