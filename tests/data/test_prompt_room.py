"""Room: a prompt is the same in training as at generation, and nothing is longer than it may be."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import question_key, retrieval_query
from rag_experiments.data.records import Passage, Question, Turn
from rag_experiments.models.fid.fid_prompts import FidPromptBuilder
from rag_experiments.models.reader.prompts import DEFAULT_INSTRUCTION, Prompt, PromptBuilder, TruncationCounts
from tests.examples import PASSAGES, QUESTION
from tests.tiny_readers import byte_tokenizer

LONG = [Passage(id=str(number), text="word " * 30) for number in range(4)]


def builder(of: type = PromptBuilder, kind: str = "decoder", reserve: int = 20, max_length: int = 400, **more):
    tokenizer = byte_tokenizer(chat=kind == "decoder", ends=kind == "encoder_decoder")
    return of(tokenizer, max_length=max_length, reserve=reserve, kind=kind, instruction="Go.", **more)


@pytest.mark.parametrize("of", [PromptBuilder, FidPromptBuilder])
def test_a_short_answer_leaves_the_prompt_as_it_is_at_generation(of):
    """Else the reader would be trained on more of a passage than it gets to see in use."""
    for length in range(120, 400, 7):
        made = builder(of, max_length=length)
        assert made.build("Why?", LONG, answer="so") == made.build("Why?", LONG)
    long = "because " * 10
    assert builder(of, max_length=200).build("Why?", LONG, answer=long) != builder(of, max_length=200).build(
        "Why?", LONG
    )


@pytest.mark.parametrize("of", [PromptBuilder, FidPromptBuilder])
def test_the_room_for_an_answer_that_is_not_known_is_the_reserve(of):
    """The longest prompt is `max_length` less `reserve`, to the token."""
    for reserve in (1, 20, 33):
        prompt = builder(
            of, reserve=reserve, max_length=150, **({"passage_tokens": 999} if of is FidPromptBuilder else {})
        )
        made = prompt.build("Why?", LONG[:1])
        assert made.passages_shortened == 1
        assert len(made) == 150 - reserve


@pytest.mark.parametrize("of", [PromptBuilder, FidPromptBuilder])
def test_a_longer_answer_takes_its_own_room(of):
    more = {"passage_tokens": 999} if of is FidPromptBuilder else {}
    made = builder(of, max_length=150, **more)
    answer = "because it is so, and so it is"
    assert len(made.build("Why?", LONG[:1], answer=answer)) == 150 - len(made.answer(answer))


def test_an_encoder_decoders_answer_takes_no_room_from_its_prompt():
    made = builder(kind="encoder_decoder", max_length=100)
    prompts = [made.build("Why?", LONG[:1], answer=answer) for answer in (None, "so", "because " * 40)]
    assert prompts[0] == prompts[1] == prompts[2]
    assert len(prompts[0]) == 100


def test_the_error_names_what_is_needed_to_the_token():
    """A request raised to the number that is named is not refused."""
    for of in (PromptBuilder, FidPromptBuilder):
        for answer in (None, "because of this and of that"):
            with pytest.raises(RequestError, match=r"need (\d+) tokens") as refused:
                builder(of, max_length=40).build("Why is it so? " * 5, answer=answer)
            needed = int(str(refused.value).split("need ")[1].split()[0])
            builder(of, max_length=needed).build("Why is it so? " * 5, answer=answer)
            with pytest.raises(RequestError):
                builder(of, max_length=needed - 1).build("Why is it so? " * 5, answer=answer)


def test_a_question_without_a_name_is_named_by_its_beginning():
    with pytest.raises(RequestError, match=r"question 'Why\? Why\? "):
        builder(max_length=40).build("Why? " * 30)
    with pytest.raises(RequestError, match=r"question 'q9'"):
        builder(FidPromptBuilder, max_length=40).build("Why? " * 30, name="q9")


@settings(max_examples=30, deadline=None)
@given(
    max_length=st.integers(60, 300),
    lengths=st.lists(st.integers(0, 60), max_size=4),
    turns=st.lists(st.integers(0, 60), max_size=3),
    passage_tokens=st.integers(20, 90),
    kind=st.sampled_from(["decoder", "encoder_decoder"]),
    beside=st.booleans(),
)
def test_fid_prompts_fit_and_lose_only_what_they_say(max_length, lengths, turns, passage_tokens, kind, beside):
    made = builder(FidPromptBuilder, kind, 5, max_length, passage_tokens=passage_tokens, question_with_passage=beside)
    passages = [Passage(id=str(place), text="x" * length) for place, length in enumerate(lengths)]
    history = [Turn("user", str(place) * length) for place, length in enumerate(turns)]
    try:
        prompt = made.build("Why?", passages, history, "so")
    except RequestError:
        assert made.max_length < 5 + len(made._around("Why?", [], bool(passages))[0]) + len(made.tail("Why?")) + 5
        return
    kept = history[prompt.turns_dropped :]
    head, tail = made._around("Why?", kept, bool(passages))
    whole = [made._part(passage) for passage in passages]
    if kind == "encoder_decoder":
        parts = [part[len(head) : len(part) - len(tail)] for part in prompt.passages][: len(whole)]
        assert all(part[: len(head)] == head and part[len(part) - len(tail) :] == tail for part in prompt.passages)
        assert all(len(part) <= min(max_length, passage_tokens) for part in prompt.passages)
        assert (prompt.head, prompt.tail) == ((), ())
        assert len(prompt.passages) == max(1, len(passages))
    else:
        parts = list(prompt.passages)
        assert (prompt.head, prompt.tail) == (head, tail)
        assert all(len(part) <= passage_tokens for part in parts)
        longest = max(map(len, parts), default=0)
        assert len(head) + longest + len(tail) + 5 <= max_length
        assert len(parts) == len(passages)
    assert all(part == original[: len(part)] for part, original in zip(parts, whole, strict=True))
    assert prompt.passages_shortened == sum(len(p) < len(o) for p, o in zip(parts, whole, strict=True))
    if prompt.turns_dropped:  # the last one that went had to
        head, tail = made._around("Why?", history[prompt.turns_dropped - 1 :], bool(passages))
        room = made.max_length - len(head) - len(tail) - (5 if kind == "decoder" else 0)
        assert room < (1 if passages else 0)


def test_fid_parts_are_as_published_or_the_numbered_passage():
    decoder, encoded = builder(FidPromptBuilder), builder(FidPromptBuilder, "encoder_decoder")
    text = encoded.tokenizer.decode(
        encoded.build("Why?", PASSAGES[:2], [Turn("user", "Is it?"), Turn("assistant", "Yes.")]).passages[0]
    )
    assert (
        text == "Go. conversation: user: Is it? assistant: Yes. question: Why? "
        "title: Cats context: A cat sleeps in the house.<|im_end|>"
    )
    bare = FidPromptBuilder(encoded.tokenizer, max_length=400, kind="encoder_decoder")
    assert bare.instruction == DEFAULT_INSTRUCTION
    untitled = bare.tokenizer.decode(bare.build("Why?", PASSAGES[1:2]).passages[0])
    assert untitled == "question: Why? context: A dog runs to the river.<|im_end|>"
    prompt = decoder.build("Why?", PASSAGES[:2])
    assert [decoder.tokenizer.decode(part) for part in prompt.passages] == [
        "[1] Cats\nA cat sleeps in the house.\n", "[1] A dog runs to the river.\n",
    ]  # fmt: skip


def test_the_question_stands_before_passages_only_where_asked_and_where_there_are_some():
    for beside, passages, wanted in ((True, PASSAGES, 2), (True, [], 1), (False, PASSAGES, 1)):
        made = builder(FidPromptBuilder, max_length=900, question_with_passage=beside)
        prompt = made.build("Why?", passages, QUESTION.history)
        assert made.text(prompt).count("Question: Why?") == wanted
        assert made.text(prompt).count("User: Is there a cat?") == wanted


def test_answers_of_an_encoder_decoder_have_its_tokenizers_specials():
    t5 = builder(kind="encoder_decoder")
    assert t5.tokenizer.decode(t5.answer(" so ")) == "so<|im_end|>"
    assert t5.tokenizer.decode(t5.answer("so", end=False)) == "so"
    chat = builder()
    assert chat.tokenizer.decode(chat.answer("so")) == "so<|im_end|>"


def test_answers_start_with_what_opens_every_text_of_an_encoder_decoder():
    from tokenizers import processors

    tokenizer = byte_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    made = FidPromptBuilder(tokenizer, max_length=400, kind="encoder_decoder", instruction="Go.")
    assert made.answer_starts == (1,)
    assert made.answer("so")[0] == 1
    assert made.answer("so")[-1] == 2
    assert made.build("Why?", PASSAGES[:1]).passages[0][0] == 1
    plain = FidPromptBuilder(tokenizer, max_length=400, kind="decoder", instruction="Go.")
    assert plain.answer_starts == ()
    assert plain.build("Why?").head[0] == 1


def test_counts_add_up_field_by_field():
    one = TruncationCounts(prompts=3, prompts_truncated=2, passages_dropped=4, passages_shortened=1, turns_dropped=5)
    two = TruncationCounts(
        prompts=10, prompts_truncated=20, passages_dropped=30, passages_shortened=40, turns_dropped=50
    )
    assert one + two == TruncationCounts(13, 22, 34, 41, 55)
    for cut in ("passages_dropped", "passages_shortened", "turns_dropped"):
        counts = TruncationCounts()
        counts.add(Prompt((), (), (), **{cut: 3}))
        assert dataclasses.asdict(counts) == {
            **dataclasses.asdict(TruncationCounts()),
            "prompts": 1,
            "prompts_truncated": 1,
            cut: 3,
        }


def test_counts_of_several_prompts_are_sums():
    counts = TruncationCounts()
    for dropped, shortened, turns in ((1, 2, 3), (0, 0, 0), (10, 20, 30)):
        counts.add(Prompt((), (), (), dropped, shortened, turns))
    assert counts == TruncationCounts(3, 2, 11, 22, 33)
    assert [int(number) for number in re.findall(r"\d+", counts.sentence())] == [2, 3, 11, 22, 33]


def test_a_prompt_whose_passages_all_went_is_the_one_without_passages():
    for length in range(60, 120):
        made = builder(max_length=length)
        try:
            bare = made.build("Why?")
        except RequestError:
            continue
        found = made.build("Why?", LONG)
        assert bool(found.passages) or found.ids == bare.ids, length
        if not found.passages:
            assert found.passages_dropped == len(LONG)
            return
    raise AssertionError("no length leaves room for the question alone")


def test_who_said_a_turn_is_named():
    history = [Turn("system", "Be kind."), Turn("user", "Hm?"), Turn("assistant", "Ah."), Turn("tool", "3")]
    made = builder(max_length=900)
    text = made.text(made.build("Why?", PASSAGES[:1], history))
    assert "\n\nConversation so far:\nSystem: Be kind.\nUser: Hm?\nAssistant: Ah.\ntool: 3\n\nQuestion: Why?" in text
    assert "\n\n" not in made.text(made.build("Why?", (), [])).partition("<|im_start|>user")[2]


def test_an_encoder_decoders_answer_ends_as_its_tokenizer_ends_texts_else_with_the_end_token():
    from tokenizers import processors

    nothing, other = byte_tokenizer(chat=False), byte_tokenizer(chat=False)
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <pad>", special_tokens=[("<pad>", 0)]
    )
    for tokenizer, end in ((nothing, nothing.eos_token_id), (other, 0)):
        made = PromptBuilder(tokenizer, max_length=400, kind="encoder_decoder", instruction="Go.")
        assert made.answer("so")[-1] == end
        assert made.tokenizer.decode(made.answer("so")[:-1]) == "so"


# -- retrieval queries ------------------------------------------------------------------------------


def test_query_has_the_turns_of_its_mode():
    history = (Turn("user", "A?"), Turn("assistant", "B."), Turn("user", "C?"))
    question = Question("q", "D?", history=history)
    assert [retrieval_query(question, mode) for mode in ("none", "user", "all")] == [
        "D?",
        "A?\nC?\nD?",
        "A?\nB.\nC?\nD?",
    ]
    assert {retrieval_query(Question("q", "D?"), mode) for mode in ("none", "user", "all")} == {"D?"}


def test_questions_that_ask_the_same_have_one_key():
    base = Question("q", "Who  runs\n there?", history=(Turn("user", "A  cat"),))
    assert question_key(base) == question_key(
        Question("other", "who runs there?", history=(Turn("assistant", "a CAT"),))
    )
    for other in (Question("q", "Who runs there?"), Question("q", "Who runs?", history=base.history)):
        assert question_key(other) != question_key(base)
