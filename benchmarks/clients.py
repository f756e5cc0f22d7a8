"""Do the READMEs of a model and of an export work with the libraries that they name, and give our vectors and answers?

    python -m benchmarks.clients                    makes an environment of its own and needs a package registry
    python -m benchmarks.clients --env DIR          takes the environment in DIR, or makes it there and leaves it

An encoder (MiniLM with two prefixes, a few steps of CTL), one whose tokenizer tells line breaks from spaces (a tiny
Llama), and a reader on the first (SmolLM2, two steps) are trained, and the reader is exported. Each block of Python in
the READMEs is then run as it stands by the environment's Python, in the README's folder. Its vectors are compared with
the encoder's own, the scores of its searches with `rag-ask`'s, and its answers with `rag-ask`'s answer. The exit status
is 1 where a difference is above 1e-5 or an answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGES = (
    "langchain-huggingface", "langchain-community", "llama-index-embeddings-huggingface", "haystack-ai",
    "sentence-transformers", "faiss-cpu", "pyarrow",
)  # fmt: skip
TORCH = "torch==2.13.0"
ALLOWED = 1e-5
"""Largest difference of a component or a score."""
SHOWN = {
    "sentence-transformers": "sentence-transformers",
    "transformers": "transformers",
    "LangChain": "langchain-huggingface",
    "LlamaIndex": "llama-index-embeddings-huggingface",
    "Haystack": "haystack-ai",
    "Search": "faiss-cpu",
    "Ask": "transformers",
    "run": "transformers",
}
"""A heading of a README → the package whose version is shown."""
STORES = {"LangChain": "langchain-community", "LlamaIndex": "llama-index-core"}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LEFT = """
import importlib.metadata as _metadata, json as _json, numpy as _np, sys as _sys
_kept = {}
for _name in ("passage_vectors", "query_vectors"):
    if _name in globals():
        _kept[_name] = _np.asarray(globals()[_name], dtype="float64").tolist()
for _name in ("question", "passages"):
    if _name in globals():
        _kept[_name] = globals()[_name]
_json.dump(_kept, open(_sys.argv[1], "w"))
"""
"""Appended to a block: what it left behind, for the comparison."""


def main() -> int:
    """Run all of it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clients") as folder:
        root = Path(folder)
        python = environment(arguments.env or root / "env")
        trained(root)
        rows = encoder_rows(python, root / "lines", "encoder that reads line breaks")
        rows += [*encoder_rows(python, root / "encoder"), *export_rows(python, root / "reader", root)]
    versions = {package: version(python, package) for package in {row[1] for row in rows}}
    print("| README | client | largest difference |\n|---|---|---|")
    for what, package, difference in rows:
        print(f"| {what} | {package} {versions[package]} | {difference} |")
    return int(any(row[2] != "same answer" and float(row[2]) > ALLOWED for row in rows))


def environment(folder: Path) -> Path:
    """The Python of a virtual environment with the client libraries."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", TORCH], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def version(python: Path, package: str) -> str:
    """Of a package in the environment."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def trained(root: Path) -> None:
    """The runs `lines`, `encoder` and `reader` in `root`, and the last one's export, `exported`."""
    from tests.tiny_readers import write_tiny_llama

    data = write_data(root / "data")
    shared = [
        "data=jsonl", f"data.path={data}", "tracking=none", f"paths.outputs={root}/outputs",
        f"paths.cache={Path('~/.cache/rag_experiments').expanduser()}", "model.precision=fp32", "trainer.use_cpu=true",
        "evaluation.zero_shot=false", "evaluation.bootstrap=0", "evaluation.splits=[test]",
    ]  # fmt: skip
    command("train", "algorithm=ctl", f"model.path={write_tiny_llama(root / 'llama')}", "model.pooling=last",
            "trainer.max_steps=2", "trainer.per_device_train_batch_size=8", f"hydra.run.dir={root / 'lines'}",
            *shared)  # fmt: skip
    command("train", "algorithm=ctl", "model=minilm", "model.query_prefix='query: '",
            "model.passage_prefix='passage: '", "trainer.max_steps=5",
            "trainer.per_device_train_batch_size=16", f"hydra.run.dir={root / 'encoder'}",
            *shared)  # fmt: skip
    command("train", "algorithm=swr", "model=smollm2_135m", "model@retriever.encoder=run", "trainer.max_steps=2",
            f"retriever.encoder.path=run://{root / 'encoder'}", "retriever.encoder.precision=fp32", "retriever.k=3",
            "trainer.per_device_train_batch_size=2", f"hydra.run.dir={root / 'reader'}", *shared)  # fmt: skip
    command("export", f"run={root / 'reader'}", str(root / "exported"))


