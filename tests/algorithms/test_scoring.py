"""The score cache and what it stands for: the same numbers from disk, from the model, batched, shared or alone."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer
from rag_experiments.algorithms.shared.score_cache import ScoreCache, pair_key
from rag_experiments.config.schema import ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.reader.prefix_scorer import PrefixScorer, can_share
from rag_experiments.models.reader.reader import Reader
from tests.algorithms.score_writers import open_new, write_many
from tests.examples import PASSAGES
from tests.numeric import assert_near
from tests.tiny_readers import tiny_llama, tiny_plain_llama, tiny_t5  # noqa: F401 - fixtures

QUESTIONS = ["Where does the cat sleep?", "What does a fish eat?", "Who runs?"]
ANSWERS = ["in the house", "a star", "a dog that is large"]


def open_reader(folder: Path, kind: str = "decoder") -> Reader:
    config = ReaderConfig(path=str(folder), kind=kind, precision="fp32", max_input_length=900, batch_size=4)
    return Reader.load(config, device="cpu", frozen=True)


def pairs(reader: Reader):
    """Every question with every passage, no passage, and two passages."""
    shown = [[passage] for passage in PASSAGES] + [[], PASSAGES[:2]]
    prompts, texts = [], []
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        for passages in shown:
            prompts.append(reader.prompts.build(question, passages, answer=answer))
            texts.append(answer)
    return prompts, texts


def plain_log_probs(reader: Reader, prompt, answer: str) -> torch.Tensor:
    """The pair alone, all logits, nothing kept."""
    ids = torch.tensor([[*prompt.ids, *reader.answer_ids(answer, include_end=False)]])
    with torch.no_grad():
        log_probs_LV = reader.module(input_ids=ids).logits[0].log_softmax(-1)
    return torch.stack([log_probs_LV[i - 1, ids[0, i]] for i in range(len(prompt), ids.shape[1])])


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_plain_llama"])
def test_shared_beginnings_change_no_score(fixture, request):
    reader = open_reader(request.getfixturevalue(fixture))
    prompts, texts = pairs(reader)
    shared = PrefixScorer(reader)
    for include_end in (False, True):
        found = shared.score(prompts, texts, include_end=include_end)
        expected = reader.score(prompts, texts, include_end=include_end)
        for ours, theirs in zip(found.tokens, expected.tokens, strict=True):
            assert_near(ours, theirs)


def test_batched_shared_and_one_by_one_agree(tiny_llama):  # noqa: F811
    reader = open_reader(tiny_llama)
    prompts, texts = pairs(reader)
    scorer = AnswerScorer(reader, None)
    for row, prompt, answer in zip(scorer.token_log_probs(prompts, texts), prompts, texts, strict=True):
        assert_near(row, plain_log_probs(reader, prompt, answer))


def test_sharing_computes_fewer_tokens(tiny_llama):  # noqa: F811
    reader = open_reader(tiny_llama)
    prompts, texts = pairs(reader)
    scorer = AnswerScorer(reader, None)
    scorer.token_log_probs(prompts, texts)
    assert scorer.tokens_asked == sum(
        len(prompt) + len(reader.answer_ids(text, include_end=False))
        for prompt, text in zip(prompts, texts, strict=True)
    )
    head, passages = len(prompts[0].head), {prompt.passages: sum(map(len, prompt.passages)) for prompt in prompts}
    tails = sum(
        len(prompt.tail) + len(reader.answer_ids(text, include_end=False)) - 1
        for prompt, text in zip(prompts, texts, strict=True)
    )
    assert scorer.tokens_computed == head + sum(passages.values()) + tails
    others = [dataclasses.replace(prompt, head=(*prompt.head, 5)) for prompt in prompts]
    scorer.token_log_probs(others, texts)
    assert scorer.tokens_computed == 2 * (head + sum(passages.values()) + tails) + 1, "every prompt's, summed"


def test_a_model_that_looks_back_a_window_does_not_share(tiny_llama):  # noqa: F811
    from transformers import MistralConfig, MistralForCausalLM

    reader = open_reader(tiny_llama)
    assert can_share(reader)
    size = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    reader.module = MistralForCausalLM(MistralConfig(**size, num_attention_heads=4, sliding_window=16))
    assert not can_share(reader)
    reader.module = MistralForCausalLM(MistralConfig(**size, num_attention_heads=4, sliding_window=None))
    assert can_share(reader)


def test_an_encoder_decoder_is_scored_without_sharing(tiny_t5):  # noqa: F811
    reader = open_reader(tiny_t5, "encoder_decoder")
    assert not can_share(reader)
    prompts, texts = pairs(reader)
    found = AnswerScorer(reader, None).token_log_probs(prompts, texts)
    for row, prompt, answer in zip(found, prompts, texts, strict=True):
        batch = reader.batch([(prompt.ids, reader.answer_ids(answer, include_end=False))])
        with torch.no_grad():
            expected = answer_tokens.answer_log_probs(reader.module, batch, "encoder_decoder")[0]
        assert_near(row, expected)


def test_a_second_run_reads_what_the_first_scored(tiny_llama, tmp_path, monkeypatch):  # noqa: F811
    first = AnswerScorer(open_reader(tiny_llama), tmp_path)
    prompts, texts = pairs(first.reader)
    scored = first.token_log_probs(prompts, texts)
    assert (first.hits, first.hit_rate) == (0, 0.0)
    second = AnswerScorer(open_reader(tiny_llama), tmp_path)
    monkeypatch.setattr(PrefixScorer, "score", lambda *_, **__: pytest.fail("a known pair was scored again"))
    for ours, theirs in zip(second.token_log_probs(prompts, texts), scored, strict=True):
        assert_near(ours, theirs)
    assert second.hit_rate == 1.0
    assert second.tokens_computed == 0


def test_a_pair_that_comes_twice_is_computed_once(tiny_llama):  # noqa: F811
    scorer = AnswerScorer(open_reader(tiny_llama), None)
    prompt = scorer.reader.prompts.build(QUESTIONS[0], PASSAGES[:1])
    one, two = scorer.token_log_probs([prompt, prompt], [ANSWERS[0]] * 2)
    np.testing.assert_array_equal(one, two)
    assert (scorer.lookups, scorer.hits, len(scorer.cache)) == (2, 1, 1)


def test_what_scores_cost_is_recorded_for_the_work_within_alone(tiny_llama):  # noqa: F811
    scorer = AnswerScorer(open_reader(tiny_llama), None)
    one, two = (scorer.reader.prompts.build(question, PASSAGES[:1]) for question in QUESTIONS[:2])
    scorer.token_log_probs([one], ANSWERS[:1])
    computed = scorer.tokens_computed
    figures: dict[str, float] = {}
    with scorer.counted(figures.__setitem__):
        scorer.token_log_probs([one, two], [ANSWERS[0]] * 2)
    answer = len(scorer.reader.answer_ids(ANSWERS[0], include_end=False))
    assert figures.pop("lm_seconds") > 0
    assert figures == {
        "cache_hit_rate": 0.5,
        "lm_tokens_asked": len(one) + len(two) + 2 * answer,
        "lm_tokens_computed": scorer.tokens_computed - computed,
    }


def test_a_cache_that_is_closed_opens_again_and_a_parents_connection_is_left_alone(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.close()
    cache.put({b"k": np.ones(1, dtype=np.float32)})
    cache.close()
    cache.close()
    assert set(cache.get([b"k"])) == {b"k"}
    opened = cache.connection
    cache._process -= 1  # as in a child of a fork
    cache.close()
    assert opened.execute("SELECT COUNT(*) FROM scores").fetchone() == (1,)


def test_another_model_and_another_instruction_have_another_file(tiny_llama, tiny_plain_llama, tmp_path):  # noqa: F811
    files = {
        AnswerScorer(reader, tmp_path).cache.file
        for reader in (
            open_reader(tiny_llama),
            open_reader(tiny_plain_llama),
            Reader.load(ReaderConfig(path=str(tiny_llama), precision="fp32", instruction="Answer."), device="cpu"),
            Reader.load(ReaderConfig(path=str(tiny_llama), precision="bf16"), device="cpu"),
        )
    }
    assert len(files) == 4
    changed = open_reader(tiny_llama)
    with torch.no_grad():
        next(changed.module.parameters()).add_(1e-3)
    assert AnswerScorer(changed, tmp_path).cache.file not in files


def test_keys_tell_prompt_from_answer():
    assert pair_key([1, 2], [3]) != pair_key([1], [2, 3])
    assert pair_key([1, 2], [3]) == pair_key((1, 2), (3,))


def test_values_come_back_as_they_went_in(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    values = {bytes([i]) * 16: np.array([-0.5, -1e-7 * i, -87.25], dtype=np.float32) for i in range(1200 % 256)}
    cache.put(values)
    cache.close()
    found = ScoreCache(tmp_path / "scores.sqlite").get([*values, b"unknown"])
    assert found.keys() == values.keys()
    for key, value in values.items():
        np.testing.assert_array_equal(found[key], value)


def test_the_first_value_of_a_key_stays(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put({b"k": np.array([-1.0])})
    cache.put({b"k": np.array([-2.0])})
    assert cache.get([b"k"])[b"k"].tolist() == [-1.0]


def test_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(tmp_path / "scores.sqlite", worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    cache = ScoreCache(tmp_path / "scores.sqlite")
    assert len(cache) == 3 * 60 * 5 + 60
    assert cache.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_processes_make_a_file_at_once(tmp_path):
    """SQLite refuses the change to WAL mode, at once and whatever the timeout, while another connection makes it."""
    context = multiprocessing.get_context("spawn")
    together, failures = context.Barrier(3), context.Queue()
    workers = [context.Process(target=open_new, args=(tmp_path, together, failures)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert failures.empty(), failures.get()


def test_a_file_that_is_no_cache_is_named(tmp_path):
    file = tmp_path / "scores.sqlite"
    file.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    with pytest.raises(RequestError, match=r"scores\.sqlite cannot be opened"):
        ScoreCache(file).get([b"k"])


def test_what_was_committed_survives_a_writer_that_is_gone(tmp_path):
    file = tmp_path / "scores.sqlite"
    cache = ScoreCache(file)
    cache.put({b"k": np.array([-1.0])})
    other = sqlite3.connect(file)
    other.execute("BEGIN")
    other.execute("INSERT INTO scores VALUES (?, ?)", (b"half", b""))
    other.close()  # as a killed process: never committed
    assert set(ScoreCache(file).get([b"k", b"half"])) == {b"k"}
