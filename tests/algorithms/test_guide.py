"""A guide: which passages it takes out of the loss, against loops over plain numbers and sentence-transformers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms import ctl
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.algorithms.ctl_options import CTLConfig, check_options
from rag_experiments.algorithms.shared import batches, mined_negatives
from rag_experiments.algorithms.shared.guide import Guide
from rag_experiments.algorithms.shared.pair_scoring import PairJudge, pair_key
from rag_experiments.config.schema import CrossEncoderConfig, EncoderConfig
from rag_experiments.config.validation import check_values
from rag_experiments.core import distributed
from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import Query
from rag_experiments.models.encoder.encoder import Encoder
from tests.algorithms.plain_encoder import TableEncoder
from tests.algorithms.test_ctl_masks import batches_of_questions, cosine, feature, trainer_of
from tests.algorithms.test_mined_negatives import GOLDS, QUERIES, TEXTS, by_loops, miner
from tests.numeric import assert_near
from tests.retrieval.fakes import ListPassages, WordEncoder

# -- what it says ----------------------------------------------------------------------------------------


def guide_of(rows=None, margin: float = 0.0, cache=None, encoder=None) -> Guide:
    return Guide(encoder or WordEncoder(3), QUERIES, ListPassages(TEXTS), rows, margin, cache)  # type: ignore[arg-type]


@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("rows", [None, [25, 0, 4, 9, 13, 9, 30]])
def test_what_is_no_negative_scores_higher_than_the_positive(rows, margin):
    encoder = WordEncoder(3)
    scores = encoder.embed_queries(QUERIES) @ encoder.embed_queries(TEXTS).T
    columns = [4, 13, 0, 25, 9, 30]
    positive = torch.tensor([[row in GOLDS[q] for row in columns] for q in (2, 0)])
    found = guide_of(rows, margin).no_negatives([2, 0], torch.tensor(columns), positive)
    for place, q in enumerate((2, 0)):
        lowest = min(scores[q, row] for row in columns if row in GOLDS[q])
        wanted = [row not in GOLDS[q] and scores[q, row] > lowest - margin for row in columns]
        assert found[place].tolist() == wanted
    assert found.any()
    assert not found.all()


def test_vectors_are_embedded_once_and_only_those_that_are_shown(tmp_path):
    first, second, other = WordEncoder(3), WordEncoder(3), WordEncoder(4)
    made = [guide_of([5, 2, 5], 0.1, tmp_path, encoder) for encoder in (first, second, other)]
    assert (first.embedded, second.embedded, other.embedded) == (2, 0, 2)
    np.testing.assert_array_equal(made[0].queries_QD, first.embed_queries(QUERIES))
    np.testing.assert_array_equal(made[1].passages_ND, first.embed_queries([TEXTS[2], TEXTS[5]]))
    whole = WordEncoder(3)
    guide_of(None, 0.1, tmp_path, whole)
    assert whole.embedded == len(TEXTS), "not taken for the part"
    part = WordEncoder(3)
    guide_of([5, 7], 0.1, tmp_path, part)
    assert part.embedded == 2, "nor one part for another"


def test_a_question_is_not_taken_for_a_passage_of_the_same_text(tmp_path):
    class Prefixed(WordEncoder):
        def embed_queries(self, texts, **_):
            return super().embed_queries([f"query {text}" for text in texts])

        def embed_passages(self, texts, **_):
            return WordEncoder.embed_queries(self, texts)

    texts = ["river", "fox"]
    made = Guide(Prefixed(), texts, ListPassages(texts), None, 0.0, tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(made.queries_QD, Prefixed().embed_queries(texts))
    np.testing.assert_array_equal(made.passages_ND, Prefixed().embed_passages(texts))


# -- in the loss -----------------------------------------------------------------------------------------

SCORES = np.random.default_rng(4).standard_normal((5, 12)).astype(np.float32)
"""The guide's, of a question and a passage."""


class Given(Guide):
    """A guide whose scores are `SCORES`."""

    def __init__(self, margin: float = 0.0) -> None:
        self.margin, self.rows = margin, None
        self.queries_QD, self.passages_ND = SCORES, np.eye(12, dtype=np.float32)


def guided_trainer(encoder: TableEncoder, margin: float = 0.0, **options) -> CTLTrainer:
    trainer = trainer_of(encoder, **options)
    trainer.guide = Given(margin)
    return trainer


def numbered(features: list[dict], shown: int = 1) -> list[dict]:
    return [{**f, "number": n, "targets": f["positives"][:shown]} for n, f in enumerate(features)]


def softplus_loss(own: float, others: list[float]) -> float:
    return math.log(sum(math.exp(other) for other in [own, *others])) - own


