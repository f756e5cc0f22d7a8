"""The cost of a FiD step: compared with padding to the maximum length, and for growing numbers of passages.

    python benchmarks/fid.py [--d-model 256] [--layers 4] [--questions 4] [--step-passages 16] [--passages 4 16 64]

A T5 with random weights reads passages with random lengths from 20 to 250 tokens. The benchmark prints two tables:

1. One training step with passages padded to 250 tokens and questions padded to the largest number of passages (as in
   the published code), and one as in this package: chunks padded to their longest passage, no padding passages.
2. Activations kept for the backward pass for each number of passages, with and without recomputation.

Time is the best CPU time of this process over `--repeats`, so other processes do not count. Memory is the number of
bytes that autograd keeps, counting each storage once (on a GPU: the allocator's peak).
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from rag_experiments.models.fid import fid_states
from rag_experiments.models.fid.fid_batch import to_device, training_batch
from rag_experiments.models.reader.answer_tokens import IGNORE, answer_logits
from rag_experiments.models.reader.prompts import Prompt

LONGEST, VOCABULARY = 250, 2000
ANSWER = [5, 6, 7, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--step-passages", type=int, default=16, help="passages per question in the first table")
    parser.add_argument("--passages", type=int, nargs="+", default=[4, 16, 64], help="in the second table")
    parser.add_argument("--sub-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = small_t5(options.d_model, options.layers).to(device).train()
    draws = random.Random(0)

    counts = [max(1, options.step_passages - place % 2) for place in range(options.questions)]  # uneven
    prompts = make_prompts(counts, draws)
    print(f"one step of {options.questions} questions with {counts} passages on {device}")
    ways = {
        "padded to the maximum": to_device(padded_batch(prompts), device),
        "chunks of similar length": to_device(own_batch(prompts, options.sub_batch), device),
    }
    costs = {name: cost(model, batch, False, options.repeats) for name, batch in ways.items()}
    reference = costs["padded to the maximum"]
    for name, (seconds, kept, loss) in costs.items():
        print(
            f"  {name:24} {seconds:7.2f} s {reference[0] / seconds:5.2f}x   {kept / 2**20:8.1f} MiB "
            f"{reference[1] / kept:5.2f}x   loss {loss:.5f}"
        )

    print("\nactivations kept, MiB           plain  recomputed   states alone")
    for count in options.passages:
        batch = to_device(own_batch(make_prompts([count], draws), options.sub_batch), device)
        plain, again = (cost(model, batch, recompute, 1)[1] / 2**20 for recompute in (False, True))
        states = batch["index_BS"].numel() * options.d_model * 4 / 2**20
        print(f"  {count:3} passages            {plain:10.1f}  {again:10.1f}   {states:10.2f}")


def small_t5(width: int, layers: int) -> T5ForConditionalGeneration:
    """A T5 with random weights and without dropout, so that both ways give the same loss."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def make_prompts(counts: list[int], draws: random.Random) -> list[Prompt]:
    """One prompt per question; the lengths of its passages are random."""

    def passage() -> tuple[int, ...]:
        return tuple(draws.randrange(10, VOCABULARY) for _ in range(draws.randrange(20, LONGEST + 1)))

    return [Prompt(head=(), passages=tuple(passage() for _ in range(count)), tail=()) for count in counts]


def own_batch(prompts: list[Prompt], size: int) -> dict[str, Any]:
    """The batch as the trainer makes it."""
    return training_batch(prompts, [ANSWER] * len(prompts), 0, "encoder_decoder", size)


def padded_batch(prompts: list[Prompt]) -> dict[str, Any]:
    """`[B, N, L]`, every passage padded to the maximum length, every question to the most passages."""
    most = max(len(prompt.passages) for prompt in prompts)
    ids_BNL = torch.zeros(len(prompts), most, LONGEST, dtype=torch.long)
    mask_BNL = torch.zeros_like(ids_BNL)
    for b, prompt in enumerate(prompts):
        for n, part in enumerate(prompt.passages):
            ids_BNL[b, n, : len(part)] = torch.tensor(part)
            mask_BNL[b, n, : len(part)] = 1
    return {"padded_BNL": ids_BNL, "mask_BNL": mask_BNL, "labels": torch.tensor([ANSWER] * len(prompts))}


def loss_of(model: PreTrainedModel, batch: dict[str, Any], recompute: bool) -> torch.Tensor:
    """The loss of a step for either kind of batch."""
    if "padded_BNL" in batch:
        ids_BNL, mask_BNL = batch["padded_BNL"], batch["mask_BNL"]
        size = len(ids_BNL)
        encoder = model.get_encoder()
        states = encoder(input_ids=ids_BNL.flatten(0, 1), attention_mask=mask_BNL.flatten(0, 1)).last_hidden_state
        made = {"mask_BS": mask_BNL.view(size, -1)}
        inputs = fid_states.cross_attention_inputs(made, states.reshape(size, -1, states.shape[-1]))
    else:
        inputs = fid_states.cross_attention_inputs(batch, fid_states.encode_inputs(model, batch, recompute))
    logits_NV, targets_N = answer_logits(model, inputs | {"labels": batch["labels"]}, "encoder_decoder")
    return F.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORE)


def cost(model: PreTrainedModel, batch: dict[str, Any], recompute: bool, repeats: int) -> tuple[float, float, float]:
    """CPU seconds of the fastest step, bytes kept for its backward pass, and its loss."""
    seconds = []
    for _ in range(repeats):
        kept: dict[int, int] = {}
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        started = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: note(tensor, kept), lambda x: x):
            loss = loss_of(model, batch, recompute)
        loss.backward()
        seconds.append(time.process_time() - started)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = sum(size for place, size in kept.items() if place not in weights)
    return min(seconds), torch.cuda.max_memory_allocated() if torch.cuda.is_available() else held, loss.item()


def note(tensor: torch.Tensor, kept: dict[int, int]) -> torch.Tensor:
    """Count the tensor's storage once."""
    storage = tensor.untyped_storage()
    kept[storage.data_ptr()] = storage.nbytes()
    return tensor


if __name__ == "__main__":
    main()