def command(name: str, *arguments: str) -> str:
    """Standard output of `python -m rag_experiments.<name>`."""
    print(f"{name} …", file=sys.stderr, flush=True)
    line = [sys.executable, "-m", f"rag_experiments.{name}", *arguments]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_data(folder: Path) -> Path:
    """60 passages, some without a title, of several lines or of another script, with questions."""
    folder.mkdir()
    things = ["door", "lamp", "engine", "gate", "pump", "window"]
    places = ["cellar", "attic", "garage", "Küche", "θέατρο", "工場", "barn", "tower", "office", "harbour"]
    passages, questions = [], []
    for index in range(60):
        thing, place = things[index % 6], places[index // 6]
        code = f"{thing[0].upper()}-{100 + 7 * index}"
        text = f"The {thing} of the {place} opens with the code {code}.\n\nIt was last changed in {1950 + index}."
        passages.append({"id": f"p{index}", "title": "" if index % 5 == 0 else f"{thing} · {place}", "text": text})
        question = {"question": f"Which code opens the {thing} of the {place}?", "answers": [code]}
        questions.append({**question, "id": f"q{index}", "positive_ids": [f"p{index}"]})
    files = {"passages": passages, "train": questions[:40], "dev": questions[40:50], "test": questions[50:]}
    for name, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def blocks(folder: Path) -> dict[str, str]:
    """Heading of a README → its first block of Python."""
    parts = re.split(r"^#+ (.+)$", (folder / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    coded = ((heading, BLOCK.search(text)) for heading, text in zip(parts[1::2], parts[2::2], strict=True))
    return {heading: code[1] for heading, code in coded if code}


def executed(python: Path, folder: Path, code: str) -> tuple[dict[str, Any], list[str]]:
    """What a block left behind, and the lines that it printed, run by the environment's Python in `folder`."""
    with tempfile.TemporaryDirectory() as place:
        script, left = Path(place, "block.py"), Path(place, "left.json")
        script.write_text(code + LEFT, encoding="utf-8")
        surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
        line = [str(python), str(script), str(left)]
        ran = subprocess.run(line, cwd=folder, env=surroundings, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(left.read_text(encoding="utf-8")), ran.stdout.splitlines()


def encoder_rows(python: Path, run: Path, name: str = "encoder") -> list[tuple[str, str, str]]:
    """What, client, largest difference of a component: the README of an encoder."""
    import numpy as np

    from rag_experiments import ask

    encoder = ask.open_parts(run, []).models["encoder"]
    rows = []
    for heading, code in blocks(run / "model").items():
        print(f"{name}: {heading} …", file=sys.stderr, flush=True)
        left, _ = executed(python, run / "model", code)
        texts = [f"{title}\n{text}" if title else text for title, text in left["passages"]]
        differences = [
            np.abs(np.array(left["passage_vectors"]) - encoder.embed_passages(texts)).max(),
            np.abs(np.array(left["query_vectors"]) - encoder.embed_queries([left["question"]])).max(),
        ]
        rows.append((f"{name}, {heading}", SHOWN[heading], f"{max(differences):.1e}"))
    return rows


def export_rows(python: Path, run: Path, root: Path) -> list[tuple[str, str, str]]:
    """What, client, largest difference of a score or `same answer`: an export, and the README of a reader."""
    from rag_experiments import ask

    rows = []
    parts = ask.open_parts(run, [])
    for place, folder in (("export", root / "exported"), ("reader", root / "exported" / "model")):
        for heading, code in blocks(folder).items():
            print(f"{place}: {heading} …", file=sys.stderr, flush=True)
            left, printed = executed(python, folder, code)
            if heading == "Ask" or place == "reader":
                answer = command("ask", f"run={run}", left["question"]).splitlines()[0]
                what, package = (f"{place}, {heading}", SHOWN["Ask"]) if place == "export" else (place, SHOWN["run"])
                rows.append((what, package, "same answer" if printed[-1] == answer else "inf"))
                continue
            found = ask.search(parts, ask.asked(left["question"]), parts.config.retriever.k)
            hits = [line.split()[:2] for line in printed if re.match(r"-?\d+\.\d+ p\d+ ", line)]
            same = [one for _, one in hits] == [passage.id for _, passage in found]
            difference = max(abs(float(score) - own) for (score, _), (own, _) in zip(hits, found, strict=True))
            rows.append(
                (f"{place}, {heading}", STORES.get(heading, SHOWN[heading]), f"{difference:.1e}" if same else "inf")
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
