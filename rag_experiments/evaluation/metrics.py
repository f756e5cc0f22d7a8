"""Metrics of one generated answer: pure functions of text, 0 to 1, higher is better.

What is a word, and when two spellings are one, `rag_experiments.core.text` says: the same in every metric and script.

- `exact_match`, `f1`: SQuAD's (Rajpurkar et al. 2016), with the 2.0 script's rule for empty answers; the best
  over the references. `text.answer_words` says where the words differ from SQuAD's: in English nowhere but for
  typographic quotes, dashes and accents written apart.
- `squad_exact_match`, `squad_f1`: what SQuAD's official script would say, for comparison with published English
  figures.
- `rouge_l`: F-measure of `rouge-score`, without stemming.
- `answer_in_passages`: whether a reference stands in a passage as a run of tokens (DPR's `has_answer`).
- `f1_to_passages`, `precision_to_passages`: is the answer made of the passages' words? Knowledge-F1 (Shuster et
  al. 2021) and K-precision (Adlakha et al. 2023), proxies for faithfulness.
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
    """1.0 where the prediction has a reference's words in its order. No references: 0."""
    wanted = texts.answer_key(prediction)
    return float(
        any(
            texts.answer_key(reference) == wanted and (wanted != "" or texts.same_without_words(prediction, reference))
            for reference in _meaningful(references, texts.answer_key)
        )
    )


def _meaningful(references: Iterable[str], key: Callable[[str], str]) -> list[str]:
    """References of which something is left. A reference without says "no answer" where every one is such, as in
    SQuAD's script, and nothing beside others."""
    found = list(references)
    return [reference for reference in found if key(reference)] or found


def f1(prediction: str, references: Iterable[str]) -> float:
    """F1 of words with the best reference. Without a word on either side it is 1 or 0 as `exact_match`."""
    words = texts.answer_words(prediction)
    scores = (
        _token_f1(words, wanted)
        if (wanted := texts.answer_words(reference)) or words
        else float(texts.same_without_words(prediction, reference))
        for reference in _meaningful(references, texts.answer_key)
    )
    return max(scores, default=0.0)


def squad_normalise(text: str) -> str:
    """SQuAD's script: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_exact_match(prediction: str, references: Iterable[str]) -> float:
    """`exact_match` by SQuAD's script."""
    wanted = squad_normalise(prediction)
    return float(any(squad_normalise(reference) == wanted for reference in _meaningful(references, squad_normalise)))


def squad_f1(prediction: str, references: Iterable[str]) -> float:
    """`f1` by SQuAD's script."""
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
    """`rouge-score`'s own drops every letter outside a-z; on ASCII text this one gives the same tokens."""

    def tokenize(self, text: str) -> list[str]:
        return texts.words(text)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from absl import logging as absl_logging
    from rouge_score import rouge_scorer  # two seconds to import: only where an answer is scored

    if sys.__stderr__ is not None:
        # absl, which it brings, logs to what standard error is now and closes that whenever logging is configured
        # anew, as Hydra does for each job: a redirected one would be lost to everybody else.
        absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())


def rouge_l(prediction: str, references: Iterable[str]) -> float:
    """ROUGE-L F-measure with the best reference."""
    scorer = _rouge()
    return max((scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references), default=0.0)


def answer_in_passages(references: Iterable[str], passages: Iterable[str]) -> float:
    """1.0 where some reference stands in some passage, token by token (`art` is not in `party`)."""
    return float(texts.stands_in(list(references), list(passages)))


def f1_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Token F1 of the prediction with the passage it is most like."""
    return f1(prediction, passages)


def precision_to_passages(prediction: str, passages: Iterable[str]) -> float:
    """Share of the prediction's tokens that stand in some passage. An empty prediction invents nothing: 1."""
    words = texts.answer_words(prediction)
    known = {word for passage in passages for word in texts.answer_words(passage)}
    return sum(word in known for word in words) / len(words) if words else 1.0


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
