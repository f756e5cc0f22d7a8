"""Start `python -m …` and `python -c …` from a process that has imported the heavy libraries already.

Torch, transformers and their like take ten seconds to import and hardly any to fork. `start` and `run` take what
`subprocess.Popen` and `subprocess.run` take. A command gets its own environment, working directory, arguments, output,
process number, exit status; it imports the package itself, from its own path. Where the outcome could differ from a
cold start, the start is cold: another value of a variable that libraries read when they are imported, a module in the
working directory or on PYTHONPATH in a library's place, a platform without pidfd.

Differences that stay: libraries that the command would import late, or never, are there from the beginning; what they
print when they are imported is not printed; commands of one `source` have one seed of hashes. So tests about imports
start their processes cold, and two processes that must agree whatever their seeds come from two sources.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SERVER = Path(__file__).with_name("server.py")
LIGHT = (
    *("hydra.main", "hydra.compose", "numpy", "omegaconf", "pydantic", "regex", "rich.console", "yaml", "xxhash"),
    *("filelock", "pyarrow", "pyarrow.parquet", "jinja2", "starlette.applications", "uvicorn"),
    *("pydantic.dataclasses", "pydantic.type_adapter", "rich.table", "sqlite3", "hydra.core.plugins"),
)
"""What a command imports before it needs a model."""
HEAVY = (
    *LIGHT,
    *("torch", "torch._dynamo", "torch.distributed.tensor", "torch.export", "scipy.stats", "scipy.optimize", "pandas"),
    *("transformers.trainer", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama"),
    *("transformers.models.t5.modeling_t5", "peft", "datasets", "bm25s", "faiss", "Stemmer", "ir_measures"),
    *(
        "pytrec_eval",
        "matplotlib.figure",
        "matplotlib.style",
        "matplotlib.backends.backend_svg",
        "tabulate",
        "safetensors.torch",
    ),
)
"""What a training command imports."""
SOURCES = {"heavy": HEAVY, "another heavy": HEAVY, "light": LIGHT}
"""Processes to start from: two of the same libraries, whose seeds of hashes differ."""

LATE = {"PYTHONPATH", "TZ", "COLUMNS", "TOKENIZERS_PARALLELISM"}
LATE |= {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# Those that libraries set in this process, for themselves: torch, scikit-learn, transformers, wandb and others.
LATE |= {"WANDB_SERVICE", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "CODECARBON_LOG_LEVEL"}
LATE |= {
    "NCCL_GRAPH_MIXING_SUPPORT",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "FLASH_ATTENTION_DETERMINISTIC",
}
LATE |= {"ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC", "FSDP_CPU_RAM_EFFICIENT_LOADING", "VLLM_LOGGING_LEVEL"}
"""Variables that are read where they are used, so that a forked process sees its own."""
LATE_FAMILIES = ("RAG_", "PYTEST_", "COVERAGE_", "COV_CORE_", "ACCELERATE_", "HYDRA_")
SURROUNDINGS = dict(os.environ)
"""As the tests were started; what a test changes is not in it."""


def early(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a library may have read when it was imported."""
    return {
        name: value
        for name, value in environment.items()
        if name not in LATE and not name.startswith(LATE_FAMILIES) and name != "_"
    }


class Source:
    """A process with imported libraries, and the way to it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVER), str(theirs.fileno()), *modules],
                env=early(SURROUNDINGS),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # no terminal, so that commands print in blocks, as into a pipe
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)
        ready = json.loads(self.control.recv(1 << 20) or "{}")
        if not ready:
            raise RuntimeError(f"{SERVER} did not start")
        self.names = frozenset(ready["names"])
        """Of the top modules that it imported."""
        self.environment = early(SURROUNDINGS)
        self.changed: dict[str, tuple[str | None, str]] = ready["changed"]
        """Variables that the libraries set when they are imported: the values before and after."""

    def close(self) -> None:
        """End it, and what it runs."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()


_sources: dict[str, tuple[int, Source]] = {}


