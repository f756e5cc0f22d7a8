"""Metrics of one generated answer: pure functions of text, 0 to 1, higher is better.

- `exact_match`, `f1`: SQuAD's (Rajpurkar et al. 2016), with the 2.0 script's rule for empty answers; the best
  over the references.
- `rouge_l`: F-measure of `rouge-score`, without stemming, with a tokeniser that keeps non-Latin letters.
- `answer_in_passages`: whether a reference stands in a passage as a run of tokens (DPR's `has_answer`).
- `f1_to_passages`, `precision_to_passages`: is the answer made of the passages' words? Knowledge-F1 (Shuster et
  al. 2021) and K-precision (Adlakha et al. 2023), proxies for faithfulness.
- `bleu`: corpus BLEU of `sacrebleu`, as a fraction.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = re.compile(r"[^\W_]+")
_TOKENS = re.compile(r"\w+|[^\w\s]")


def normalise_answer(text: str) -> str:
    """SQuAD's: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Iterable[str]) -> float:
    """1.0 where the prediction equals a reference once both are normalised. No references: 0."""
    return float(normalise_answer(prediction) in _normalised(references))


def f1(prediction: str, references: Iterable[str]) -> float:
    """Token F1 with the best reference. Two answers that normalise to nothing are equal: 1."""
    tokens = normalise_answer(prediction).split()
    return max((_token_f1(tokens, reference.split()) for reference in _normalised(references)), default=0.0)


def _normalised(references: Iterable[str]) -> list[str]:
    """A reference of which nothing is left says "no answer", as SQuAD's has it where every one is such, and nothing
    beside others."""
    found = [normalise_answer(reference) for reference in references]
    return [text for text in found if text] or found


def _token_f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction and not reference:
        return 1.0
    same = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * same / (len(prediction) + len(reference))


class _UnicodeTokenizer:
    """`rouge-score`'s own drops every letter outside a-z; on ASCII text this one gives the same tokens."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from absl import logging as absl_logging
    from rouge_score import rouge_scorer  # two seconds to import: only where an answer is scored

    if sys.__stderr__ is not None:
        # absl, which it brings, logs to what standard error is now and closes that whenever logging is configured
        # anew, as Hydra does for each job: a redirected one would be lost to everybody else.
        absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_UnicodeTokenizer())


def rouge_l(prediction: str, references: Iterable[str]) -> float:
    """ROUGE-L F-measure with the best reference."""
    scorer = _rouge()
    return max((scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references), default=0.0)


def answer_in_passages(references: Iterable[str], passages: Iterable[str]) -> float:
    """1.0 where some reference stands in some passage, compared token by token (`art` is not in `party`)."""
    needles = [f" {tokens} " for tokens in map(_spaced, references) if tokens]
    for passage in passages:
        hay = f" {_spaced(passage)} "
        if any(needle in hay for needle in needles):
            return 1.0
    return 0.0


def _spaced(text: str) -> str:
    return " ".join(_TOKENS.findall(unicodedata.normalize("NFC", text).casefold()))


def f1_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Token F1 of the prediction with the passage it is most like."""
    return f1(prediction, passages)


def precision_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Share of the prediction's tokens that stand in some passage. An empty prediction invents nothing: 1."""
    tokens = normalise_answer(prediction).split()
    known = {token for passage in passages for token in normalise_answer(passage).split()}
    return sum(token in known for token in tokens) / len(tokens) if tokens else 1.0


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 (13a tokens) as a fraction; a question's references may be any number, one at least.

    Raises:
        ValueError: the lists differ in length, or a question has no reference.
    """
    if len(predictions) != len(references) or any(not answers for answers in references):
        raise ValueError("bleu needs one prediction and at least one reference a question")
    if not predictions:
        return 0.0
    import sacrebleu

    most = max(len(answers) for answers in references)
    streams: Any = [[answers[i] if i < len(answers) else None for answers in references] for i in range(most)]
    return sacrebleu.corpus_bleu(list(predictions), streams).score / 100
