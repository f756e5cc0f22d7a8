"""Keep a run's `status.json` up to date from its start to its end, however it ends. Imports no torch."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rag_experiments.config.overrides import typed
from rag_experiments.core import provenance
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_text
from rag_experiments.core.outcome import FAILED, Ending, ending_of, termination_as_interrupt, traceback_text
from rag_experiments.runs.directory import HEARTBEAT, RunDirectory

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 30.0
RESERVE_BYTES = 64 * 1024
"""The heartbeat file reserves this space and frees it before the last status is written, in case the disk is full."""


@dataclass
class Outcome:
    """How the block inside `recording` ended."""

    exit_status: int = FAILED
    ending: Ending | None = None
    exception: BaseException | None = None
    refused: RequestError | None = None
    """The exception, if the run's directory was discarded because of it."""
    metrics: dict[str, Any] = field(default_factory=dict)


@contextmanager
def recording(
    run: RunDirectory, config_hash: str, facts: dict[str, Any] | None = None, *, discard_refused: bool = False
) -> Iterator[Outcome]:
    """Keep `status.json` up to date while the block runs, and record how it ended.

    `facts` (`algorithm`, `data_hash`, `corpus_hash`, …) are written to the status unchanged. If the directory holds an
    unfinished run, the block continues it: `resumed` is increased, and lines logged after the last complete checkpoint
    are dropped. An exception of the block is not raised: it is kept in the outcome, its traceback goes to `error.txt`
    and the log, and the caller exits with `outcome.exit_status`. With `discard_refused`, a request that proves wrong
    before any work was done leaves no directory; the caller reports `outcome.refused`.

    Raises:
        RequestError: a live process is writing this run.
    """
    earlier = run.read_status()
    if run.writes and earlier.get("state") == "running" and run.process_lives():
        raise RequestError(f"{run.path} is running (process {earlier.get('pid')} on {earlier.get('host')})")
    outcome = Outcome()
    begun = False
    # Signals wait while a status is written, so that a run with the status `running` will also record its end.
    with termination_as_interrupt(held=True) as signals:
        started = time.monotonic()
        with _heartbeat(run, _claim(run)):
            try:
                try:
                    if run.writes:
                        _begin(run, earlier, config_hash, facts or {})
                    signals.release()
                    begun = True
                    yield outcome
                finally:
                    signals.hold()
            except BaseException as error:
                outcome.exception = error
        outcome.ending = ending_of(outcome.exception)
        outcome.exit_status = outcome.ending.exit_status
        if discard_refused and isinstance(outcome.exception, RequestError) and not earlier and not run.holds_work:
            outcome.refused = outcome.exception
            run.discard()
        elif run.writes:
            _end(run, outcome, earlier.get("seconds") or 0.0, time.monotonic() - started)
        elif outcome.ending.state == "failed":  # the launcher ends the others: only this process can tell why
            log.error("process %s: %s", os.environ.get("RANK"), outcome.ending.sentence, exc_info=outcome.exception)
        if not begun:
            assert outcome.exception is not None
            raise outcome.exception


def _begin(run: RunDirectory, earlier: dict[str, Any], hash_: str, facts: dict[str, Any]) -> None:
    resumed = 0
    if earlier:
        resumed = earlier.get("resumed", 0) + 1
        run.go_back_to_checkpoint()
        run.error_path.unlink(missing_ok=True)
    commit, dirty = provenance.git_state()
    run.update_status(
        state="running",
        started=earlier.get("started") or now(),
        ended=None,
        seconds=earlier.get("seconds") or 0.0,
        config_hash=hash_,
        **facts,
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.library_versions(),
        **provenance.process_identity(),
        error=None,
        resumed=resumed,
    )


def _end(run: RunDirectory, outcome: Outcome, seconds_before: float, seconds: float) -> None:
    ending, exception = outcome.ending, outcome.exception
    assert ending is not None
    changes = {"state": ending.state, "ended": now(), "seconds": round(seconds_before + seconds, 3)}
    try:
        run.update_status(**changes, error=ending.error)
        if ending.state == "failed":
            atomic_write_text(run.error_path, traceback_text(exception))
    except (OSError, RequestError) as error:
        log.error("%s: the run's end could not be recorded: %s", run.path, error)
    if ending.state == "failed":
        log.error("%s", ending.sentence)
        log.debug("traceback", exc_info=exception)
        if run.error_path.exists():
            log.error("The traceback is in %s", run.error_path)
    elif ending.error and ending.error["kind"] == "pruned":
        log.info("pruned %s", ending.error["message"])
    elif ending.state == "interrupted":
        log.warning("interrupted; continue with %s", typed("resume", str(run.path)))


def _claim(run: RunDirectory) -> int | None:
    """Acquire the run's lock for this process, so that two processes cannot write one run. The kernel frees the lock.

    Raises:
        RequestError: another process holds the lock.
    """
    if not run.writes:
        return None
    run.path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run.path / HEARTBEAT, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RequestError(f"{run.path} is running: another process has it") from error
    except OSError:  # a file system without locks: the process number in the status must be enough
        log.debug("%s: no file locks here", run.path)
    os.pwrite(descriptor, os.urandom(RESERVE_BYTES), 0)  # not zeros: some file systems use no space for them
    return descriptor


@contextmanager
def _heartbeat(run: RunDirectory, claim: int | None) -> Iterator[None]:
    """Touch `.running` every half minute for readers on other hosts; it also reserves space for the last status."""
    if claim is None:
        yield
        return
    path = run.path / HEARTBEAT
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        path.unlink(missing_ok=True)  # before the lock is freed, or the next process could lock a deleted file
        os.close(claim)


def now() -> str:
    """The current time (UTC) in the format of `status.json`."""
    return datetime.now(UTC).isoformat(timespec="seconds")
