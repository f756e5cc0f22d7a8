"""Which ending an exception means, and what one line says of it."""

from __future__ import annotations

import ast
import errno
import re
import signal
import sys
import time
import weakref
from pathlib import Path

import pytest

from rag_experiments.config import command_line
from rag_experiments.core import outcome
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import Ending, Pruned, Terminated, ending_of
from tests.stand_in import stand_in


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class _ArrayMemoryError(Exception):
    """Named as numpy's."""


class Wrapped(Exception):
    """Of a library, which says nothing of the system's error."""


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("exception", "kind"),
    [
        (RequestError("x"), "request"),
        (ValueError("x"), "exception"),
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("x"), "out_of_memory"),
        (_ArrayMemoryError("x"), "out_of_memory"),
        (OSError(errno.ENOMEM, "x"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "out_of_memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
        (RuntimeError("mmap: Cannot allocate memory"), "out_of_memory"),
        (ValueError("this text is about being out of memory"), "exception"),  # words count in RuntimeError alone
        (OSError(errno.EACCES, "x"), "exception"),
        (OSError(errno.ENOSPC, "x"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (Wrapped("Error while serializing: No space left on device (os error 28)"), "disk_full"),
    ],
)
def test_kinds(exception, kind):
    assert ending_of(exception).error["kind"] == kind


def chained(cause: BaseException | None = None, context: BaseException | None = None, hidden: bool = False):
    error = Wrapped("could not save")
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, hidden or cause is not None
    return error


@pytest.mark.parametrize(
    ("exception", "kind"),
    [
        (chained(cause=FULL), "disk_full"),
        (chained(context=FULL), "disk_full"),  # raised while the other was handled
        (chained(context=FULL, hidden=True), "exception"),  # `from None`: it says that the other is not the reason
        (chained(cause=ValueError("the reason"), context=FULL), "exception"),
        (chained(cause=chained(context=FULL)), "disk_full"),
        (chained(context=MemoryError()), "out_of_memory"),
    ],
)
def test_what_caused_an_error_says_its_kind(exception, kind):
    ending = ending_of(exception)
    assert ending.error == {"type": "Wrapped", "message": "could not save", "kind": kind}


def test_a_wrong_request_stays_one_whatever_caused_it():
    error = RequestError("data.path cannot be written")
    error.__cause__ = FULL
    assert (ending_of(error).error["kind"], ending_of(error).exit_status) == ("request", 2)


def test_a_chain_in_a_circle_ends():
    one, other = Wrapped("one"), Wrapped("other")
    one.__cause__, other.__cause__ = other, one
    assert ending_of(one).error["kind"] == "exception"


@pytest.mark.parametrize(
    ("exception", "state", "status"),
    [
        (None, "completed", 0),
        (ValueError(), "failed", 1),
        (RequestError("x"), "failed", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (Terminated("received SIGTERM"), "interrupted", 130),
        (Pruned("behind"), "interrupted", 0),
        (SystemExit(3), "failed", 1),
    ],
)
def test_states_and_exit_statuses(exception, state, status):
    ending = ending_of(exception)
    assert (ending.state, ending.exit_status) == (state, status)
    assert ending.state in outcome.STATES
    if exception is None:
        assert ending.error is None
    else:
        assert ending.error["type"] == type(exception).__name__
        assert ending.error["message"] == str(exception)


def test_pruned_is_a_kind_of_its_own():
    assert ending_of(Pruned("behind")).error["kind"] == "pruned"


@pytest.mark.parametrize(
    ("exception", "sentence"),
    [
        (None, "completed"),
        (ValueError("a shape\nand its details"), "ValueError: a shape"),
        (ValueError(""), "ValueError"),
        (RequestError("no such layer"), "no such layer"),
        (MemoryError("40 GB"), "out of memory: 40 GB"),
        (MemoryError(), "out of memory: MemoryError"),
        (OSError(errno.ENOSPC, "No space left"), "the disk is full: [Errno 28] No space left"),
        (Pruned("at step 3"), "Pruned: at step 3"),
        (ValueError("\n\n  second line"), "ValueError: second line"),
        (RequestError("  \n "), "RequestError"),
    ],
)
def test_one_sentence_for_the_console(exception, sentence):
    assert ending_of(exception).sentence == sentence


def test_a_sentence_is_never_a_page():
    assert len(ending_of(ValueError("x" * 10_000)).sentence) == 500
    assert Ending("failed", 1, {"type": "E", "message": "m", "kind": "exception"}).sentence == "E: m"


def test_the_traceback_is_pythons_own():
    try:
        raise ValueError("inner") from FULL
    except ValueError as error:
        text = outcome.traceback_text(error)
    assert text.startswith("OSError: [Errno 28]")
    assert re.search(r"direct cause.*Traceback \(most recent call last\):\n.*ValueError: inner\n$", text, re.DOTALL)


# -- signals -------------------------------------------------------------------------------------------


@pytest.fixture
def default_handlers():
    """As in a program of its own, whatever started the tests."""
    handlers = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield handlers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_terminations_say_which_signal(default_handlers):
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(Terminated, match=f"received {number.name}"), outcome.termination_as_interrupt():
            signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt) as caught, outcome.termination_as_interrupt():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(caught.value, Terminated)
    assert {number: signal.getsignal(number) for number in default_handlers} == default_handlers


def test_held_signals_wait_and_are_not_forgotten(default_handlers):
    with outcome.termination_as_interrupt(held=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated, match="SIGTERM"):
            signals.release()
        signals.release()  # it came once
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGHUP)
        signals.hold()
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Terminated, match="SIGHUP"):
            signals.release()


