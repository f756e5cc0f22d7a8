"""Several processes of one run (`torchrun`, `accelerate launch`): what one decides, what they share. Imports no torch.

Each process reads the same command line, but the clock in a run directory's name and the state of the runs on disk
differ between two that start a second apart. So rank 0 decides, and the others are told through the launcher's store.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from rag_experiments.core.errors import RequestError

WAIT_SECONDS = 600.0
"""For rank 0, which may have a large directory of runs to look through."""

QUIET = (
    "hydra.output_subdir=null",
    "~hydra.job_logging.handlers.file",
    "hydra.job_logging.root.handlers=[console]",
    "hydra.job_logging.root.level=WARNING",
)
"""Hydra's overrides for every rank but the first, so that one process writes `.hydra/` and `train.log`."""

Item = TypeVar("Item")

_numbers = itertools.count()
_kept: list[Any] = []  # where no agent holds the store, rank 0 does, for as long as it lives


def is_main_process() -> bool:
    """Whether this process writes: rank 0 of `torchrun`/`accelerate launch`, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def several() -> bool:
    """Whether this process is one of several of one run."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def decided_once(decide: Callable[[], Any]) -> Any:
    """What `decide` returns (JSON values) on rank 0, on every rank.

    Raises:
        RequestError: on every rank, where `decide` raises it.
    """
    if not several():
        return decide()
    store, key = _store(), f"decision/{next(_numbers)}"
    if not is_main_process():
        message = json.loads(store.get(key))
        if "refused" in message:
            raise RequestError(message["refused"])
        return message["decided"]
    try:
        decided = decide()
    except RequestError as error:
        store.set(key, json.dumps({"refused": str(error)}))
        raise
    store.set(key, json.dumps({"decided": decided}))
    return decided


def rank_and_count() -> tuple[int, int]:
    """Which process this is, and of how many; `(0, 1)` where there is no process group."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of `items`: every so many-th, from its rank on."""
    rank, count = rank_and_count()
    return items[rank::count]


def gathered(own: Item) -> list[Item]:
    """`own` of each process, by rank. It travels pickled, between the processes of one run only.

    All processes call this at the same place, or those that do wait for ever.
    """
    _, count = rank_and_count()
    if count == 1:
        return [own]
    import torch.distributed as dist

    received: list[Any] = [None] * count
    dist.all_gather_object(received, own)
    return received


def in_order(shares: Sequence[Sequence[Item]]) -> list[Item]:
    """Results for every process's `own_share`, by rank → those for all items, in the items' order."""
    return [shares[number % len(shares)][number // len(shares)] for number in range(sum(map(len, shares)))]


def _store() -> Any:
    from torch.distributed import PrefixStore, rendezvous

    store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=WAIT_SECONDS)))
    _kept.append(store)
    # A launcher that starts everything again keeps its store: an answer of the former attempt is none.
    return PrefixStore(f"rag_experiments/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
