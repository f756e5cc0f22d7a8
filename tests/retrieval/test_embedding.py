"""The cache of corpus vectors: computed once, never stale, safe against kills and company."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.retrieval import embedding
from rag_experiments.retrieval.embedding import embed_corpus
from tests.numeric import assert_near
from tests.retrieval.fakes import ListPassages, WordEncoder
from tests.stand_in import stand_in


def test_vectors_are_those_of_the_passages_in_order(
    passages: ListPassages, encoder: WordEncoder, tmp_path: Path
) -> None:
    wanted = encoder.embed_queries(passages.texts)
    np.testing.assert_array_equal(embed_corpus(encoder, passages, tmp_path, False, block=7), wanted)
    np.testing.assert_array_equal(embed_corpus(encoder, passages, None, False, block=7), wanted)
    assert passages.largest_read == 7  # a corpus is never read whole


def test_a_second_time_nothing_is_embedded(passages: ListPassages, tmp_path: Path) -> None:
    embed_corpus(WordEncoder(), passages, tmp_path, False)
    again = WordEncoder()
    found = embed_corpus(again, passages, tmp_path, False)
    assert again.embedded == 0
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_other_weights_and_other_corpora_get_their_own(passages: ListPassages, tmp_path: Path) -> None:
    embed_corpus(WordEncoder(seed=0), passages, tmp_path, False)
    changed = WordEncoder(seed=1)
    np.testing.assert_array_equal(
        embed_corpus(changed, passages, tmp_path, False), WordEncoder(seed=1).embed_queries(passages.texts)
    )
    assert changed.embedded == len(passages)
    longer = ListPassages([*passages.texts, "one more"])
    assert embed_corpus(WordEncoder(), longer, tmp_path, False).shape == (61, WordEncoder.dimension)


def test_passing_weights_leave_nothing_on_disk_but_use_what_is_there(passages: ListPassages, tmp_path: Path) -> None:
    embed_corpus(WordEncoder(), passages, tmp_path, False, store=False)
    assert not (tmp_path / "vectors").exists()
    embed_corpus(WordEncoder(), passages, tmp_path, False)
    again = WordEncoder()
    embed_corpus(again, passages, tmp_path, False, store=False)
    assert again.embedded == 0


def test_a_killed_run_is_taken_up_where_it_stopped(passages: ListPassages, tmp_path: Path) -> None:
    killed = WordEncoder()
    killed.fail_after = 30
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(killed, passages, tmp_path, False, block=10)
    heir = WordEncoder()
    found = embed_corpus(heir, passages, tmp_path, False, block=10)
    assert (killed.embedded, heir.embedded) == (30, 30)
    np.testing.assert_array_equal(found, WordEncoder().embed_queries(passages.texts))
    left = sorted(path.name for path in (tmp_path / "vectors").rglob("*") if path.is_file())
    assert [name for name in left if not name.endswith(".lock")] == ["entry.json", "layout.json", "vectors.npy"]


def test_processes_side_by_side_share_the_work(passages: ListPassages, tmp_path: Path) -> None:
    encoders = [WordEncoder() for _ in range(4)]
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda e=e: found.append(embed_corpus(e, passages, tmp_path, False, block=3)))
        for e in encoders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encoder.embedded for encoder in encoders) == len(passages)
    for vectors in found:
        np.testing.assert_array_equal(vectors, WordEncoder().embed_queries(passages.texts))
    assert len(found) == 4


def test_a_full_disk_is_said_before_anything_is_computed(
    passages: ListPassages, encoder: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    stand_in(monkeypatch, embedding, "os", posix_fallocate=full)
    with pytest.raises(OSError, match=r"No space left on device \(paths.cache="):
        embed_corpus(encoder, passages, tmp_path, False)
    assert encoder.embedded == 0


def test_vectors_that_were_cut_short_are_made_again(passages: ListPassages, tmp_path: Path) -> None:
    embed_corpus(WordEncoder(), passages, tmp_path, False)
    (file,) = (tmp_path / "vectors").glob("*/vectors.npy")
    file.write_bytes(file.read_bytes()[:-500])
    again = WordEncoder()
    found = embed_corpus(again, passages, tmp_path, False)
    assert again.embedded == len(passages)
    np.testing.assert_array_equal(found, WordEncoder().embed_queries(passages.texts))


def test_a_trained_encoder_never_meets_its_old_vectors(tiny_bert: Path, passages: ListPassages, tmp_path: Path) -> None:
    encoder = Encoder.load(EncoderConfig(path=str(tiny_bert), precision="fp32"))
    before = np.array(embed_corpus(encoder, passages, tmp_path, False))
    import torch

    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight.add_(0.1 * torch.randn(1))
        encoder.backbone.embeddings.LayerNorm.weight[::2] *= 2
    after = embed_corpus(encoder, passages, tmp_path, False)
    assert np.abs(after - before).max() > 1e-3
    assert_near(after, encoder.embed_passages(passages.texts))