def expected_loss(encoder: TableEncoder, features: list[dict], own: range, margin: float, options: CTLConfig) -> float:
    """The documented loss at τ = 1 for the questions `own` of the batch, one at a time."""
    table = encoder.table.detach().numpy()
    pool = sorted({row for f in features for row in (*f["targets"], *f["negatives"])})
    multi = options.positives == "multi"

    def s(i: int, row: int) -> float:
        return cosine(table[int(features[i]["query"].split()[0])], table[encoder.SHIFT + row])

    def shown(i: int) -> list[int]:
        return [r for r in pool if r in features[i]["positives"]] if multi else features[i]["targets"][:1]

    def no_negative(i: int, row: int) -> bool:
        known = row in features[i]["positives"] and (multi or options.mask_known_positives)
        guided = row not in shown(i) and SCORES[i, row] > min(SCORES[i, r] for r in shown(i)) - np.float32(margin)
        return known or guided

    total = 0.0
    for i in own:
        parts = []
        for p in shown(i):
            others = [row for row in pool if row not in shown(i) and not no_negative(i, row)]
            parts.append(softplus_loss(s(i, p), [s(i, row) for row in others]))
        total += sum(parts) / len(parts)
    forth = total / len(own)
    if not options.symmetric:
        return forth
    back = []
    columns = sorted({p for i in own for p in shown(i)}) if multi else [shown(i)[0] for i in own]
    for i, p in zip(own if not multi else [None] * len(columns), columns, strict=True):
        mine = [j for j in own if p in shown(j)] if multi else [i]
        others = [j for j in own if j not in mine and not no_negative(j, p)]
        parts = [softplus_loss(s(j, p), [s(k, p) for k in others]) for j in mine]
        back.append(sum(parts) / len(parts))
    return (forth + sum(back) / len(back)) / 2


@settings(max_examples=60, deadline=None)
@given(
    features=batches_of_questions(),
    positives=st.sampled_from(["one", "multi"]),
    symmetric=st.booleans(),
    mask=st.booleans(),
    margin=st.sampled_from([0.0, 0.5]),
)
def test_the_loss_leaves_out_what_the_guide_says(features, positives, symmetric, mask, margin):
    mask = mask or positives == "multi"
    options = {"positives": positives, "symmetric": symmetric, "mask_known_positives": mask, "temperature": 1.0}
    encoder = TableEncoder()
    features = numbered(features, shown=1 if positives == "one" else 3)
    trainer = guided_trainer(encoder, margin, **options)
    loss = trainer.compute_loss(encoder, trainer.collate(features)).item()
    wanted = expected_loss(encoder, features, range(len(features)), margin, CTLConfig(**options))
    assert loss == pytest.approx(wanted, abs=1e-9)


def test_what_the_guide_takes_out_is_counted_and_no_negative():
    features = numbered([feature(0, 0, negatives=[7]), feature(1, 1, negatives=[8]), feature(2, 2)])
    trainer, plain = guided_trainer(TableEncoder()), trainer_of(TableEncoder())
    trainer.compute_loss(trainer.components.model, trainer.collate(features))
    plain.compute_loss(plain.components.model, plain.collate(features))
    out = sum(SCORES[i, row] > SCORES[i, i] for i in range(3) for row in (0, 1, 2, 7, 8))
    assert out > 0
    assert trainer.recorded["guided_per_question"] == pytest.approx(out / 3)
    assert plain.recorded["negatives_per_question"] == 4.0
    assert trainer.recorded["negatives_per_question"] == pytest.approx(4 - out / 3)


def test_two_processes_leave_out_passages_of_both(monkeypatch):
    features = numbered([feature(n, n, negatives=[n + 5]) for n in range(5)])
    halves = [features[:2], features[2:]]
    encoder = TableEncoder()
    trainers = [guided_trainer(encoder, 0.3, temperature=1.0) for _ in halves]
    inputs = [trainer.collate(half) for trainer, half in zip(trainers, halves, strict=True)]
    vectors = [batches.encode_chunks(encoder, one["passages"]) for one in inputs]
    rows = torch.cat([one["passage_rows_P"] for one in inputs])
    for rank, trainer in enumerate(trainers):
        offset = 0 if rank == 0 else len(vectors[0])
        monkeypatch.setattr(ctl, "gather_with_gradient", lambda own, offset=offset: (torch.cat(vectors), offset))
        monkeypatch.setattr(ctl, "gather_rows", lambda own: rows)
        loss = trainer.compute_loss(encoder, inputs[rank]).item()
        own = range(2) if rank == 0 else range(2, 5)
        wanted = expected_loss(encoder, features, own, 0.3, CTLConfig(temperature=1.0))
        assert loss == pytest.approx(wanted, abs=1e-9), f"process {rank}"


