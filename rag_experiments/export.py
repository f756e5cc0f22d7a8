"""A finished run as plain files that other tools open: weights, index, passages.

python -m rag_experiments.export run=<dir> DIR [data, retriever overrides]

DIR/README.md           how to open each, as code to copy
DIR/model/              the run's model (safetensors), for from_pretrained or SentenceTransformer; an encoder's or
                        reranker's adapters are merged into its weights
DIR/encoder/            the retriever's encoder, where the run trained another model
DIR/reranker/           the retriever's reranker, where it has one that the run did not train
DIR/index/              FAISS (index.faiss) or bm25s; a hybrid retriever has dense/ and bm25/
DIR/passages.parquet    id, title, text, and the vector where there is one; row i is the index's row i
DIR/run.trec            what was retrieved for test (run.dev.trec: dev), as trec_eval reads it
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.config import command_line
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_directory
from rag_experiments.data.shown_ids import shown_rows
from rag_experiments.evaluation.trec import run_lines
from rag_experiments.model_files.metadata import is_adapter, read_facts
from rag_experiments.training.reopen import Reopened, reopen, split_run

if TYPE_CHECKING:
    import numpy as np

    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.retrieval.retriever import Retriever

log = logging.getLogger(__name__)

USAGE = """Take a finished run's parts elsewhere: model, index and passages as plain files, with a README.

    python -m rag_experiments.export run=<dir> DIR [key=value …]

DIR is made; it must not exist or be empty. Data and retriever keys may be overridden, such as retriever=faiss_hnsw."""

RUN_FILES = {"test": "run.trec", "dev": "run.dev.trec"}
"""A split to the file of what the run's model retrieved for its questions."""
_PARQUET_BLOCK = 10_000
"""Passages in memory at a time."""


def main() -> None:
    """The console script and `python -m`."""
    command_line.exit_with(start)


def start(arguments: list[str]) -> int:
    """From the typed arguments to an exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return command_line.DONE
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders, others = command_line.split_words(arguments)
    line = command_line.parse(others)
    refuse_secrets(line.overrides)
    directory, changes = split_run(line.overrides, "export")
    if len(folders) != 1:
        raise RequestError("python -m rag_experiments.export run=<run directory> DIR: needs one folder to write to")
    target = new_folder(folders[0])
    export(reopen(directory, changes, line.config_dir), target)
    return command_line.DONE


def new_folder(name: str | Path) -> Path:
    """The folder to write.

    Raises:
        RequestError: something is there.
    """
    target = Path(name).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(f"{target} exists already and is not an empty folder; nothing was written")
    return target


def export(opened: Reopened, target: Path) -> None:
    """Write all parts to `target`, whole or not at all. A reader's own weights are copied, never loaded."""
    from rag_experiments.training.build import load_trained, make_retriever

    request = opened.request
    # A reader's own weights are copied, never loaded.
    models = load_trained(request, skip={"reader"})
    retriever = make_retriever(request, models)
    retriever.refresh(persist=True)
    passages = request.data.passages
    encoder = encoder_of(retriever)
    with atomic_directory(target) as folder:
        shutil.copytree(opened.run.model_dir, folder / "model")
        trained = any(encoder is model for model in models.values())
        if encoder is not None and not trained:
            encoder.save(folder / "encoder")
        reranker, first = getattr(retriever, "reranker", None), first_of(retriever)
        if reranker is not None and "reranker" not in models:
            reranker.save(folder / "reranker")
        first.save(folder / "index")
        write_parquet(passages, folder / "passages.parquet", vectors_of(retriever))
        save_merged(models, folder / "model")
        several = not (opened.run.model_dir / "config.json").is_file() and (opened.run.model_dir / "encoder").is_dir()
        place = ("model/encoder" if several else "model") if trained else "encoder"
        write_readmes(opened, retriever, folder, place)
        for split, name in RUN_FILES.items():
            rows = list(shown_rows(opened.run.read_predictions(split), passages))
            if rows:
                (folder / name).write_text("".join(run_lines(rows, opened.run.path.name)), encoding="utf-8")
    log.info("%s: model, index and %d passages of %s", target, len(passages), opened.run.path)


def save_merged(models: Mapping[str, Any], folder: Path) -> None:
    """In place of adapters the whole model that they make: what is exported may lie where their base does not.

    Args:
        models: role → component, of which those with adapters lose them.
        folder: a copy of the run's `model/`.
    """
    for role, component in models.items():
        if getattr(component, "merge_adapters", bool)():
            own = folder if is_adapter(folder) else folder / role
            shutil.rmtree(own)
            component.save(own)


