"""What losses exchange between processes (nothing where there is one), and that a process has one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.distributed.nn

from rag_experiments.core.distributed import rank_and_count

if TYPE_CHECKING:
    from transformers import TrainingArguments


def on_one_device(args: TrainingArguments) -> TrainingArguments:
    """`args` of a process that has one device, whatever it sees; every Trainer of ours gets its arguments so.

    Where it sees several GPUs, Trainer would copy the model to all of them at every step (DataParallel), multiply the
    batch size, and cut up inputs that are no batch: caches, bundles of passages.
    """
    args._n_gpu = min(args.n_gpu, 1)
    return args


def gather_with_gradient(own_ND: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Every process's rows, one below the other, and where this process's begin.

    Gradients flow back to the process that made a row, summed over all losses it took part in;
    DistributedDataParallel then averages them, which is the gradient of the mean over the whole batch.
    Processes may hold different numbers of rows.
    """
    rank, count = rank_and_count()
    if count == 1:
        return own_ND, 0
    counts = _counts(own_ND)
    padded_ND = torch.cat([own_ND, own_ND.new_zeros(max(counts) - len(own_ND), own_ND.shape[1])])
    gathered = torch.distributed.nn.functional.all_gather(padded_ND.contiguous())
    rows_ND = torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
    return rows_ND, sum(counts[:rank])


def gather_rows(own_N: torch.Tensor) -> torch.Tensor:
    """Every process's integers, or rows of them of one length, in the order of `gather_with_gradient`."""
    if rank_and_count()[1] == 1:
        return own_N
    counts = _counts(own_N)
    padded_N = torch.cat([own_N, own_N.new_full((max(counts) - len(own_N), *own_N.shape[1:]), -1)])
    gathered = [torch.empty_like(padded_N) for _ in counts]
    dist.all_gather(gathered, padded_N)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def _counts(own: torch.Tensor) -> list[int]:
    mine = torch.tensor([len(own)], device=own.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return [int(count) for count in counts]
