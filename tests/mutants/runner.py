"""Runs mutants: one forked process each, in a copy of the working tree.

1. The tree (what git knows or would take) is copied, once for each job. Mutants are written there, never here: whatever
   ends this run, the working tree is as it was.
2. The tests of an area run once in the copy, under coverage. Known then: which test reaches which line, itself, by a
   fixture or by a process that it starts; how long it takes; which third-party modules all of it imports.
3. This process imports those modules (torch and transformers take seconds) and nothing of the repository.
4. For each mutant the file is written into the copy and a process forked, which imports the repository from there and
   runs the tests that reach the changed statement, those first that noticed something in the same function, then the
   quick ones, until one fails. Processes that tests start import from the copy as well.

A mutant is killed when a test fails, a timeout when the process computes or waits many times longer than these tests
need, and has survived otherwise. One whose statement no test reaches has survived without a run.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.mutants import inside
from tests.mutants.mutate import Mutant, mutants

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}
MEMORY = 24 * 2**30
"""Bytes of address space for one mutant, which may ask for anything."""


@dataclass
class Area:
    """Modules and the tests that hold them."""

    name: str
    modules: list[str]
    tests: list[str]


@dataclass
class Reach:
    """What was measured of an area's tests."""

    tests: dict[str, list[str]]
    seconds: dict[str, float]
    starts: set[str]
    reached: dict[str, dict[str, set[int]]]
    imported: list[str]
    broken: list[str]
    with_lines: set[str] = field(default_factory=set)

    def chosen(self, mutant: Mutant, whole: bool = False) -> list[str]:
        """The tests that reach a mutant, quick ones first.

        `whole`, and for what runs once and is kept (constants, cached functions): every test of the files in which
        some test reaches the module.
        """
        lines = set(range(mutant.first, mutant.last + 1))
        contexts = set()
        for context, modules in self.reached.items():
            here = modules.get(mutant.module, set())
            if here and (whole or mutant.at_import or here & lines):
                contexts.add(context)
        found = [
            test
            for test, fixtures in self.tests.items()
            if test in contexts
            or any(fixture in contexts for fixture in fixtures)
            or (test in self.starts and test not in self.with_lines)
        ]
        if whole or mutant.at_import:
            files = {test.split("::")[0] for test in found}
            found = [test for test in self.tests if test.split("::")[0] in files]
        if not found and mutant.at_import and mutant.module in self.reached.get("", {}):
            found = list(self.tests)
        return sorted((test for test in found if test not in self.broken), key=lambda test: self.seconds.get(test, 0.0))


class Copy:
    """A copy of the working tree, with at most one mutant in it."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root, self.temporary = folder / "tree", folder / "tmp"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=source,
            check=True,
            capture_output=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (source / name).is_file() or (source / name).is_symlink():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.root / name, follow_symlinks=False)
        self.temporary.mkdir(parents=True)
        self.inside = 0

    def fresh(self) -> Path:
        self.inside += 1
        folder = self.temporary / str(self.inside)
        folder.mkdir()
        return folder


@dataclass
class Running:
    """A process that was forked."""

    pid: int
    copy: Copy
    folder: Path
    limit: float
    started: float
    mutant: Mutant | None = None
    original: str = ""
    names: list[str] = field(default_factory=list)

    @property
    def answer(self) -> Path:
        return self.folder / "answer.json"

    @property
    def log(self) -> Path:
        return self.folder / "log"


def fork(function: Any, copy: Copy, argument: list[str], limit: float, processor_limit: int | None = None) -> Running:
    """Start `function` in a forked process that belongs to the copy."""
    folder = copy.fresh()
    running = Running(0, copy, folder, limit, time.monotonic())
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            if processor_limit is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (processor_limit, processor_limit + 5))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            function(copy.root, argument, running.answer, running.log, folder)
            code = 0
        except BaseException as error:
            with contextlib.suppress(Exception):
                (folder / "error").write_text(repr(error))
        finally:
            os._exit(code)
    running.pid = pid
    return running


def end(running: Running) -> None:
    """The process and what it started, gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGKILL)


def waited(running: Running, block: bool = False) -> int | None:
    """The wait status, None while it runs; -1 where the time was up."""
    while True:
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)  # what it left behind
            return status
        if time.monotonic() - running.started > running.limit:
            end(running)
            os.waitpid(running.pid, 0)
            return -1
        if not block:
            return None
        time.sleep(0.02)


