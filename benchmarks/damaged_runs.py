"""Put damaged run directories next to sound ones: are the sound ones shown, and how long does it take?

    python -m benchmarks.damaged_runs                  700 damaged directories in folders of seven, 3 sound ones in each
    python -m benchmarks.damaged_runs --count 50 --seed 1

Each kind of damage is applied to a copy of a sound run: to a specific file, or to a randomly chosen one. `rag-compare`
then writes its table, csv and JSON, and the dashboard serves all of its pages. The benchmark checks that there is no
traceback and no status 500 and that every table shows the three sound runs, and it measures the seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

Damage = Callable[[Path, random.Random], None]

FOLDER = 7
"""Number of damaged runs in one folder."""
SOUND = ("sound-a", "sound-b", "sound-c")
PAGES = ("runs", "curves", "sweep", "questions", "cost", "repeat")
FILES = ("status.json", "config.yaml", "metrics.json", "metrics.jsonl", "predictions/test.jsonl", ".hydra/hydra.yaml")
LIMIT = 3.0
"""Maximum seconds for a command on a small folder."""


def _write(name: str, content: str | bytes) -> Damage:
    def damage(run: Path, _: random.Random) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (run / name).write_bytes(data)

    return damage


def _add(name: str, content: str) -> Damage:
    def damage(run: Path, _: random.Random) -> None:
        with open(run / name, "a", encoding="utf-8") as file:
            file.write(content)

    return damage


def _field(name: str, **fields: object) -> Damage:
    def damage(run: Path, _: random.Random) -> None:
        value = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps({**value, **fields}), encoding="utf-8")

    return damage


def _row(**fields: object) -> Damage:
    def damage(run: Path, _: random.Random) -> None:
        file = run / "predictions" / "test.jsonl"
        first, *rest = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join([json.dumps({**json.loads(first), **fields}), *rest]) + "\n", encoding="utf-8")

    return damage


def _replaced(make: Callable[[Path], object]) -> Damage:
    """Damage that replaces one randomly chosen file."""

    def damage(run: Path, chance: random.Random) -> None:
        file = run / chance.choice(FILES)
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        make(file)

    return damage


def _cut(run: Path, chance: random.Random) -> None:
    file = run / chance.choice(FILES[:5])
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data))])


def _flipped(run: Path, chance: random.Random) -> None:
    file = run / chance.choice(FILES[:5])
    data = bytearray(file.read_bytes())
    for _ in range(chance.randrange(1, 30)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(bytes(data))


def _sparse(file: Path) -> None:
    with open(file, "wb") as handle:
        handle.truncate(20 << 30)


def _socket(file: Path) -> None:
    here = os.getcwd()
    os.chdir(file.parent)  # a socket's address has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(file.name)
    finally:
        os.chdir(here)


def _bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def _merge_bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def _renamed(name: bytes) -> Damage:
    def damage(run: Path, chance: random.Random) -> None:
        number = str(chance.randrange(10**6)).encode()
        os.rename(os.fsencode(run), os.path.join(os.fsencode(run.parent), name + number))

    return damage


def _no_kind(run: Path, _: random.Random) -> None:
    (run / "predictions" / "test.jsonl").unlink()
    (run / "predictions" / "test.jsonl").mkdir()


def _error_pipe(run: Path, _: random.Random) -> None:
    (run / "error.txt").unlink()
    os.mkfifo(run / "error.txt")


DIGITS = "9" * 400
DEEP = 100_000
KINDS: dict[str, Damage] = {
    "config: a date": _add("config.yaml", "when: 2024-01-01\n"),
    "config: a set": _add("config.yaml", "some: !!set {a, b}\n"),
    "config: bytes": _add("config.yaml", "some: !!binary aGVsbG8=\n"),
    "config: an object of Python": _add("config.yaml", "some: !!python/object/apply:os.getcwd []\n"),
    "config: a tag that does not fit": _add("config.yaml", "some: !!bool maybe\n"),
    "config: a cycle": _add("config.yaml", "loop: &loop {again: *loop}\n"),
    "config: an alias bomb": _add("config.yaml", _bomb()),
    "config: a bomb of merges": _add("config.yaml", _merge_bomb()),
    "config: deep lists": _add("config.yaml", "deep: " + "[" * DEEP + "]" * DEEP + "\n"),
    "config: deep blocks": _add("config.yaml", "deep:\n" + "".join(" " * i + "- \n" for i in range(1, 900))),
    "config: an integer of 400 digits": _add("config.yaml", f"large: {DIGITS}\n"),
    "config: infinities": _add("config.yaml", "large: .inf\nsmall: -.inf\nnone: .nan\n"),
    "config: keys that are no text": _add("config.yaml", "1: a\nnull: b\n? [x, y]\n: c\n"),
    "config: UTF-16": _write("config.yaml", "seed: 1\n".encode("utf-16")),
    "config: Latin-1": _write("config.yaml", "name: M\xfcller\n".encode("latin-1")),
    "config: tabs": _write("config.yaml", "a:\n\t- b\n"),
    "config: several documents": _add("config.yaml", "---\na: 1\n"),
    "config: other kinds of value": _write("config.yaml", "seed: {a: 1}\nmodel: [1]\nretriever: 5\nalgorithm: null\n"),
    "config: names that are lists": _write("config.yaml", "seed: x\nmodel: {path: [1]}\nalgorithm: {name: {a: b}}\n"),
    "config: 3 MiB": _add("config.yaml", "".join(f"key{i}: {i}\n" for i in range(200_000))),
    "config: escapes": _add("config.yaml", 'note: "\\e]0;title\\a\\e[2J\\u009b31m\\u202egnp"\n'),
    "status: NaN seconds": _field("status.json", seconds=float("nan")),
    "status: an integer of 400 digits": _write("status.json", f'{{"state": "completed", "seconds": {DIGITS}}}'),
    "status: an integer of 5000 digits": _write("status.json", f'{{"state": "completed", "seconds": {DIGITS * 13}}}'),
    "status: seconds beyond reckoning": _write("status.json", '{"state": "completed", "seconds": 1e999}'),
    "status: deep": _write("status.json", '{"a":' * DEEP + "1" + "}" * DEEP),
    "status: a list": _write("status.json", "[]"),
    "status: empty": _write("status.json", ""),
    "status: half a character": _write("status.json", '{"state": "completed", "command": "\\ud800"}'),
    "status: runs, with a process that cannot be": _field("status.json", state="running", pid=10**15, host=None),
    "status: runs here, with such a process": _field(
        "status.json", state="running", pid=10**15, host=socket.gethostname()
    ),
    "status: fields of other kinds": _field("status.json", started=5, data_hash=7, versions={"torch": [1]}, sweep={}),
    "status: escapes": _field("status.json", command="\x1b[31mred\x07", error={"type": "\x1b[2J", "message": "\x9b"}),
    "figures: NaN and infinities": _write("metrics.json", '{"test/recall@1": NaN, "test/f1": Infinity}'),
    "figures: 400 digits": _write("metrics.json", f'{{"test/recall@1": {DIGITS}}}'),
    "figures: huge": _write("metrics.json", '{"test/recall@1": 1e308, "test/mrr@10": -1e308, "seconds/train": 5e-324}'),
    "figures: text": _write("metrics.json", '{"test/recall@1": "much", "test/mrr@10": null, "\x1b[2J": 1}'),
    "figures: a list": _write("metrics.json", "[1, 2]"),
    "log: junk": _write("metrics.jsonl", "x\n" * 500_000),
    "log: other kinds": _write(
        "metrics.jsonl", '{"step": "1"}\n{"step": true}\n{"step": 1, "seconds": "soon"}\n{"step": 2, "loss": [1]}\n5\n'
    ),
    "log: numbers": _write(
        "metrics.jsonl", f'{{"step": 1, "loss": NaN}}\n{{"step": {DIGITS}}}\n{{"step":2,"a":1e999}}\n'
    ),
    "log: deep": _write("metrics.jsonl", '{"step": 1}\n' + "[" * DEEP + "\n"),
    "questions: blank lines": _write("predictions/test.jsonl", "\n" * 3_000_000),
    "questions: one long line": _write("predictions/test.jsonl", "x" * (20 << 20)),
    "questions: ids that are lists": _row(id=[1]),
    "questions: figures that are none": _row(metrics={"recall@1": float("nan"), "mrr@10": float("inf")}),
    "questions: ranks that are none": _row(retrieved_ids=5, retrieved_scores="x", gold_ids={"a": 1}),
    "questions: escapes": _row(question="\x1b]8;;http://x\x07who?\x1b[2J", answer="\x9b31m\u202e", references=["\x1b"]),
    "questions: a folder": _no_kind,
    "choices: Latin-1": _write(".hydra/hydra.yaml", "choices:\n  model: M\xfc\n".encode("latin-1")),
    "overrides: a bomb": _write(".hydra/overrides.yaml", _bomb()),
    "error.txt: a pipe": _error_pipe,
    "a named pipe": _replaced(os.mkfifo),
    "a device that never ends": _replaced(lambda file: file.symlink_to("/dev/zero")),
    "a terminal": _replaced(lambda file: file.symlink_to("/dev/tty")),
    "a socket": _replaced(_socket),
    "a folder": _replaced(lambda file: file.mkdir()),
    "a link to nothing": _replaced(lambda file: file.symlink_to("nothing")),
    "a link to itself": _replaced(lambda file: file.symlink_to(file.name)),
    "20 GiB of nothing": _replaced(_sparse),
    "zeros": _replaced(lambda file: file.write_bytes(bytes(5000))),
    "cut": _cut,
    "flipped": _flipped,
    "a name with escapes": _renamed(b"\x1b[2Jname"),
    "a name that is no Unicode": _renamed(b"\xff\xfe"),
}


def sound_run(path: Path, number: int) -> None:
    """A run with all its files."""
    from tests.comparison.conftest import ranked_row, write_run

    rows = [ranked_row(f"q{i}", (i + number) % 3, gold=[f"gold-{i}"]) for i in range(12)]
    write_run(path, {"test": rows, "dev": rows}, {"trainer.learning_rate": 10.0**-number}, choices={"model": "minilm"})
    lines = [{"step": step, "epoch": step / 5, "seconds": float(step), "train/loss": 1 / step} for step in (1, 2, 3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_folder(folder: Path, kinds: list[str], chance: random.Random) -> None:
    """Make the sound runs, and one damaged run of each kind."""
    for number, name in enumerate(SOUND):
        sound_run(folder / name, number + 1)
    for number, kind in enumerate(kinds):
        run = folder / f"damaged-{number}"
        sound_run(run, 5 + number)
        (run / ".hydra").mkdir(exist_ok=True)
        (run / "error.txt").write_text("Traceback: \x1b[31m\n", encoding="utf-8")
        KINDS[kind](run, chance)


def look(folder: Path, cache: Path) -> tuple[list[str], dict[str, float]]:
    """The failures in a folder, and the seconds of each command and page."""
    from starlette.testclient import TestClient

    from rag_experiments import compare
    from rag_experiments.core.errors import RequestError
    from rag_experiments.dashboard.app import create_app
    from rag_experiments.dashboard.shared.watch import Watch

    wrong: list[str] = []
    seconds: dict[str, float] = {}
    asked = {
        "table": [str(folder)],
        "rows": [str(folder), "--ungrouped"],
        "csv": [str(folder), "--format", "csv"],
        "json": [str(folder), "--format", "json"],
        "baseline": [str(folder), "--baseline", str(folder / SOUND[0])],
        "report": [str(folder), "--baseline", str(folder / SOUND[0]), "--output", str(cache / "report.html")],
    }
    for name, arguments in asked.items():
        began, out = time.perf_counter(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(io.StringIO()):
                compare.start(arguments)
            text = (cache / "report.html").read_text(encoding="utf-8") if name == "report" else out.getvalue()
            wrong += [f"{name}: {run} is not there" for run in SOUND if run not in text]
            wrong += [f"{name}: U+{ord(c):04X} raw" for c in "\x1b\x07\x9b\u202e" if name != "report" and c in text]
        except (Exception, RequestError) as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])
        seconds[name] = time.perf_counter() - began
    began = time.perf_counter()
    try:
        watch = Watch([folder], cache=cache / "dashboard")
        client = TestClient(create_app(watch), base_url="http://127.0.0.1", raise_server_exceptions=False)
        client.get("/runs")
    except Exception as error:
        return [*wrong, f"dashboard: {type(error).__name__}: {error}"[:300]], seconds
    seconds["start"] = time.perf_counter() - began
    for page in PAGES:
        addresses = [f"/{page}"]
        if page in ("repeat", "questions"):
            addresses = [f"/{page}?{'run' if page == 'repeat' else 'a'}={key}" for key in watch.runs]
        for address in addresses:
            began = time.perf_counter()
            reply = client.get(address)
            seconds[page] = max(seconds.get(page, 0.0), time.perf_counter() - began)
            if reply.status_code != 200:
                wrong.append(f"{address}: {reply.status_code}")
            if page == "runs":
                wrong += [f"{page}: {run} is not there" for run in SOUND if run not in reply.text]
    return wrong, seconds


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    kinds = [list(KINDS)[i % len(KINDS)] for i in range(options.count)]
    chance.shuffle(kinds)
    slowest: dict[str, float] = {}
    failed: list[str] = []
    made: Counter[str] = Counter(kinds)
    with tempfile.TemporaryDirectory() as place:
        os.environ["RAG_EXPERIMENTS_CACHE"] = str(Path(place) / "first")
        (Path(place) / "first").mkdir()
        make_folder(Path(place) / "sound", [], chance)
        look(Path(place) / "sound", Path(place) / "first")  # warm-up: the imports of scipy and plotly are not measured
        for start in range(0, len(kinds), FOLDER):
            some = kinds[start : start + FOLDER]
            folder, cache = Path(place) / f"folder-{start}", Path(place) / f"cache-{start}"
            os.environ["RAG_EXPERIMENTS_CACHE"] = str(cache)
            cache.mkdir()
            make_folder(folder, some, chance)
            wrong, seconds = look(folder, cache)
            failed += [f"{line}   {some}" for line in wrong]
            slowest = {name: max(value, slowest.get(name, 0.0)) for name, value in {**slowest, **seconds}.items()} | {
                name: max(seconds[name], slowest.get(name, 0.0)) for name in seconds
            }
            shutil.rmtree(folder)
            shutil.rmtree(cache)
    print(f"{len(kinds)} damaged runs of {len(made)} kinds, {FOLDER} beside {len(SOUND)} sound ones in a folder\n")
    print(f"{'what was asked':<16}{'slowest, s':>12}")
    for name, value in slowest.items():
        print(f"{name:<16}{value:>12.2f}{'' if value < LIMIT else '   too slow'}")
    print(f"\nwrong: {len(failed)}")
    print("\n".join(failed[:40]))
    sys.exit(1 if failed or max(slowest.values()) >= LIMIT else 0)


if __name__ == "__main__":
    main()
