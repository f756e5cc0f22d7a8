"""README.md beside a model: its code, run as it stands, gives the vectors and answers that the run gave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_experiments import ask, train
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import model_usage
from tests.conftest import write_small_data
from tests.numeric import assert_near
from tests.training.test_run import request, run_at

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
READER = (
    "algorithm=swr", "retriever=bm25", "retriever.k=2", "model.max_new_tokens=6", "trainer.max_steps=1",
    "trainer.per_device_train_batch_size=4", "evaluation.zero_shot=false", "evaluation.splits=[test]",
)  # fmt: skip


def blocks(folder: Path) -> dict[str, str]:
    """Heading of a README → its first block of Python."""
    parts = re.split(r"^#+ (.+)$", (folder / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        code = BLOCK.search(text)
        if code:
            found[heading] = code[1]
    return found


def executed(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a block leaves behind when it is run in `folder`."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "more",
    [
        ("model.query_prefix='the '", "model.passage_prefix='a '"),
        ("model.pooling=cls", "model.similarity=dot", "model.max_passage_length=4"),
        ("model.pooling=last", "model.dimension=8"),
    ],
)
def test_an_encoders_readme_gives_its_vectors(
    more: tuple[str, ...], tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path, "trainer.max_steps=1")
    kept = [one for one in arguments if one != "model.pooling=mean" or "pooling" not in more[0]]
    run = run_at(tmp_path / "run", [*kept, "evaluation.zero_shot=false", *more])
    encoder = ask.open_parts(run.path, []).models["encoder"]
    found = blocks(run.model_dir)
    assert list(found) == ["sentence-transformers", "transformers", "LangChain", "LlamaIndex"]
    for library in ("sentence-transformers", "transformers"):
        names = executed(found[library], run.model_dir, monkeypatch)
        texts = [f"{title}\n{text}" for title, text in names["passages"]]
        if library == "transformers" or "model.max_passage_length=4" not in more:
            assert_near(np.asarray(names["passage_vectors"]), encoder.embed_passages(texts))
        assert_near(np.asarray(names["query_vectors"]), encoder.embed_queries([names["question"]]))


def test_a_rerankers_readme_gives_its_scores(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("algorithm=rerank", "retriever=bm25", "~model@retriever.encoder", "trainer.max_steps=2", "model=run")
    words = [
        word for word in request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path) if "pooling" not in word
    ]
    run = run_at(tmp_path / "run", [*words, *more, "model.kind=cross_encoder", "evaluation.latency=2"])
    names = executed(blocks(run.model_dir)["sentence-transformers"], run.model_dir, monkeypatch)
    own = CrossEncoder.load(CrossEncoderConfig(path=str(run.model_dir), precision="fp32"))
    assert_near(np.asarray(names["scores"]), own.score([names["question"]] * len(names["texts"]), names["texts"]), 1e-5)
    figures = run.read_final_metrics()
    assert {"test/recall@1", "test/first_stage/recall@1", "seconds/prepare"} <= figures.keys()
    assert "test/seconds/rerank_p50" in figures


def test_a_tokenizer_that_reads_line_breaks_gets_them_from_langchain_too(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangChain's own class puts spaces for them; the real library is run by `benchmarks.clients`."""
    arguments = request(tiny_llama, write_small_data(tmp_path / "data"), tmp_path, "trainer.max_steps=1")
    run = run_at(tmp_path / "run", [*arguments, "evaluation.zero_shot=false", "model.append_eos=true"])
    found = blocks(run.model_dir)
    assert "class LinesKept(HuggingFaceEmbeddings)" in found["LangChain"]
    encoder = ask.open_parts(run.path, []).models["encoder"]
    for library in ("sentence-transformers", "transformers"):
        names = executed(found[library], run.model_dir, monkeypatch)
        texts = [f"{title}\n{text}" for title, text in names["passages"]]
        assert_near(np.asarray(names["passage_vectors"]), encoder.embed_passages(texts))


def reader_run(model: Path, root: Path, *more: str) -> RunDirectory:
    arguments = [one for one in request(model, write_small_data(root / "data"), root) if "algorithm" not in one]
    kept = [one for one in arguments if not one.startswith("model.pooling")]
    return run_at(root / "run", [*kept, *READER, *more])


@pytest.mark.parametrize("kind", ["chat", "plain", "t5", "adapters", "beams", "short"])
def test_a_readers_readme_gives_its_answers(
    kind: str, tmp_path: Path, tiny_llama: Path, tiny_plain_llama: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, more = {
        "chat": (tiny_llama, ()),
        "plain": (tiny_plain_llama, ()),
        "t5": (tiny_t5, ("model.kind=encoder_decoder",)),
        "adapters": (tiny_llama, ("model.lora.r=2",)),
        "beams": (tiny_llama, ("evaluation.num_beams=3", "model.instruction='Say \"it\".'")),
        "short": (tiny_llama, ("model.max_input_length=280",)),
    }[kind]
    run = reader_run(model, tmp_path, *more)
    names = executed(blocks(run.model_dir)["run"], run.model_dir, monkeypatch)
    components = ask.open_parts(run.path, [])
    reader, store = components.models["reader"], components.data.passages
    for row in run.read_predictions("test"):
        given = [store[int(number)] for number in store.rows(row["given_ids"])]
        prompt = reader.prompts.for_question(ask.asked(row["question"]), given)
        pairs = [(passage.title, passage.text) for passage in given]
        assert names["prompt"](row["question"], pairs) == prompt.ids
        assert names["answer"](row["question"], pairs) == row["answer"]
        assert names["prompt"](row["question"], []) == reader.prompts.for_question(ask.asked(row["question"]), []).ids
    text = (run.model_dir / "README.md").read_text(encoding="utf-8")
    assert f"print(answer(question, passages))  # {names['answer'](names['question'], names['passages'])!r}\n" in text


def test_text_that_looks_like_code_stays_text(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = '```\n"""\'; raise SystemExit {{ 7 }} {% raw %} <|im_end|> \\n \u202e'
    run = reader_run(tiny_llama, tmp_path)
    example = model_usage.Example(hostile, [(hostile, hostile)], hostile)
    monkeypatch.setattr(model_usage, "example_of", lambda *_: example)
    components = ask.open_parts(run.path, [])
    model_usage.write_readmes(run, components.config, components.data)
    names = executed(blocks(run.model_dir)["run"], run.model_dir, monkeypatch)
    assert names["question"] == hostile
    assert names["passages"] == [(hostile, hostile)]


def test_fusion_in_decoder_is_not_passed_off_as_plain_generation(tmp_path: Path, tiny_llama: Path) -> None:
    data = write_small_data(tmp_path / "data")
    arguments = [one for one in request(tiny_llama, data, tmp_path) if "algorithm" not in one and "pooling" not in one]
    more = [one for one in READER if "swr" not in one]
    assert train.start([*arguments, *more, "algorithm=fid", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    text = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Fusion-in-Decoder" in text
    assert "```python" not in text
