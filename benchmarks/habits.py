"""What people type by habit from other tools: how each is answered, and whether the answer can be pasted and runs.

    python -m benchmarks.habits [--only WORD]

Each habit is typed behind an algorithm and a small data set, with `plan=true`: everything is composed and checked, the
data is read, and no weights are. A command in the answer is typed in its turn. Printed, as Markdown: what was typed,
what was answered, and how the answered command ended; then the counts by tool. The exit status is 1 if a habit got no
help. About ten minutes.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.odd_requests import outcome
from benchmarks.typed_habits import HABITS

OWN_DATA = "questions.csv|dataset_name|dataset_dir|data=csv$"
"""Habits that name data themselves."""
ANSWER = "that is written otherwise here: "
_HELP = re.compile(r"did you mean|`|=|use |leave |there is no|--help \w|must be|is not a folder|no such file")


@dataclass
class Answer:
    """What became of one habit."""

    typed: str
    kind: str
    """`taken`, `runs` (the answered command does), `asks` (it is refused with a reason), `refused`, `no help`."""
    text: str


def answer(base: str, typed: str, more: list[str]) -> Answer:
    """Type a habit, and the command that answers it."""
    words = [base, *shlex.split(typed), *more]
    result, text = outcome(words)
    if result == "taken":
        return Answer(typed, "taken", "taken as it is")
    if result == "traceback":
        return Answer(typed, "no help", f"TRACEBACK {text.strip().splitlines()[-1]}")
    sentence = text.removeprefix("error: ")
    reasons, _, command = sentence.partition(ANSWER)
    if not command:
        return Answer(typed, "refused" if helps(sentence) else "no help", sentence)
    pasted = shlex.split(command.partition("rag_experiments.train")[2])
    shown = shlex.join(word for word in pasted if word not in (base, *more))
    result, text = outcome(pasted)
    shown = f"`{shown}`" if shown else ""
    if result == "taken":
        return Answer(typed, "runs", "; ".join(filter(None, [shown, reasons.strip("; ")])))
    then = text.removeprefix("error: ").strip().splitlines()[-1]
    kind = "asks" if result == "refused" and helps(then) and ANSWER not in then else "no help"
    return Answer(typed, kind, f"{shown}; then: {then}")


def _write_questions(file: Path) -> None:
    with open(file, "w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["question", "answer", "context"])
        for number in range(40):
            text = f"Thing number {number} is kept in the drawer called d{number}, says the list."
            writer.writerow([f"Where is thing {number} kept?", f"d{number}", text])


def helps(sentence: str) -> bool:
    """Whether a refusal says more than that a word is not known."""
    unknown = re.search(r"unknown (key|option)|is not one of the", sentence)
    return bool(_HELP.search(sentence.partition(unknown[0])[2] if unknown else sentence))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="habits with this word")
    options = parser.parse_args()
    from tests.tiny_readers import write_tiny_llama

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in ("questions.csv", "dev.csv"):
            _write_questions(Path(name))
        small = ["model=run", f"model.path={write_tiny_llama(Path(folder, 'llama'))}"]
        more = ["plan=true", f"paths.cache={folder}/cache", f"paths.outputs={folder}/outputs"]
        print("| tool | typed | answered | |\n|---|---|---|---|")
        for (tool, base), habits in HABITS.items():
            for typed in (one.strip() for one in habits.split(";")):
                if options.only in typed:
                    own = [] if re.search(OWN_DATA, typed) else ["data.path=questions.csv"]
                    own += [] if base != "algorithm=sft" or "model" in typed or "adapter_name" in typed else small
                    one = answer(base, typed, [*own, *more])
                    counts[tool][one.kind] += 1
                    text = one.text.replace(folder, "DIR").replace("|", "\\|")
                    print(f"| {tool} | `{typed}` | {text} | {one.kind} |", flush=True)
    kinds = ("taken", "runs", "asks", "refused", "no help")
    print(f"\n| | {' | '.join(kinds)} |\n|---|{'---:|' * len(kinds)}")
    for tool, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"| {tool} | {' | '.join(str(count[kind]) for kind in kinds)} |")
    sys.exit(1 if any(count["no help"] for count in counts.values()) else 0)


if __name__ == "__main__":
    main()
