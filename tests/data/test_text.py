"""Spellings and words: one text in two spellings is one text everywhere; figures do not depend on the script."""

from __future__ import annotations

import json
import string
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core import text
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.cut import cut_by_words, find_answer
from rag_experiments.data.queries import question_key
from rag_experiments.data.records import Question, Where
from rag_experiments.evaluation import metrics
from rag_experiments.retrieval.bm25 import BM25Retriever
from tests.retrieval.fakes import ListPassages


def nfd(value: str) -> str:
    return unicodedata.normalize("NFD", value)


PAIRS = [
    # German
    ("Müller", nfd("Müller")),
    ("Straße", "STRASSE"),
    ("Weißwurst", "Weisswurst"),
    ("Donau\u00addampfschiff", "Donaudampfschiff"),
    ("„Sturm“", '"Sturm"'),
    # English
    ("the ﬁnal oﬃce", "the final office"),
    ("Hawai’i", "Hawai'i"),
    ("1990–1995", "1990-1995"),
    ("zero\u200bwidth", "zerowidth"),
    ("Ａｐｏｌｌｏ　１１", "Apollo 11"),
    ("x²", "x2"),
    # French
    ("l’été", nfd("L'été")),
    ("cœur", "CŒUR"),
    ("Ça", nfd("ça")),
    # Turkish
    ("İstanbul", "istanbul"),
    ("ISPARTA", "ısparta"),
    ("DİYARBAKIR", "Diyarbakır"),
    ("İzmir", nfd("İzmir")),
    # Greek
    ("Αθήνα", "ΑΘΗΝΑ"),
    ("Οδυσσέας", nfd("ΟΔΥΣΣΈΑΣ")),
    ("Μάιος", "ΜΑΪΟΣ"),
    # Russian
    ("Владимир", "Влади́мир"),
    ("ёлка", "елка"),
    ("чай", nfd("Чай")),
    # Arabic and Persian
    ("مُحَمَّد", "محمد"),
    ("كِتَابٌ", "كتاب"),
    ("الســلام", "السلام"),
    ("أَحْمَد", "احمد"),
    ("القاهرة،", "القاهرة"),
    ("٢٠٢٤", "2024"),
    ("ايران", "ایران"),
    ("کتاب\u200cها", "کتاب ها"),
    # Hebrew
    ("שָׁלוֹם", "שלום"),
    # Hindi
    ("हिन्दी", "हिन्\u200dदी"),
    ("क़लम", nfd("क़लम")),
    ("२०२४", "2024"),
    # Chinese and Japanese
    ("北京。", "北京"),
    ("「東京」", "東京"),
    ("ガラス", "ｶﾞﾗｽ"),
    ("がくせい", nfd("がくせい")),
    ("㍻", "平成"),
    # Korean
    ("서울", nfd("서울")),
    # Thai and Vietnamese
    ("น้ำ", nfd("น\u0e49\u0e4dา")),
    ("Việt Nam", nfd("VIỆT NAM")),
]


def found(passages: list[str], queries: list[str]) -> list[int]:
    retriever = BM25Retriever(RetrieverConfig(type="bm25"), ListPassages(passages), None)  # type: ignore[arg-type]
    return retriever.search(queries, 1).rows_QK[:, 0].tolist()


@pytest.mark.parametrize("pair", PAIRS, ids=[ascii(one) for one, _ in PAIRS])
@pytest.mark.parametrize("turned", [False, True])
def test_two_spellings_are_one_text_everywhere(pair: tuple[str, str], turned: bool, tmp_path: Path) -> None:
    one, other = pair[::-1] if turned else pair
    assert found(["stone river", f"stone {one} river", "house"], [other]) == [1]
    assert metrics.exact_match(one, [other]) == metrics.f1(one, [other]) == metrics.rouge_l(one, [other]) == 1.0
    assert metrics.answer_in_passages([other], [f"stone {one} river"]) == 1.0
    place, _ = find_answer(f"stone {one} river", other, None)
    assert place is not None
    assert text.words(f"stone {one} river"[place:])[0] == text.words(one)[0]
    if text.identity(one) == text.identity(other):  # and not told apart by the signs around them
        assert question_key(Question("a", f"Who, {one}?")) == question_key(Question("b", f"who,  {other}？"))


def test_copies_in_another_spelling_are_counted(tmp_path: Path) -> None:
    same = [pair for pair in PAIRS if text.identity(pair[0]) == text.identity(pair[1])]
    assert len(same) >= 35, "only signs around a word tell the other pairs apart"
    intake = Intake(tmp_path)
    for number, pair in enumerate(same):
        for place, value in enumerate(pair):
            with intake.row(Where("passages.jsonl", 2 * number + place)):
                intake.passage(f"{number}-{place}", f"number {number}: {value}")
    intake.finish()
    assert f"{len(same)} passages have the title and text of another" in " ".join(intake.notes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("vitamin C", "vitamin K"), ("type 1", "type 2"), ("Müller", "Muller"), ("schon", "schön"), ("año", "ano"),
        ("10²", "10 2 1"), ("कि", "की"), ("東京", "京都"), ("مصر", "مصير"), ("й", "и"),
    ],
)  # fmt: skip
def test_two_texts_are_not_one(one: str, other: str) -> None:
    assert found([f"stone {other}", f"stone {one}"], [one]) == [1]
    assert metrics.exact_match(one, [other]) == 0
    assert metrics.f1(one, [other]) < 1
    assert metrics.rouge_l(one, [other]) < 1
    assert metrics.answer_in_passages([one], [f"stone {other} river"]) == 0


