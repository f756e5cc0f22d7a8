"""Kill runs of all algorithms at random moments, resume them, and compare them with undisturbed runs.

CTL takes part twice, as `ctl` and, with negatives that it mines while it trains, as `ctl-mined`.

    python -m benchmarks.storm                  12 kills
    python -m benchmarks.storm --kills 100      about 15 minutes on two cores
    python -m benchmarks.storm --processes      each start is a new process, so that kills also hit imports

The models are tiny and made by the benchmark. A kill is SIGKILL, SIGTERM or SIGINT at a random moment, uniform over the
duration of the undisturbed run; a run is killed up to three times. Then its weights, the weights of its last
checkpoint, metrics.json, its predictions, and each line of metrics.jsonl must equal those of the undisturbed run,
except what counts the cost. No unfinished files may remain, and no run may have the state `running` after its process
was asked to end. Prints a table; the exit status is 1 if something differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # another number of threads changes rounding
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VARIANTS = {
    # Steps, checkpoints and logging lines coincide only at the end.
    "best": ["trainer.max_steps=9", "trainer.save_steps=2", "trainer.eval_steps=2", "trainer.logging_steps=3"],
    "last": [
        "trainer.max_steps=8",
        "trainer.save_steps=3",
        "trainer.logging_steps=2",
        "trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false",
    ],
    "epochs": [
        "trainer.max_steps=-1",
        "trainer.num_train_epochs=2",
        "trainer.save_strategy=epoch",
        "trainer.eval_strategy=epoch",
        "trainer.logging_steps=3",
        "trainer.save_total_limit=1",
        "early_stopping=1",
    ],
}


@dataclass
class Models:
    """Folders of tiny models and data."""

    bert: Path
    llama: Path
    t5: Path
    data: Path


@dataclass
class Storm:
    """One run that is killed several times, with its results."""

    name: str
    kills: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


def make_models(root: Path) -> Models:
    """Write models with random weights and forty passages to `root`."""
    from tests.conftest import write_small_data, write_tiny_bert
    from tests.tiny_readers import write_tiny_llama, write_tiny_t5

    return Models(
        bert=write_tiny_bert(root / "bert"),
        llama=write_tiny_llama(root / "llama"),
        t5=write_tiny_t5(root / "t5"),
        data=write_small_data(root / "data"),
    )


def request(algorithm: str, models: Models) -> list[str]:
    """The overrides of a run of a few seconds, in full precision on the CPU."""
    encoder = [f"model.path={models.bert}", "model.pooling=mean", "model.precision=fp32"]
    encoder += ["model.max_query_length=64", "model.max_passage_length=64"]
    reader = ["model.precision=fp32", "model.max_new_tokens=4", "model.max_input_length=700"]
    reader += [f"retriever.{value}" for value in ("encoder.precision=fp32", "encoder.max_query_length=64")]
    reader += [f"retriever.encoder.path={models.bert}", "retriever.encoder.max_passage_length=64", "retriever.k=2"]
    teacher = ["algorithm.teacher.precision=fp32", "algorithm.candidates=4", "algorithm.teacher.max_input_length=700"]
    own = {
        "ctl": encoder,
        "ctl-mined": [
            *encoder,
            *["algorithm.negatives=mined", "algorithm.hard_negatives=2", "algorithm.refresh_every=3"],
            *["algorithm.first_rank=1", "algorithm.last_rank=20", "algorithm.margin=null"],
        ],
        "rpg": [*encoder, *teacher, f"algorithm.teacher.path={models.llama}", "algorithm.refresh_every=3"],
        "dca": [
            *encoder,
            *teacher,
            f"algorithm.teacher.path={models.llama}",
            "algorithm.refresh_every=3",
            "algorithm.teacher_steps=2",
            "algorithm.teacher_passages=2",
        ],
        "sft": [*reader, f"model.path={models.llama}"],
        "swr": [*reader, f"model.path={models.llama}", "algorithm.gold_dropout=0.3"],
        "rerank": [
            *[f"model.{value}" for value in (f"path={models.bert}", "precision=fp32", "max_length=32")],
            *["retriever=bm25", "retriever.rerank_depth=4", "algorithm.candidates=4"],
            *["algorithm.ordered_by=reranker", "algorithm.refresh_every=3"],
        ],
        "fid": [*reader, "model=flan_t5_small", f"model.path={models.t5}", "model.fid.passage_tokens=120"],
        "joint": [
            *encoder,
            *[value.replace("teacher", "reader") for value in teacher],
            *[f"algorithm.reader.path={models.llama}", "algorithm.reader.max_new_tokens=4", "retriever.k=2"],
            "algorithm.refresh_every=3",
        ],
    }[algorithm]
    return [
        f"algorithm={algorithm.partition('-')[0]}",
        *own,
        "data=jsonl",
        f"data.path={models.data}",
        "tracking=none",
        "trainer.use_cpu=true",
        "trainer.learning_rate=1e-3",
        "trainer.per_device_train_batch_size=8",
        "trainer.disable_tqdm=true",
        "trainer.save_strategy=steps",
        "trainer.eval_strategy=steps",
        "evaluation.bootstrap=20",
        "evaluation.latency=1",
        "evaluation.max_questions=4",
    ]


class Starter:
    """Starts a run: in a fork of this process, which has imported everything, or as a command."""

    def __init__(self, processes: bool, log: Path):
        self.processes = processes
        self.log = log
        if not processes:
            import datasets  # noqa: F401
            import torch

            from rag_experiments import train  # noqa: F401
            from rag_experiments.algorithms import ctl, dca, fid, joint, rerank, rpg, sft, swr  # noqa: F401
            from rag_experiments.training import request, run  # noqa: F401

            torch.set_num_threads(1)

    def start(self, arguments: list[str]) -> int:
        """Start the run; returns its process id."""
        if self.processes:
            command = [sys.executable, "-m", "rag_experiments.train", *arguments]
            with self.log.open("ab") as file:
                return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True).pid
        number = os.fork()
        if number:
            return number
        self._child(arguments)
        raise AssertionError

    def _child(self, arguments: list[str]) -> None:
        from rag_experiments import train
        from rag_experiments.config import command_line

        status = 1
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["train", *arguments]
            try:
                command_line.exit_with(train.start, arguments)
            except SystemExit as leaving:
                status = int(leaving.code or 0)
        finally:
            os._exit(status)


def wait(number: int, seconds: float | None = None) -> int | None:
    """The exit status of a child (negative: the signal); None if it still runs after `seconds`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def in_peace(starter: Starter, arguments: list[str], directory: Path) -> float:
    """Run to the end undisturbed; returns the seconds."""
    started = time.monotonic()
    status = wait(starter.start([*arguments, f"hydra.run.dir={directory}"]))
    if status != 0:
        raise SystemExit(f"{directory} ended with {status} without a kill: see {starter.log}")
    return time.monotonic() - started


