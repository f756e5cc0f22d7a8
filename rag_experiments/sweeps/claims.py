"""Which sweep has a job: the same command may run twice at once, on one machine or several.

A sweep holds a lock for each of its jobs, from before it touches the job's folder until the job has
ended. A run says in its own directory that it is running, but only once it has begun, seconds after
the decision to start it; without the lock a second sweep would clear the folder of a job in between.
The kernel gives the lock back when the sweep dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = ".claims"


class Claims:
    """The jobs of one sweep's folder that this process has."""

    def __init__(self, folder: Path):
        self.folder = folder / FOLDER
        self.held: dict[str, int] = {}

    def take(self, directory: str) -> bool:
        """Have the job in `directory` for this sweep; False where another sweep has it."""
        if directory in self.held:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file(directory), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            log.debug("%s: no file locks here: two sweeps at once are not told apart", self.folder)
        self.held[directory] = descriptor
        return True

    def give_back(self, directory: str) -> None:
        """Let others have it."""
        descriptor = self.held.pop(directory, None)
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def give_back_all(self) -> None:
        """Let others have whatever is still held."""
        for directory in list(self.held):
            self.give_back(directory)

    def elsewhere(self, directory: str) -> bool:
        """Whether another sweep has the job in `directory` at this moment."""
        if directory in self.held or not self._file(directory).exists():
            return False
        try:
            taken = self.take(directory)
        except OSError:
            return False
        if taken:
            self.give_back(directory)
        return not taken

    def _file(self, directory: str) -> Path:
        return self.folder / f"{Path(directory).name}.lock"
