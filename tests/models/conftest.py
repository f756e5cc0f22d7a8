"""Small models with random weights, made on the spot: no network, no installed weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = (
    "the of a in to is and query passage search document instruct red blue green stone river bird flies over slow "
    "quick fox dog sleeps under tree house old new long short answer question text : , . _ ?"
)

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}

SMALL: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 64},
    "roberta": {"max_position_embeddings": 66},
    "xlm-roberta": {"max_position_embeddings": 66},
    "mpnet": {"max_position_embeddings": 66},
    "modernbert": {"max_position_embeddings": 64, "global_attn_every_n_layers": 2, "local_attention": 8},
    "qwen3": {"max_position_embeddings": 64, "num_key_value_heads": 1, "head_dim": 16},
    "llama": {"max_position_embeddings": 64, "num_key_value_heads": 1},
    "distilbert": {"max_position_embeddings": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "gpt2": {"n_positions": 64},
    "fnet": {"max_position_embeddings": 64},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
}
"""What makes each architecture small."""


def make_tokenizer(ends: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    """Words to numbers; `ends` adds <s> and </s> as BERT does, else a decoder's tokenizer that adds nothing."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL.values(), "<|end|>", *VOCABULARY.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if ends:
        ids = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ids
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", **{**SPECIAL, **options})


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """`make_folder(model_type)` writes a small random model of that architecture with its tokenizer."""

    def make(model_type: str = "bert", name: str = "small", seed: int = 0, ends: bool = True, **fields: Any) -> Path:
        torch.manual_seed(seed)
        tokenizer = make_tokenizer(ends)
        common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.AutoConfig.for_model(
            model_type,
            **{
                **({} if model_type == "t5" else common),
                **SMALL[model_type],
                "vocab_size": len(tokenizer),
                "pad_token_id": tokenizer.pad_token_id,
                **fields,
            },
        )
        folder = tmp_path / name
        model_class = transformers.T5EncoderModel if model_type == "t5" else transformers.AutoModel
        make_model = model_class._from_config if model_type == "t5" else model_class.from_config
        make_model(config, dtype=torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def texts() -> list[str]:
    """Texts of different lengths, not in order of length, with a word that no vocabulary has and an empty one."""
    return [
        "the red fox sleeps under the old tree",
        "stone",
        "a bird flies over the long river and the new house , slow and quick . the dog sleeps",
        "",
        "what is zyxwv ?",
        "blue stone " * 40,
    ]
