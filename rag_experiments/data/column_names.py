"""The usual names of columns, by what they hold: the one table that `data=auto` and the hints of messages use.

A name of the first list of a role is taken before one of the second. Two names of one list are two columns that could
both be meant. Case and separators do not count: `Ground-Truth` is `ground_truth`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "question": (
        ("question", "questions", "query", "user_input", "user_query", "question_text", "query_text"),
        ("anchor", "instruction", "prompt", "input", "sentence1", "sentence_1", "text_a", "utterance",
         "frage", "pregunta", "pergunta", "domanda", "vraag", "pytanie", "问题", "質問", "질문", "вопрос"),
    ),
    "answers": (
        ("answers", "ground_truth", "ground_truths", "reference", "reference_answer", "gold_answer", "gold_answers",
         "correct_answer", "expected_answer", "ideal_answer", "short_answer"),
        ("answer", "output", "response", "target", "completion", "final_answer", "answer_text", "reply",
         "antwort", "respuesta", "réponse", "reponse", "resposta", "risposta", "antwoord", "odpowiedź", "答案", "回答",
         "답변", "ответ"),
    ),
    "context": (
        ("context", "contexts", "passage", "passages", "document", "documents", "paragraph", "evidence", "positive",
         "positives", "pos", "positive_passage", "positive_passages", "gold_context", "gold_passage",
         "reference_contexts", "positive_text", "context_text", "passage_text", "document_text"),
        ("text", "chunk", "content", "page_content", "body", "article", "story", "source_text", "sentence2",
         "sentence_2", "text_b", "retrieved_contexts", "abstract", "supporting_text",
         "kontext", "textstelle", "contexto", "contexte", "contesto", "kontekst", "上下文", "文脈", "контекст"),
    ),
    "negatives": (
        ("negatives", "negative", "neg", "hard_negatives", "hard_negative", "negative_passages", "negative_passage",
         "hard_neg", "negative_text"),
        ("negative_1", "negative_0", "hard_negative_1", "distractors"),
    ),
    "id": (("id", "_id", "qid", "question_id", "query_id", "example_id", "sample_id"), ("uid", "uuid", "guid", "idx")),
    "title": (("title", "context_title", "document_title", "passage_title", "article_title"), ("heading",)),
    "history": (("history", "chat_history", "messages", "conversation", "conversations", "dialogue_history"),
                ("dialog", "dialogue", "previous_turns", "turns")),
}  # fmt: skip
"""Role → its names, the surer ones first."""

LABELS = ("label", "score", "similarity", "relevance", "is_duplicate")
"""Columns that judge a pair of texts: a row then need not be a question with its passage."""


def normalized(name: str) -> str:
    """A column's name without case and separators."""
    return re.sub(r"[\W_]+", "", name).casefold()


_RANKS = {
    normalized(name): (role, rank)
    for role, lists in NAMES.items()
    for rank, names in enumerate(lists)
    for name in names
}


def words_of(column: str) -> list[str]:
    """The words of a column's name: `User Question (EN)` is `user`, `question`, `en`."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", column)
    return [word.casefold() for word in re.split(r"[\W_]+", spaced) if word]


def suggested(role: str, columns: Iterable[str]) -> str | None:
    """The one column whose name has a word of this role, to be offered and not to be taken; None without one."""
    named = [column for column in columns if any(_RANKS.get(word, ("", 0))[0] == role for word in words_of(column))]
    return named[0] if len(named) == 1 else None


def role_of(column: str) -> str | None:
    """What a column of this name usually holds; None: nothing that the table knows."""
    return _RANKS.get(normalized(column), (None, 0))[0]


def candidates(role: str, columns: Iterable[str]) -> list[str]:
    """The columns that could have this role: those of the surest list that has any."""
    ranked = [(rank, column) for column in columns for column_role, rank in [_RANKS.get(normalized(column), ("", 0))]
              if column_role == role]  # fmt: skip
    best = min((rank for rank, _ in ranked), default=0)
    return [column for rank, column in ranked if rank == best]


def preferred(role: str, columns: Iterable[str]) -> str | None:
    """The candidate that stands first in the table; None without one."""
    named = candidates(role, columns)
    order = [normalized(name) for names in NAMES.get(role, ()) for name in names]
    return min(named, key=lambda column: order.index(normalized(column)), default=None)
