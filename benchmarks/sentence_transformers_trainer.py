"""Contrastive training here beside sentence-transformers' own trainer: equal data, weights, batch and optimiser steps.

    python -m benchmarks.sentence_transformers_trainer pydocs
    python -m benchmarks.sentence_transformers_trainer covid --data data=hub data.preset=squad data.path=FILE

What stands behind `--data` are overrides of every run: the data and how they are split. Its trainer gets the pairs of
train and dev with what its documentation recommends: `MultipleNegativesRankingLoss` (scale 20), the batch sampler
`no_duplicates`, linear decay after a warm-up of a tenth, float32. The runs here add one choice after the other:

    one         a positive drawn for each question and epoch, dev chooses the checkpoint
    pairs       each pair of a question and a passage is an example
    refit       and then train and dev together, for as many steps as dev chose
    mined       and negatives mined by the encoder itself, refreshed every epoch

All are measured on test by this project's evaluator. Runs that have ended are not made again: `--out` keeps them.
Prints a Markdown table of the means over the seeds and of the paired difference to sentence-transformers, an interval
of 95 % over questions that share no gold passage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.comparison.analysis.statistics import question_test
from rag_experiments.core.files import atomic_write_json, atomic_write_jsonl
from rag_experiments.data.queries import retrieval_query
from rag_experiments.evaluation.bootstrap import gold_clusters

METRICS = ("ndcg@10", "mrr@10", "recall@1", "recall@4", "recall@20")
VARIANTS = {
    "one": ["algorithm.positives=one"],
    "pairs": ["algorithm.positives=pairs"],
    "refit": ["algorithm.positives=pairs", "refit=true"],
    "mined": ["algorithm.positives=pairs", "refit=true", "algorithm.negatives=mined"],
}
PEER = "sentence-transformers"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the data, for the folder and the table")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=["one", "pairs", "refit"])
    parser.add_argument("--out", type=Path, default=Path("outputs/beside_sentence_transformers"))
    parser.add_argument("--data", nargs="+", dest="overrides", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def pairs_of(questions: Any, passages: Any, history: Any) -> list[tuple[str, str]]:
    """Every question with each of its gold passages, as both sides read them."""
    return [
        (retrieval_query(question, history), passages.full_texts([int(row)])[0])
        for question in questions
        for row in passages.rows(question.distinct_golds)
    ]


def own_run(options: argparse.Namespace, variant: str, seed: int, steps: int) -> Path:
    """The finished run of a variant."""
    folder = (options.out / options.name / f"{variant}-{seed}").absolute()
    if not (folder / "metrics.json").is_file():
        words = [
            *("algorithm=ctl", f"seed={seed}", f"trainer.max_steps={steps}", f"trainer.learning_rate={options.rate}"),
            f"trainer.per_device_train_batch_size={options.batch}",
            *("trainer.eval_strategy=steps", f"trainer.eval_steps={math.ceil(steps / 4)}"),
            *("evaluation.baselines=[]", "evaluation.zero_shot=true", "tracking=none"),
            *(f"resume={folder}" if (folder / "config.yaml").is_file() else f"hydra.run.dir={folder}",),
        ]
        command = [sys.executable, "-m", "rag_experiments.train", *words, *VARIANTS[variant], *options.overrides]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def peer_model(options: argparse.Namespace, seed: int, request: Any, steps: int) -> Path:
    """The folder of the model that sentence-transformers trained."""
    folder = (options.out / options.name / f"{PEER}-{seed}").absolute()
    if (folder / "modules.json").is_file():
        return folder
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from transformers import set_seed

    from rag_experiments.model_files.sources import resolve

    set_seed(seed)
    data, history = request.data, request.config.data.query_history
    pairs = [pair for split in ("train", "dev") for pair in pairs_of(data.splits[split], data.passages, history)]
    model = SentenceTransformer(str(resolve(request.config.model.path).local), device="cpu")
    model.max_seq_length = request.config.model.max_passage_length or model.max_seq_length
    args = SentenceTransformerTrainingArguments(
        output_dir=str(folder.with_suffix(".checkpoints")),
        max_steps=steps,
        per_device_train_batch_size=options.batch,
        learning_rate=options.rate,
        warmup_steps=0.1,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        seed=seed,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    examples = datasets.Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [p for _, p in pairs]})
    started = time.perf_counter()
    SentenceTransformerTrainer(
        model=model, args=args, train_dataset=examples, loss=MultipleNegativesRankingLoss(model, scale=20.0)
    ).train()
    model.save_pretrained(str(folder))
    atomic_write_json(folder / "seconds.json", {"train": time.perf_counter() - started, "pairs": len(pairs)})
    return folder


def peer_rows(folder: Path, request: Any) -> list[dict[str, Any]]:
    """Test, measured with the model in `folder` as a run's own would be."""
    file = folder / "test.jsonl"
    if not file.is_file():
        from rag_experiments.training import build

        model = dataclasses.replace(request.config.model, path=str(folder))
        config = dataclasses.replace(request.config, model=model)
        components = build.build_components(dataclasses.replace(request, config=config))
        components.retriever.refresh()
        atomic_write_jsonl(file, components.evaluate(request.data.splits["test"]).rows)
    return read_rows(file)


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def means(sides: list[list[dict[str, Any]]], metric: str) -> dict[str, float]:
    """Of a metric over seeds, for each question."""
    values: dict[str, list[float]] = {}
    for rows in sides:
        for row in rows:
            values.setdefault(row["id"], []).append(row["metrics"][metric])
    return {name: float(np.mean(each)) for name, each in values.items()}


