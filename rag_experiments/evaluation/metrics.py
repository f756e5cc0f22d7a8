"""Metrics of one generated answer: pure functions of text, 0 to 1, higher is better.

`rag_experiments.core.text` defines words and equal spellings, for all metrics and scripts in the same way.

- `exact_match`, `f1`: SQuAD's metrics (Rajpurkar et al. 2016), with the 2.0 script's rule for empty answers; the best
  value over the references. `text.answer_words` describes where the words differ from SQuAD's: in English only for
  typographic quotes, dashes, and accents that are stored as separate characters.
- `squad_exact_match`, `squad_f1`: the values of SQuAD's official script, for comparison with published English figures.
- `rouge_l`: F-measure of `rouge-score`, without stemming.
- `answer_in_passages`: whether a passage contains a reference as a sequence of tokens (DPR's `has_answer`).
- `f1_to_passages`, `precision_to_passages`: how far the answer uses the passages' words. Knowledge-F1 (Shuster et al.
  2021) and K-precision (Adlakha et al. 2023), which are proxies for faithfulness.
- `bleu`: corpus BLEU of `sacrebleu`, as a fraction.
"""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from rag_experiments.core import text as texts

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, references: Iterable[str]) -> float:
    """1.0 if the prediction has the same words as a reference, in the same order. 0 without references."""
    predicted = texts.answer_key(prediction)
    return float(
        any(
            texts.answer_key(reference) == predicted
            and (predicted != "" or texts.same_without_words(prediction, reference))
            for reference in _meaningful(references, texts.answer_key)
        )
    )


def _meaningful(references: Iterable[str], key: Callable[[str], str]) -> list[str]:
    """References that are not empty after normalisation. If all are empty, they mean "no answer", as in SQuAD's
    script; next to other references, empty ones are ignored."""
    every = list(references)
    return [reference for reference in every if key(reference)] or every


def f1(prediction: str, references: Iterable[str]) -> float:
    """Word F1 with the best reference. If prediction or reference has no words, it is 1 or 0 like `exact_match`."""
    words = texts.answer_words(prediction)
    scores = (
        _token_f1(words, reference_words)
        if (reference_words := texts.answer_words(reference)) or words
        else float(texts.same_without_words(prediction, reference))
        for reference in _meaningful(references, texts.answer_key)
    )
    return max(scores, default=0.0)


def squad_normalise(text: str) -> str:
    """Normalise as SQuAD's script: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_exact_match(prediction: str, references: Iterable[str]) -> float:
    """`exact_match` as SQuAD's script computes it."""
    predicted = squad_normalise(prediction)
    return float(any(squad_normalise(reference) == predicted for reference in _meaningful(references, squad_normalise)))


def squad_f1(prediction: str, references: Iterable[str]) -> float:
    """`f1` as SQuAD's script computes it."""
    tokens = squad_normalise(prediction).split()
    return max(
        (
            _token_f1(tokens, squad_normalise(reference).split())
            for reference in _meaningful(references, squad_normalise)
        ),
        default=0.0,
    )


def _token_f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction and not reference:
        return 1.0
    same = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * same / (len(prediction) + len(reference))


class _Words:
    """Replaces `rouge-score`'s tokenizer, which drops letters outside a-z. On ASCII text the tokens are the same."""

    def tokenize(self, text: str) -> list[str]:
        return texts.words(text)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from absl import logging as absl_logging
    from rouge_score import rouge_scorer  # the import takes two seconds, so only when an answer is scored

    if sys.__stderr__ is not None:
        # rouge_score imports absl, which logs to the current standard error and closes it whenever logging is
        # configured again, as Hydra does for each job: a redirected standard error would then be lost.
        absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())


def rouge_l(prediction: str, references: Iterable[str]) -> float:
    """ROUGE-L F-measure with the best reference."""
    scorer = _rouge()
    return max((scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references), default=0.0)


def answer_in_passages(references: Iterable[str], passages: Iterable[str]) -> float:
    """1.0 if a passage contains a reference, token by token (`party` does not contain `art`)."""
    return float(texts.stands_in(list(references), list(passages)))


def f1_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Highest token F1 of the prediction with a passage."""
    return f1(prediction, passages)


def precision_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Share of the prediction's tokens that occur in a passage. It is 1 for an empty prediction."""
    words = texts.answer_words(prediction)
    passage_words = {word for passage in passages for word in texts.answer_words(passage)}
    return sum(word in passage_words for word in words) / len(words) if words else 1.0


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 (13a tokens) as a fraction; each question has one or more references.

    Raises:
        ValueError: the lists differ in length, or a question has no reference.
    """
    if len(predictions) != len(references) or any(not answers for answers in references):
        raise ValueError("bleu needs one prediction and at least one reference per question")
    if not predictions:
        return 0.0
    import sacrebleu

    most = max(len(answers) for answers in references)
    streams: Any = [[answers[i] if i < len(answers) else None for answers in references] for i in range(most)]
    return sacrebleu.corpus_bleu(list(predictions), streams).score / 100
