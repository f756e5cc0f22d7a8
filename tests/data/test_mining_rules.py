"""Mining against the rules written out: any ranking, any filters, by brute force; and what it is given to rank."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_experiments.config.schema import EncoderConfig, ReaderConfig, RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.mine import encoder_config
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage, Question, Turn
from rag_experiments.data.tools import mining
from rag_experiments.data.tools.cross_encoder_judge import CrossEncoderJudge
from rag_experiments.data.tools.mining import Mined, MineOptions, Miner

TEXTS = ["one", "two", "One  Two\nthree", "two", "forty  TWO", "one", "seven", "one two", "a forty two b", "nine"]
PLACES = range(len(TEXTS))


@pytest.fixture(scope="module")
def passages(tmp_path_factory) -> PassageStore:
    folder = tmp_path_factory.mktemp("passages")
    write_passages(folder, [Passage(f"p{n}", text) for n, text in enumerate(TEXTS)])
    return PassageStore(folder)


def flat(text: str) -> str:
    return " ".join(text.lower().split())


def expected(question: Question, ranked, options: MineOptions, scores: list[int], judged: set[int] | None):
    """Candidates after the range and after each filter, straight from the module's description."""
    golds = [int(one[1:]) for one in question.positive_ids]
    listed = [int(one[1:]) for one in question.negative_ids] if options.keep_listed else []
    lists = []
    for rows in ranked:
        fit = [r for r in rows if r != -1 and r not in golds + listed and TEXTS[r] not in [TEXTS[g] for g in golds]]
        lists.append([r for rank, r in enumerate(fit, 1) if options.first_rank <= rank <= options.last_rank])
    candidates: list[int] = []
    for place in range(len(TEXTS)):
        for rows in lists:
            if place < len(rows) and rows[place] not in candidates:
                candidates.append(rows[place])
    weakest = min(scores[g] for g in golds)
    kept = candidates
    if options.margin is not None:
        kept = [r for r in kept if not scores[r] > weakest - options.margin * abs(weakest)]
    if options.margin_absolute is not None:
        kept = [r for r in kept if not scores[r] > weakest - options.margin_absolute]
    near = len(candidates) - len(kept)
    answers = [flat(a) for a in question.answers if len(a.strip()) >= 4] if options.answer_match else []
    clean = [r for r in kept if not any(a in flat(TEXTS[r]) for a in answers)]
    final = clean if judged is None else [r for r in clean if r in judged]
    counts = {"candidates": len(candidates), "margin": near, "answer": len(kept) - len(clean)}
    return final, {**counts, "cross-encoder": len(clean) - len(final)}


ROWS = st.permutations([*PLACES, -1, -1]).flatmap(lambda rows: st.integers(0, len(rows)).map(lambda n: rows[:n]))
OPTIONS = st.builds(
    dict,
    first_rank=st.integers(1, 3),
    last_rank=st.integers(3, 9),
    count=st.integers(1, 6),
    margin=st.sampled_from([None, 0.0, 0.25, 0.5]),
    margin_absolute=st.sampled_from([None, 0.0, 1.0, 3.0]),
    answer_match=st.booleans(),
    keep_listed=st.booleans(),
    sampling=st.sampled_from(["top", "random"]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ranked=st.lists(ROWS, min_size=1, max_size=2),
    options=OPTIONS,
    golds=st.lists(st.sampled_from(PLACES), min_size=1, max_size=2, unique=True),
    listed=st.lists(st.sampled_from(PLACES), max_size=2, unique=True),
    answers=st.lists(st.sampled_from(["Forty two", " One  two ", "two", "  one ", "nine"]), max_size=2),
    scores=st.lists(st.integers(-8, 8), min_size=len(TEXTS), max_size=len(TEXTS)),
    judged=st.none() | st.sets(st.sampled_from(PLACES), min_size=4),
)
def test_any_ranking_by_brute_force(passages, ranked, options, golds, listed, answers, scores, judged):
    """Gold and listed ones out, the range, the turns, each filter with its count, the choice."""
    options = MineOptions(**options)
    question = Question(
        "q", "?", tuple(answers), tuple(f"p{n}" for n in golds), tuple(f"p{n}" for n in listed if n not in golds)
    )
    texts_seen = []

    def judge(query, gold_texts, texts):
        texts_seen.append((query, gold_texts, texts))
        return [any(TEXTS[r] == text for r in judged) for text in texts]

    if judged is not None:
        judged = {r for r in PLACES if any(TEXTS[r] == TEXTS[j] for j in judged)}
    miner = Miner(
        passages,
        options,
        RetrieverConfig(),
        "user",
        Path("none"),
        SimpleNamespace(),
        judge if judged is not None else None,
    )
    # Whole numbers: scores are exact, and equal ones are equal.
    vectors_ND = np.array([[score, 7] for score in scores], dtype=np.float32)
    miner._dense = SimpleNamespace(vectors=vectors_ND)
    made = miner._negatives(question, "the query", [np.array(rows, int) for rows in ranked], np.array([1, 0], "f4"))
    final, counts = expected(question, ranked, options, scores, judged)
    kept = list(question.negative_ids) if options.keep_listed else []
    mined = [int(one[1:]) for one in made.negative_ids[len(kept) :]]
    assert list(made.negative_ids[: len(kept)]) == kept
    assert {name: miner.counts[name] for name in counts} == counts
    if options.sampling == "top":
        assert mined == final[: options.count]
    else:
        assert len(set(mined)) == len(mined) == min(options.count, len(final))
        assert set(mined) <= set(final)
    for query, gold_texts, _ in texts_seen:
        assert (query, gold_texts) == ("the query", [TEXTS[n] for n in golds])
    assert (made.id, made.positive_ids, made.answers) == (question.id, question.positive_ids, question.answers)
    # Counted over all questions, those without gold apart.
    arguments = ("the query", [np.array(rows, int) for rows in ranked], np.array([1, 0], "f4"))
    assert miner._negatives(question, *arguments) == made
    for number in (1, 2):
        bare = Question("r", "?", negative_ids=("p1",))
        assert miner._negatives(bare, *arguments) is bare
        assert miner.counts["without gold"] == number
    assert {name: miner.counts[name] for name in counts} == {name: 2 * count for name, count in counts.items()}


# -- what is ranked ------------------------------------------------------------------------------------


class Bag:
    """Counts of the letters a to z; remembers what it was asked."""

    dimension = 26

    def __init__(self):
        self.queries: list[str] = []

    def embed_queries(self, texts):
        self.queries += texts
        return self.embed_passages(texts)

    def embed_passages(self, texts):
        return np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)

    def fingerprint(self):
        return "bag"


