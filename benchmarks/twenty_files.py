"""Files as people have them: what each is taken for, how many rows are used, and whether training starts.

    python -m benchmarks.twenty_files [--count 60] [--seed 0] [--only WORD]

Real questions (`data=pydocs`: the running Python's documentation) are written in the shapes of `people_files.py`, and
each is given to `rag-data check PATH` and to a training of two steps with a tiny model. Where the path alone is asked
about, the override is typed as well. Printed, as Markdown: what was understood, the share of the rows whose question,
answer and passage are those that were written, and whether training started or what was said. The exit status is 1 if a
file was misread, or if a question about it led nowhere. About three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.people_files import SHAPES, FileShape, Row, Rows


@dataclass
class Attempt:
    """What became of one thing that was typed."""

    words: list[str]
    taken_for: str = ""
    right: int = 0
    """Rows that are read as they were written."""
    used: int = 0
    notes: list[str] = field(default_factory=list)
    trained: bool = False
    sentence: str = ""


def corpus(count: int, seed: int) -> list[Row]:
    """`count` questions about Python with the documentation that answers them."""
    from rag_experiments.data.formats import pydocs

    objects = sorted((item for item in pydocs.collect([]) if item.kind != "method"), key=lambda item: item.name)
    questions, golds = pydocs.make_questions(objects)
    text = {item.name: pydocs._passage(item, item.name in golds, 120).full_text for item in objects}
    usable = [one for one in questions if len(one.positive_ids) == 1 and one.id.count(".") > 0]
    chosen = random.Random(seed).sample(usable, count)
    contexts = [text[one.id] for one in chosen]
    return [
        Row(_cp1252(one.question), one.id, _cp1252(contexts[number]), _cp1252(contexts[number - 1]))
        for number, one in enumerate(chosen)
    ]


def _cp1252(text: str) -> str:
    """The text in the letters that every shape can hold."""
    return text.encode("cp1252", "ignore").decode("cp1252")


def said(task: Callable[[], Any]) -> tuple[int, str]:
    """The exit status and the printed text of a command."""
    from rag_experiments.config import command_line

    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            command_line.exit_with(lambda words: task(), [])
    except SystemExit as leaving:
        return int(leaving.code or 0), told.getvalue()
    except BaseException:
        return 1, told.getvalue() + traceback.format_exc()
    return 1, told.getvalue()


def attempt(shape: FileShape, words: list[str], rows: Rows, folder: Path, model: Path) -> Attempt:
    """Type `words` after `rag-data check` and after `train`."""
    from rag_experiments import train
    from rag_experiments.data import check
    from rag_experiments.data.load import load_data
    from rag_experiments.data.tools.data_command import NoOptions, parse

    result = Attempt(words)
    small = [f"paths.cache={folder}/cache", f"model.path={model}", "model.max_passage_length=64"]
    small += ["model.max_query_length=64", "model.precision=fp32"]
    fixed = ["--fix", f"{folder}/fixed"] if shape.fixed else []
    status, text = said(lambda: check.start([*words, *small, *fixed]))
    result.notes = re.findall(r"^note +(.*)$", text, re.MULTILINE)
    result.sentence = next((line for line in text.splitlines() if line.startswith("error: ")), "")
    if "Traceback" in text or (status and not result.sentence):
        result.sentence = f"TRACEBACK {text[-400:]}"
    if status:
        return result
    if shape.fixed:
        words = ["data=jsonl", f"data.path={folder}/fixed"]
    config = parse([*words, *small], "check", NoOptions).config
    read = next((note.removeprefix("columns read: ") for note in result.notes if note.startswith("columns read")), "")
    result.taken_for = f"`{config.data.format}`" + (f": {read}" if read else "")
    data = load_data(config.data, folder / "cache")
    result.used = sum(map(len, data.splits.values()))
    by_question = {one.question: one for questions in data.splits.values() for one in questions}
    for row in rows:
        one = by_question.get(row.question) or by_question.get(f"“{row.question}”")
        if one is None:
            continue
        golds = " ".join(" ".join(data.passages.full_texts(data.passages.rows(one.positive_ids))).split())
        holds = " ".join(row.context.split())[-60:] in golds
        result.right += holds and (row.answer in one.answers if shape.answered else not one.answers)
    run = ["algorithm=ctl", *words, *small, "trainer.max_steps=2", "trainer.eval_strategy=no", "tracking=none"]
    run += ["trainer.save_strategy=no", "trainer.load_best_model_at_end=false", "trainer.use_cpu=true"]
    run += ["model.pooling=mean"]
    run += ["evaluation.bootstrap=0", "trainer.per_device_train_batch_size=8", f"hydra.run.dir={folder}/run"]
    status, text = said(lambda: train.start(run))
    result.trained = status == 0 and (folder / "run" / "model").is_dir()
    if not result.trained:
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        result.sentence = lines[0] if lines else f"TRACEBACK {text[-400:]}"
    return result


def one_file(name: str, rows: Rows, folder: Path, model: Path) -> tuple[list[Attempt], bool]:
    """Every attempt at one shape, and whether the last one ended as it should."""
    shape = SHAPES[name]
    folder.mkdir()
    path = shape.write(folder, rows)
    attempts = [attempt(shape, [f"data.path={path}"], rows, folder, model)]
    if not attempts[0].trained and not attempts[0].sentence.startswith("TRACEBACK") and shape.override:
        override = [word.format(folder=folder) for word in shape.override]
        where = [] if any(word.startswith("data.path=") for word in override) else [f"data.path={path}"]
        attempts.append(attempt(shape, [*where, *override], rows, folder, model))
    last = attempts[-1]
    whole = len(rows) - shape.damaged
    right = not last.trained and last.sentence.startswith("error: ") if shape.refused else last.trained
    used = 0 < last.used <= whole if shape.placed else last.used == whole
    return attempts, right and (shape.refused or (used and last.right == last.used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="shapes whose name has this word")
    options = parser.parse_args()
    import torch

    from tests.conftest import write_tiny_bert

    torch.set_num_threads(1)
    rows = corpus(options.count, options.seed)
    wrong, shown = [], []
    with tempfile.TemporaryDirectory() as root:
        model = write_tiny_bert(Path(root, "bert"))
        names = [name for name in SHAPES if options.only in name]
        for number, name in enumerate(names):
            folder = Path(root, f"file{number}")
            attempts, right = one_file(name, rows, folder, model)
            wrong += [] if right else [name]
            for place, one in enumerate(attempts):
                shown.append(_line(name if place == 0 else "", one, str(folder)))
                print(shown[-1], flush=True)
    print(
        f"\n{len(names)} files of {options.count} rows, seed {options.seed}: {len(names) - len(wrong)} rightly "
        f"understood, asked about with an override that works, or rightly refused; wrong: {wrong or 'none'}"
    )
    sys.exit(1 if wrong else 0)


def _line(name: str, one: Attempt, folder: str) -> str:
    typed = " ".join(one.words[1:] if one.words[0].startswith("data.path=") else one.words)
    end = "yes" if one.trained else one.sentence.removeprefix("error: ").replace("|", "\\|")
    rows = f"{one.right} of {one.used}" if one.taken_for else ""
    usual = ("columns read", "no dev split", "no test split")
    notes = "; ".join(note for note in one.notes if not note.startswith(usual))
    cells = (name, f"`{typed}`" if typed else "", one.taken_for, rows, notes, end)
    return f"| {' | '.join(cells)} |".replace(folder, "DIR")


if __name__ == "__main__":
    main()
