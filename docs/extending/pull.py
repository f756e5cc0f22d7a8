"""PULL: draw each question towards its passage, L = w · mean(1 - s(q, p)). The smallest algorithm there can be."""

from dataclasses import dataclass

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.config.schema import PositiveFloat
from rag_experiments.data.queries import retrieval_query


def pull_loss(scores_B, weight):
    """`weight` times the mean distance from a score of 1."""
    return weight * (1 - scores_B).mean()


@dataclass(kw_only=True)
class PullConfig:
    """Keys under `algorithm:`."""

    name: str = "pull"
    """The algorithm's name, which stands in the run's path."""
    weight: PositiveFloat = 1.0
    """The loss is multiplied by it."""


class PullTrainer(AlgorithmTrainer):
    """Trains the encoder that stands under `model`."""

    Config = PullConfig
    trains = frozenset({"encoder"})
    required_fields = frozenset({"positive_ids"})

    def training_examples(self):
        return Examples(self.components.data.splits["train"])

    def collate(self, questions):
        encoder, store = self.components.model, self.components.data.passages
        rows = [int(store.rows(question.positive_ids[:1])[0]) for question in questions]
        history = self.components.config.data.query_history
        queries = [retrieval_query(question, history) for question in questions]
        return {
            "queries": encoder.pad(encoder.tokenize_queries(queries)),
            "passages": encoder.pad(encoder.tokenize_passages(store.full_texts(rows))),
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores_B = (model(**inputs["queries"]) * model(**inputs["passages"])).sum(dim=1)
        return pull_loss(scores_B, self.config.weight)
