"""Three passages and a question with history, for tests of prompts and readers."""

from __future__ import annotations

from rag_experiments.data.schema import Passage, Question, Turn

PASSAGES = [
    Passage(id="p1", title="Cats", text="A cat sleeps in the house."),
    Passage(id="p2", title="", text="A dog runs to the river."),
    Passage(id="p3", title="Fish", text="A fish eats a star."),
]
QUESTION = Question(
    id="q1",
    question="Where does it sleep?",
    answers=("in the house",),
    positive_ids=("p1",),
    history=(Turn("user", "Is there a cat?"), Turn("assistant", "Yes.")),
)