def main() -> None:
    """Train what is missing, and print the table."""
    options = arguments()
    from rag_experiments.config import command_line
    from rag_experiments.training.request import check_request

    request = check_request(command_line.compose(["algorithm=ctl", *options.overrides], None), training=False)
    data = request.data
    count = sum(len(pairs_of(data.splits[name], data.passages, "none")) for name in ("train", "dev"))
    steps = math.ceil(options.epochs * math.ceil(count / options.batch))
    sides: dict[str, list[list[dict[str, Any]]]] = {"untrained": []}
    seconds: dict[str, list[float]] = {}
    for seed in options.seeds:
        for variant in options.variants:
            run = own_run(options, variant, seed, steps)
            sides.setdefault(variant, []).append(read_rows(run / "predictions" / "test.jsonl"))
            seconds.setdefault(variant, []).append(json.loads((run / "metrics.json").read_text())["seconds/train"])
            if not sides["untrained"]:
                sides["untrained"].append(read_rows(run / "predictions" / "zero_shot" / "test.jsonl"))
        folder = peer_model(options, seed, request, steps)
        sides.setdefault(PEER, []).append(peer_rows(folder, request))
        seconds.setdefault(PEER, []).append(json.loads((folder / "seconds.json").read_text())["train"])
    gold = {row["id"]: row["gold_ids"] for row in sides[PEER][0]}
    clusters_Q = gold_clusters([gold[name] for name in gold])
    print(f"\n{options.name}: {count} pairs of train and dev, {len(gold)} test questions, {steps} steps of "
          f"{options.batch}, seeds {' '.join(map(str, options.seeds))}\n")  # fmt: skip
    print("| | " + " | ".join(METRICS) + " | ndcg@10 − theirs | seconds |\n|---|" + "---:|" * (len(METRICS) + 2))
    theirs = means(sides[PEER], "ndcg@10")
    for name, rows in sides.items():
        values = [f"{np.mean(list(means(rows, metric).values())):.3f}" for metric in METRICS]
        own = means(rows, "ndcg@10")
        test = question_test([own[key] - theirs[key] for key in gold], clusters_Q)
        difference = "" if name == PEER else f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
        cost = f"{np.mean(seconds[name]):.0f}" if name in seconds else ""
        print(f"| {name} | {' | '.join(values)} | {difference} | {cost} |")


if __name__ == "__main__":
    main()