def through_the_storm(
    starter: Starter, arguments: list[str], directory: Path, seconds: float, draw: random.Random, kills: int
) -> Storm:
    """Kill the run `kills` times at random moments, resume it each time, and then let it end."""
    storm = Storm(directory.name)
    began = time.monotonic()
    while True:
        resumed = (directory / "status.json").is_file()
        typed = [f"resume={directory}"] if resumed else [*arguments, f"hydra.run.dir={directory}"]
        number = starter.start(typed)
        if len(storm.kills) == kills:
            status = wait(number)
            if status != 0:
                storm.differences.append(f"ended with {status}")
            break
        chosen = draw.choice(SIGNALS)
        moment = draw.uniform(0, seconds)
        status = wait(number, moment)
        if status is not None:  # it ended before the signal
            if status != 0:
                storm.differences.append(f"ended with {status} before {chosen.name}")
            break
        os.kill(number, chosen)
        status = wait(number, 60)
        if status is None:
            os.kill(number, signal.SIGKILL)
            wait(number)
            storm.differences.append(f"{chosen.name} at {moment:.1f} s did not end the run within a minute")
        storm.kills.append(f"{chosen.name[3:]} {moment:.1f}")
        state = stored(directory).get("state")
        if state == "running" and chosen != signal.SIGKILL and stored(directory).get("pid") == number:
            storm.differences.append(f"has the state running after {chosen.name} at {moment:.1f} s")
        if state == "completed":
            break
    storm.seconds = time.monotonic() - began
    return storm


def stored(directory: Path) -> dict[str, Any]:
    """The status of a run; empty if it has not begun."""
    file = directory / "status.json"
    return json.loads(file.read_text()) if file.is_file() else {}


# -- what must be equal --------------------------------------------------------------------------------