def stored(folder: Path, texts: list[str]) -> PassageStore:
    folder.mkdir(exist_ok=True)
    write_passages(folder, [Passage(f"p{n}", text) for n, text in enumerate(texts)])
    return PassageStore(folder)


def miner_of(passages: PassageStore, cache: Path, encoder=None, history="user", retriever=None, **options) -> Miner:
    values = {"margin": None, "answer_match": False, **options}
    return Miner(passages, MineOptions(**values), retriever or RetrieverConfig(), history, cache, encoder)


def words(number: int) -> str:
    return f"stone {'river ' * number}{'house ' * (number % 5)}"


@pytest.mark.parametrize("retriever", ["bm25", "encoder"])
def test_however_many_are_gold_or_listed_the_range_is_filled(retriever, tmp_path):
    store = stored(tmp_path / "p", [words(n + 1) for n in range(40)])
    first = miner_of(store, tmp_path, Bag(), retrievers=[retriever], count=40, last_rank=40)
    asked = Question("q", "river river", positive_ids=("p0",))
    order = first.mine({"train": [asked]}, progress=False).splits["train"][0].negative_ids
    golds, listed = order[:8], order[8:16]
    question = Question("q", "river river", positive_ids=golds, negative_ids=listed)
    miner = miner_of(store, tmp_path, Bag(), retrievers=[retriever], count=40, last_rank=5)
    found = miner.mine({"train": [question]}, progress=False).splits["train"][0].negative_ids
    assert found[: len(listed)] == listed
    assert len(found) == len(listed) + 5
    assert set(found[len(listed) :]) <= {*order[16:22], "p0"}


def questions_of(count: int) -> list[Question]:
    return [
        Question(f"q{n}", f"{words(n)} river", positive_ids=(f"p{n}",), history=(Turn("user", f"house {n}"),))
        for n in range(count)
    ]


def test_blocks_and_parts_change_nothing(tmp_path):
    store = stored(tmp_path / "p", [words(n + 1) for n in range(12)])
    whole = miner_of(store, tmp_path, Bag()).mine({"train": questions_of(7)}, progress=False).splits
    assert all(question.negative_ids for question in whole["train"])
    for block in (1, 3, 7):
        blocks = miner_of(store, tmp_path, Bag(), block=block).mine({"train": questions_of(7)}, progress=False)
        assert blocks.splits == whole
    parted = miner_of(store, tmp_path, Bag(), processes=3)
    sizes = []

    def in_parts(run, parts, depths):
        sizes.extend(len(part) for part in parts)
        return [run(part, depth) for part, depth in zip(parts, depths, strict=True)]

    parted._pool = lambda stack: SimpleNamespace(map=in_parts)
    assert parted.mine({"train": questions_of(7)}, progress=False).splits == whole
    assert sizes == [3, 3, 1], "as many parts as processes"


