"""Every encoder preset: complete, cited, and its architecture runs small with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.models.encoder.encoder import Encoder

CONF = Path(__file__).parents[2] / "conf" / "model"
ARCHITECTURES = {
    "minilm": "bert",
    "minilm_hub": "bert",
    "bert_tiny_scratch": "bert",
    "e5_small": "bert",
    "e5_base": "bert",
    "e5_large": "bert",
    "multilingual_e5_small": "bert",
    "multilingual_e5_base": "xlm-roberta",
    "multilingual_e5_large": "xlm-roberta",
    "bge_small": "bert",
    "bge_base": "bert",
    "bge_large": "bert",
    "bge_m3": "xlm-roberta",
    "contriever": "bert",
    "contriever_msmarco": "bert",
    "gte_base": "bert",
    "gte_modernbert": "modernbert",
    "modernbert_embed": "modernbert",
    "qwen3_embedding_0.6b": "qwen3",
    "gtr_t5_base": "t5",
    "mpnet": "mpnet",
    "multi_qa_mpnet": "mpnet",
}
"""The model type in each released model's config.json."""


def presets() -> dict[str, Path]:
    files = sorted(CONF.glob("*.yaml"))
    return {file.stem: file for file in files if yaml.safe_load(file.read_text())["kind"] == "encoder"}


def test_every_encoder_preset_is_listed_here() -> None:
    assert set(presets()) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_preset_says_everything_and_cites_its_card(name: str) -> None:
    text = presets()[name].read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert text.startswith("# ")
    if not name.endswith("_scratch"):
        assert "https://huggingface.co/" in text
    wanted = {"pooling", "similarity", "query_prefix", "passage_prefix", "max_query_length", "max_passage_length"}
    assert wanted <= set(values)
    assert "auto" not in values.values()
    TypeAdapter(EncoderConfig).validate_python(values)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_preset_runs_small(name: str, make_folder: Callable[..., Path], texts: list[str]) -> None:
    values = yaml.safe_load(presets()[name].read_text(encoding="utf-8"))
    model_type = ARCHITECTURES[name]
    # Short texts and small positions: what is tried is that every setting is taken and the pieces fit.
    lengths = {"max_query_length": 32, "max_passage_length": 32}
    config = TypeAdapter(EncoderConfig).validate_python({**values, **lengths})
    folder = make_folder(model_type, ends=model_type != "qwen3")
    config = dataclasses.replace(config, path=str(folder), precision="fp32", init="pretrained", architecture=None)
    encoder = Encoder.load(config)
    queries, passages = encoder.embed_queries(texts), encoder.embed_passages(texts)
    assert queries.shape == passages.shape == (len(texts), 32)
    assert np.isfinite(queries).all()
    assert np.isfinite(passages).all()
    unit = np.allclose(np.linalg.norm(passages[:3], axis=1), 1.0, atol=1e-5)
    assert unit == (values["similarity"] == "cosine")
    prefixed = values["query_prefix"] != values["passage_prefix"]
    assert (np.abs(queries - passages).max() > 1e-4) == prefixed
    assert encoder.config.pooling == values["pooling"]


def test_scratch_preset_builds_from_its_own_architecture(make_folder: Callable[..., Path]) -> None:
    values = yaml.safe_load(presets()["bert_tiny_scratch"].read_text(encoding="utf-8"))
    config = TypeAdapter(EncoderConfig).validate_python({**values, "path": str(make_folder())})
    assert Encoder.load(config).dimension == values["architecture"]["hidden_size"]