def digest(source: Path, paths: Iterable[str]) -> str:
    """Of the files' contents, folders taken whole."""
    sha = hashlib.sha256()
    for path in sorted(paths):
        files = sorted((source / path).rglob("*.py")) if (source / path).is_dir() else [source / path]
        for file in files:
            sha.update(f"{file.relative_to(source)}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def expanded(source: Path, patterns: Iterable[str]) -> list[str]:
    """Paths that exist, in order, each once; without those of a pattern with `!` before it."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = sorted(str(path.relative_to(source)) for path in source.glob(pattern.removeprefix("!")))
        if not matching:
            raise SystemExit(f"mutants: {pattern!r} names no file")
        for path in matching:
            if pattern.startswith("!"):
                found.pop(path, None)
            else:
                found[path] = None
    return list(found)


def tests_digest(source: Path, tests: list[str]) -> str:
    """Of the tests of an area and of what they share."""
    shared = [str(path.relative_to(source)) for path in (source / "tests").glob("*.py") if "test_" not in path.name]
    return digest(source, [*tests, *shared])


def reach(source: Path, results: Path, copy: Copy, tests: list[str]) -> Reach:
    """Measure an area's tests, or read what was measured of the same files before."""
    whole = hashlib.sha256((digest(source, ["rag_experiments"]) + tests_digest(source, tests)).encode()).hexdigest()[
        :16
    ]
    kept = results / f"reach-{whole}.json"
    if not kept.exists():
        print(f"mutants: running {' '.join(tests)} once, to see which test reaches what …", flush=True)
        running = fork(inside.measure, copy, tests, limit=3600)
        waited(running, block=True)
        if not running.answer.exists():
            raise SystemExit(f"mutants: the tests did not run through:\n{running.log.read_text()[-3000:]}")
        told = json.loads(running.answer.read_text())
        if told["code"] not in (0, 1):
            raise SystemExit(f"mutants: pytest ended with {told['code']}:\n{running.log.read_text()[-3000:]}")
        results.mkdir(parents=True, exist_ok=True)
        whole_file = kept.with_suffix(".tmp")
        whole_file.write_text(json.dumps(told))
        os.replace(whole_file, kept)
        shutil.rmtree(running.folder, ignore_errors=True)
    told = json.loads(kept.read_text())
    if told["broken"]:
        print(
            f"mutants: {len(told['broken'])} tests fail without a mutant and are left out:", *told["broken"], sep="\n  "
        )
    reached = {c: {m: set(lines) for m, lines in modules.items()} for c, modules in told["reached"].items()}
    measured = Reach(told["tests"], told["seconds"], set(told["starts"]), reached, told["imported"], told["broken"])
    measured.with_lines = {context for context in reached if context}
    return measured


def preload(names: Iterable[str]) -> None:
    """Import third-party modules here, once, for every process forked after."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 1
    if threads > 1:
        print(f"mutants: {threads} threads run in the process that is forked", flush=True)
    gc.collect()
    gc.freeze()


@dataclass
class Result:
    """One line of results.jsonl."""

    key: str
    area: str
    module: str
    function: str
    line: int
    operator: str
    was: str
    now: str
    outcome: str
    test: str | None
    seconds: float
    module_digest: str
    tests_digest: str


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The newest line of each mutant; a last line cut short by a kill is left out."""
    found = {}
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                found[row["key"]] = row
    return found


@dataclass
class Job:
    """A mutant to be run, with what is known of its area."""

    mutant: Mutant
    area: Area
    tests: list[str]
    module_digest: str
    tests_digest: str


class Runner:
    """Runs jobs on several copies and appends their results to a file."""

    def __init__(self, results: Path, copies: list[Copy], whole: bool, limit: int) -> None:
        self.results, self.copies, self.whole, self.limit = results, copies, whole, limit
        self.noticed: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.count = Counter[str]()

    def ordered(self, job: Job, measured: Reach) -> list[str]:
        names = measured.chosen(job.mutant, whole=self.whole)
        before = self.noticed[job.mutant.module, job.mutant.function]
        return sorted(names, key=lambda name: -before[name])  # stable: quick ones first among equals

    def run(self, jobs: list[Job], measured: Reach) -> None:
        free, running, waiting = list(self.copies), [], list(reversed(jobs))
        started, total = time.monotonic(), len(jobs)
        try:
            while waiting or running:
                while free and waiting:
                    job = waiting.pop()
                    names = self.ordered(job, measured)
                    if not names:
                        self._note(job, "unreached", None, 0.0)
                        continue
                    running.append((job, self._start(job, names, free.pop(), measured)))
                for pair in list(running):
                    job, process = pair
                    status = waited(process)
                    if status is None:
                        continue
                    running.remove(pair)
                    self._finish(job, process, status)
                    free.append(process.copy)
                    done = total - len(waiting) - len(running)
                    if done % 10 == 0 or done == total:
                        spent = time.monotonic() - started
                        left = spent / done * (total - done)
                        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.count.items()))
                        print(f"mutants: {done}/{total} ({told}), about {left / 60:.0f} min left here", flush=True)
                time.sleep(0.01)
        finally:
            for _, process in running:
                end(process)

    def _start(self, job: Job, names: list[str], copy: Copy, measured: Reach) -> Running:
        file = copy.root / job.mutant.module
        original = file.read_text(encoding="utf-8")
        file.write_text(job.mutant.source, encoding="utf-8")
        # Compiled files are found by time and size, and a mutant may have both of another.
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()
        need = sum(measured.seconds.get(name, 1.0) for name in names)
        process = fork(inside.check, copy, names, limit=120 + 12 * need, processor_limit=int(self.limit + 5 * need))
        process.mutant, process.original, process.names = job.mutant, original, names
        return process

    def _finish(self, job: Job, process: Running, status: int) -> None:
        (process.copy.root / job.mutant.module).write_text(process.original, encoding="utf-8")
        outcome, test = "killed", None
        if status == -1 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            outcome = "timeout"
        elif process.answer.exists():
            told = json.loads(process.answer.read_text())
            test = told["failed"]
            if told["code"] == 0:
                outcome = "survived"
            elif told["code"] not in (1, 2):
                raise SystemExit(f"mutants: pytest ended with {told['code']}:\n{process.log.read_text()[-3000:]}")
        elif (process.folder / "error").exists() and not os.WIFSIGNALED(status):
            # The import of the mutant itself may do anything, SystemExit included; ours may not fail.
            test = (process.folder / "error").read_text()
        if test:
            self.noticed[job.mutant.module, job.mutant.function][test] += 1
        shutil.rmtree(process.folder, ignore_errors=True)
        self._note(job, outcome, test, time.monotonic() - process.started)

    def _note(self, job: Job, outcome: str, test: str | None, seconds: float) -> None:
        self.count[outcome] += 1
        one = job.mutant
        row = Result(
            *(one.key, job.area.name, one.module, one.function, one.first, one.operator, one.was, one.now),
            *(outcome, test, round(seconds, 2), job.module_digest, job.tests_digest),
        )
        with (self.results / "results.jsonl").open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


