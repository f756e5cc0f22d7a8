"""What each of two processes does of an evaluation: run by tests/training/test_processes.py as `torchrun` would."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from rag_experiments.core import distributed
from rag_experiments.retrieval.embedding import embed_corpus
from tests.evaluation.test_generation import QUESTIONS, evaluator
from tests.retrieval.fakes import ListPassages, WordEncoder


def shares(folder: Path) -> dict[str, object]:
    """Answers, counts and vectors as this process has them at the end, and what it computed itself."""
    made = evaluator(oracle=True)
    result = made.evaluate(QUESTIONS)
    encoder, texts = WordEncoder(), ListPassages([f"passage number {n}" for n in range(7)])
    vectors_ND = embed_corpus(encoder, texts, folder / "cache", progress=False, store=False, block=4)
    return {
        "answers": [row["answer"] for row in result.rows],
        "oracle": [row.get("oracle_answer") for row in result.rows],
        "cut": result.metrics["truncation/prompts"],
        "asked": [len(given) for given in made.reader.asked],
        "vectors": vectors_ND.tolist(),
        "embedded": encoder.embedded,
        "one": distributed.in_order(distributed.gathered([text.upper() for text in distributed.own_share(["a"])])),
        "none": distributed.in_order(distributed.gathered(distributed.own_share([]))),
    }


if __name__ == "__main__":
    if distributed.several():
        dist.init_process_group("gloo")
    found = shares(Path(sys.argv[1]))
    Path(sys.argv[1], f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found), encoding="utf-8")
