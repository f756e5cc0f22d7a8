"""Golden values: by hand from the published definitions, and against the libraries themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from rag_experiments.evaluation import metrics


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("a  cat,\n an  ant and THE end.", "cat ant and end"),
        ("U.S.", "us"),
        ("theatre", "theatre"),
        ("Äpfel – «rot»", "äpfel – «rot»"),
        ("", ""),
    ],
)
def test_squad_normalise_is_the_official_scripts(text: str, normalised: str) -> None:
    assert metrics.squad_normalise(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("the Eiffel tower", ["Eiffel Tower."], 1.0),
        ("Eiffel", ["Eiffel Tower"], 0.0),
        ("Paris", ["London", "paris"], 1.0),
        ("", ["the"], 1.0),
        ("x", [], 0.0),
    ],
)
def test_exact_match(prediction: str, references: list[str], expected: float) -> None:
    assert metrics.exact_match(prediction, references) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        # one of two tokens shared with a one-token reference: precision 1/2, recall 1
        ("Eiffel Tower", ["the Eiffel"], 2 / 3),
        # repeated tokens count as often as both have them: 1 same, lengths 3 and 2; 2 same of 2 and 3
        ("no no no", ["no yes"], 2 / 5),
        ("no no", ["no no"], 1.0),
        ("yes no no", ["no no"], 4 / 5),
        # the best reference, not the mean
        ("red green", ["blue", "red green", "red"], 1.0),
        ("red", ["blue"], 0.0),
        # SQuAD 2.0: empty against empty is right, empty against something wrong
        ("the", [""], 1.0),
        ("", ["cat"], 0.0),
        ("cat", [], 0.0),
    ],
)
def test_f1(prediction: str, references: list[str], expected: float) -> None:
    assert metrics.f1(prediction, references) == pytest.approx(expected)


def test_rouge_l_by_hand() -> None:
    # longest common subsequence "the gunman" has 2 of 4 tokens on both sides
    assert metrics.rouge_l("the gunman kill police", ["police killed the gunman"]) == pytest.approx(0.5)


def test_rouge_l_equals_the_library_on_ascii_and_takes_the_best_reference() -> None:
    prediction, references = "A cat-like thing sat_on 3 mats.", ["the cat sat on 3 mats", "a cat like thing"]
    library = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    best = max(library.score(reference, prediction)["rougeL"].fmeasure for reference in references)
    assert metrics.rouge_l(prediction, references) == pytest.approx(best)


def test_rouge_l_counts_words_as_they_stand_whatever_their_case_and_is_0_without_a_reference() -> None:
    assert metrics.rouge_l("Running DOGS", ["running dogs"]) == 1
    assert metrics.rouge_l("running", ["runs"]) == 0, "no stemming"
    assert metrics.rouge_l("x", []) == 0


def test_rouge_l_counts_letters_outside_ascii() -> None:
    assert metrics.rouge_l("большая кошка", ["большая собака"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("references", "passages", "expected"),
    [
        (["art"], ["a party"], 0.0),
        (["art"], ["the artist"], 0.0),
        (["art"], ["go-kart race"], 0.0),
        (["art"], ["race", "Art!"], 1.0),
        (["New York"], ["in new  york, they"], 1.0),
        (["New York"], ["york new"], 0.0),
        (["nobody", "os.path"], ["see `os.path`."], 1.0),
        (["café"], ["cafe\u0301 noir"], 1.0),
        ([""], ["anything"], 0.0),
        (["x"], [], 0.0),
    ],
)
def test_answer_in_passages(references: list[str], passages: list[str], expected: float) -> None:
    assert metrics.answer_in_passages(references, passages) == expected


def test_faithfulness_proxies() -> None:
    passages = ["red cat", "blue dog runs"]
    assert metrics.f1_to_passages("blue dog", passages) == pytest.approx(4 / 5)
    assert metrics.precision_to_passages("red dog flies", passages) == pytest.approx(2 / 3)
    assert metrics.precision_to_passages("", passages) == 1.0


def test_bleu_is_sacrebleus_with_any_number_of_references() -> None:
    predictions = ["the cat sat on the mat today", "a dog runs in the green park"]
    references = [["the cat sat on the mat", "a cat sat there today on a mat"], ["a dog runs in the park"]]
    streams = [["the cat sat on the mat", "a dog runs in the park"], ["a cat sat there today on a mat", None]]
    expected = sacrebleu.corpus_bleu(predictions, streams).score / 100
    assert 0.2 < expected < 1
    assert metrics.bleu(predictions, references) == pytest.approx(expected)
    assert metrics.bleu([], []) == 0.0


def test_bleu_refuses_a_question_without_reference() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        metrics.bleu(["a"], [[]])
    for predictions, references in ((["a"], [["a"], ["b"]]), (["a", "b"], [["a"]])):
        with pytest.raises(ValueError, match="one prediction"):
            metrics.bleu(predictions, references)


REDIRECTED = """
import contextlib, io, logging
held = io.StringIO()
with contextlib.redirect_stderr(held):
    from rag_experiments.evaluation.metrics import rouge_l
    rouge_l("a cat", ["a cat"])
logging.shutdown()
print(held.closed)
"""


def test_scoring_while_standard_error_is_redirected_leaves_it_open():
    ran = subprocess.run([sys.executable, "-c", REDIRECTED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