@contextlib.contextmanager
def copies(source: Path, number: int) -> Iterator[list[Copy]]:
    """Copies of the tree, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        yield [Copy(source, Path(folder, str(index))) for index in range(number)]


def listed(source: Path, results: Path, module: str) -> list[Mutant]:
    """A file's mutants, kept from one run to the next."""
    ours = digest(source, ["tests/mutants/operators.py", "tests/mutants/mutate.py", module])
    kept = results / f"list-{module.replace('/', '.')}-{ours}.json"
    if not kept.exists():
        for old in results.glob(f"list-{module.replace('/', '.')}-*.json"):
            old.unlink()
        results.mkdir(parents=True, exist_ok=True)
        found = [asdict(one) for one in mutants(module, (source / module).read_text(encoding="utf-8"))]
        kept.write_text(json.dumps(found))
    return [Mutant(**row) for row in json.loads(kept.read_text())]


def sampled(found: list[tuple[Area, Mutant]], size: int | None, seed: int) -> list[tuple[Area, Mutant]]:
    """A sample that a change elsewhere leaves as it is, and that a larger one of the same seed contains."""
    if size is None:
        return found
    order = sorted(found, key=lambda pair: hashlib.sha256(f"{seed} {pair[1].key}".encode()).hexdigest())
    return order[:size]


def matching(module: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns)
