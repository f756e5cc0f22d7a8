"""What stands around a prompt, which token ends an answer, and templates that cannot be used."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader.prompts import PromptBuilder, _fitting
from tests.examples import PASSAGES, QUESTION
from tests.tiny_readers import byte_tokenizer

PLAIN = "Go.\n\n[1] Cats\nA cat sleeps in the house.\n\nQuestion: Why?\nAnswer:"


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), max_size=5), room=st.integers(-2, 16))
def test_fitting_by_loop(lengths, room):
    """Whole passages while they fit; where not even the first does, what of it does."""
    parts = [tuple(range(length)) for length in lengths]
    whole = []
    for part in parts:
        if sum(map(len, whole)) + len(part) > room:
            break
        whole.append(part)
    beginning = [parts[0][:room]] if parts and not whole and room > 0 else []
    assert _fitting(parts, room) == (whole or beginning)


@pytest.mark.parametrize(("kind", "end"), [("encoder_decoder", "<|im_end|>"), ("decoder", "")])
def test_only_an_encoder_decoders_prompt_ends_as_its_tokenizer_ends_texts(kind, end):
    made = PromptBuilder(byte_tokenizer(chat=False, ends=True), max_length=500, kind=kind, instruction="Go.")
    assert made.text(made.build("Why?", PASSAGES[:1])) == PLAIN + end


def with_template(template: str, **options) -> PromptBuilder:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return PromptBuilder(tokenizer, max_length=500, **{"instruction": "Go.", **options})


def test_an_instruction_that_a_template_drops_opens_the_users_message():
    """With the role of the user, which some templates insist on."""
    drops = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% endfor %}"
    made = with_template(drops)
    assert made.text(made.build("Why?")) == "Go.\n\nQuestion: Why?<|im_end|>"


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        ("{{ raise_exception('never') }}", {"instruction": ""}, "cannot be rendered: never"),
        ("Go.", {}, "drops the user's message"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(template, options, message):
    with pytest.raises(RequestError, match=message):
        with_template(template, **options)


def test_a_reply_that_ends_in_plain_text_ends_with_the_end_token():
    plain = with_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n<|im_start|>{% endfor %}")
    assert plain.end_id == plain.tokenizer.eos_token_id
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert PromptBuilder(tokenizer, max_length=500).end_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(RequestError, match="no special token, and there is no eos"):
        PromptBuilder(tokenizer, max_length=500)


def test_the_end_of_a_reply_is_taken_from_a_reply_to_the_same_messages():
    """A template may refuse a conversation that does not begin with the user."""
    strict = (
        "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('who asked?') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}{{ '<|im_start|>' if m['role'] == 'assistant' else '|' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_end|>{% endif %}"
    )
    made = with_template(strict)
    assert made.end_id == made.tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_without_a_template_the_end_is_the_tokenizers_end_or_separator():
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.sep_token = "<|im_start|>"
    assert PromptBuilder(tokenizer, max_length=500).end_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert PromptBuilder(tokenizer, max_length=500).end_id == tokenizer.sep_token_id
    tokenizer.sep_token = None
    with pytest.raises(RequestError, match="no end-of-sequence token"):
        PromptBuilder(tokenizer, max_length=500)


def test_a_question_of_the_data_goes_with_history_answer_and_name():
    made = PromptBuilder(byte_tokenizer(), max_length=250, reserve=1, instruction="Go.")
    answer = "because " * 8
    built = made.build(QUESTION.question, PASSAGES, QUESTION.history, answer, name="q1")
    assert made.for_question(QUESTION, PASSAGES, answer) == built
    assert built != made.build(QUESTION.question, PASSAGES, QUESTION.history)
    with pytest.raises(RequestError, match="question 'q1'"):
        made.for_question(QUESTION, PASSAGES, answer * 9)


@pytest.mark.parametrize(
    "asks",
    [
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}",
        "{{ strftime_now('%d %b %Y') }}",
    ],
)
def test_a_template_that_prints_the_date_gets_one_that_does_not_change(asks):
    """Llama 3's way of asking, and the others'."""
    made = with_template(asks + "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    assert made.dated
    assert made.text(made.build("Why?")).startswith("26 Jul 2024")
    template = made.tokenizer.chat_template
    assert with_template(template, date="1999-12-01").text(made.build("Why?")) == made.text(made.build("Why?"))
    other = with_template(template, date="1999-12-01")
    assert other.text(other.build("Why?")).startswith("01 Dec 1999")
    with pytest.raises(RequestError, match=r"model\.template_date=2024-02-31 is no date"):
        with_template(template, date="2024-02-31")
    assert not with_template("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}").dated


@pytest.mark.parametrize(
    ("opened", "closed"),
    [("<think>\n", "</think>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]"),
     ("<|START_THINKING|>", "<|END_THINKING|>"), ("<reasoning>\n\n", "</reasoning>")],
)  # fmt: skip
def test_a_thought_that_a_template_opens_is_closed_before_the_answer(opened, closed):
    frame = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
    made = with_template(frame + f"Bot: {opened}" + "{% endif %}")
    assert made.text(made.build("Why?")).endswith(f"Bot: {opened.strip()}\n\n{closed}\n\n")
    plain = with_template(frame + "Think:{% endif %}")
    assert plain.text(plain.build("Why?")).endswith("<|im_end|>Think:")
