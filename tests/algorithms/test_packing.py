"""Several examples in one row compute what they do apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms.sft import SFTTrainer, answer_loss
from rag_experiments.algorithms.shared.packing import pack, packed_batch
from rag_experiments.config.schema import ReaderConfig
from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.reader.reader import Reader
from tests.algorithms.reader_parts import losses, make_trainer
from tests.examples import PASSAGES
from tests.numeric import assert_near


def reader_at(folder, **more) -> Reader:
    return Reader.load(ReaderConfig(path=str(folder), precision="fp32", **more), device="cpu")


def test_rows_of_a_pack():
    assert pack([5, 3, 4, 9, 1], room=8) == [[3], [0, 1], [2, 4]]
    assert pack([], room=8) == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packing_is_no_packing(attention, tiny_llama):
    """Loss and gradients in float64: what stands beside an example in its row changes nothing."""
    reader = reader_at(tiny_llama, attn_implementation=attention)
    module = reader.module.double()
    texts = ["in the house", "no", "a star and a river", "yes"]
    prompts = [reader.prompts.build("Where?" * n, PASSAGES[:n]).ids for n in range(4)]
    targets = [reader.prompts.answer(text) for text in texts]
    room = 2 * max(map(len, prompts))
    outcomes = []
    for batch in (
        answer_tokens.decoder_batch(prompts, targets, reader.pad_id),
        packed_batch(prompts, targets, reader.pad_id, room, additive=attention == "eager"),
    ):
        module.zero_grad()
        logits_NV, targets_N = answer_tokens.answer_logits(module, batch, "decoder")
        loss = answer_loss(logits_NV, targets_N, targets_N.numel())
        loss.backward()
        outcomes.append((batch["input_ids"].shape[0], loss.item(), [p.grad.clone() for p in module.parameters()]))
    (rows, loss, grads), (packed_rows, packed_loss, packed_grads) = outcomes
    assert (rows, packed_rows) == (4, 2)
    assert_near(packed_loss, loss, share=1e-6)
    for ours, theirs in zip(grads, packed_grads, strict=True):
        assert_near(theirs, ours)


def test_a_packed_row_that_leaks_would_show(tiny_llama):
    """The same rows under a plain causal mask give another loss: the test above can fail."""
    reader = reader_at(tiny_llama)
    prompts = [reader.prompts.build(q).ids for q in ("Where is it?", "Who?")]
    targets = [reader.prompts.answer(text) for text in ("here", "nobody")]
    packed = packed_batch(prompts, targets, reader.pad_id, 2000)
    closed, _ = answer_tokens.answer_logits(reader.module, packed, "decoder")
    open_mask = torch.ones_like(packed["attention_mask"]).tril()
    leaking, _ = answer_tokens.answer_logits(reader.module, {**packed, "attention_mask": open_mask}, "decoder")
    assert not torch.allclose(closed, leaking, atol=1e-3)


def test_packed_training_is_unpacked_training(tiny_llama, tmp_path):
    results = []
    for packing in (False, True):
        trainer = make_trainer(SFTTrainer, tiny_llama, tmp_path, algorithm_packing=packing, max_steps=3, optim="sgd")
        trainer.train()
        results.append(losses(trainer))
    assert_near(results[1], results[0])


@settings(max_examples=40, deadline=None)
@given(
    examples=st.lists(
        st.tuples(
            st.lists(st.integers(1, 8), min_size=1, max_size=4), st.lists(st.integers(1, 8), min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=5,
    ),
    room=st.integers(1, 12),
    additive=st.booleans(),
)
def test_packed_rows_by_loops(examples, room, additive):
    """Every example once, whole and in one row; a token sees its own example's earlier tokens and nothing else."""
    prompts, targets = [list(prompt) for prompt, _ in examples], [list(target) for _, target in examples]
    batch = packed_batch(prompts, targets, 99, room, additive)
    lengths = [len(prompt) + len(target) for prompt, target in examples]
    layout = pack(lengths, room)
    assert sorted(place for row in layout for place in row) == list(range(len(examples)))
    assert all(sum(lengths[place] for place in row) <= room or len(row) == 1 for row in layout)
    width = batch["input_ids"].shape[1]
    assert batch["attention_mask"].shape == (len(layout), 1, width, width)
    seen = batch["attention_mask"] == 0 if additive else batch["attention_mask"]
    for number, row in enumerate(layout):
        tokens, labels, positions, owner = [], [], [], []
        for place in row:
            tokens += prompts[place] + targets[place]
            labels += [-100] * len(prompts[place]) + targets[place]
            positions += range(lengths[place])
            owner += [place] * lengths[place]
        fill = width - len(tokens)
        assert batch["input_ids"][number].tolist() == tokens + [99] * fill
        assert batch["labels"][number].tolist() == labels + [-100] * fill
        assert batch["position_ids"][number].tolist() == positions + [0] * fill
        owner += [-1] * fill
        wanted = [[owner[i] == owner[j] and j <= i for j in range(width)] for i in range(width)]
        assert seen[number, 0].tolist() == wanted
    if additive:
        assert set(batch["attention_mask"].unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}
        assert batch["attention_mask"].dtype == torch.float32
