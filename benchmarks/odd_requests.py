"""Random odd requests: each must be accepted, or refused with one sentence. A traceback is a bug of this package.

    python -m benchmarks.odd_requests [--count 1000] [--seed 0]

A request has keys of any group with values that people type by mistake: other alphabets, quotes, brackets, null, wrong
types, interpolations, deletions, Hydra's own flags. Nothing is trained: an accepted request ends after its plan. The
benchmark prints how many requests were accepted and refused, and each request that ended in a traceback or left a file
behind. The exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.config.groups import GROUPS, OPTION_GROUPS, choices

VALUES = (
    *("", "null", "None", "true", "false", "0", "-1", "1", "1e400", "nan", "inf", "1_000", "0x10", "9" * 400),
    *(
        "a",
        "/tmp",
        "/dev/null",
        "/dev/zero",
        "/nowhere",
        "~/x",
        "~nobody/x",
        ".",
        "..",
        "müller",
        "数据",
        "a#b",
        "it's",
    ),
    *('"', "'", "''", '""', "a,b", "a=b", "a b", " a ", "[1,2]", "[1", "1]", "{a: b}", "{a:", "[]", "{}", "(a)", "a;b"),
    *("<x>", "&", "a|b", "`ls`", "$HOME", "${oc.env:NOT_SET_HERE}", "${seed}", "${nothing}", "${", "}", "???", "*"),
    *("choice(a,b)", "range(1,3)", "interval(0,1)", "run(1)", "tag(a)", "glob(*)", "\\", "a\\", "C:\\x", "\x1b[31m"),
    *("\u202e", "a\nb", "e\u0301", "[null]", "[[1]]", "{model_type: nope}", "{model_type: bert}", "...", "a.b", ".a"),
    *("run://none", "run://", "package://", "package://none/x", "hub://x", "https://x", "org/name", "os.system"),
    *("builtins.print", "rag_experiments.algorithms.ctl.CTLTrainer", "minilm", "ctl", "wandb", "auto", "-m", "--"),
)
NESTED = (
    *(
        "model.path",
        "model.kind",
        "model.revision",
        "model.architecture",
        "model.init",
        "model.precision",
        "model.lora",
    ),
    *("model.pooling", "model.batch_size", "model.dimension", "model._target_", "model.query_prefix", "model.lora.r"),
    *("algorithm._target_", "algorithm.name", "algorithm.temperature", "algorithm.teacher", "algorithm.teacher.path"),
    *(
        "algorithm.refresh",
        "algorithm.hard_negatives",
        "algorithm.nothing",
        "data._target_",
        "data.format",
        "data.path",
    ),
    *("data.files", "data.files.train", "data.columns", "data.dev_fraction", "data.max_train", "data.preset"),
    *("retriever.type", "retriever.k", "retriever._target_", "retriever.encoder", "retriever.encoder.path"),
    *("trainer.learning_rate", "trainer.max_steps", "trainer.optim", "trainer.fp16", "trainer.bf16", "trainer.nothing"),
    *("trainer.load_best_model_at_end", "trainer.eval_strategy", "trainer.lr_scheduler_kwargs", "trainer.output_dir"),
    *("trainer.metric_for_best_model", "trainer.deepspeed", "trainer.report_to", "trainer.warmup_steps"),
    *("evaluation.cutoffs", "evaluation.splits", "evaluation.depth", "evaluation.bootstrap", "tracking.tags"),
    *(
        "tracking.project",
        "tracking.mode",
        "sweep.metric",
        "sweep.study",
        "paths.outputs",
        "paths.cache",
        "paths.sweeps",
    ),
    *(
        "seed",
        "name",
        "resume",
        "early_stopping",
        "hydra.run.dir",
        "hydra.job.name",
        "hydra.verbose",
        "hydra.sweep.dir",
    ),
    *("hydra.searchpath", "hydra.output_subdir", "chain", "chain.stages", "nothing", "a.b.c", "model@nowhere"),
    *(
        "model@retriever.encoder",
        "model@retriever.reranker",
        "model@algorithm.teacher",
        "model@",
        "hydra/launcher",
        "hydra/sweeper",
        "a/b",
        "@",
    ),
)
FLAGS = (
    *("--cfg nope", "-c", "--cfg job", "--cfg", "--info", "--info nope", "--hydra-help", "--config-name=x"),
    *("--config-path /tmp", "--config-dir /nowhere", "--config-dir", "--resolve", "--package a", "-p", "--version"),
    *("--nothing", "-x", "--learning_rate 1e-5", "--multirun", "--experimental-rerun x", "-h"),
)
ALGORITHMS = ("ctl", "sft", "dca", "rpg", "swr", "fid", "rerank")


def requests(seed: int) -> Iterator[list[str]]:
    """Yield valid requests with one to three odd words added, without end."""
    chance = random.Random(seed)
    keys = [*NESTED, *GROUPS, *OPTION_GROUPS]
    while True:
        words = [f"algorithm={chance.choice(ALGORITHMS)}"] if chance.random() < 0.8 else []
        for _ in range(chance.randint(1, 3)):
            kind = chance.random()
            key, value = chance.choice(keys), chance.choice(VALUES)
            if kind < 0.72:
                words.append(f"{chance.choice(('', '', '', '', '+', '++', '~'))}{key}={value}")
            elif kind < 0.8:
                words.append(chance.choice((f"~{key}", key, f"={value}", f"+={value}", value, f"{key}==1")))
            elif kind < 0.9:
                group = chance.choice(OPTION_GROUPS)
                words.append(f"{group}={chance.choice([*choices(group), value])}")
            else:
                words += chance.choice(FLAGS).split()
        chance.shuffle(words)
        yield words


def outcome(words: list[str]) -> tuple[str, str]:
    """`taken`, `refused` or `traceback`, and what was printed."""
    printed, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
            command_line.exit_with(train.start, words)
    except SystemExit as leaving:
        text = told.getvalue()
        if leaving.code == command_line.DONE:
            return "taken", text
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        one = leaving.code == command_line.WRONG_REQUEST and len(lines) == 1 and "Traceback" not in text
        return ("refused", lines[0]) if one else ("traceback", f"exit {leaving.code}\n{text}")
    except BaseException:
        return "traceback", traceback.format_exc()
    return "traceback", "no exit status"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every request and its result")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        before = sorted(Path(folder).rglob("*"))
        made = requests(options.seed)
        for number in range(1, options.count + 1):
            words = next(made)
            # A plan trains nothing; the last word wins, and the small data set reads no files.
            result, text = outcome([*words, "data=keyvalue", "plan=true", f"paths.cache={folder}/cache"])
            counts[result] += 1
            if options.show or result == "traceback":
                print(f"{number}: {result}: {words}\n{text if result != 'taken' else ''}", flush=True)
            left = [
                path for path in sorted(Path(folder).rglob("*")) if path not in before and "cache" not in path.parts
            ]
            if left:
                counts["left something behind"] += 1
                print(f"{number}: left {left[0]}: {words}", flush=True)
                before = sorted(Path(folder).rglob("*"))
    print(f"{options.count} requests, seed {options.seed}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    sys.exit(1 if counts["traceback"] or counts["left something behind"] else 0)


if __name__ == "__main__":
    main()