def write_parquet(passages: PassageStore, file: Path, vectors_ND: np.ndarray | None = None) -> None:
    """All passages in their order with their vectors, where there are any; a block in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    if vectors_ND is not None:
        schema = schema.append(pa.field("vector", pa.list_(pa.float32(), vectors_ND.shape[1])))
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(passages), _PARQUET_BLOCK):
            stop = min(start + _PARQUET_BLOCK, len(passages))
            rows = [passages[row] for row in range(start, stop)]
            columns: list[Any] = [
                [passage.shown_id for passage in rows],
                [passage.title for passage in rows],
                [passage.text for passage in rows],
            ]
            if vectors_ND is not None:
                numbers = pa.array(vectors_ND[start:stop].reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(numbers, vectors_ND.shape[1]))
            writer.write_table(pa.table(columns, schema=schema))


def write_readmes(opened: Reopened, retriever: Retriever, folder: Path, place: str) -> None:
    """`README.md` of the export, and beside each model where a run of an earlier version has none.

    Args:
        place: the encoder's folder within the export.
    """
    from rag_experiments.training import model_usage

    name, config = opened.run.path.name, opened.request.config
    example = model_usage.example_of(opened.run, opened.request.data)
    frozen = [folder / place] if place == "encoder" and (folder / place).is_dir() else []
    for model in [*model_usage.model_folders(folder / "model"), *frozen]:
        if not (model / model_usage.README).exists():
            text = model_usage.model_readme(model, name, config, example, trained=model not in frozen)
            if text:
                (model / model_usage.README).write_text(text, encoding="utf-8")
    (folder / model_usage.README).write_text(readme(opened, retriever, folder, place), encoding="utf-8")


def readme(opened: Reopened, retriever: Retriever, folder: Path, place: str) -> str:
    """What is in the exported `folder`, and the code that opens it.

    Args:
        place: the encoder's folder within it.
    """
    from rag_experiments.retrieval.hybrid import DEPTH
    from rag_experiments.training import model_usage

    config, data = opened.request.config, opened.request.data
    folders = model_usage.model_folders(folder / "model")
    several = [model.name for model in folders if model != folder / "model"]
    kind = " and ".join(several) or config.model.kind
    example = model_usage.example_of(opened.run, data)
    name = config.retriever.type
    dense = {"faiss": "index", "hybrid": "index/dense"}.get(name)
    reader: dict[str, Any] = {}
    for model in folders:
        if (read_facts(model) or {}).get("kind") in ("decoder", "encoder_decoder"):
            reader = model_usage.reader_values(model, config, model.relative_to(folder).as_posix())
    return model_usage.rendered(
        "export.md",
        **{
            **(model_usage.encoder_values(folder / place) if dense else {}),
            **reader,
            "name": opened.run.path.name,
            "path": opened.run.path,
            "algorithm": config.algorithm.name,
            "kind": kind,
            "opens": "each in a folder of its own" if several else _opens(kind, folder / "model"),
            "encoder": place if encoder_of(retriever) is not None else None,
            "reader": bool(reader) and not reader["fid"],
            "count": len(data.passages),
            "trec": {split: file for split, file in RUN_FILES.items() if opened.run.predictions_path(split).is_file()},
            "usage": [file.parent.relative_to(folder).as_posix() for file in sorted(folder.rglob("README.md"))],
            "writer": f"{type(first_of(retriever)).__module__}.{type(first_of(retriever)).__qualname__}.save",
            "dense_index": dense,
            "word_index": {"bm25": "index", "hybrid": "index/bm25"}.get(name),
            "fusion": config.retriever.fusion,
            "rrf_k": config.retriever.rrf_k,
            "dense_weight": config.retriever.dense_weight,
            "depth": DEPTH,
            "reranker": _reranker_place(retriever, folder),
            "rerank_depth": config.retriever.rerank_depth,
            "question": example.question,
            "answer": None if opened.changes else example.answer,  # of the run's own retriever
            "k": config.retriever.k,
        },
    )


def _reranker_place(retriever: Retriever, folder: Path) -> str | None:
    """Where in the export the reranker lies; None without one."""
    if getattr(retriever, "reranker", None) is None:
        return None
    return next((place for place in ("reranker", "model/reranker") if (folder / place).is_dir()), "model")


def _opens(kind: str, model_dir: Path) -> str:
    if kind == "encoder":
        return "opens with `SentenceTransformer` or `transformers.AutoModel`"
    if kind == "cross_encoder":
        return "opens with `sentence_transformers.CrossEncoder`"
    if (model_dir / "adapter_config.json").is_file():
        return "adapters, open with `peft.AutoPeftModel…from_pretrained`"
    return "opens with `transformers.AutoModel…from_pretrained`"


def vectors_of(retriever: Retriever) -> np.ndarray | None:
    """The indexed vectors `[N, D]`, in passage order; `None` where words decide."""
    from rag_experiments.retrieval.dense import DenseRetriever

    dense = getattr(first_of(retriever), "dense", first_of(retriever))
    return dense.vectors if isinstance(dense, DenseRetriever) else None


def first_of(retriever: Retriever) -> Any:
    """What finds the passages that a reranker orders; the retriever itself without one."""
    return getattr(retriever, "first", retriever)


def encoder_of(retriever: Retriever) -> Any:
    """The encoder behind a retriever; `None` where words decide."""
    return getattr(retriever, "encoder_behind", None)


if __name__ == "__main__":
    main()
