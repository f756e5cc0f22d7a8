"""`data=keyvalue`: find the asked key's value among passages that look alike. Made on the spot, nothing is downloaded.

A key is a word and a number (`river 48`), a passage says its value (`river 48 keeps copper`), a question asks for
it. Words and numbers of test keys all occur in training; test keys do not. So what a reader can learn is to match
both parts of the key and copy the value, and nothing it memorises helps; a retriever by words finds the key's
passage first and beside it ones that share the word or the number. The values are drawn from 48 words: chance is
two in a hundred, and taking any of K passages is one in K.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rag_experiments.config.schema import DataConfig, NonNegativeInt
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.lines import refuse_path
from rag_experiments.data.records import Question, Where

GENERATOR_VERSION = 2
"""Raised when the same configuration would give another data set."""

# Every word is one word piece of the usual English vocabularies.
_WORDS_TEXT = """
    river stone forest garden mountain island bridge castle market harbor village tower window door table chair
    bottle basket candle mirror needle hammer ladder wheel anchor lantern blanket pillow carpet curtain kitchen
    library museum theater temple palace station tunnel valley desert ocean meadow orchard farm barn mill school
    hospital church square
    wolf horse rabbit eagle falcon turtle salmon dolphin tiger lion bear fox deer sheep goat duck goose swan owl
    spider butterfly snake frog camel elephant monkey doctor teacher farmer sailor soldier painter singer dancer
    writer lawyer judge captain pilot driver baker hunter miner tailor nurse actor poet priest guitar piano violin
    drum trumpet flute hat coat shirt boot glove belt ring crown sword shield arrow spear helmet truck train boat
    canoe wagon bicycle engine rocket planet moon comet cloud storm thunder
"""
_VALUES_TEXT = """
    copper silver gold iron steel glass paper cotton silk wool leather wood coal salt sugar honey butter cheese bread
    rice corn wheat apple orange lemon cherry grape olive pepper garlic coffee tea wine beer milk water oil soap
    rope wire chain coin pearl diamond marble clay sand smoke
"""
_WORDS, _VALUES = _WORDS_TEXT.split(), _VALUES_TEXT.split()
_FIRST, _LAST = 10, 99


@dataclass(kw_only=True)
class KeyvalueConfig(DataConfig):
    """Keys of `data=keyvalue`; a `path` is refused: it was meant for another format."""

    format: str = "keyvalue"
    size: Annotated[int, Field(ge=100)] = 10_000
    """Keys, each with one passage and one question."""
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        refuse_path(self)


def fingerprint(config: KeyvalueConfig) -> str:
    """Everything that decides the data."""
    return repr((GENERATOR_VERSION, config.size, config.seed, config.dev_fraction, config.test_fraction))


def read(config: KeyvalueConfig, intake: Intake) -> None:
    """Hand in one passage and one question a key, split by key.

    Raises:
        RequestError: more keys than there are.
    """
    keys = [(word, number) for word in _WORDS for number in range(_FIRST, _LAST + 1)]
    if config.size > len(keys):
        raise RequestError(f"data.size={config.size} is more than the {len(keys)} keys that there are")
    draws = random.Random(config.seed)
    chosen = draws.sample(keys, config.size)
    dev, test = (round(fraction * config.size) for fraction in (config.dev_fraction, config.test_fraction))
    splits = ["dev"] * dev + ["test"] * test + ["train"] * (config.size - dev - test)
    for name in ("train", "dev", "test"):
        intake.split(name, "data=keyvalue")
    for place, ((word, number), split) in enumerate(zip(chosen, splits, strict=True)):
        key, value = f"{word} {number}", draws.choice(_VALUES)
        with intake.row(Where(f"key {place}")):
            intake.passage(f"k{place}", f"{key} keeps {value}")
            intake.question(
                split,
                Question(id=f"q{place}", question=f"what keeps {key}", answers=(value,), positive_ids=(f"k{place}",)),
            )
