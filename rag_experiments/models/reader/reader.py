"""A reader: a language model that is given passages and a question and writes an answer.

Any Hugging Face causal LM or encoder-decoder, with or without adapters. What it is asked is made in
`models/reader/prompts.py`; here it is loaded, saved, made to write (`generate`) and to judge (`score`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from rag_experiments.config.schema import ReaderConfig
from rag_experiments.core.digest import without
from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader import answer_tokens, reader_files
from rag_experiments.models.reader.decoding import decoding_values, padding_id
from rag_experiments.models.reader.prompts import TEMPLATE_DATE, Prompt, PromptBuilder, TruncationCounts
from rag_experiments.models.reader.written import Written, decoded
from rag_experiments.models.shared.precision import autocast, precision_name, resolve_precision
from rag_experiments.models.shared.weights_digest import architecture_of, tokenizer_hash, weights_digest

if TYPE_CHECKING:
    from rag_experiments.data.records import Passage, Question

log = logging.getLogger(__name__)

LONGEST_DEFAULT = 2048
"""Tokens a prompt and its answer may have where nothing is said, however long a context the model can take."""

LONGEST_ANSWER = 32
"""Tokens an answer may have where `max_new_tokens` is None: of a reader that a run does not train."""

NOT_IN_A_SCORE = {
    **dict.fromkeys(
        ("path", "revision", "init", "architecture"), "what they make of the weights is seen in the weights"
    ),
    **dict.fromkeys(("lora", "load_in_4bit"), "adapters, and what rounding left, are weights"),
    **dict.fromkeys(
        ("instruction", "chat_template", "template_date"), "what they come to is in the fingerprint itself"
    ),
    "fid": "of `FidReader`, whose fingerprint has it",
    **dict.fromkeys(("attn_implementation", "batch_size"), "the same numbers but for rounding"),
}
"""Keys of the model that do not decide what is written or scored, and why."""


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Log-probabilities of N answers' tokens, each given its prompt."""

    tokens: list[Tensor]
    """One `[T]` a pair, fp32 on the CPU, in the order asked."""

    @property
    def sum_N(self) -> Tensor:
        """`log P(answer | prompt)`."""
        return torch.stack([row.sum() for row in self.tokens])

    @property
    def mean_N(self) -> Tensor:
        """Per token, so that long answers are not punished."""
        return torch.stack([row.mean() for row in self.tokens])


