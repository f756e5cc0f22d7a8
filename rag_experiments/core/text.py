"""The one place that says when two texts are the same and where a word ends, in every script.

**Normalisation** (`normalise`): Unicode's NFKC and full case folding (UAX #15; Unicode, section 3.13), then

- what is not seen goes: soft hyphens, zero-width spaces and joiners, direction marks, variation selectors. In Arabic
  script a zero-width non-joiner parts two words (Persian writes a space there as often): it becomes a space;
- marks by script: vowel signs of Arabic, Hebrew and Syriac, the Arabic tatweel and the hamza on or under an alef,
  every Greek accent and Russian stress marks go, since most writers leave them out; `ё` is `е`. Vowel signs of Hindi
  and its relatives are letters and stay. **Latin accents stay**: `Müller` is not `Muller`, `schon` not `schön`, `ano`
  not `año`. A dense retriever or a reader may know better; a rule that is right for all languages cannot;
- `İ`, `I`, `ı` and `i` are one letter: case must not change a word, and without knowing that a text is Turkish
  nothing less makes `ISPARTA` the capitals of `ısparta`;
- quotation marks, apostrophes, dashes and the commas and full stops of Arabic, Chinese, Hindi … become ASCII's;
  Persian's yeh and kaf Arabic's; digits of any script 0 to 9.
- `10²` becomes `10^2` and `1½` `1 1/2`: NFKC alone would make 102 and 11/2 of them.

**Words** (`words`): runs of letters, marks and digits by Unicode's properties (the `regex` package, which knows all
of them, is small, and comes with transformers). Scripts that do not space their words (Han, kana, Thai, Lao, Khmer,
Myanmar and their relatives: Unicode's line-break class SA) give one word a character with its marks, as the official
script of CMRC does. No dictionary decides: the same text gives the same words on every machine.

ASCII text takes a short way: lower case, and `re`. Words with other letters are normalised one by one, with a cache.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import regex

VERSION = 1
"""Part of the key of every cache whose content depends on this file: raise it when a rule changes."""

_UNSPACED = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\p{Script=Yi}\p{Line_Break=SA}ー〆"
_CHARACTER = rf"[[{_UNSPACED}]--\p{{M}}]\p{{M}}*"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]"
_IN_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]"

_WORDS = regex.compile(rf"(?V1){_CHARACTER}|{_LETTER}+|\p{{M}}+")
_INDEX_RUNS = regex.compile(rf"(?V1)(?:{_CHARACTER})+|{_IN_WORD}+(?:'{_IN_WORD}+)*|\p{{M}}+")
_TOKENS = regex.compile(rf"(?V1){_CHARACTER}|{_IN_WORD}+|[^\s]")
_CHARACTERS = regex.compile(rf"(?V1){_CHARACTER}")
_SYLLABLES = regex.compile(r"(?V1)\p{Script=Hangul}+")
_HAN = regex.compile(r"\p{Script=Han}")
_LATIN = regex.compile(r"\p{Script=Latin}")
# A word as it stands in a text that is not normalised: with invisible characters inside it, and letters that NFKC
# makes marks of the letter before.
_RAW_TOKENS = regex.compile(
    rf"(?V1){_CHARACTER}[ﾞﾟำຳ]*|(?:{_IN_WORD}|(?<=\w)\p{{Default_Ignorable_Code_Point}}(?=\w))+|[^\s]"
)
# What counts as one word when a text is cut: closing marks stay with the character before them.
_CUT_UNITS = regex.compile(rf"(?V1){_CHARACTER}[\p{{Pe}}\p{{Pf}}\p{{Po}}]*|[\S--[{_UNSPACED}]]+|\S")

_ASCII_WORDS = re.compile(r"[a-z0-9]+")
_ASCII_INDEX_RUNS = re.compile(r"\w+(?:'\w+)*", re.ASCII)
_ASCII_TOKENS = re.compile(r"\w+|[^\w\s]", re.ASCII)
_ASCII_CUT_UNITS = re.compile(r"\S+")

# Runs of characters other than ASCII's white space that hold one outside ASCII.
_FOREIGN = re.compile(r"(?<![!-\x7f])[!-\x7f]*+[^\x00-\x7f][^\x00-\x20]*")
_CACHED = 32
"""Characters of the longest run that is remembered: a word, not a Chinese sentence."""

_APOSTROPHES = "‘’‚‛′´ʹʻʼʽˈ՚＇"
_QUOTES = "“”„‟″«»〝〞〟「」『』《》〈〉"
_DASHES = "‐‑‒–—―−﹘﹣－"
_BEFORE = str.maketrans(
    {**dict.fromkeys(_APOSTROPHES, "'"), **dict.fromkeys(_QUOTES, '"'), **dict.fromkeys(_DASHES, "-")}
)
_AFTER = str.maketrans(
    {
        "ё": "е", "ی": "ي", "ک": "ك", "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "⁄": "/",
        "،": ",", "؛": ";", "؟": "?", "۔": ".", "٪": "%", "٫": ".", "٬": ",",
        "、": ",", "。": ".", "।": ".", "॥": ".", "։": ".", "።": ".", "፣": ",", "׳": "'", "״": '"',
    }
)  # fmt: skip
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
_ARABIC_NON_JOINER = regex.compile(r"(?<=\p{Script=Arabic}\p{M}*)\u200c+(?=\p{Script=Arabic})")
_RAISED = regex.compile(r"(?<=\p{Nd})[⁰¹²³⁴-⁹]+")
_FRACTION = regex.compile(r"(?<=\p{Nd})[¼-¾⅐-⅞↉]")
_VOWEL_SIGNS = regex.compile(
    # Arabic's but for the hamzas and the madda, which are letters; Hebrew's points; Syriac's.
    r"[\u0640\u0610-\u061A\u064B-\u0652\u0656-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E4\u06E7\u06E8\u06EA-\u06ED"
    r"\u08CA-\u08E1\u08E3-\u08FF\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7\u0711\u0730-\u074A]+"
)
_STRESS = regex.compile(r"(?<=\p{Script=Cyrillic}\p{M}*)[\u0300\u0301]")
_GREEK = regex.compile(r"\p{Script=Greek}\p{M}*")
_DIGIT = regex.compile(r"[\p{Nd}--0-9]", regex.V1)

_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FOREIGN_PUNCTUATION = regex.compile(r"\p{P}+")
_ENDS = regex.compile(r"[\p{Terminal_Punctuation}'\"]")


def normalise(text: str) -> str:
    """`text` as everything here compares it; white space is left as it is. Applied twice it changes nothing more."""
    lowered = text.lower()
    return lowered if text.isascii() else _FOREIGN.sub(_normalised_run, lowered)


def _normalised_run(match: re.Match[str]) -> str:
    run = match.group()
    return _remembered(run) if len(run) <= _CACHED else _normalise(run)


def _normalise(text: str) -> str:
    text = _INVISIBLE.sub("", _ARABIC_NON_JOINER.sub(" ", text)).translate(_BEFORE)
    text = _FRACTION.sub(lambda found: f" {found.group()}", _RAISED.sub(lambda found: f"^{found.group()}", text))
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _STRESS.sub("", _VOWEL_SIGNS.sub("", text)).replace("i\u0307", "i").replace("ı", "i")
    text = _GREEK.sub(lambda found: unicodedata.normalize("NFD", found.group())[0], text)
    text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found.group(), found.group())), text)
    return unicodedata.normalize("NFC", text).translate(_BEFORE).translate(_AFTER)


_remembered = lru_cache(maxsize=1 << 16)(_normalise)


def identity(text: str) -> str:
    """What texts that say the same have in common: normalised, every white space one blank."""
    return " ".join(normalise(text).split())


def words(text: str) -> list[str]:
    """The words of `text`, normalised: no punctuation, `_` parts two, a character of an unspaced script is one.

    Every letter and digit of `normalise(text)` is in one of them.
    """
    text = normalise(text)
    return _ASCII_WORDS.findall(text) if text.isascii() else _WORDS.findall(text)


def tokens(text: str) -> list[str]:
    """Words (`_` a letter) and every sign between them."""
    text = normalise(text)
    return _ASCII_TOKENS.findall(text) if text.isascii() else _TOKENS.findall(text)


# -- the index of words --


def index_runs(text: str) -> list[str]:
    """What `index_terms` takes apart: words with their apostrophes, and whole runs of unspaced scripts."""
    text = normalise(text)
    return _ASCII_INDEX_RUNS.findall(text) if text.isascii() else _INDEX_RUNS.findall(text)


def index_terms(run: str) -> list[str]:
    """What stands in an index for one of `index_runs`.

    A spaced word: itself, parted at apostrophes; a single letter that an apostrophe joins to a longer part (`it's`,
    `l'eau`) is grammar and left out, any other letter or digit stays (`vitamin C`, `type 1`). Unspaced scripts:
    overlapping pairs of characters, and each Han character, which is often a word. Korean words, whose endings are
    joined to them: the word and its pairs of syllables.
    """
    if run.isascii():
        return _parts(run)
    characters = _CHARACTERS.findall(run)
    if characters:
        single = characters if len(characters) == 1 else [one for one in characters if _HAN.match(one)]
        return [*_pairs(characters), *single]
    return [
        *(parts := _parts(run)),
        *(
            pair
            for part in parts
            for syllables in _SYLLABLES.findall(part)
            if len(part) > 2
            for pair in _pairs(syllables)
        ),
    ]


def _parts(run: str) -> list[str]:
    if "'" not in run:
        return [run]
    parts = run.split("'")
    return [part for part in parts if len(part) > 1] or parts


def _pairs(characters: Sequence[str]) -> list[str]:
    return [a + b for a, b in pairwise(characters)]


def is_latin(word: str) -> bool:
    """Whether a word is written in Latin letters or digits: what a stemmer of English may touch."""
    return word.isascii() or bool(_LATIN.search(word))


# -- answers --


def answer_words(text: str) -> list[str]:
    """The words of an answer, after SQuAD's rules on normalised text: no punctuation, no English articles.

    Apart from SQuAD's script: punctuation of all scripts goes, and characters of unspaced scripts are words.
    """
    text = normalise(text)
    if text.isascii():
        bare = text.translate(_PUNCTUATION).split()
    else:
        bare = []
        for part in _FOREIGN_PUNCTUATION.sub("", text).translate(_PUNCTUATION).split():
            bare += [part] if part.isascii() else _split_answer_word(part)
    return [word for word in bare if word not in _ARTICLES]


def _split_answer_word(word: str) -> list[str]:
    """`word` with its characters of unspaced scripts apart; what is between them stays together."""
    pieces, end = [], 0
    for match in _CHARACTERS.finditer(word):
        pieces += [word[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in [*pieces, word[end:]] if piece]


def answer_key(text: str) -> str:
    """What equal answers have in common."""
    return " ".join(answer_words(text))


def same_without_words(one: str, other: str) -> bool:
    """Whether two answers that have no `answer_words` are equal: SQuAD's rule says yes, and so it is where one is
    empty; `A` and `the`, or `+` and `-`, are two answers."""
    one, other = identity(one), identity(other)
    return not one or not other or one == other


def run_of(text: str, answer: bool = False) -> str:
    """Tokens between blanks: `run_of(a, answer=True) in run_of(b)` says whether `a` stands in `b` word for word.

    `answer`: quotes and full stops, commas … at its ends are left out, where something else is left. Empty text: "".
    """
    run_tokens = tokens(text)
    if answer:
        first, last = 0, len(run_tokens)
        while first < last and _ENDS.fullmatch(run_tokens[first]):
            first += 1
        while last > first and _ENDS.fullmatch(run_tokens[last - 1]):
            last -= 1
        run_tokens = run_tokens[first:last] or run_tokens
    return f" {' '.join(run_tokens)} " if run_tokens else ""


def stands_in(answers: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether one of `answers` stands in one of `texts`, token by token: `art` is not in `party`."""
    answer_runs = [run for run in (run_of(answer, answer=True) for answer in answers) if run]
    return bool(answer_runs) and any(one in text for text in map(run_of, texts) for one in answer_runs)


# -- places in a text as it is written --


def places(text: str, answer: str) -> list[int]:
    """Where in `text` (its own characters) `answer` begins, compared token by token in normalised form."""
    answer_tokens = run_of(answer, answer=True).split(" ")[1:-1]
    token_places: list[tuple[str, int]] = []
    for match in _RAW_TOKENS.finditer(text):
        token_places += [(token, match.start()) for token in tokens(match.group())]
    text_tokens = [token for token, _ in token_places]
    return [
        token_places[at][1]
        for at in range(len(text_tokens) - len(answer_tokens) + 1)
        if answer_tokens
        and text_tokens[at] == answer_tokens[0]
        and text_tokens[at : at + len(answer_tokens)] == answer_tokens
    ]


def cut_units(text: str) -> list[tuple[int, int]]:
    """Beginning and end of every word, as texts are measured and cut: between white space, or a character of an
    unspaced script with the marks that close it."""
    pattern = _ASCII_CUT_UNITS if text.isascii() else _CUT_UNITS
    return [match.span() for match in pattern.finditer(text)]


def word_count(text: str) -> int:
    """How many words `text` has; a character of an unspaced script is one."""
    return len(text.split()) if text.isascii() else len(cut_units(text))