def test_a_signal_that_waits_to_the_end_goes_to_who_handles_it_then(default_handlers):
    with pytest.raises(Terminated), outcome.termination_as_interrupt():  # noqa: SIM117
        with outcome.termination_as_interrupt(held=True):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_whose_exception_python_drops_ends_the_run_all_the_same(default_handlers, capsys, number):
    """Python prints and drops what a callback of `weakref` raises."""

    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), outcome.termination_as_interrupt():  # noqa: PT012
        del thing
        assert reference() is None, "the first was dropped"
        for _ in range(500):
            time.sleep(0.01)
    assert sys.unraisablehook is before


@pytest.mark.parametrize("held", [True, False])
def test_a_child_takes_a_signal_as_its_own(monkeypatch, held):
    """It inherits the handler, and is not the run."""
    signals = outcome.Signals(held)
    child, done = outcome.os.getpid() + 1, []
    stand_in(
        monkeypatch, outcome, "os", getpid=lambda: child, kill=lambda *arguments: done.append(("kill", *arguments))
    )
    stand_in(monkeypatch, outcome, "signal", signal=lambda *arguments: done.append(("handler", *arguments)))
    signals.handle(signal.SIGTERM, None)
    assert done == [("handler", signal.SIGTERM, signal.SIG_DFL), ("kill", child, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):  # as Python itself: a data loader's worker waits for its owner's word
        signals.handle(signal.SIGINT, None)
    assert len(done) == 2


def test_a_status_is_the_endings():
    endings = [None, ValueError(), RequestError("x"), KeyboardInterrupt(), Pruned("behind"), FULL]
    statuses = [outcome.exit_status(exception) for exception in endings]
    assert statuses == [ending_of(exception).exit_status for exception in endings] == [0, 1, 2, 130, 0, 1]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RequestError("no such key"), 2, "error: no such key"),
        (KeyboardInterrupt("again continues"), 130, "interrupted; again continues"),
        (FULL, 1, "error: the disk is full: [Errno 28] No space left on device"),
        (MemoryError("40 GB"), 1, "error: out of memory: 40 GB"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_a_command_leaves_with_it_and_one_sentence(error, status, said, capfd):
    def task(arguments: list[str]) -> int:
        raise error

    with pytest.raises(SystemExit) as leaving:
        command_line.exit_with(task, [])
    assert leaving.value.code == status
    assert capfd.readouterr().err.strip() == said


@pytest.mark.parametrize("error", [PermissionError("x"), ValueError("x"), SystemExit(3)])
def test_the_programs_own_fault_keeps_its_traceback(error):
    def task(arguments: list[str]) -> int:
        raise error

    with pytest.raises(type(error)):
        command_line.exit_with(task, [])


def test_one_place_decides_an_exit_status():
    """No other file of the package leaves the process, or knows the numbers."""
    package = Path(outcome.__file__).parents[1]
    leaves, numbers = set(), set()
    for file in package.rglob("*.py"):
        where = str(file.relative_to(package))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "os._exit", "exit", "SystemExit"):
                leaves.add(where)
            if isinstance(node, ast.Constant) and node.value == outcome.INTERRUPTED:
                numbers.add(where)
            if isinstance(node, ast.FunctionDef) and node.name in ("start", "serve", "run_here", "close"):
                returned = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
                numbers |= {where for value in returned if isinstance(value, ast.Constant) and value.value is not None}
    assert leaves == {"config/command_line.py"}
    assert numbers == {"core/outcome.py"}