class Reader:
    """A component: `module`, `tokenizer`, `config` (no `auto` or `None` left where the model's folder knew)."""

    def __init__(self, module: Any, tokenizer: Any, config: ReaderConfig, base: str):
        self.module = module
        self.tokenizer = tokenizer
        self.base = base
        """Where the weights come from, in the words of `model.path`: adapters are put back onto it."""
        self.kind = config.kind
        self.dtype = resolve_precision(config.precision, self.device)
        limit = config.max_input_length or own_limit(answer_tokens.base_module(module).config, tokenizer)
        self.config = dataclasses.replace(
            config,
            precision=precision_name(self.dtype),
            max_input_length=limit,
            template_date=config.template_date or TEMPLATE_DATE,
        )
        self.prompts = PromptBuilder(
            tokenizer,
            max_length=limit,
            reserve=self.longest_answer,
            kind=self.kind,
            chat_template=config.chat_template,
            instruction=config.instruction,
            date=self.config.template_date or TEMPLATE_DATE,
        )

    @classmethod
    def load(
        cls,
        config: ReaderConfig,
        cache: Path | None = None,
        device: torch.device | str | None = None,
        frozen: bool = False,
    ) -> Reader:
        """Open the reader that `config` names.

        `frozen`: it will not be trained: weights in the precision it computes in, no gradients, eval mode,
        adapters merged. `cache` is where a GGUF is imported to; by default the configuration's default.

        Raises:
            RequestError: no such model, a model of another kind, 4-bit without a GPU, …
        """
        loaded = reader_files.open_reader(config, device, cache, frozen)
        return cls(loaded.module, loaded.tokenizer, loaded.config, loaded.base)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.module.parameters()).device

    # -- files -----------------------------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Write what `from_pretrained` and `Reader.load` open: a whole model, or adapters alone."""
        reader_files.save(self.module, self.tokenizer, self.config, self.base, directory)

    def load_weights(self, directory: Path) -> None:
        """Take the weights (or adapters) of a folder that `save` wrote, in place."""
        reader_files.load_weights(self.module, directory)

    def fingerprint(self) -> str:
        """A hash of the weights and of every setting that changes what is written or scored."""
        settings: dict[str, Any] = {
            "instruction": self.prompts.instruction,
            "template": self.tokenizer.chat_template if self.prompts.chat else None,
            "tokenizer": tokenizer_hash(self.tokenizer),
            # Heads, positions and norms decide what weights of the same shapes make of a text.
            "architecture": architecture_of(answer_tokens.base_module(self.module).config),
            "config": without(self.config, NOT_IN_A_SCORE),
        }
        if self.prompts.dated:
            settings["date"] = self.prompts.date
        return weights_digest(self.module, settings)

    # -- writing ---------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[Written]:
        """One answer per prompt, in their order; greedy, or by beam search. Batches hold prompts of similar length."""
        settings = self._generation_config(max_new_tokens or self.longest_answer, num_beams)
        new_tokens = self._writer(settings)
        written = [Written("")] * len(prompts)
        # One autocast around all batches: it keeps the cast weights, which a step a token would else cast anew.
        with self._evaluating(), autocast(self.device, self.dtype):
            for rows in self._rows(prompts, batch_size, progress, "generating"):
                tokens_BT = new_tokens([prompts[row] for row in rows])
                texts = decoded(self.tokenizer, tokens_BT, settings.eos_token_id, self.kind)
                for row, text in zip(rows, texts, strict=True):
                    written[row] = text
        return written

    def _rows(self, prompts: Sequence[Prompt], batch_size: int | None, progress: bool, what: str) -> Any:
        """Batches of row numbers, prompts of similar length together."""
        return batches([prompt.ids for prompt in prompts], batch_size or self.config.batch_size, progress, what)

    def _writer(self, settings: GenerationConfig) -> Callable[[Sequence[Prompt]], Tensor]:
        """A function from the prompts of a batch to the tokens written for them, `[B, T]`."""
        return partial(self._write, settings=settings)

    def _write(self, prompts: Sequence[Prompt], settings: GenerationConfig) -> Tensor:
        ids = [prompt.ids for prompt in prompts]
        pads_left = self.kind == "decoder"
        pad = answer_tokens.pad_left if pads_left else answer_tokens.pad_right
        inputs = {
            "input_ids": pad(ids, self.pad_id).to(self.device),
            "attention_mask": answer_tokens.lengths_mask(ids, left=pads_left).to(self.device),
        }
        out = self.module.generate(**inputs, generation_config=settings)
        return out[:, inputs["input_ids"].shape[1] :] if pads_left else out

    def _generation_config(self, max_new_tokens: int, num_beams: int) -> GenerationConfig:
        module = answer_tokens.base_module(self.module)
        return GenerationConfig(
            **decoding_values(
                module.generation_config, module.config, self.tokenizer, self.prompts.end_id, max_new_tokens, num_beams
            )
        )

    def answer(
        self,
        questions: Sequence[Question],
        passages: Sequence[Sequence[Passage]],
        num_beams: int = 1,
        progress: bool = False,
    ) -> tuple[list[str | None], TruncationCounts]:
        """One answer per question from the passages given for it, and what had to be cut.

        A question that leaves no room for passages or an answer gets None: it is named in the log, and counted.
        """
        cut = TruncationCounts()
        prompts: dict[int, Prompt] = {}
        for place, (question, own_passages) in enumerate(zip(questions, passages, strict=True)):
            try:
                prompts[place] = self.prompts.for_question(question, own_passages)
            except RequestError as error:
                cut.questions_left_out += 1
                log.warning("left out: %s", error)
                continue
            cut.add(prompts[place])
        written = self.generate(list(prompts.values()), num_beams=num_beams, progress=progress)
        cut.answers_cut = sum(answer.cut for answer in written)
        answers: list[str | None] = [None] * len(questions)
        for place, answer in zip(prompts, written, strict=True):
            answers[place] = str(answer)
        return answers, cut

    @property
    def longest_answer(self) -> int:
        """Tokens that an answer may have."""
        return self.config.max_new_tokens or LONGEST_ANSWER

    # -- judging ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        include_end: bool = False,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> AnswerScores:
        """How likely this model finds each answer after its prompt, token by token.

        Only answer positions go through the last layer; batches hold pairs of like length, and the same
        pair may come any number of times. `include_end`: with the token that ends the answer (for an
        encoder-decoder, all its tokenizer's special tokens).
        """
        pairs = [(prompt.ids, self.answer_ids(text, include_end)) for prompt, text in zip(prompts, texts, strict=True)]
        rows_of = [[*prompt, *answer] for prompt, answer in pairs]
        scored: list[Tensor] = [torch.empty(0)] * len(pairs)
        with self._evaluating(), autocast(self.device, self.dtype):
            for rows in batches(rows_of, batch_size or self.config.batch_size, progress, "scoring"):
                batch = self.batch([pairs[row] for row in rows])
                batch_log_probs = answer_tokens.answer_log_probs(self.module, batch, self.kind)
                for row, log_probs_T in zip(rows, batch_log_probs, strict=True):
                    scored[row] = log_probs_T.cpu()
        return AnswerScores(scored)

    def answer_ids(self, text: str, include_end: bool = True) -> list[int]:
        """Tokens of an answer; without the end, what it says and nothing else."""
        return self.prompts.answer(text, include_end)

    def batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Tensor]:
        """(prompt ids, answer ids) → tensors on the model's device."""
        make = answer_tokens.encoder_decoder_batch if self.kind == "encoder_decoder" else answer_tokens.decoder_batch
        tensors = make([prompt for prompt, _ in pairs], [answer for _, answer in pairs], self.pad_id)
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    @property
    def pad_id(self) -> int:
        """The token that fills up; any will do, since masks go by length."""
        return padding_id(self.tokenizer)

    def _evaluating(self) -> _EvalMode:
        return _EvalMode(self.module)


class _EvalMode:
    """Eval mode within, the former mode after."""

    def __init__(self, module: torch.nn.Module):
        self.module = module

    def __enter__(self) -> None:
        self.was_training = self.module.training
        self.module.eval()

    def __exit__(self, *exception: object) -> None:
        self.module.train(self.was_training)


def batches(rows: Sequence[Sequence[Any]], size: int, progress: bool, what: str) -> Iterator[list[int]]:
    """Positions of `rows`, longest first (the largest batch comes first, and so does running out of memory)."""
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    with tqdm(total=len(order), desc=what, disable=not progress) as bar:
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            yield chunk
            bar.update(len(chunk))


def own_limit(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a model with the Hugging Face config `config` can take, `LONGEST_DEFAULT` at most."""
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    return min(LONGEST_DEFAULT, tokenizer.model_max_length, *(value for value in limits if isinstance(value, int)))