def differences(peace: Path, storm: Path) -> Iterator[str]:
    """The differences between the two run directories, except times and memory."""
    state = stored(storm).get("state")
    if state != "completed":
        yield f"its state is {state}"
        return
    yield from unlike(figures(peace / "metrics.json"), figures(storm / "metrics.json"), "metrics.json")
    yield from unlike(log_lines(peace), log_lines(storm), "metrics.jsonl")
    for file in sorted(peace.glob("predictions/**/*.jsonl")):
        name = file.relative_to(peace)
        other = storm / name
        ours = [json.loads(line) for line in other.open()] if other.is_file() else []
        yield from unlike([json.loads(line) for line in file.open()], ours, str(name))
    last = max(peace.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for folder in (peace / "model", last):
        for file in sorted(folder.rglob("*.safetensors")):
            name = file.relative_to(peace)
            if not (storm / name).is_file():
                yield f"{name} is missing"
            elif not equal_weights(file, storm / name):
                yield f"{name} differs"
    saved = [{path.name for path in (run / "checkpoints").iterdir()} for run in (peace, storm)]
    if saved[0] != saved[1]:
        yield f"checkpoints: {sorted(saved[0])} and {sorted(saved[1])}"
    leftover = [str(path.relative_to(storm)) for path in storm.rglob(".partial-*")]
    if leftover:
        yield f"left behind: {', '.join(leftover)}"


def is_time(name: str) -> bool:
    """Whether a figure may differ between equal runs: times, speeds, memory, and what a teacher was asked.

    A resumed run asks for the scores of the steps that are left, and finds some of them in the cache.
    """
    words = ("seconds", "runtime", "per_second", "memory", "cache", "tokens_computed", "tokens_asked")
    return any(word in name for word in words)


def figures(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text())
    return {name: value for name, value in values.items() if not is_time(name)}


def log_lines(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [{name: value for name, value in line.items() if not is_time(name)} for line in lines]


def unlike(one: Any, other: Any, where: str) -> Iterator[str]:
    """The first places where two JSON values differ."""
    found = itertools.islice(_unlike(one, other, where), 4)
    yield from found


def _unlike(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            if name not in one or name not in other:
                yield f"{where}: {name} in {'one' if name in one else 'the other'} only"
            else:
                yield from _unlike(one[name], other[name], f"{where}: {name}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{where}: {len(one)} and {len(other)} rows"
        for number, (left, right) in enumerate(zip(one, other, strict=False)):
            yield from _unlike(left, right, f"{where}[{number}]")
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"


def equal_weights(one: Path, other: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12, help="minimum number of kills over all algorithms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--algorithms", nargs="+", default=["ctl", "ctl-mined", "rpg", "dca", "sft", "swr", "fid", "rerank", "joint"]
    )
    parser.add_argument("--processes", action="store_true", help="start each run in a new process")
    parser.add_argument("--folder", type=Path, help="keep the runs in this folder; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.folder or Path(temporary)).resolve()
        sys.exit(weather(given, root))


def weather(given: argparse.Namespace, root: Path) -> int:
    """Run all storms; returns the exit status."""
    root.mkdir(parents=True, exist_ok=True)
    models = make_models(root)
    starter = Starter(given.processes, root / "console.log")
    draw = random.Random(given.seed)
    calm: dict[tuple[str, str], float] = {}
    counts: dict[str, list[int]] = {name: [0, 0, 0] for name in given.algorithms}
    kills = failed = 0
    turns = itertools.cycle(itertools.product(VARIANTS, given.algorithms))
    for number, (variant, algorithm) in enumerate(turns):
        if kills >= given.kills:
            break
        shared = [f"paths.cache={root}/cache-{algorithm}-{variant}"]
        arguments = [*request(algorithm, models), *VARIANTS[variant], *shared]
        peace = root / f"{algorithm}-{variant}-peace"
        if (algorithm, variant) not in calm:
            calm[algorithm, variant] = in_peace(starter, arguments, peace)
        directory = root / f"{algorithm}-{variant}-{number}"
        seconds = calm[algorithm, variant]
        storm = through_the_storm(starter, arguments, directory, seconds, draw, draw.randint(1, 3))
        storm.differences += differences(peace, directory)
        kills += len(storm.kills)
        row = counts[algorithm]
        row[0], row[1], row[2] = row[0] + 1, row[1] + len(storm.kills), row[2] + (not storm.differences)
        failed += bool(storm.differences)
        print(
            f"{storm.name:20} {', '.join(storm.kills):40} {'equal' if not storm.differences else 'DIFFERS'}", flush=True
        )
        for difference in storm.differences:
            print(f"    {difference}", flush=True)
    print(f"\n{'algorithm':12}{'runs':>6}{'kills':>7}{'equal':>7}")
    for name, (runs, killed, equal) in counts.items():
        print(f"{name:12}{runs:>6}{killed:>7}{equal:>7}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
