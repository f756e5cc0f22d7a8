r"""Questions with several gold passages: which of them an example shows, and a loss over several at once.

Forms of the loss over the positives P(i) of question i and the passages N(i) that are no positives of it, after SupCon
(Khosla et al. 2020, equations 2 and 3), with weights w_p that are 1 where judgements have no grades:

    outside   L_i = -1/Σw Σ_{p ∈ P(i)} w_p log [ exp(s_ip/τ) / (exp(s_ip/τ) + Σ_{n ∈ N(i)} exp(s_in/τ)) ]
    inside    L_i = -log [ 1/Σw Σ_{p ∈ P(i)} w_p exp(s_ip/τ) / (Σ_{p ∈ P(i)} exp(s_ip/τ) + Σ_{n ∈ N(i)} exp(s_in/τ)) ]

Where `outside` deviates, and why: SupCon has the other positives in each denominator, where they act as negatives of
one another. Here they are left out, as they are where a question shows one of its positives. `inside` has them on both
sides of the fraction.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Question

Positives = Literal["one", "pairs", "multi"]
Form = Literal["outside", "inside"]
NOTHING = float("-inf")


def multi_positive_loss(
    scores_BP: torch.Tensor, weights_BP: torch.Tensor, excluded_BP: torch.Tensor, temperature: float, form: Form
) -> torch.Tensor:
    """Mean over the questions of the loss over all their positives, see the module's docstring.

    Args:
        scores_BP: s(q_i, p_j).
        weights_BP: above 0 where p_j is a positive of q_i, and what it is worth; at least one in each row.
        excluded_BP: True where column j does not count for q_i, as a positive or as a negative.
        temperature: τ.
        form: where the sum over the positives stands: outside or inside the logarithm.
    """
    weights_BP = weights_BP.masked_fill(excluded_BP, 0.0)
    logits_BP = (scores_BP / temperature).masked_fill(excluded_BP, NOTHING)
    positive_BP = weights_BP > 0
    total_B = weights_BP.sum(dim=1)
    if form == "inside":
        grades_BP = (logits_BP + weights_BP.clamp(min=torch.finfo(weights_BP.dtype).tiny).log()).masked_fill(
            ~positive_BP, NOTHING
        )
        return (logits_BP.logsumexp(dim=1) - grades_BP.logsumexp(dim=1) + total_B.log()).mean()
    negatives_B1 = logits_BP.masked_fill(positive_BP, NOTHING).logsumexp(dim=1, keepdim=True)
    finite_BP = logits_BP.masked_fill(~positive_BP, 0.0)  # infinities would make the gradient of the unused places NaN
    losses_BP = torch.logaddexp(finite_BP, negatives_B1) - finite_BP
    return ((losses_BP * weights_BP).sum(dim=1) / total_B).mean()


def positive_grades(
    passage_rows_P: torch.Tensor, positive_rows_BM: torch.Tensor, grades_BM: torch.Tensor
) -> torch.Tensor:
    """`[B, P]`: the grade of passage j as a positive of question i; 0 where it is none. Rows of -1 are padding."""
    same_BMP = positive_rows_BM[:, :, None] == passage_rows_P[None, None, :]
    return (same_BMP * grades_BM[:, :, None]).amax(dim=1)


@dataclass(frozen=True)
class ContrastiveExample:
    """A training question as rows of the corpus."""

    question: Question
    targets: tuple[int, ...]
    """Rows of the gold passages that an example may show: all of them, or with `pairs` the one of this example."""
    positives: tuple[int, ...]
    """Rows of all its gold passages, copies included."""
    grades: tuple[float, ...]
    """The grade of each of `positives`."""
    negatives: tuple[int, ...]
    weight: float = 1.0
    """Of the example among the others."""
    number: int = field(default=0, compare=False)
    """The place of its question among the training questions."""

    def sample_targets(self, generator: random.Random, most: int) -> list[int]:
        """`most` of the target rows, those of a higher grade more often; all where there are no more."""
        grade = dict(zip(self.positives, self.grades, strict=True))
        if len({grade[row] for row in self.targets}) > 1:
            # The largest of `random ** (1 / grade)` are a sample by weight (Efraimidis & Spirakis 2006).
            keys = {row: generator.random() ** (1 / grade[row]) for row in self.targets}
            return sorted(self.targets, key=keys.__getitem__, reverse=True)[:most]
        return (
            [generator.choice(self.targets)]
            if most == 1
            else generator.sample(self.targets, min(most, len(self.targets)))
        )


def make_examples(questions: Sequence[Question], store: PassageStore, positives: Positives) -> list[ContrastiveExample]:
    """The examples of an epoch: a question each, or with `pairs` a (question, gold passage) pair each.

    With `pairs` an example weighs its grade, divided by the mean grade of all pairs; copies of a passage make no pair.
    """
    examples = []
    for number, question in enumerate(questions):
        rows = _rows(store, question.positive_ids)
        grades = tuple(float((question.relevance or {}).get(name, 1)) for name in question.positive_ids)
        negatives = _rows(store, question.negative_ids)
        whole = ContrastiveExample(question, rows, rows, grades, negatives, number=number)
        if positives == "pairs":
            grade = dict(zip(rows, grades, strict=True))
            pairs = _rows(store, question.distinct_golds)
            examples += [dataclasses.replace(whole, targets=(row,), weight=grade[row]) for row in pairs]
        else:
            examples.append(whole)
    mean = sum(example.weight for example in examples) / max(1, len(examples))
    return [dataclasses.replace(example, weight=example.weight / mean) for example in examples]


def count_examples(questions: Sequence[Question], positives: Positives) -> int:
    """How many examples `make_examples` makes."""
    return sum(len(question.distinct_golds) for question in questions) if positives == "pairs" else len(questions)


def _rows(store: PassageStore, names: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(row) for row in store.rows(names))