def test_only_the_splits_that_are_named_are_mined(tmp_path):
    store = stored(tmp_path / "p", [words(n + 1) for n in range(12)])
    splits = {"train": questions_of(3), "dev": questions_of(2), "test": []}
    done = miner_of(store, tmp_path, retrievers=["bm25"], splits=["dev"]).mine(splits, progress=False).splits
    assert done["train"] == splits["train"]
    assert done["test"] == []
    assert all(question.negative_ids for question in done["dev"])


@pytest.mark.parametrize(("history", "query"), [("none", "a?"), ("user", "house 1\na?")])
def test_the_query_is_that_of_the_data(history, query, tmp_path):
    store, encoder = stored(tmp_path / "p", ["a", "b", "c"]), Bag()
    question = Question("q", "a?", positive_ids=("p0",), history=(Turn("user", "house 1"), Turn("assistant", "Yes.")))
    miner = miner_of(store, tmp_path, encoder, history=history, retrievers=["encoder"])
    miner.mine({"train": [question]}, progress=False)
    assert set(encoder.queries) == {query}


def test_each_miner_has_its_own_bm25(tmp_path):
    """The settings of another one that ran before in the same process are not taken, nor its corpus."""
    store = stored(tmp_path / "p", ["gold fish", f"fish fish {'stone bird tree ' * 4}", "fish"])
    question = Question("q", "fish", positive_ids=("p0",))
    firsts = []
    for length_counts in (0.0, 1.0, 0.0):
        config = RetrieverConfig(bm25_b=length_counts, bm25_k1=1.0)
        miner = miner_of(store, tmp_path, retriever=config, retrievers=["bm25"], count=1)
        firsts.append(miner.mine({"train": [question]}, progress=False).splits["train"][0].negative_ids)
    assert firsts == [("p1",), ("p2",), ("p1",)]
    other = stored(tmp_path / "other", ["gold fish", "stone", "stone", "fish"])
    found = miner_of(other, tmp_path, retrievers=["bm25"], count=1).mine({"train": [question]}, progress=False)
    assert found.splits["train"][0].negative_ids == ("p3",)


def test_draws_differ_between_questions_and_not_with_their_order(tmp_path):
    store = stored(tmp_path / "p", ["gold", *(f"river {n}" for n in range(30))])
    questions = [Question(f"q{n}", "river", positive_ids=("p0",)) for n in range(4)]

    def drawn(asked):
        miner = miner_of(store, tmp_path, retrievers=["bm25"], sampling="random", count=5)
        return {q.id: q.negative_ids for q in miner.mine({"train": asked}, progress=False).splits["train"]}

    first = drawn(questions)
    assert len(set(first.values())) == 4
    assert drawn(questions[::-1]) == first


# -- options, the report, who judges -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"retrievers": ["bm25"], "margin": None}, False),
        ({"retrievers": ["encoder"], "margin": None}, True),
        ({"retrievers": ["bm25"], "margin": 0.0}, True),
        ({"retrievers": ["bm25"], "margin": None, "margin_absolute": 0.0}, True),
    ],
)
def test_an_encoder_is_wanted_where_one_searches_or_judges(options, needed, passages, tmp_path):
    assert MineOptions(**options).needs_encoder == needed
    if needed:
        with pytest.raises(RequestError, match="need an encoder"):
            Miner(passages, MineOptions(**options), RetrieverConfig(), "user", tmp_path)


def test_the_encoder_is_the_models_or_else_the_retrievers():
    encoder, other, reader = EncoderConfig(path="a"), EncoderConfig(path="b"), ReaderConfig(path="c")

    def chosen(model, of_retriever, **options):
        config = SimpleNamespace(model=model, retriever=RetrieverConfig(encoder=of_retriever))
        return encoder_config(SimpleNamespace(options=MineOptions(**options), config=config))

    assert chosen(encoder, other) is encoder
    assert chosen(reader, other) is other
    with pytest.raises(RequestError, match="mine needs an encoder"):
        chosen(reader, None)
    assert chosen(encoder, other, retrievers=["bm25"], margin=None) is None


def test_ranks_are_a_range():
    assert MineOptions(first_rank=5, last_rank=5).last_rank == 5
    with pytest.raises(ValueError, match=r"first_rank \(6\) is beyond last_rank \(5\)"):
        MineOptions(first_rank=6, last_rank=5)