def test_both_directions_of_two_processes(monkeypatch):
    """The way back meets the questions of both, less those that the guide takes the passage for a positive of."""
    features = numbered([feature(n, n) for n in range(4)])
    encoder = TableEncoder()
    whole = guided_trainer(encoder, symmetric=True, temperature=1.0)
    together = whole.compute_loss(encoder, whole.collate(features)).item()
    halves = [features[:2], features[2:]]
    trainers = [guided_trainer(encoder, symmetric=True, temperature=1.0) for _ in halves]
    inputs = [trainer.collate(half) for trainer, half in zip(trainers, halves, strict=True)]
    passages = torch.cat([batches.encode_chunks(encoder, one["passages"]) for one in inputs])
    queries = torch.cat([batches.encode_chunks(encoder, one["queries"]) for one in inputs])
    rows = torch.cat([one["passage_rows_P"] for one in inputs])
    known = torch.cat(
        [Given().no_negatives(one["questions_B"].tolist(), rows, one["positive_rows_BM"] == rows) for one in inputs]
    )
    apart = []
    for rank, trainer in enumerate(trainers):
        gathered = [(passages, 2 * rank), (queries, 2 * rank)]
        numbers = [rows, known.long()]
        monkeypatch.setattr(ctl, "gather_with_gradient", lambda own, found=gathered: found.pop(0))
        monkeypatch.setattr(ctl, "gather_rows", lambda own, found=numbers: found.pop(0))
        known_own = known[2 * rank : 2 * rank + 2]
        assert known_own.shape == (2, 4)
        apart.append(trainer.compute_loss(encoder, inputs[rank]).item())
    # Known positives of a question are its own target only, which the loss keeps either way.
    assert sum(apart) / 2 == pytest.approx(together, abs=1e-9)


def test_same_loss_as_sentence_transformers(tiny_bert, tmp_path):
    """GISTEmbedLoss over questions and passages alone, with hard negatives and a margin; float64, dropout off."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    def opened(seed: int) -> Encoder:
        config = EncoderConfig(path=str(tiny_bert), precision="fp32", pooling="mean", similarity="cosine")
        encoder = Encoder.load(config, device="cpu").eval()
        torch.manual_seed(seed)
        for parameter in encoder.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        return encoder

    encoder, guide = opened(1), opened(2)
    encoder.save(tmp_path / "encoder")
    guide.save(tmp_path / "guide")
    queries = ["who is red", "what runs", "where is the small dog", "three fish"]
    texts = ["the red cat", "blue dog runs", "stone", "sun moon", "old river", "a new tree", "ten nine", "large animal"]
    peers = [SentenceTransformer(str(tmp_path / name), device="cpu").eval() for name in ("encoder", "guide")]
    plain = {"contrast_anchors": False, "contrast_positives": False}
    features = [peers[0].preprocess(column) for column in (queries, texts[:4], texts[4:])]
    losses = []
    for margin in (0.0, 0.05):
        peer = GISTEmbedLoss(*peers, temperature=0.05, margin=margin, **plain)
        theirs = peer([dict(one) for one in features], torch.zeros(4))
        trainer = CTLTrainer.__new__(CTLTrainer)
        trainer.config = CTLConfig(temperature=0.05)
        store = ListPassages(texts)
        trainer.components = SimpleNamespace(model=encoder, data=SimpleNamespace(passages=store))
        trainer.record = lambda name, value: None
        trainer.guide = Guide(guide, queries, store, None, margin, None)  # type: ignore[arg-type]
        batch = [{**feature(i, i, negatives=[4 + i]), "query": queries[i], "number": i} for i in range(4)]
        ours = trainer.compute_loss(encoder, trainer.collate(batch))
        assert_near(ours, theirs, share=1e-5)
        losses.append(ours.item())
    trainer.guide = None
    losses.append(trainer.compute_loss(encoder, trainer.collate(batch)).item())
    assert len({round(loss, 4) for loss in losses}) == 3, "or the guide would show nothing"


# -- a cross-encoder -------------------------------------------------------------------------------------


class Lengths:
    """A cross-encoder whose logit is a number of the pair; remembers what it scored."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def fingerprint(self) -> str:
        return "lengths"

    def score(self, queries, passages):
        self.pairs += zip(queries, passages, strict=True)
        return np.array([self.logit(*pair) for pair in zip(queries, passages, strict=True)], dtype=np.float32)

    @staticmethod
    def logit(query: str, passage: str) -> float:
        return float((len(passage) * 7 + len(query)) % 11)


def test_pairs_are_scored_once_and_come_in_their_order(tmp_path):
    model = Lengths()
    judge = PairJudge(model, QUERIES, ListPassages(TEXTS), tmp_path)  # type: ignore[arg-type]
    asked = [(2, [5, 0, 5]), (0, []), (1, [7])]
    wanted = [[Lengths.logit(QUERIES[q], TEXTS[row]) for row in rows] for q, rows in asked]
    assert judge.scores(asked) == wanted
    assert judge.scores(asked) == wanted
    assert len(model.pairs) == len(set(model.pairs)) == 3
    assert judge.cost().startswith("8 pairs, 3 of them scored")
    again = Lengths()
    assert PairJudge(again, QUERIES, ListPassages(TEXTS), tmp_path).scores(asked) == wanted  # type: ignore[arg-type]
    assert again.pairs == [], "another run finds them on disk"


