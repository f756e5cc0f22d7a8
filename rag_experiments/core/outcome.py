"""How a run, or any command, ended: which state, which exit status, which sentence. Imports no torch.

The only place where an exit status is decided: commands end through `config.command_line.exit_with`, which asks
`exit_status`, as runs and the jobs of a sweep do.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from rag_experiments.core.errors import RequestError

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; 130 is a shell's own for Ctrl-C."""

State = Literal["running", "completed", "failed", "interrupted"]
STATES: tuple[State, ...] = ("running", "completed", "failed", "interrupted")

# What torch's allocators say where they raise a plain RuntimeError.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM, SIGHUP): handled like Ctrl-C."""


AGAIN_SECONDS = 0.05
"""After which a signal is sent again whose exception Python dropped."""


class Pruned(Exception):
    """A search cut this run short: on purpose, not an error; its checkpoint can be continued."""


@dataclass(frozen=True)
class Ending:
    """How a run, or a job of a sweep, ended."""

    state: State
    exit_status: int
    error: dict[str, str] | None = None
    """`type`, `message`, and `kind`: `out_of_memory`, `disk_full`, `request`, `pruned` or `exception`."""

    @property
    def sentence(self) -> str:
        """One line for the console."""
        if self.error is None:
            return self.state
        lead = {"out_of_memory": "out of memory: ", "disk_full": "the disk is full: "}.get(self.error["kind"], "")
        lines = self.error["message"].strip().splitlines()
        if not lines:
            return f"{lead}{self.error['type']}"
        if not lead and self.error["kind"] != "request":
            lead = f"{self.error['type']}: "
        return f"{lead}{lines[0]}"[:500]


def exit_status(exception: BaseException | None) -> int:
    """The exit status that an exception (or None: a good end) means. A trial that was cut short has ended well."""
    if exception is None or isinstance(exception, Pruned):
        return DONE
    if isinstance(exception, KeyboardInterrupt):
        return INTERRUPTED
    return WRONG_REQUEST if isinstance(exception, RequestError) else FAILED


def ending_of(exception: BaseException | None) -> Ending:
    """The ending that an exception (or None: a good end) means."""
    status = exit_status(exception)
    if exception is None:
        return Ending("completed", status)
    error = {"type": type(exception).__name__, "message": str(exception), "kind": _kind(exception)}
    if isinstance(exception, Pruned):
        return Ending("interrupted", status, {**error, "kind": "pruned"})
    if isinstance(exception, KeyboardInterrupt):
        return Ending("interrupted", status, error)
    return Ending("failed", status, error)


def _kind(exception: BaseException) -> str:
    if isinstance(exception, RequestError):
        return "request"
    for link in _chain(exception):
        name = type(link).__name__
        if isinstance(link, MemoryError) or name in ("OutOfMemoryError", "_ArrayMemoryError"):
            return "out_of_memory"
        if isinstance(link, OSError) and link.errno == errno.ENOMEM:
            return "out_of_memory"
        if isinstance(link, RuntimeError) and any(words in str(link) for words in _OUT_OF_MEMORY):
            return "out_of_memory"
        # Rust and C++ writers (safetensors, Arrow, torch's zip) wrap the system's error in their own types.
        if getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(link):
            return "disk_full"
    return "exception"


def _chain(exception: BaseException | None) -> Iterator[BaseException]:
    """The exception and what caused it: a full disk often comes wrapped."""
    seen: set[int] = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        yield exception
        exception = exception.__cause__ or (None if exception.__suppress_context__ else exception.__context__)


def traceback_text(exception: BaseException | None) -> str:
    """The traceback as Python prints it."""
    return "".join(traceback.format_exception(exception))


class Signals:
    """Whether a signal interrupts at once, or waits: while a status is written none may, and none is forgotten."""

    def __init__(self, held: bool):
        self._held = held
        self._waiting: int | None = None
        self._owner = os.getpid()
        self._raised: int = signal.SIGINT
        """The signal that raised last."""
        self.earlier_hook = sys.unraisablehook

    def hold(self) -> None:
        """From here on signals wait."""
        self._held = True

    def release(self) -> None:
        """From here on a signal raises at once: here, where one has come in the meantime."""
        self._held = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.handle(waiting, None)

    def handle(self, number: int, frame: Any) -> None:
        """The handler."""
        if os.getpid() != self._owner and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._held and os.getpid() == self._owner:
            self._waiting = number
        elif number == signal.SIGINT:
            self._raised = number
            raise KeyboardInterrupt
        else:
            self._raised = number
            raise Terminated(f"received {signal.Signals(number).name}")

    def raised_in_vain(self, unraisable: Any) -> None:
        """The hook for exceptions that Python drops: an interruption among them is sent again, a moment later.

        A signal's exception is raised wherever the main thread is just then. In a callback of `weakref` or in
        `__del__` Python prints it and goes on, and the run would never end.
        """
        self.earlier_hook(unraisable)
        if isinstance(unraisable.exc_value, KeyboardInterrupt) and os.getpid() == self._owner:
            again = threading.Timer(AGAIN_SECONDS, os.kill, (self._owner, self._raised))
            again.daemon = True
            again.start()

    def send_again(self) -> None:
        """Leave a signal that still waits to whoever handles it now."""
        if self._waiting is not None:
            signal.raise_signal(self._waiting)


@contextmanager
def termination_as_interrupt(held: bool = False) -> Iterator[Signals]:
    """Inside, SIGTERM and SIGHUP raise `Terminated`, so that a run killed politely says so in its status.

    `held`: signals, Ctrl-C too, wait until they are released. Does nothing outside the main thread, where Python sets
    no signal handlers. Child processes that inherit the handler (data loader workers) die of the signal as usual.
    """
    signals = Signals(held)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    # One that is ignored (SIGHUP under nohup, SIGINT in a shell's background) stays ignored.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) if _interrupts(signal.getsignal(n))]
    before = {number: signal.signal(number, signals.handle) for number in numbers}
    sys.unraisablehook = signals.raised_in_vain
    try:
        yield signals
    finally:
        sys.unraisablehook = signals.earlier_hook
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.send_again()


def _interrupts(handler: Any) -> bool:
    """Whether a handler is Python's own, or one of ours around this one: a library's is left alone."""
    ours = isinstance(getattr(handler, "__self__", None), Signals)
    return ours or handler in (signal.SIG_DFL, signal.default_int_handler)