def test_a_raised_digit_is_no_digit_of_the_number() -> None:
    assert text.identity("10²³") == "10^23"
    assert text.identity("1½") == "1 1/2"


# A passage a line; the question shares what it asks for with the one of its number, and common words with all.
LANGUAGES = {
    "English": (
        ["The capital of France is Paris.", "The capital of Japan is Tokyo.", "The capital of Egypt is Cairo."],
        ["What is the capital of France?", "What is the capital of Japan?", "What is the capital of Egypt?"],
        ["Paris", "Tokyo", "Cairo"],
    ),
    "German": (
        ["Die Hauptstadt von Österreich ist Wien.", "Die Größe der Straße ist bekannt.", "Der Fluss heißt Rhein."],
        ["Was ist die Hauptstadt von Österreich?", "Wie ist die GRÖSSE der STRASSE?", "Wie heisst der Fluss?"],
        ["Wien", "bekannt", "Rhein"],
    ),
    "Turkish": (
        ["İstanbul'un nüfusu on beş milyondur.", "Isparta gülleriyle ünlüdür.", "Türkiye'nin başkenti Ankara'dır."],
        ["istanbul'un nüfusu kaçtır?", "ISPARTA neyiyle ünlüdür?", "TÜRKİYE'NİN başkenti neresidir?"],
        ["on beş milyondur", "gülleriyle", "Ankara"],
    ),
    "Arabic": (
        ["القاهرة هي عاصمة مصر.", "بغداد هي عاصمة العراق، وفيها نهر دجلة.", "الكتاب على الطاولة."],
        ["ما هي عَاصِمَة مِصْر؟", "ما هي عاصمة العراق؟", "أين الكِتَابُ؟"],
        ["القاهرة", "بغداد", "على الطاولة"],
    ),
    "Hindi": (
        ["भारत की राजधानी नई दिल्ली है।", "जापान की राजधानी टोक्यो है।", "गंगा भारत की सबसे लंबी नदी है।"],
        ["भारत की राजधानी क्या है?", "जापान की राजधानी क्या है?", "सबसे लंबी नदी कौन सी है?"],
        ["नई दिल्ली", "टोक्यो", "गंगा"],
    ),
    "Thai": (
        ["เมืองหลวงของประเทศไทยคือกรุงเทพมหานคร", "เมืองหลวงของญี่ปุ่นคือโตเกียว", "แม่น้ำที่ยาวที่สุดคือแม่น้ำไนล์"],
        ["ประเทศไทยมีเมืองหลวงชื่ออะไร", "ญี่ปุ่นมีเมืองหลวงชื่ออะไร", "แม่น้ำอะไรยาวที่สุด"],
        ["กรุงเทพมหานคร", "โตเกียว", "แม่น้ำไนล์"],
    ),
    "Chinese": (
        ["法国的首都是巴黎，位于塞纳河畔。", "日本的首都是东京。", "长江是中国最长的河流。"],
        ["法国首都在哪里？", "日本首都叫什么？", "中国最长的河流是哪条？"],
        ["巴黎", "东京", "长江"],
    ),
    "Japanese": (
        ["フランスの首都はパリです。", "日本の首都は東京です。", "富士山は日本で一番高い山です。"],
        ["フランスの首都はどこですか。", "日本の首都はどこですか。", "一番高い山は何ですか。"],
        ["パリ", "東京", "富士山"],
    ),
    "Korean": (
        ["프랑스의 수도는 파리이다.", "일본의 수도는 도쿄이다.", "한강은 서울을 지나 흐른다."],
        ["프랑스에서 수도가 어디인가?", "일본에서 수도가 어디인가?", "한강이 어디로 흐르는가?"],
        ["파리", "도쿄", "서울"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_indexed_and_its_answers_judged_as_english_is(language: str) -> None:
    passages, questions, answers = LANGUAGES[language]
    assert found(passages, questions) == [0, 1, 2]
    for passage, answer in zip(passages, answers, strict=True):
        if language != "Korean":  # an answer has the endings of its sentence joined to it
            assert metrics.answer_in_passages([answer], [passage]) == 1.0
        assert metrics.exact_match(f"{answer}。", [answer]) == 1.0


@pytest.mark.parametrize("long", ["法国的首都是巴黎位于塞纳河畔", "กรุงเทพมหานครอมรรัตน", "フランスのしゅとはパリ"])
def test_an_answer_a_character_longer_is_nearly_right(long: str) -> None:
    characters = len(text.words(long))
    nearly = 2 * (characters - 1) / (2 * characters - 1)
    rest = long[: -len(text.words(long)[-1])]
    assert metrics.f1(rest, [long]) == pytest.approx(nearly)
    assert metrics.rouge_l(rest, [long]) == pytest.approx(nearly)


def test_a_character_without_spaces_is_a_word_to_cut_at() -> None:
    context = "北京是中华人民共和国的首都。" * 40
    pieces = cut_by_words(context, 100)
    assert "".join(piece.text for piece in pieces) == context
    assert max(text.word_count(piece.text) for piece in pieces) <= 125  # a rest of less than a quarter is joined
    assert not any(piece.text.startswith("。") for piece in pieces)
    mixed = "The word 北京 is Beijing"
    assert [mixed[start:end] for start, end in text.cut_units(mixed)] == ["The", "word", "北", "京", "is", "Beijing"]


def test_an_answer_in_another_spelling_is_placed() -> None:
    context = nfd("Herr Müller, der die Straße nahm, kam. Herr Müller ging.")
    assert find_answer(context, "Müller", context.rindex("Mu")) == (context.rindex("Mu"), False)
    assert find_answer(context, "STRASSE", None)[0] == context.index("Straße")
    assert find_answer(context, "Muller", None) == (None, False)


def test_squads_own_figures_stay_available() -> None:
    assert metrics.squad_exact_match("the Cat!", ["cat"]) == 1.0
    assert metrics.squad_exact_match("Müller", [nfd("Müller")]) == 0.0
    assert metrics.squad_f1("北京市", ["北京"]) == 0.0


@pytest.mark.parametrize(("one", "other", "same"), [("A", "the", 0), ("+", "-", 0), ("", "the", 1), ("an", "An", 1)])
def test_answers_without_words(one: str, other: str, same: float) -> None:
    assert metrics.exact_match(one, [other]) == metrics.f1(one, [other]) == same
    assert metrics.exact_match(other, [one]) == metrics.f1(other, [one]) == same


TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [*(word for pair in PAIRS for word in pair), " ", "\u200c", "\u0301", "'", "a", "_", "7", "。", "İ"]
    ),
    max_size=12,
).map("".join)


@given(TEXTS)
def test_normalise_twice_is_normalise_once(value: str) -> None:
    once = text.normalise(value)
    assert text.normalise(once) == once


@given(TEXTS)
def test_words_do_not_depend_on_how_marks_are_stored(value: str) -> None:
    composed, apart = unicodedata.normalize("NFC", value), nfd(value)
    assert text.words(composed) == text.words(apart)
    assert text.tokens(composed) == text.tokens(apart)
    assert text.index_runs(composed) == text.index_runs(apart)


@given(TEXTS)
def test_every_letter_of_a_question_is_in_some_word(value: str) -> None:
    letters = [one for one in text.normalise(value) if unicodedata.category(one)[0] in "LNM"]
    for cut in (text.words, text.tokens, text.index_runs):
        assert [one for word in cut(value) for one in word if unicodedata.category(one)[0] in "LNM"] == letters


@given(TEXTS, TEXTS)
def test_f1_is_the_same_both_ways(one: str, other: str) -> None:
    assert metrics.f1(one, [other]) == metrics.f1(other, [one])
    assert metrics.exact_match(one, [other]) == metrics.exact_match(other, [one])


@given(TEXTS, TEXTS, TEXTS)
def test_a_part_of_a_text_stands_in_it(before: str, answer: str, after: str) -> None:
    whole = f"{before} {answer} {after}"
    assert metrics.answer_in_passages([answer], [whole]) == float(bool(text.tokens(answer)))


@given(st.text(alphabet=[*string.printable], max_size=60))
def test_ascii_takes_a_short_way_to_the_same_words(value: str) -> None:
    assert text._WORDS.findall(value.lower()) == text.words(value)
    assert text._TOKENS.findall(value.lower()) == text.tokens(value)
    assert text._INDEX_RUNS.findall(value.lower()) == text.index_runs(value)
    assert metrics.exact_match(value, [value]) == 1.0
    assert " ".join(text.answer_words(value)) == metrics.squad_normalise(value)


def test_the_index_of_other_rules_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    passages = ListPassages(["a stone"])
    before = BM25Retriever(RetrieverConfig(type="bm25"), passages, None).fingerprint()  # type: ignore[arg-type]
    monkeypatch.setattr(text, "VERSION", text.VERSION + 1)
    assert BM25Retriever(RetrieverConfig(type="bm25"), passages, None).fingerprint() != before  # type: ignore[arg-type]


def test_search_warns_once_where_most_questions_share_no_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    passages = ListPassages(["a stone", "a river"])
    retriever = BM25Retriever(RetrieverConfig(type="bm25"), passages, None)  # type: ignore[arg-type]
    retriever.search(["x y"], 1)
    retriever.search(["stone", "river", "stone", "house"], 1)
    assert not caplog.records
    for _ in range(2):
        retriever.search(["stone", "дом", "река", "камень"], 1)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "retriever=bm25 finds nothing for 3 of 4 questions"
    ]


def test_the_module_needs_no_torch() -> None:
    code = "import sys, json, rag_experiments.core.text; print(json.dumps('torch' in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) is False
