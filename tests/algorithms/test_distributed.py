"""Two processes give the gradient of one batch of both halves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from rag_experiments.algorithms import ctl
from rag_experiments.algorithms.ctl import CTLConfig, CTLTrainer, ctl_loss, known_positives
from rag_experiments.algorithms.shared.gathering import gather_rows, gather_with_gradient
from tests import warm

DIM = 5
QUESTIONS = 6


def gradient(part: slice, passages_of: slice) -> torch.Tensor:
    """Gradient of this process's mean loss, as an optimiser's hook would find it."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUESTIONS, DIM, generator=generator, dtype=torch.float64)
    texts = torch.randn(QUESTIONS + 1, DIM, generator=generator, dtype=torch.float64)
    positives = torch.tensor([[0, 5], [1, -1], [2, -1], [3, -1], [4, 0], [5, -1]])
    weight = torch.eye(DIM, dtype=torch.float64, requires_grad=True)
    passages, offset = gather_with_gradient(texts[passages_of] @ weight)
    rows = gather_rows(torch.arange(QUESTIONS + 1)[passages_of])
    scores = (queries[part] @ weight) @ passages.T
    target = torch.arange(part.stop - part.start) + offset
    loss = ctl_loss(scores, target, known_positives(rows, positives[part]), 1.0)
    (found,) = torch.autograd.grad(loss, weight)
    return found


def worker(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # Three questions each; the second process holds one passage more (a hard negative).
    found = gradient(slice(rank * 3, rank * 3 + 3), slice(0, 3) if rank == 0 else slice(3, 7))
    dist.all_reduce(found)
    if rank == 0:
        torch.save(found / 2, Path(folder, "gradient.pt"))  # what DistributedDataParallel's average gives
    dist.destroy_process_group()


def run_by_two(function: str, folder: Path) -> None:
    """Call a function of this file in two processes, with a rank, the port where they meet, and the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = []
    for rank in range(2):
        code = f"from {__name__} import {function}; {function}({rank}, {port}, {str(folder)!r})"
        command = [sys.executable, "-c", code]
        source_name = ("heavy", "another heavy")[rank]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(warm.start(command, source_name=source_name, env=environment, **output))
    try:
        printed = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], printed


@pytest.mark.timeout(400)
def test_two_processes_give_the_gradient_of_the_whole_batch(tmp_path):
    run_by_two("worker", tmp_path)
    apart = torch.load(tmp_path / "gradient.pt", weights_only=True)
    together = gradient(slice(0, QUESTIONS), slice(0, QUESTIONS + 1))
    torch.testing.assert_close(apart, together, atol=1e-12, rtol=0)


def symmetric_loss(part: slice, passages_of: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """CTL's symmetric loss of a part of the questions, and its gradient; the encoder is a matrix."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUESTIONS, DIM, generator=generator)
    texts = torch.randn(QUESTIONS + 1, DIM, generator=generator)
    positives = torch.tensor([[0, 5], [1, -1], [2, -1], [3, -1], [4, 0], [5, -1]])
    weight = torch.eye(DIM, requires_grad=True)
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(symmetric=True, temperature=0.5, matryoshka_dims=[3])
    encoder = SimpleNamespace(similarity=lambda q, p: q @ p.T, config=SimpleNamespace(similarity="cosine"))
    trainer.components = SimpleNamespace(model=encoder)
    trainer.record = lambda *_: None
    inputs = {
        "queries": queries[part],
        "passages": texts[passages_of],
        "passage_rows_P": torch.arange(QUESTIONS + 1)[passages_of],
        "target_B": torch.arange(part.stop - part.start),
        "positive_rows_BM": positives[part],
    }
    whole, ctl.encode_chunks = ctl.encode_chunks, lambda model, texts, recompute: texts @ model
    try:
        loss = trainer.compute_loss(weight, inputs)
    finally:
        ctl.encode_chunks = whole
    return loss.detach(), torch.autograd.grad(loss, weight)[0]


def symmetric_worker(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # Two questions and four, so that the processes hold different numbers of both.
    loss, found = symmetric_loss(*((slice(0, 2), slice(0, 2)) if rank == 0 else (slice(2, 6), slice(2, 7))))
    share = (2 if rank == 0 else 4) / QUESTIONS
    for value in (loss, found):
        value.mul_(share)
        dist.all_reduce(value)
    if rank == 0:
        torch.save([loss, found], Path(folder, "symmetric.pt"))
    dist.destroy_process_group()


@pytest.mark.timeout(400)
def test_two_processes_contrast_a_passage_with_the_questions_of_both(tmp_path):
    run_by_two("symmetric_worker", tmp_path)
    loss, gradient = torch.load(tmp_path / "symmetric.pt", weights_only=True)
    expected, _ = symmetric_loss(slice(0, QUESTIONS), slice(0, QUESTIONS + 1))
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-5)
    assert gradient.abs().max() > 0
