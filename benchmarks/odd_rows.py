"""Tiny runs over data with one odd row: refused before weights, or completed. None ends after training began.

    python -m benchmarks.odd_rows [--count 300] [--seed 0]

Each run takes an algorithm, an oddness and a split by chance: a question longer than the reader reads, an answer
without a letter, a passage without a token, a name that no file can have, and so on. Printed: how the runs ended, by
oddness, and every run that ended late, which is also the exit status. About three seconds per run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.storm import Models, make_models, request
from rag_experiments import train
from rag_experiments.core.errors import RequestError

ALGORITHMS = ("ctl", "dca", "rpg", "sft", "swr", "fid", "rerank")
SPLITS = ("train", "dev", "test")
Row = dict[str, Any]


def turns(count: int, length: int) -> list[dict[str, str]]:
    """A dialogue of long turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": "word " * length} for number in range(count)]


QUESTIONS: dict[str, Callable[[Row], Row]] = {
    "a question of 5,000 letters": lambda row: {"question": "why " * 1250},
    "a question of one letter": lambda row: {"question": "?"},
    "a question of blanks": lambda row: {"question": "  "},
    "a question without a token": lambda row: {"question": "\u200b\u200d"},
    "a question with a control character": lambda row: {"question": "who\u0000is\u001b[31m it"},
    "a question with half a character": lambda row: {"question": "who \ud800 is it"},
    "a question with special tokens": lambda row: {"question": "<|im_end|><pad>[SEP] who?"},
    "a question in Thai": lambda row: {"question": "แมวอยู่ที่ไหน" * 30},
    "an answer of 3,000 letters": lambda row: {"answers": ["x" * 3000]},
    "an answer of blanks": lambda row: {"answers": ["   "]},
    "an empty answer": lambda row: {"answers": [""]},
    "an answer without a letter": lambda row: {"answers": ["—…"]},
    "an answer without a token": lambda row: {"answers": ["\u200b"]},
    "an answer that ends a turn": lambda row: {"answers": ["<|im_end|>"]},
    "no answers": lambda row: {"answers": []},
    "two hundred answers": lambda row: {"answers": [f"answer {number}" for number in range(200)]},
    "no positives": lambda row: {"positive_ids": []},
    "positives twice": lambda row: {"positive_ids": row["positive_ids"] * 2},
    "an unknown positive": lambda row: {"positive_ids": ["nowhere"]},
    "all are positives": lambda row: {"positive_ids": [f"p{number}" for number in range(40)]},
    "its positive as a negative": lambda row: {"negative_ids": row["positive_ids"]},
    "every other passage as a negative": lambda row: {"negative_ids": [f"p{number}" for number in range(30, 40)]},
    "a hundred turns": lambda row: {"history": turns(100, 3)},
    "a turn of 1,000 words": lambda row: {"history": turns(1, 1000)},
    "an empty turn": lambda row: {"history": [{"role": "user", "content": ""}]},
    "a name with slashes": lambda row: {"id": "../../a/b"},
    "a name of 400 letters": lambda row: {"id": "n" * 400},
    "a name with a line break": lambda row: {"id": "a\nb\t\u0007"},
    "a number as a name": lambda row: {"id": 17},
    "a field that nobody knows": lambda row: {"mood": "good"},
    "the question of another row": lambda row: {"question": "where is the red cat one"},
}
PASSAGES: dict[str, Callable[[Row], Row]] = {
    "a passage without text": lambda row: {"text": ""},
    "a passage of blanks": lambda row: {"text": " \n "},
    "a passage without a token": lambda row: {"text": "\u200b\u200d", "title": ""},
    "a passage of 20,000 words": lambda row: {"text": "word " * 20_000},
    "a passage of one word": lambda row: {"text": "x" * 30_000},
    "a passage with half a character": lambda row: {"text": "the \ud800 cat"},
    "a passage with a control character": lambda row: {"text": "the \u0000 cat\u001b]0;x\u0007"},
    "a passage that is another's copy": lambda row: {"text": "copy", "title": "copy"},
    "a passage's name of 400 letters": lambda row: {"title": "t" * 4000},
}


def odd_data(folder: Path, source: Path, what: str, split: str, chance: random.Random) -> None:
    """A copy of the data in `source` with one odd row."""
    shutil.copytree(source, folder)
    file = folder / ("passages.jsonl" if what in PASSAGES else f"{split}.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    place = chance.randrange(len(rows))
    change = PASSAGES[what] if what in PASSAGES else QUESTIONS[what]
    rows[place] = {**rows[place], **change(rows[place])}
    # ASCII: half a character is written as JSON writes it.
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def ended(arguments: list[str], directory: Path) -> tuple[str, str]:
    """`completed`, `refused before weights`, or `LATE`, and what was said."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            status = train.start([*arguments, f"hydra.run.dir={directory}"])
    except RequestError as error:
        return ("LATE" if directory.exists() else "refused before weights"), str(error)
    except BaseException:
        return "LATE", traceback.format_exc()
    if status == 0:
        return "completed", ""
    error = directory / "error.txt"
    return "LATE", error.read_text(encoding="utf-8") if error.is_file() else told.getvalue()


def one_run(number: int, root: Path, models: Models, chance: random.Random) -> tuple[str, str, str]:
    """What was odd, how the run ended, and what was said."""
    algorithm, split = chance.choice(ALGORITHMS), chance.choice(SPLITS)
    what = chance.choice([*QUESTIONS, *PASSAGES])
    data = root / f"data-{number}"
    odd_data(data, models.data, what, split, chance)
    words = [word for word in request(algorithm, models) if not word.startswith("data.path=")]
    words += [f"data.path={data}", "trainer.max_steps=2", "trainer.save_steps=1", "trainer.eval_steps=1"]
    words += [f"paths.cache={root}/cache", f"paths.outputs={root}/outputs", "trainer.logging_steps=1"]
    directory = root / f"run-{number}"
    result, said = ended(words, directory)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(data)
    return f"{what} ({'corpus' if what in PASSAGES else split}, {algorithm})", result, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    chance = random.Random(options.seed)
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        for number in range(1, options.count + 1):
            what, result, said = one_run(number, Path(folder), models, chance)
            counts[result] += 1
            by_kind[what.rpartition(" (")[0]][result] += 1
            if result == "LATE":
                print(f"{number}: {what}: ended late\n{said}", flush=True)
            if number % 10 == 0:
                print(f"{number}: {dict(counts)}", flush=True)
    for what, results in sorted(by_kind.items()):
        print(f"{what:<42} " + ", ".join(f"{n} {result}" for result, n in sorted(results.items())))
    print(f"{options.count} runs, seed {options.seed}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    sys.exit(1 if counts["LATE"] else 0)


if __name__ == "__main__":
    main()
