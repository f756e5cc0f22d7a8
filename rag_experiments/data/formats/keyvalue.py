"""`data=keyvalue`: find a key's value among similar passages. The data is generated; nothing is downloaded.

A key is a word and a number (`river 48`), a passage gives its value (`river 48 keeps copper`), and a question asks for
the value. The words and numbers of test keys all occur in training, but the test keys do not. So a reader can only
learn to match both parts of the key and to copy the value; memorised pairs do not help. BM25 ranks the key's passage
first, followed by passages that share the word or the number. There are 48 values: a random value is right in 2 % of
the cases, a random one of K passages in 1/K.
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

# Every word is one token in the usual English WordPiece vocabularies.
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
    """Keys of `data=keyvalue`. A `path` is refused, because it must have been meant for another format."""

    format: str = "keyvalue"
    size: Annotated[int, Field(ge=100)] = 10_000
    """The number of keys; each has one passage and one question. Of 4,000 a reader memorised the answers and matched
    keys less well."""
    seed: NonNegativeInt = 0
    """The seed that the keys and values are drawn with; it is not the run's."""

    def __post_init__(self) -> None:
        refuse_path(self)


def fingerprint(config: KeyvalueConfig) -> str:
    """Everything that decides the data."""
    return repr((GENERATOR_VERSION, config.size, config.seed, config.dev_fraction, config.test_fraction))


def read(config: KeyvalueConfig, intake: Intake) -> None:
    """Add one passage and one question per key to the intake; splits are made by key.

    Raises:
        RequestError: `data.size` is larger than the number of possible keys.
    """
    keys = [(word, number) for word in _WORDS for number in range(_FIRST, _LAST + 1)]
    if config.size > len(keys):
        raise RequestError(f"data.size={config.size} is more than the {len(keys)} keys that there are")
    draws = random.Random(config.seed)
    sample = draws.sample(keys, config.size)
    dev, test = (round(fraction * config.size) for fraction in (config.dev_fraction, config.test_fraction))
    splits = ["dev"] * dev + ["test"] * test + ["train"] * (config.size - dev - test)
    for name in ("train", "dev", "test"):
        intake.split(name, "data=keyvalue")
    for place, ((word, number), split) in enumerate(zip(sample, splits, strict=True)):
        key, value = f"{word} {number}", draws.choice(_VALUES)
        with intake.row(Where(f"key {place}")):
            intake.passage(f"k{place}", f"{key} keeps {value}")
            intake.question(
                split,
                Question(id=f"q{place}", question=f"what keeps {key}", answers=(value,), positive_ids=(f"k{place}",)),
            )