def source(name: str) -> Source:
    """The source of that name, started when it is first needed; a forked pytest starts its own."""
    if _sources.get(name, (0,))[0] != os.getpid():
        _sources[name] = os.getpid(), Source(SOURCES[name])
    return _sources[name][1]


def why_cold(command: Sequence[str], cwd: str, environment: Mapping[str, str], origin: Source) -> str:
    """Why a forked process could do something else than one that starts afresh; empty if nothing is known."""
    if len(command) < 3 or command[0] != sys.executable or command[1] not in ("-m", "-c"):
        return "another program, or an option of Python's"
    was, now = origin.environment, early(environment)
    differing = sorted(
        name for name in was.keys() | now.keys() if now.get(name) not in (was.get(name), *origin.changed.get(name, ()))
    )
    if differing:
        return f"read when a library is imported: {', '.join(differing)}"
    for folder in (cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.split(".")[0] in origin.names and (
                name.endswith((".py", ".so")) or (Path(folder, name, "__init__.py").exists())
            ):
                return f"{folder}/{name} stands in a library's place"
    return ""


class Started:
    """A forked command, used as a `subprocess.Popen`; what it prints into a pipe is read when it has ended."""

    def __init__(
        self,
        origin: Source,
        command: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        stdout: int | IO[Any] | None,
        stderr: int | IO[Any] | None,
        new_session: bool,
    ) -> None:
        self.args, self.returncode = list(command), None
        sys.audit("subprocess.Popen", command[0], self.args, cwd, environment)  # as for a cold start
        self._printed: list[IO[bytes] | None] = [None, None]
        files, opened = [0], []
        for place, wanted in enumerate((stdout, stderr)):
            if wanted == subprocess.PIPE:
                self._printed[place] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this
                files.append(self._printed[place].fileno())
            elif wanted == subprocess.DEVNULL:
                opened.append(os.open(os.devnull, os.O_WRONLY))
                files.append(opened[-1])
            elif wanted == subprocess.STDOUT:
                files.append(files[1])
            else:
                files.append(place + 1 if wanted is None else wanted if isinstance(wanted, int) else wanted.fileno())
        self._told, told = os.pipe()
        request = {"command": self.args, "cwd": cwd, "environment": dict(environment), "new_session": new_session}
        socket.send_fds(origin.control, [json.dumps(request).encode()], [*files, told])
        for file in (*opened, told):
            os.close(file)
        self.pid = int(self._line())

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._told, 1)
            if not more:
                raise RuntimeError(f"the process that {SERVER} forks from is gone")
            line += more
        return line

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._line())
            os.close(self._told)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        self.wait(timeout)
        out, err = (self._read(file) for file in self._printed)
        return out, err

    @staticmethod
    def _read(file: IO[bytes] | None) -> str | None:
        if file is None:
            return None
        file.seek(0)
        return file.read().decode().replace("\r\n", "\n")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def start(
    command: Sequence[str],
    *,
    source_name: str = "heavy",
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    start_new_session: bool = False,
) -> Started | subprocess.Popen[str]:
    """Start a command, from the source if that makes no difference to it."""
    folder, environment = os.path.abspath(cwd or "."), dict(os.environ if env is None else env)
    if not hasattr(os, "pidfd_open"):
        reason = "no pidfd"
    elif SURROUNDINGS.get("OMP_NUM_THREADS") != "1":
        reason = "libraries start threads, which a fork does not have"
    else:
        reason = why_cold(command, folder, environment, source(source_name))
    if not reason:
        return Started(source(source_name), command, folder, environment, stdout, stderr, start_new_session)
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=start_new_session,
    )


def run(
    command: Sequence[str], *, timeout: float | None = None, check: bool = False, **surroundings: Any
) -> subprocess.CompletedProcess[str]:
    """Start a command and wait until it has ended; what it prints is captured. Raises as `subprocess.run` does."""
    started = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **surroundings)
    try:
        out, err = started.communicate(timeout)
    except BaseException:
        started.kill()
        started.wait()
        raise
    if check and started.returncode:
        raise subprocess.CalledProcessError(started.returncode, list(command), out, err)
    return subprocess.CompletedProcess(list(command), started.returncode or 0, out, err)
