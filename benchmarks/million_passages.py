"""Measure memory and time for a large corpus: python -m benchmarks.million_passages [passages …]

The benchmark writes that many short passages as native JSON lines; then it imports, embeds (with a BERT of one layer
and 32 dimensions, random weights) and searches them, each stage in a process of its own. For each stage it prints the
seconds, the peak resident memory, and the anonymous part of it, which the machine must really have (the rest are pages
of memory-mapped files, which the system drops when it needs memory). `beyond` is the anonymous part minus the bytes of
the index.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORDS, DIMENSION, QUESTIONS = 4000, 32, 200


def main(sizes: list[int]) -> None:
    """Run all stages for each size and print a table."""
    print(
        f"{'passages':>9}  {'stage':<7} {'seconds':>8} {'peak MiB':>9} "
        f"{'anonymous':>10} {'index MiB':>10} {'beyond':>8}"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder), size)
            write_encoder(Path(folder) / "encoder")
            for stage in ("import", "embed", "search"):
                command = [sys.executable, "-m", "benchmarks.million_passages", "--stage", stage, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found = json.loads(done.stdout.splitlines()[-1])
                index = size * DIMENSION * 4 / 2**20 if stage == "search" else 0.0
                print(
                    f"{size:>9,}  {stage:<7} {found['seconds']:>8.1f} {found['peak']:>9.0f} "
                    f"{found['anonymous']:>10.0f} {index:>10.0f} {found['anonymous'] - index:>8.0f}",
                    flush=True,
                )


def write_corpus(folder: Path, size: int) -> None:
    """Write `passages.jsonl` with passages of 20 words, and splits with some questions."""
    draw = random.Random(0)
    vocabulary = [f"word{n}" for n in range(WORDS)]
    with open(folder / "passages.jsonl", "w", encoding="utf-8") as file:
        for n in range(size):
            text = " ".join(draw.choices(vocabulary, k=20))
            file.write(json.dumps({"id": f"p{n}", "title": f"word{n % WORDS}", "text": text}) + "\n")
    for split in ("train", "dev", "test"):
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for n in range(QUESTIONS):
                asked = " ".join(draw.choices(vocabulary, k=6))
                row = {"question": f"{split} {n} {asked}", "positive_ids": [f"p{draw.randrange(size)}"]}
                file.write(json.dumps(row) + "\n")


def write_encoder(folder: Path) -> None:
    """Write an encoder with one layer, random weights and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    sizes = {"hidden_size": DIMENSION, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder)


def run_stage(stage: str, folder: Path) -> None:
    """Run and measure one stage; print a line of JSON."""
    from rag_experiments.data.formats.jsonl import JsonlConfig
    from rag_experiments.data.load import load_data

    watch = Watch()
    started = time.perf_counter()
    cache = folder / "cache"
    data = load_data(JsonlConfig(path=str(folder)), cache)
    if stage != "import":
        from rag_experiments.config.schema import EncoderConfig, RetrieverConfig
        from rag_experiments.models.encoder.encoder import Encoder
        from rag_experiments.retrieval.dense import DenseRetriever
        from rag_experiments.retrieval.embedding import embed_corpus

        encoder = Encoder.load(EncoderConfig(path=str(folder / "encoder"), pooling="mean", batch_size=256))
        if stage == "embed":
            embed_corpus(encoder, data.passages, cache, progress=False)
        else:
            retriever = DenseRetriever(RetrieverConfig(), data.passages, encoder, cache)
            found = retriever.search([question.question for question in data.splits["test"]], 20)
            assert (found.rows_QK >= 0).all()
    print(json.dumps({"seconds": time.perf_counter() - started, **watch.stop()}))


class Watch:
    """The highest resident and anonymous memory of this process in MiB, measured every 20 ms."""

    def __init__(self) -> None:
        self._peak = self._anonymous = 0.0
        self._going = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """Stop measuring; returns the highest values."""
        self._going = False
        self._thread.join()
        return {"peak": self._peak, "anonymous": self._anonymous}

    def _watch(self) -> None:
        while self._going:
            for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    self._peak = max(self._peak, int(line.split()[1]) / 1024)
                elif line.startswith("RssAnon:"):
                    self._anonymous = max(self._anonymous, int(line.split()[1]) / 1024)
            time.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        run_stage(sys.argv[2], Path(sys.argv[3]))
    else:
        main([int(word) for word in sys.argv[1:]] or [100_000, 1_000_000])
