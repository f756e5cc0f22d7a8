"""What a run changes in the process around it, and how that is put back: a notebook and a sweep go on afterwards.

A command ends with its run, and with it ends what the run set for the whole process: Hydra's objects, the root
logger's handlers, the state of every random generator, accelerate's device.
"""

from __future__ import annotations

import gc
import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rag_experiments.core import distributed


@contextmanager
def as_before() -> Iterator[None]:
    """Inside, Hydra is as in a new process; afterwards Hydra, logging and random numbers are as they were.

    A loop that draws settings with `random` or numpy and trains with each would draw the same ones again, because every
    run seeds the generators.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    generator_states = random.getstate(), np.random.get_state(), _torch_state()
    GlobalHydra.instance().hydra = None
    _forget_device()
    try:
        yield
    finally:
        Singleton.set_state(state)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], root.level = handlers, level
        random.setstate(generator_states[0])
        np.random.set_state(generator_states[1])
        _restore_torch(generator_states[2])


def free_memory() -> None:
    """Free the memory of a finished run for the next one."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _torch_state() -> Any:
    """Torch's generators, and whether it is held to deterministic kernels; None where it is not imported yet."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return torch.get_rng_state(), gpus, torch.are_deterministic_algorithms_enabled()


def _restore_torch(state: Any) -> None:
    torch = sys.modules.get("torch")
    if torch is None or state is None:
        return
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
    torch.use_deterministic_algorithms(state[2])


def _forget_device() -> None:
    """Let accelerate choose again: an earlier run with `trainer.use_cpu=true` would leave later ones the CPU."""
    accelerate = sys.modules.get("accelerate.state")
    if accelerate is not None and not distributed.several():
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)
