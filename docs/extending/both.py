"""BOTH: train an encoder and a reader in one run, L = L_contrastive(encoder) + w · L_answer(reader).

Two roles: `encoder` stands under `model`, `reader` under `algorithm.reader` (`model@algorithm.reader=…`). Each has a
learning rate of its own, and `model/` of the run has a folder for each.
"""

from dataclasses import dataclass
from functools import partial

import torch

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.ctl import ctl_loss
from rag_experiments.config.schema import PositiveFloat, ReaderConfig
from rag_experiments.models.reader.answer_tokens import decoder_batch


@dataclass(kw_only=True)
class BothConfig:
    """Keys under `algorithm:`. A field of a model type is a role."""

    name: str = "both"
    """The algorithm's name, which stands in the run's path."""
    reader: ReaderConfig
    """The reader that is trained, chosen with `model@algorithm.reader=…`."""
    temperature: PositiveFloat = 0.05
    """The encoder's scores are divided by it."""
    weight: PositiveFloat = 1.0
    """The answer's loss is multiplied by it."""
    learning_rates: dict[str, PositiveFloat] | None = None
    """The learning rate of each role; a role that is not named has `trainer.learning_rate`."""


class BothTrainer(AlgorithmTrainer):
    """Trains two roles at once."""

    Config = BothConfig
    trains = frozenset({"encoder", "reader"})
    required_fields = frozenset({"positive_ids", "answers"})

    def training_examples(self):
        return Examples(self.components.data.splits["train"])

    def collate(self, questions):
        encoder, reader = self.components.models["encoder"], self.components.models["reader"]
        store = self.components.data.passages
        gold = [store[int(store.rows(question.positive_ids[:1])[0])] for question in questions]
        answers = [question.answers[0] for question in questions]
        prompts = [
            reader.prompts.for_question(question, [passage], answer).ids
            for question, passage, answer in zip(questions, gold, answers, strict=True)
        ]
        return {
            "queries": encoder.pad(encoder.tokenize_queries([question.question for question in questions])),
            "passages": encoder.pad(encoder.tokenize_passages([passage.full_text for passage in gold])),
            "answers": decoder_batch(prompts, [reader.answer_ids(answer) for answer in answers], reader.pad_id),
        }

    def losses(self, modules, inputs):
        # Calls name the role.
        queries_BD, passages_BD = modules("encoder", **inputs["queries"]), modules("encoder", **inputs["passages"])
        own_B = torch.arange(len(queries_BD), device=queries_BD.device)
        nothing_BB = torch.zeros(len(own_B), len(own_B), dtype=torch.bool, device=own_B.device)
        contrastive = ctl_loss(queries_BD @ passages_BD.T, own_B, nothing_BB, self.config.temperature)
        return contrastive, modules("reader", **inputs["answers"]).loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # One call for all roles: the wrapper that several processes have must see a step as one forward.
        contrastive, answer = model(partial(self.losses, inputs=inputs))
        self.record("contrastive_loss", contrastive)
        self.record("answer_loss", answer)
        return contrastive + self.config.weight * answer