def test_many_pairs_are_committed_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_experiments.algorithms.shared.pair_scoring.PAIRS_A_COMMIT", 4)
    judge = PairJudge(Lengths(), QUERIES, ListPassages(TEXTS), tmp_path)  # type: ignore[arg-type]
    rows = list(range(len(TEXTS)))
    assert judge.scores([(1, rows)]) == [[Lengths.logit(QUERIES[1], TEXTS[row]) for row in rows]]


def test_the_turns_of_a_query_are_part_of_its_key():
    assert pair_key(Query("b", ["a"]), "p") != pair_key("a\nb", "p")
    assert pair_key(Query("b", []), "p") == pair_key("b", "p")


@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_a_cross_encoder_drops_mined_negatives_above_the_lowest_positive(margin):
    judge = PairJudge(Lengths(), QUERIES, ListPassages(TEXTS), None)  # type: ignore[arg-type]
    made = miner(judge=judge.scores, margin=0.05, guide_margin=margin, last_rank=20)
    figures = made.refresh()
    dropped = 0
    for number in range(3):
        logits = {row: Lengths.logit(QUERIES[number], TEXTS[row]) for row in range(len(TEXTS))}
        limit = min(logits[row] for row in GOLDS[number]) - margin
        before = by_loops(WordEncoder(), number, 1, 20, 0.05)
        assert set(made.of(number)) == {row for row in before if logits[row] <= limit}
        dropped += sum(logits[row] > limit for row in before)
    assert figures["dropped_by_judge"] == made.counts["judge"] == dropped > 0


def test_each_process_asks_for_its_share_and_all_take_the_same(monkeypatch):
    asked: list[list[int]] = []

    def judge(share):
        asked.append([number for number, _ in share])
        return [[Lengths.logit(QUERIES[number], TEXTS[row]) for row in rows] for number, rows in share]

    alone = miner(judge=judge)
    alone.refresh()
    others: list = []

    def second_of_two(items):
        others.append(judge(items[0::2]))
        return items[1::2]

    two = SimpleNamespace(
        own_share=second_of_two, gathered=lambda own: [others.pop(), own], in_order=distributed.in_order
    )
    monkeypatch.setattr(mined_negatives, "distributed", two)
    made = miner(judge=judge)
    made.refresh()
    assert asked == [[0, 1, 2], [0, 2], [1]]
    np.testing.assert_array_equal(made.rows_QK, alone.rows_QK)
    assert made.counts == alone.counts


# -- requests --------------------------------------------------------------------------------------------

ENCODER = {"kind": "encoder", "path": "e"}
RERANKER = {"kind": "cross_encoder", "path": "c"}


def test_a_guide_is_of_the_kind_that_it_says():
    assert isinstance(check_values(CTLConfig, {"guide": ENCODER}, "algorithm").guide, EncoderConfig)
    assert isinstance(check_values(CTLConfig, {"guide": RERANKER}, "algorithm").guide, CrossEncoderConfig)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (
            {"kind": "decoder", "path": "d"},
            r"^algorithm\.guide must be an encoder or cross_encoder, but d is a decoder",
        ),
        ({**ENCODER, "poling": "mean"}, r"^algorithm\.guide\.poling .* 'pooling'"),
        ({**RERANKER, "pooling": "mean"}, r"^algorithm\.guide\.pooling is an unknown key"),
        ({**RERANKER, "form": "x"}, r"^algorithm\.guide\.form='x'"),
        ("minilm", r"a model is chosen with model@algorithm\.guide=minilm"),
        ({"kind": "nothing", "path": "d"}, r"^algorithm\.guide"),
    ],
)
def test_a_guide_that_does_not_fit(guide, message):
    with pytest.raises(RequestError, match=message):
        check_values(CTLConfig, {"guide": guide}, "algorithm")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guide_margin": 0.1}, r"algorithm\.guide_margin=0\.1 is the guide's: add model@algorithm\.guide=minilm"),
        ({"guide": CrossEncoderConfig(path="c")}, r"c is a cross_encoder, .*add algorithm\.negatives=mined"),
    ],
)
def test_options_without_effect_are_refused(values, message):
    with pytest.raises(RequestError, match=message):
        check_options(CTLConfig(**values))


def test_options_that_go_together_are_taken():
    check_options(CTLConfig(guide=EncoderConfig(path="e"), guide_margin=0.1))
    check_options(CTLConfig(guide=CrossEncoderConfig(path="c"), negatives="both", guide_margin=1.0))
