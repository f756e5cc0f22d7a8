"""A finished run as plain files that other tools open: weights, index, passages.

python -m rag_experiments.export run=<dir> DIR [data, retriever overrides]

DIR/README.md           how to open each, as code to copy
DIR/model/              the run's model (safetensors), for from_pretrained or SentenceTransformer
DIR/encoder/            the retriever's encoder, where the run trained a reader
DIR/index/              FAISS (index.faiss) or bm25s; a hybrid retriever has dense/ and bm25/
DIR/passages.parquet    id, title, text; row i is the index's row i
DIR/run.trec            what was retrieved for test (run.dev.trec: dev), as trec_eval reads it
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.config import command_line
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_directory
from rag_experiments.evaluation.trec import run_lines
from rag_experiments.training.reopen import Reopened, reopen, split_run

if TYPE_CHECKING:
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

_README_DENSE = """
The index holds the passages' vectors in the encoder's own similarity ({similarity}), row by row as `passages.parquet`.

```python
import faiss
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{encoder}")
index = faiss.read_index("{index}/index.faiss")
passages = pq.read_table("passages.parquet")
vectors = encoder.encode(["{question}"], prompt_name="query")
scores, rows = index.search(vectors, 4)
for score, row in zip(scores[0], rows[0]):
    print(score, passages["id"][int(row)], passages["text"][int(row)])
```
"""

_README_BM25 = """
```python
import bm25s
import pyarrow.parquet as pq
from rag_experiments.retrieval.bm25 import terms_of

index = bm25s.BM25.load("{index}")
passages = pq.read_table("passages.parquet")
rows, scores = index.retrieve([terms_of("{question}")], k=4)
for score, row in zip(scores[0], rows[0]):
    print(score, passages["id"][int(row)], passages["text"][int(row)])
```
"""


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
    with atomic_directory(target) as folder:
        shutil.copytree(opened.run.model_dir, folder / "model")
        if not models and encoder_of(retriever) is not None:
            encoder_of(retriever).save(folder / "encoder")
        retriever.save(folder / "index")
        write_parquet(passages, folder / "passages.parquet")
        several = not (opened.run.model_dir / "config.json").is_file() and (opened.run.model_dir / "encoder").is_dir()
        place = ("model/encoder" if several else "model") if models else "encoder"
        text = readme(opened, retriever, place)
        (folder / "README.md").write_text(text, encoding="utf-8")
        for split, name in RUN_FILES.items():
            rows = opened.run.read_predictions(split)
            if rows:
                (folder / name).write_text("".join(run_lines(rows, opened.run.path.name)), encoding="utf-8")
    log.info("%s: model, index and %d passages of %s", target, len(passages), opened.run.path)


def write_parquet(passages: PassageStore, file: Path) -> None:
    """All passages in their order, a block in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(passages), _PARQUET_BLOCK):
            rows = [passages[row] for row in range(start, min(start + _PARQUET_BLOCK, len(passages)))]
            columns = [[getattr(passage, name) for passage in rows] for name in schema.names]
            writer.write_table(pa.table(columns, schema=schema))


def readme(opened: Reopened, retriever: Retriever, encoder_folder: str) -> str:
    """What is in the folder and the code that opens it."""
    config, kind = opened.request.config, opened.request.config.model.kind
    questions = next((found for found in opened.request.data.splits.values() if found), [])
    asked = questions[0].question if questions else "your question"
    question = asked.splitlines()[0].replace("\\", " ").replace('"', "'") if asked.strip() else "your question"
    lines = [
        f"# {opened.run.path.name}",
        "",
        f"Exported from `{opened.run.path}` ({config.algorithm.name}, {kind}).",
        "",
        f"- `model/`: the trained {kind}, safetensors; {_opens(kind, opened.run.model_dir)}",
        "- `index/`: what the retriever searches",
        f"- `passages.parquet`: {len(opened.request.data.passages)} passages (`id`, `title`, `text`)",
    ]
    if encoder_folder == "encoder" and encoder_of(retriever) is not None:
        lines.insert(5, "- `encoder/`: the retriever's encoder, opens with `SentenceTransformer`")
    lines += [
        f"- `{name}`: what was retrieved for the {split} questions, for TREC's tools"
        for split, name in RUN_FILES.items()
        if opened.run.predictions_path(split).is_file()
    ]
    parts = ["\n".join(lines) + "\n"]
    name = config.retriever.type
    hybrid = name == "hybrid"
    if hybrid or name == "faiss":
        settings = {
            "index": "index/dense" if hybrid else "index",
            "similarity": encoder_of(retriever).config.similarity,
        }
        parts.append(_README_DENSE.format(encoder=encoder_folder, question=question, **settings))
    if hybrid or name == "bm25":
        parts.append(_README_BM25.format(index="index/bm25" if hybrid else "index", question=question))
    if len(parts) == 1:  # a kind from outside the package: how its index is opened, its own package knows
        parts.append(f"\n`index/` is what `{type(retriever).__module__}.{type(retriever).__qualname__}.save` wrote.\n")
    return "".join(parts)


def _opens(kind: str, model_dir: Path) -> str:
    if kind == "encoder":
        return "opens with `SentenceTransformer` or `transformers.AutoModel`"
    if (model_dir / "adapter_config.json").is_file():
        return "adapters, open with `peft.AutoPeftModel…from_pretrained`"
    return "opens with `transformers.AutoModel…from_pretrained`"


def encoder_of(retriever: Retriever) -> Any:
    """The encoder behind a retriever; `None` where words decide."""
    return getattr(retriever, "encoder_behind", None)


if __name__ == "__main__":
    main()
