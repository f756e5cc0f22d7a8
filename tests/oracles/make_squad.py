"""Write squad.jsonl: what SQuAD's official script says of tricky answers.

    python tests/oracles/make_squad.py /path/to/evaluate-v2.0.py > tests/oracles/squad.jsonl

The script itself (https://rajpurkar.github.io/SQuAD-explorer/) is not part of this project.
"""

from __future__ import annotations

import json
import runpy
import sys

CASES: list[tuple[str, list[str]]] = [
    # repeated tokens
    ("no no", ["no no"]),
    ("no no", ["no"]),
    ("no no no", ["no yes"]),
    ("no", ["no no no"]),
    ("one two two", ["two one one"]),
    ("one two three four five six", ["six five four three two one"]),
    # nothing is left after normalisation
    ("", [""]),
    ("", ["cat"]),
    ("cat", [""]),
    ("the", ["a"]),
    ("the the the", ["the"]),
    ("the", ["cat", "the"]),
    ("", ["the", "cat"]),
    ("!?", ["cat", "!"]),
    ("an", ["!?", "..."]),
    # articles
    ("A", ["a"]),
    ("vitamin A", ["vitamin"]),
    ("Theatre an der Wien", ["theatre der wien"]),
    ("anthem", ["them"]),
    ("a-n", ["n"]),
    ("an_the", ["an the"]),
    ("_the_", ["x"]),
    ("the\tan a\nx", ["x"]),
    ("the cat sat on the mat", ["cat sat on mat", "a dog"]),
    # punctuation
    ("U.S.A.", ["usa"]),
    ("U.S.", ["us", "United States"]),
    ("don't", ["dont"]),
    ("don\u2019t", ["dont"]),
    ("\u00abrot\u00bb", ["rot"]),
    ("\u201cred\u201d", ["red"]),
    ("state-of-the-art", ["stateoftheart", "state of the art"]),
    ("3,000", ["3000"]),
    ("3.5", ["35"]),
    ("$5", ["$5 million"]),
    ("5 %", ["5%"]),
    # spaces
    ("  New\tYork \n", ["new york"]),
    ("New\u00a0York", ["new york"]),
    ("new\u200byork", ["new york"]),
    # letters outside ASCII
    ("\u00c4PFEL", ["\u00e4pfel"]),
    ("a\u0301pfel", ["\u00e1pfel"]),
    ("\u0130stanbul", ["istanbul"]),
    ("STRASSE", ["stra\u00dfe"]),
    ("\u5317\u4eac\u5e02", ["\u5317\u4eac"]),
    ("\u0928\u092e\u0938\u094d\u0924\u0947", ["\u0928\u092e\u0938\u094d\u0924\u0947"]),
    # several references
    ("red green", ["blue", "red green", "red"]),
    ("red", ["blue", "green"]),
    ("red cat", ["red dog", "a black cat on a red mat"]),
]


def main(script: str) -> None:
    answered = [
        {"id": str(number), "answers": [{"text": text} for text in references]}
        for number, (_, references) in enumerate(CASES)
    ]
    predictions = {str(number): prediction for number, (prediction, _) in enumerate(CASES)}
    official = runpy.run_path(script, run_name="official")["get_raw_scores"]
    exact, f1 = official([{"paragraphs": [{"qas": answered}]}], predictions)
    for number, (prediction, references) in enumerate(CASES):
        figures = {"exact": exact[str(number)], "f1": f1[str(number)]}
        print(json.dumps({"prediction": prediction, "references": references, **figures}))


if __name__ == "__main__":
    main(sys.argv[1])
