"""Decide which sweep runs a job, because the same command may run twice at once, on one machine or several.

A sweep holds a lock for each of its jobs, from before it touches the job's folder until the job has ended. The run
itself records that it is running only seconds after the decision to start it; without the lock a second sweep could
clear the job's folder in between. The kernel frees the lock when the sweep's process ends.
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
    """The jobs in one sweep's folder that this process has claimed."""

    def __init__(self, folder: Path):
        self.folder = folder / FOLDER
        self.held: dict[str, int] = {}

    def take(self, directory: str) -> bool:
        """Claim the job in `directory` for this sweep; False if another sweep has it."""
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
            log.debug("%s: no file locks here: two sweeps at once may run the same job", self.folder)
        self.held[directory] = descriptor
        return True

    def give_back(self, directory: str) -> None:
        """Release the claim on one job."""
        descriptor = self.held.pop(directory, None)
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def give_back_all(self) -> None:
        """Release all claims."""
        for directory in list(self.held):
            self.give_back(directory)

    def elsewhere(self, directory: str) -> bool:
        """Whether another sweep has claimed the job in `directory` at this moment."""
        if directory in self.held or not self._file(directory).exists():
            return False
        try:
            is_free = self.take(directory)
        except OSError:
            return False
        if is_free:
            self.give_back(directory)
        return not is_free

    def _file(self, directory: str) -> Path:
        return self.folder / f"{Path(directory).name}.lock"
