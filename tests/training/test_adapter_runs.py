"""Whole runs of encoders and rerankers with adapters: trained, killed, opened again, searched with, exported."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file, save_file

from rag_experiments import ask, evaluate, export, train
from rag_experiments.config.schema import CrossEncoderConfig, EncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.shared.adapter_folder import has_adapters
from rag_experiments.runs.directory import RunDirectory
from tests.conftest import write_small_data, write_tiny_bert
from tests.models.conftest import make_tokenizer
from tests.numeric import assert_near
from tests.training.test_model_usage import blocks, executed
from tests.training.test_run import interrupted_copy, loss_curve, run_at
from tests.training.test_run import request as of_encoder

TEXTS = ["cat\nthe red cat sleeps in house one", "dog\nthe blue dog sleeps in tree two", "stone"]
STEPS = (
    "model.lora.r=4", "trainer.max_steps=9", "trainer.save_strategy=steps", "trainer.save_steps=7",
    "trainer.logging_steps=1", "trainer.eval_strategy=no", "trainer.load_best_model_at_end=false",
    "evaluation.latency=0",
)  # fmt: skip


def words(kind: str, model: Path, data: Path, root: Path, *more: str) -> list[str]:
    arguments = of_encoder(model, data, root, *STEPS, *more)
    if kind == "encoder":
        return arguments
    changes = ["algorithm=rerank", "retriever=bm25", "~model@retriever.encoder", "model=run"]
    return [*(word for word in arguments if "pooling" not in word), *changes, "model.kind=cross_encoder"]


@pytest.fixture(scope="module", params=["encoder", "reranker"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunDirectory]:
    root = tmp_path_factory.mktemp(f"adapted_{request.param}")
    model, data = write_tiny_bert(root / "bert"), write_small_data(root / "data")
    return request.param, run_at(root / "run", words(request.param, model, data, root))


def opened(kind: str, path: object, frozen: bool = True) -> Encoder | CrossEncoder:
    if kind == "encoder":
        return Encoder.load(EncoderConfig(path=str(path), precision="fp32"), "cpu", frozen=frozen)
    return CrossEncoder.load(CrossEncoderConfig(path=str(path), precision="fp32"), frozen, "cpu")


def computed(model: Encoder | CrossEncoder):
    return model.embed_passages(TEXTS) if isinstance(model, Encoder) else model.score(["where is it"] * 3, TEXTS)


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(run.model_dir / "adapter_model.safetensors")


def test_the_run_holds_adapters_that_learnt_and_its_checkpoints_too(run):
    kind, finished = run
    for folder in (finished.model_dir, finished.checkpoints_dir / "checkpoint-7"):
        assert not {"model.safetensors", "config.json"} & {file.name for file in folder.iterdir()}
    moved = [name for name, value in weights(finished).items() if "lora_B" in name and value.abs().sum() > 0]
    assert len(moved) == sum("lora_B" in name for name in weights(finished)) > 0
    assert any("classifier" in name for name in weights(finished)) == (kind == "reranker")


def test_resumed_it_is_the_run_that_was_not_killed(run, tmp_path):
    _, whole = run
    cut = interrupted_copy(whole, tmp_path / "cut", "checkpoint-7")
    assert train.start([f"resume={cut.path}"]) == 0
    assert loss_curve(cut) == loss_curve(whole)
    for name, value in weights(whole).items():
        assert torch.equal(weights(cut)[name], value), name


def test_its_figures_are_found_again_and_it_is_asked(run, capsys):
    _, finished = run
    assert evaluate.start([f"run={finished.path}", "name=again"]) == 0
    again = json.loads((finished.path / "evaluations" / "again" / "metrics.json").read_text())
    before = finished.read_final_metrics()
    same = {name for name in again if name.startswith(("dev/", "test/")) and "second" not in name}
    assert same
    assert {name: again[name] for name in same} == pytest.approx({name: before[name] for name in same})
    assert ask.start([f"run={finished.path}", "where is the red cat one", "retriever.k=2"]) == 0
    assert "[2]" in capsys.readouterr().out


def test_its_readme_opens_it(run, monkeypatch):
    kind, finished = run
    model = opened(kind, finished.model_dir)
    found = blocks(finished.model_dir)
    for library in ["sentence-transformers", *(["transformers"] if kind == "encoder" else [])]:
        names = executed(found[library], finished.model_dir, monkeypatch)
        texts = [f"{title}\n{text}" for title, text in names["passages"]]
        if isinstance(model, Encoder):
            assert_near(names["passage_vectors"], model.embed_passages(texts), 1e-5)
        else:
            assert_near(names["scores"], model.score([names["question"]] * len(texts), texts), 1e-5)
    assert "adapters only" in (finished.model_dir / "README.md").read_text()


def test_an_export_is_whole_and_needs_no_base(run, tmp_path):
    kind, finished = run
    more = ["retriever=bm25"] if kind == "reranker" else []
    assert export.start([f"run={finished.path}", str(tmp_path / "out"), *more]) == 0
    folder = tmp_path / "out" / "model"
    files = {file.name for file in folder.iterdir()}
    assert {"model.safetensors", "config.json", "README.md"} <= files
    assert not any("adapter" in name for name in files)
    assert "adapters" not in (tmp_path / "out" / "README.md").read_text() + (folder / "README.md").read_text()
    wanted = computed(opened(kind, finished.model_dir))
    assert_near(computed(opened(kind, folder)), wanted, 1e-5)
    if kind == "encoder":
        theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    else:
        theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(
            [("where is it", text) for text in TEXTS]
        )
    assert_near(theirs, wanted, 1e-5)


def test_it_is_trained_further(run, tmp_path):
    """The same adapters on the same base."""
    kind, finished = run
    model = finished.model_dir
    arguments = [
        word
        for word in words(kind, model, write_small_data(tmp_path / "data"), tmp_path)
        if not word.startswith(("model.lora", "model.path", "model.pooling", "model.kind", "model=run"))
    ]
    second = run_at(
        tmp_path / "second", [*arguments, "model=run", f"model.path=run://{finished.path}", "trainer.max_steps=2"]
    )
    assert weights(second).keys() == weights(finished).keys()
    assert any(not torch.equal(value, weights(finished)[name]) for name, value in weights(second).items())
    facts = [json.loads((one.model_dir / "rag_experiments.json").read_text())["config"] for one in (finished, second)]
    assert facts[0]["path"] == facts[1]["path"]


def test_frozen_it_searches_or_reranks_for_another_run(run, tmp_path):
    kind, finished = run
    base = write_tiny_bert(tmp_path / "bert")
    data = write_small_data(tmp_path / "data")
    if kind == "encoder":
        plain = words("reranker", base, data, tmp_path)
        plain = [word for word in plain if word not in ("retriever=bm25", "~model@retriever.encoder")]
        more = ["model@retriever.encoder=run", f"retriever.encoder.path=run://{finished.path}"]
        more += ["retriever.encoder.precision=fp32"]
    else:
        plain = words("encoder", base, data, tmp_path)
        more = ["model@retriever.reranker=run", f"retriever.reranker.path=run://{finished.path}"]
        more += ["retriever.reranker.precision=fp32", "retriever.rerank_depth=5"]
    arguments = [*plain, *more, "trainer.max_steps=1", "evaluation.zero_shot=false"]
    behind = run_at(tmp_path / "behind", arguments)
    parts = ask.open_parts(behind.path, [])
    frozen = parts.retriever.encoder_behind if kind == "encoder" else parts.retriever.reranker
    assert not has_adapters(frozen.backbone)
    assert_near(computed(frozen), computed(opened(kind, finished.model_dir)), 1e-5)


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_the_plan_counts_adapters_and_fresh_weights_take_none(kind, tiny_bert, small_data, tmp_path, capsys):
    arguments = words(kind, tiny_bert, small_data, tmp_path)
    assert train.start([*arguments, "plan=true"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if f"{kind} parameters" in line)
    trained = int(line.split(" of them trained")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert 0 < trained < int(line.split()[2].replace(",", ""))
    with pytest.raises(RequestError, match=r"model\.lora: .* model\.init=random"):
        train.start([*arguments, "model.init=random"])


def test_gone_bases_are_named_before_weights_are_read(run, tmp_path):
    kind, finished = run
    shutil.copytree(finished.model_dir, tmp_path / "moved")
    facts = json.loads((tmp_path / "moved" / "rag_experiments.json").read_text())
    facts["config"]["path"] = "/no/such/base"
    (tmp_path / "moved" / "rag_experiments.json").write_text(json.dumps(facts))
    with pytest.raises(RequestError, match=r"the base of the adapters in .*'/no/such/base'"):
        opened(kind, tmp_path / "moved")


def test_settings_are_those_of_the_adapters(run):
    kind, finished = run
    model = opened(kind, finished.model_dir, frozen=False)
    assert model.config.lora is not None
    assert (model.config.lora.r, model.config.lora.alpha) == (4, 32)
    assert dataclasses.replace(model.config.lora, target_modules="").dropout == 0.05


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_in_pieces_recomputed_and_with_the_best_checkpoint_kept(kind, tiny_bert, small_data, tmp_path):
    more = [
        "trainer.max_steps=4", "trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.save_steps=2",
        "trainer.load_best_model_at_end=true", "trainer.activation_checkpointing=true", "algorithm.mini_batch_size=4",
    ]  # fmt: skip
    finished = run_at(tmp_path / "run", [*words(kind, tiny_bert, small_data, tmp_path), *more])
    best = min(
        (folder for folder in finished.checkpoints_dir.iterdir() if (folder / "adapter_model.safetensors").is_file()),
        key=lambda folder: sum(
            not torch.equal(value, weights(finished)[name])
            for name, value in load_file(folder / "adapter_model.safetensors").items()
        ),
    )
    for name, value in load_file(best / "adapter_model.safetensors").items():
        assert torch.equal(value, weights(finished)[name]), name


def test_a_plan_of_qwens_encoder_with_adapters_fits_a_small_gpu(small_data, tmp_path, capsys):
    """By its published shape: the weights' file is not read."""
    fields = {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_669, "max_position_embeddings": 32_768,
    }  # fmt: skip
    folder = tmp_path / "qwen"
    transformers.AutoConfig.for_model("qwen3", **fields).save_pretrained(folder)
    make_tokenizer(ends=False).save_pretrained(folder)
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    arguments = [
        "plan=true", "model=qwen3_embedding_0.6b", f"model.path={folder}", "algorithm=ctl", "data=jsonl",
        f"data.path={small_data}", "tracking=none", f"paths.cache={tmp_path}/cache",
    ]  # fmt: skip
    gib = {}
    for name, more in (("adapters", ["model.lora.r=16"]), ("whole", [])):
        assert train.start([*arguments, *more]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory"))
        gib[name] = float(line.split()[1])
    assert gib == {"adapters": 2.37, "whole": 8.88}