def test_the_report_by_hand():
    def of(count):
        return Question("q", "?", negative_ids=tuple("abcd"[:count]))

    counts = mining.Counter({"candidates": 1200, "answer": 7, "margin": 3000, "cross-encoder": 0})
    mined = Mined({"train": [of(4), of(0), of(1)], "dev": [of(3)]}, counts)
    assert mined.lines(MineOptions(first_rank=2, last_rank=30)) == [
        "candidates  1,200 in ranks 2 to 30",
        "dropped     3,000 by the margins of the encoder's scores",
        "dropped     7 that hold an answer",
        "dropped     0 by the cross-encoder",
        "negatives   1.67 per question; 1 of 3 questions have none",
    ]
    mined.counts["without gold"] = 2
    assert mined.lines(MineOptions(splits=["dev"]))[-2:] == [
        "negatives   3.00 per question; 0 of 1 questions have none",
        "note        2 questions have no gold passage and get none",
    ]


@pytest.fixture(scope="module")
def cross_encoder(tiny_bert, tmp_path_factory) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross_encoder")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_bert, num_labels=1, initializer_range=0.5)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_cross_encoder_keeps_what_it_ranks_below_every_gold_passage(cross_encoder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    query, golds = "where does the cat sleep", ["the cat sleeps in the house", "a dog runs"]
    texts = ["a fish eats a star", "the house", "river " * 200, "the dog eats", "cat", "a cat sleeps"]
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    logits = []
    with torch.no_grad():
        for text in [*golds, *texts]:
            inputs = tokenizer(query, text, truncation="only_second", return_tensors="pt")
            logits.append(model(**inputs).logits.item())
    judge = CrossEncoderJudge(str(cross_encoder), 0.0, batch_size=3)
    np.testing.assert_allclose(judge.score(query, [*golds, *texts]), logits, rtol=1e-4, atol=1e-4)
    weakest, scores = min(logits[:2]), logits[2:]
    spread = sorted(weakest - score for score in scores)
    # Half-way between two of the scores, so that no rounding decides.
    for margin in [0.0, *((a + b) / 2 for a, b in itertools.pairwise(spread) if b - a > 1e-3)]:
        judge.margin = margin
        assert judge(query, golds, texts) == [score <= weakest - margin for score in scores]
    assert CrossEncoderJudge(str(cross_encoder), 0.75).margin == 0.75


def test_a_classifier_of_several_outputs_is_no_cross_encoder(cross_encoder, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    config = BertConfig.from_pretrained(cross_encoder, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "two")
    AutoTokenizer.from_pretrained(cross_encoder).save_pretrained(tmp_path / "two")
    with pytest.raises(RequestError, match=r"^mine\.cross_encoder=.* has 2 outputs; a cross_encoder has one"):
        CrossEncoderJudge(str(tmp_path / "two"), 0.0)


def test_a_run_judges_and_its_scores_are_computed_once(cross_encoder, tmp_path, monkeypatch):
    """Its own folder, `run://`; the model itself is asked for what is not in the cache."""
    from rag_experiments.config.schema import CrossEncoderConfig
    from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder

    texts = ["the house", "a dog runs", "the house", "cat"]
    saved = CrossEncoder.load(CrossEncoderConfig(path=str(cross_encoder), precision="fp32"), frozen=True)
    saved.save(tmp_path / "run" / "model")
    asked: list[int] = []
    inner = CrossEncoder.score
    monkeypatch.setattr(
        CrossEncoder, "score", lambda self, queries, *more: asked.append(len(queries)) or inner(self, queries, *more)
    )
    first = CrossEncoderJudge(f"run://{tmp_path / 'run'}", 0.0, tmp_path / "cache").score("where is it", texts)
    again = CrossEncoderJudge(f"run://{tmp_path / 'run'}", 0.0, tmp_path / "cache")
    assert again.score("where is it", [*texts, "a star"])[:4] == first
    assert asked == [3, 1]
    again.score("another question", texts[:1])
    assert asked == [3, 1, 1]
    np.testing.assert_allclose(first, inner(saved, ["where is it"] * 4, texts), rtol=1e-4, atol=1e-4)


def test_an_encoder_is_no_judge(tiny_bert):
    with pytest.raises(RequestError, match=r"^mine\.cross_encoder=.* without a head that scores"):
        CrossEncoderJudge(str(tiny_bert), 0.0)


@pytest.mark.parametrize(
    ("answer", "long_enough"),
    [("1912", True), ("191", False), ("of it", True), ("müh", False), ("北京", True), ("北", False), (" 191 ", False)],
)
def test_an_answer_too_short_to_be_looked_for(answer, long_enough):
    """A short word is in any text by chance; two characters of an unspaced script are two words."""
    assert mining._long_enough(answer) == long_enough
