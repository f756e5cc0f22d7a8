"""How answers are decoded: the arguments of `transformers.GenerationConfig`, every one that matters said."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase


def decoding_values(
    own: GenerationConfig,
    model_config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    end_id: int,
    max_new_tokens: int,
    num_beams: int,
) -> dict[str, Any]:
    """Greedy or beams, ending at `end_id` or at the model's own end tokens; no sampling defaults.

    Args:
        own: the model's `generation_config`.
        end_id: the token that ends an answer (`PromptBuilder.end_id`).
    """
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    return {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        # Said one by one: what is left unsaid, generate() takes from the model's own sampling defaults.
        "do_sample": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 50,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
        "early_stopping": False,
        "eos_token_id": sorted({end_id, *(end for end in ends if end is not None)}),
        "pad_token_id": padding_id(tokenizer),
        "bos_token_id": _first(own.bos_token_id, tokenizer.bos_token_id),
        "decoder_start_token_id": _first(
            own.decoder_start_token_id, getattr(model_config, "decoder_start_token_id", None)
        ),
        "forced_bos_token_id": own.forced_bos_token_id,
    }


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up; any will do, since masks go by length."""
    return _first(tokenizer.pad_token_id, tokenizer.eos_token_id, 0)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
