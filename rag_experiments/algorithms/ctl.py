r"""CTL: contrastive learning of an encoder (Karpukhin et al. 2020, DPR; Izacard et al. 2021; Wang et al. 2022, E5).

    L = -1/B Σ_i log [ exp(s(q_i, p_i)/τ) / Σ_{j ∈ C_i} exp(s(q_i, p_j)/τ) ]

C_i is every passage of the batch, on every process, hard negatives included, less those known to be
positive for q_i (p_i itself stays). Where a question has several gold passages, `positives` says which of them the
batch shows: one of them, drawn anew each epoch; each in an example of its own; or several at once, with the loss of
`shared/multiple_positives.py`. Judgements with grades weigh. Hard negatives are those that the data lists, or those
that the encoder itself puts first while it trains (`shared/mined_negatives.py`; Xiong et al. 2021, ANCE).

A guide says which passages are no negatives (`shared/guide.py`; Solatorio 2024, GISTEmbed). A reranker may teach what
the question's own passages are worth (`ctl_teacher.py`; Hofstätter et al. 2020):

    L = contrastive_weight · L_contrastive + teacher_weight · L_teacher

Where we deviate, and why:
- A passage that occurs twice in a batch counts once: C_i is a set, on however many processes. With dropout off the
  loss is the published one whenever no passage repeats.
- Known positives are masked by passage id. On one support-article set, two questions on one passage meet
  in a batch of 256 for 44 % of the questions; unmasked, the gold passage is then its own negative.
- Batches larger than memory (`mini_batch_size`) use activation checkpointing around the encoder, a
  sub-batch at a time: the gradients and the cost of GradCache (Gao et al. 2021), one more forward,
  with the random state and autocast of the first pass kept by PyTorch instead of by us.
- ANCE searches for negatives beside the training, which goes on with old ones meanwhile; here a search is made every
  `refresh_every` steps and training waits, so that a run is the same whenever it is made. Negatives that may be gold
  without a label are dropped by margins (`shared/mined_negatives.py`), which ANCE has not.
- A guide compares questions with passages only; GISTEmbed has the other questions, and passages against passages, in
  its denominators too.
- Sub-batches are sorted by length, which saves the padding and changes nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.ctl_options import CTLConfig, check_negatives, check_options
from rag_experiments.algorithms.ctl_teacher import PrepareTeaching, Teaching, own_passages
from rag_experiments.algorithms.resumable import count_tokens
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.algorithms.shared.contrastive_loss import (
    Asking,
    BatchLabels,
    contrastive_loss,
    ctl_loss,
    known_positives,
    loss_from_passages,
    repeats,
)
from rag_experiments.algorithms.shared.gathering import gather_rows, gather_with_gradient
from rag_experiments.algorithms.shared.guide import Guide
from rag_experiments.algorithms.shared.mined_negatives import MinedNegatives, MiningRules
from rag_experiments.algorithms.shared.multiple_positives import (
    ContrastiveExample,
    count_examples,
    make_examples,
    positive_grades,
)
from rag_experiments.algorithms.shared.pair_scoring import PairJudge
from rag_experiments.config import roles
from rag_experiments.config.schema import CrossEncoderConfig, RunConfig
from rag_experiments.core import distributed
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query
from rag_experiments.models.component import load_model
from rag_experiments.retrieval.candidates import RefreshCandidates

__all__ = ["CTLConfig", "CTLTrainer", "ctl_loss", "known_positives", "repeats"]

NO_ROW = -1  # pads lists of passage rows


class CTLTrainer(AlgorithmTrainer):
    """Contrastive training of an `Encoder` on questions with gold passages."""

    Config = CTLConfig
    trains = frozenset({"encoder"})
    required_fields = frozenset({"positive_ids"})
    contrasts_in_batch = True
    config: CTLConfig
    mined: MinedNegatives | None = None
    """The negatives that the encoder finds itself."""
    guide: Guide | None = None
    """The frozen encoder that says which passages are no negatives."""
    teaching: Teaching | None = None
    """The frozen cross-encoder that teaches."""

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Refuse an option that would have no effect."""
        check_options(config.algorithm)

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Refuse what the options ask of the data, and it lacks."""
        check_negatives(config, data, cls.count_examples(config, data))

    @classmethod
    def count_examples(cls, config: RunConfig, data: RagData) -> int:
        """Questions, or with `positives: pairs` pairs of a question and a gold passage."""
        return count_examples(data.splits["train"], config.algorithm.positives)

    # -- preparing -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The examples, a guide, and what searches for negatives; it does so first when training begins, with the
        weights that it begins with."""
        components, config = self.components, self.config
        data, cache = components.data, components.cache
        questions = data.splits["train"]
        queries = [retrieval_query(question, components.config.data.query_history) for question in questions]
        super().prepare()
        judge = None
        if config.guide is not None:
            with roles.under_key("algorithm.guide"):
                model = load_model(config.guide, cache, frozen=True)
            if isinstance(config.guide, CrossEncoderConfig):
                judge = partial(PairJudge(model, queries, data.passages, cache).scores, progress=True)
            else:
                shown = self._rows_shown() if config.negatives == "listed" else None
                self.guide = Guide(model, queries, data.passages, shown, config.guide_margin, cache)
        if config.negatives != "listed":
            golds = [data.passages.rows(question.positive_ids).tolist() for question in questions]
            self.mined = MinedNegatives(components.retriever, queries, golds, MiningRules.of(config), judge)
            self.add_callback(RefreshCandidates(self.mined, config.refresh_every, self.record, self.preparing))
        if config.teacher is not None:
            with roles.under_key("algorithm.teacher"):
                model = load_model(config.teacher, cache, frozen=True)
            self.teaching = Teaching(PairJudge(model, queries, data.passages, cache), config, self.record)
            self.add_callback(PrepareTeaching(self))

    def _rows_shown(self) -> list[int]:
        """Rows of all passages that training can show where no negatives are mined."""
        return [row for example in self.examples for row in (*example.targets, *example.negatives)]

    def save_more(self, folder: Path) -> None:
        """The mined negatives, so that a resumed run goes on with the same."""
        if self.mined is not None:
            self.mined.save(folder)

    def training_examples(self) -> Examples:
        """What is drawn from each example in an epoch; numbers and epochs where negatives are mined, since a batch is
        made ahead of its step, and a refresh may lie between."""
        data = self.components.data
        self.examples = make_examples(data.splits["train"], data.passages, self.config.positives)
        if self.config.negatives == "listed":
            return Examples(self.examples, self._draw)
        return Examples(range(len(self.examples)), lambda number, epoch: (number, epoch))

    def prepare_scores(self, numbers: Sequence[int], epoch: int) -> None:
        """Fill the teacher's cache for what these examples show in an epoch, each process a share."""
        assert self.teaching is not None
        with self.preparing():
            self.teaching.prepare([self._feature(number, epoch) for number in distributed.own_share(numbers)])
            self.accelerator.wait_for_everyone()

    def _feature(self, number: int, epoch: int) -> dict[str, Any]:
        """What an example shows in an epoch, with the negatives that are mined now."""
        example = self.examples[number]
        if self.mined is None:
            return self._draw(example, epoch)
        negatives = self.mined.of(example.number)
        if self.config.negatives == "both":
            negatives = tuple(dict.fromkeys([*example.negatives, *negatives]))
        return self._draw(replace(example, negatives=negatives), epoch)

    def _draw(self, example: ContrastiveExample, epoch: int) -> dict[str, Any]:
        """The positives shown and up to `hard_negatives` negatives: a function of seed, example and epoch alone."""
        name = example.question.id
        if self.config.positives == "pairs":  # each pair of a question meets other negatives
            name = f"{name}/{example.targets[0]}"
        generator = random.Random(f"{self.components.config.seed}/{epoch}/{name}")
        most = self.config.positives_per_question if self.config.positives == "multi" else 1
        targets = example.sample_targets(generator, most)
        count = min(self.config.hard_negatives, len(example.negatives))
        return {
            "query": retrieval_query(example.question, self.components.config.data.query_history),
            "targets": targets,
            "negatives": generator.sample(example.negatives, count),
            "positives": list(example.positives),
            "grades": list(example.grades),
            "weight": example.weight,
            "number": example.number,
        }

    # -- a step --------------------------------------------------------------------------------------

    def collate(self, features: list[Any]) -> dict[str, Any]:
        """The batch; where negatives are mined, `examples_B` and `epochs_B`, from which the step makes it."""
        if self.mined is None:
            return self._batch(features)
        return {
            "examples_B": torch.tensor([number for number, _ in features]),
            "epochs_B": torch.tensor([epoch for _, epoch in features]),
        }

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Draw and tokenise where negatives are mined: now, not when the batch is collated. Add a teacher's scores."""
        if self.mined is not None:
            drawn = zip(inputs["examples_B"].tolist(), inputs["epochs_B"].tolist(), strict=True)
            inputs = self._batch([self._feature(number, epoch) for number, epoch in drawn])
            self.tokens_seen += count_tokens(inputs)
        if self.teaching is not None:
            inputs = {**inputs, "teacher_BK": self.teaching.scores(inputs)}
        return super()._prepare_inputs(inputs)

    def _batch(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Query and passage sub-batches, `passage_rows_P`, `target_B`, each question's positives and their grades."""
        # A dict keeps the first occurrence's place: targets first, in the order of their questions.
        all_rows = [row for name in ("targets", "negatives") for f in features for row in f[name]]
        rows = list(dict.fromkeys([f["targets"][0] for f in features] + all_rows))
        column = {row: index for index, row in enumerate(rows)}
        most = max(len(f["positives"]) for f in features)
        encoder = self.components.model
        size = self.config.mini_batch_size or self.config.sub_batch_size
        batch = {
            "queries": length_sorted_chunks(encoder, encoder.tokenize_queries([f["query"] for f in features]), size),
            "passages": length_sorted_chunks(
                encoder, encoder.tokenize_passages(self.components.data.passages.full_texts(rows)), size
            ),
            "passage_rows_P": torch.tensor(rows),
            "target_B": torch.tensor([column[f["targets"][0]] for f in features]),
            "positive_rows_BM": _padded([f["positives"] for f in features], most, NO_ROW),
            "grades_BM": _padded([f["grades"] for f in features], most, 0.0),
            "weight_B": torch.tensor([f["weight"] for f in features]),
        }
        if self.guide is not None or self.teaching is not None:
            batch["questions_B"] = torch.tensor([f["number"] for f in features])
        if self.teaching is not None:
            batch |= own_passages(features, column)
        return batch

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """See the module's docstring; the mean over this process's questions."""
        cached = self.config.mini_batch_size is not None
        queries_BD = encode_chunks(model, inputs["queries"], recompute=cached)
        own_PD = encode_chunks(model, inputs["passages"], recompute=cached)
        passages_PD, offset = gather_with_gradient(own_PD)
        labels = self._labels(inputs, offset)
        asking = self._questions_of_all(queries_BD, labels) if self.config.symmetric else None
        losses = [
            self._loss_at(dim, queries_BD, passages_PD, labels, asking, inputs, offset)
            for dim in self._dimensions(queries_BD.shape[1])
        ]
        loss = torch.stack(losses).mean()
        self.record("negatives_per_question", labels.negatives().sum(dim=1).float().mean())
        return (loss, {"queries": queries_BD, "passages": passages_PD}) if return_outputs else loss

    def _labels(self, inputs: dict[str, Any], offset: int) -> BatchLabels:
        """Of the passages of every process, for this process's questions; its own passages begin at `offset`."""
        rows_P, positives_BM = gather_rows(inputs["passage_rows_P"]), inputs["positive_rows_BM"]
        target_B = inputs["target_B"] + offset
        multi = self.config.positives == "multi"
        none_BP = torch.zeros((len(target_B), len(rows_P)), dtype=torch.bool, device=rows_P.device)
        labels = BatchLabels(
            target_B,
            none_BP if multi or not self.config.mask_known_positives else known_positives(rows_P, positives_BM),
            repeats(rows_P, target_B),
            positive_grades(rows_P, positives_BM, inputs["grades_BM"]) if multi else None,
            inputs["weight_B"] if self.config.positives == "pairs" else None,
        )
        if self.guide is None:
            return labels
        guided_BP = self.guide.no_negatives(inputs["questions_B"].tolist(), rows_P, labels.positives())
        self.record("guided_per_question", (guided_BP & labels.negatives()).sum(dim=1).float().mean())
        return replace(labels, known_BP=labels.known_BP | guided_BP)

    def _questions_of_all(self, queries_BD: torch.Tensor, labels: BatchLabels) -> Asking:
        """The questions of every process, for the way back from the passages."""
        queries_QD, offset = gather_with_gradient(queries_BD)
        grades_QP = None if labels.grades_BP is None else gather_rows(labels.grades_BP)
        return Asking(queries_QD, gather_rows(labels.known_BP.long()).bool(), grades_QP, offset)

    def _loss_at(
        self,
        dimension: int,
        queries_BD: torch.Tensor,
        passages_PD: torch.Tensor,
        labels: BatchLabels,
        asking: Asking | None,
        inputs: dict[str, Any],
        offset: int,
    ) -> torch.Tensor:
        similarity, config = self.components.model.similarity, self.config
        passages_PD = self._leading(passages_PD, dimension)
        scores_BP = similarity(self._leading(queries_BD, dimension), passages_PD)
        if self.teaching is not None and not config.contrastive_weight:
            return self.teaching.loss(scores_BP, inputs, offset)
        loss = contrastive_loss(scores_BP, labels, config.temperature, config.positives_sum)
        if asking is not None:
            columns_C = labels.shown_positives()
            back_CQ = similarity(self._leading(asking.queries_QD, dimension), passages_PD[columns_C]).T
            back = loss_from_passages(back_CQ, columns_C, labels, asking, config.temperature, config.positives_sum)
            loss = (loss + back) / 2
        if self.teaching is None:
            return loss
        self.record("contrastive_loss", loss.detach())
        return config.contrastive_weight * loss + self.teaching.loss(scores_BP, inputs, offset)

    def _leading(self, vectors_ND: torch.Tensor, dimension: int) -> torch.Tensor:
        """The first `dimension` values of each vector; a part of a unit vector is none, so it is made one."""
        if dimension == vectors_ND.shape[1]:
            return vectors_ND
        part_ND = vectors_ND[:, :dimension]
        return F.normalize(part_ND, dim=-1) if self.components.model.config.similarity == "cosine" else part_ND

    def _dimensions(self, full: int) -> Sequence[int]:
        return sorted({full, *(dim for dim in self.config.matryoshka_dims or [] if dim <= full)}, reverse=True)


def _padded(rows: list[list[Any]], width: int, filling: float) -> torch.Tensor:
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])
