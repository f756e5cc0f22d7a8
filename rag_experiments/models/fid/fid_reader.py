"""A reader that reads its passages apart and answers over all of them (Fusion-in-Decoder).

The only change from `Reader`: what a prompt's parts become. Weights, files and generation are Hugging Face's;
`model.fid` says how passages are read and is saved beside the weights.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rag_experiments.config.schema import FidSettings, ReaderConfig
from rag_experiments.core.digest import digest, without
from rag_experiments.model_files.metadata import read_facts
from rag_experiments.model_files.sources import fetch, resolve
from rag_experiments.models.fid import fid_states
from rag_experiments.models.fid.fid_batch import Block, blocks_of, state_batch, tail_batch, to_device, training_batch
from rag_experiments.models.fid.fid_prompts import FidPromptBuilder
from rag_experiments.models.reader import answer_tokens, reader_files
from rag_experiments.models.reader.key_value_cache import CACHE
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.models.reader.reader import AnswerScores, Reader
from rag_experiments.models.shared.precision import autocast

NOT_IN_A_STATE = dict.fromkeys(("sub_batch_size", "reuse_mb"), "how the work is cut up")
"""Keys under `model.fid` that do not decide what is written or scored, and why."""


def saved_settings(path: str, revision: str | None = None) -> FidSettings | None:
    """How the model at `path` was trained to read passages apart; None where it was not."""
    source = resolve(path, revision)
    folder = fetch(source) if source.local is not None else None
    facts = read_facts(folder) if folder is not None and folder.is_dir() else None
    saved = (facts or {}).get("config", {}).get("fid")
    return FidSettings(**saved) if saved else None


class FidReader(Reader):
    """A `Reader` whose prompts come from `FidPromptBuilder`: `answer`, `generate` and `score` as there."""

    prompts: FidPromptBuilder

    def __init__(self, module: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, config: ReaderConfig, base: str):
        super().__init__(module, tokenizer, config, base)
        assert self.config.max_input_length is not None  # `Reader` settled it
        self.settings = self.config.fid or FidSettings()
        self.config.fid = self.settings
        self.prompts = FidPromptBuilder(
            tokenizer,
            max_length=self.config.max_input_length,
            reserve=self.longest_answer,
            kind=self.kind,
            chat_template=config.chat_template,
            instruction=config.instruction,
            date=self.prompts.date,
            passage_tokens=self.settings.passage_tokens,
            question_with_passage=self.settings.question_with_passage,
        )
        if self.kind == "decoder":
            fid_states.check_decoder(self.bare)

    @classmethod
    def load(
        cls,
        config: ReaderConfig,
        cache: Path | None = None,
        device: torch.device | str | None = None,
        frozen: bool = False,
    ) -> FidReader:
        """As `Reader.load`. Where `config.fid` is None, the settings a FiD run saved, or the published ones."""
        if config.fid is None and config.init != "random":
            config = dataclasses.replace(config, fid=saved_settings(config.path, config.revision))
        loaded = reader_files.open_reader(config, device, cache, frozen)
        return cls(loaded.module, loaded.tokenizer, loaded.config, loaded.base)

    def fingerprint(self) -> str:
        """As `Reader.fingerprint`; how passages are read is part of it."""
        return digest("fid", without(self.settings, NOT_IN_A_STATE), super().fingerprint())

    @property
    def bare(self) -> Any:
        """The Hugging Face model inside adapters."""
        return answer_tokens.base_module(self.module)

    # -- training and judging --------------------------------------------------------------------

    def training_batch(self, prompts: Sequence[Prompt], targets: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Tensors of a batch, on the CPU; see `fid_batch.training_batch`."""
        return training_batch(prompts, targets, self.pad_id, self.kind, self.settings.sub_batch_size)

    def answer_logits(
        self, batch: dict[str, Any], model: torch.nn.Module | None = None, recompute: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits `[N, V]` that predict the supervised tokens, and those `[N]`.

        `model` is this reader's module as a launcher wraps it; the answer goes through it, the passages do not:
        a wrapper that averages gradients must see one forward a step. `recompute`: see `fid_states`.
        """
        model = self.module if model is None else model
        if self.kind == "encoder_decoder":
            states_BSD = fid_states.encode_inputs(self.bare, batch, recompute)
            inputs = fid_states.cross_attention_inputs(batch, states_BSD) | {"labels": batch["labels"]}
        else:
            inputs = fid_states.tail_inputs(batch, fid_states.encode_passages(self.bare, batch, recompute))
        return answer_tokens.answer_logits(model, inputs, self.kind)

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        include_end: bool = False,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> AnswerScores:
        """As `Reader.score`, each answer given all of its prompt's passages, read apart."""
        targets = [self.answer_ids(text, include_end) for text in texts]
        scored: list[Tensor] = [torch.empty(0)] * len(targets)
        with self._evaluating(), autocast(self.device, self.dtype):
            for rows in self._rows(prompts, batch_size, progress, "scoring"):
                batch = self.training_batch([prompts[row] for row in rows], [targets[row] for row in rows])
                batch = to_device(batch, self.device)
                logits_NV, targets_N = self.answer_logits(batch)
                log_probs_N = -torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")
                counts = answer_tokens.supervised_counts(batch["labels"], self.kind).tolist()
                for row, log_probs_T in zip(rows, log_probs_N.split(counts), strict=True):
                    scored[row] = log_probs_T.cpu()
        return AnswerScores(scored)

    # -- writing ---------------------------------------------------------------------------------

    def _writer(self, settings: Any) -> Callable[[Sequence[Prompt]], Tensor]:
        """As the reader's; a decoder keeps the states of passages for the prompts that come later."""
        if self.kind == "encoder_decoder":
            return partial(self._write_from_inputs, settings=settings)
        return partial(self._write_from_states, settings=settings, state_cache=self.kept_states())

    def _write_from_inputs(self, prompts: Sequence[Prompt], settings: Any) -> Tensor:
        batch = to_device(state_batch(prompts, self.pad_id, self.settings.sub_batch_size), self.device)
        states_BSD = fid_states.encode_inputs(self.bare, batch)
        return self.bare.generate(**fid_states.cross_attention_inputs(batch, states_BSD), generation_config=settings)

    def _write_from_states(self, prompts: Sequence[Prompt], settings: Any, state_cache: KeptStates) -> Tensor:
        batch, states = self.passage_states(prompts, state_cache)
        batch |= to_device(tail_batch(prompts, self.pad_id), self.device)
        cache = fid_states.cache_of(states)
        if settings.num_beams > 1:
            cache.batch_repeat_interleave(settings.num_beams)
        # generate() wants ids and positions for what the cache holds, and looks at neither.
        size, held = states.shape[:2]
        unread = torch.full((size, held), self.pad_id, device=self.device)
        ids = torch.cat([unread, batch["tail_ids"]], dim=1)
        out = self.bare.generate(
            input_ids=ids,
            attention_mask=torch.cat([batch["mask_BS"], batch["tail_mask"]], dim=1),
            position_ids=torch.cat([torch.zeros_like(unread), fid_states.tail_positions(batch)], dim=1),
            generation_config=settings,
            **{CACHE: cache},
        )
        return out[:, ids.shape[1] :]

    # -- passage states --------------------------------------------------------------------------

    def kept_states(self) -> KeptStates:
        """An empty store for the states that questions share: nothing is shared where each sees its own question."""
        useful = self.kind == "decoder" and not self.settings.question_with_passage
        return KeptStates(self.settings.reuse_mb * 2**20 if useful else 0)

    def passage_states(self, prompts: Sequence[Prompt], state_cache: KeptStates) -> tuple[dict[str, Any], Tensor]:
        """The batch and a decoder's states `[B, S, 2·layers, H, d]`, passages in `state_cache` not read again."""
        ready_states = {block: state_cache[block] for block in blocks_of(prompts) if block in state_cache}
        batch = to_device(state_batch(prompts, self.pad_id, self.settings.sub_batch_size, ready_states), self.device)
        prefix_states = fid_states.encode_prefixes(self.bare, batch)
        prefix_mask = batch["prefixes"]["attention_mask"] if prefix_states is not None else None
        bank: list[Tensor] = []
        if prefix_states is not None and prefix_mask is not None:
            bank.append(prefix_states[prefix_mask.bool()])
        bank += ready_states.values()
        fresh = iter([block for block in blocks_of(prompts) if block not in ready_states])
        for chunk in batch["chunks"]:
            chunk_states = fid_states.encode_chunk(self.bare, chunk, prefix_states, prefix_mask)
            bank.append(chunk_states[chunk["attention_mask"].bool()])
            for states, length in zip(chunk_states, chunk["attention_mask"].sum(dim=1).tolist(), strict=True):
                state_cache.keep(next(fresh), states[:length])
        return batch, torch.cat(bank)[batch["index_BS"]]


class KeptStates:
    """Passages' states by what they depend on, the least recently used dropped beyond `limit` bytes.

    An `OrderedDict`: cachetools' `LRUCache` does as much, and would be a dependency for these lines alone.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0
        self.hits = 0
        self._states: OrderedDict[Block, Tensor] = OrderedDict()

    def __contains__(self, block: Block) -> bool:
        return block in self._states

    def __getitem__(self, block: Block) -> Tensor:
        self._states.move_to_end(block)
        self.hits += 1
        return self._states[block]

    def keep(self, block: Block, states_LCHd: Tensor) -> None:
        """Keep a copy of `states_LCHd` (a slice would hold on to its whole chunk)."""
        size = states_LCHd.numel() * states_LCHd.element_size()
        if size > self.limit:
            return
        self._states[block] = states_LCHd.clone()
        self.used += size
        while self.used > self.limit:
            _, dropped = self._states.popitem(last=False)
            self.used -= dropped.numel() * dropped.element_size()
