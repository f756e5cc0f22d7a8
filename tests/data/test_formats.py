"""Every format: reads, round-trips to native, finds a bad line and a missing gold passage; broken files."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_experiments.config import data_formats
from rag_experiments.config.data_formats import FORMATS
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import RagData, load_data
from rag_experiments.data.tools.native_writer import write_native
from tests.data.samples import COUNT, Sample, passage, question, samples

SAMPLES = samples()
FILE_FORMATS = sorted(set(FORMATS) - {"pydocs", "keyvalue", "auto"})  # auto becomes one of the others


def load(sample: Sample, folder: Path, cache: Path) -> RagData:
    return load_data(sample.config(folder), cache)


def by_text(data: RagData) -> dict[str, tuple]:
    """Question text to what is known about it, passages by their texts."""

    def texts(ids: tuple[str, ...]) -> list[str]:
        return data.passages.full_texts(data.passages.rows(ids))

    return {
        q.question: (q.answers, texts(q.positive_ids), texts(q.negative_ids), texts(q.candidate_ids))
        for questions in data.splits.values()
        for q in questions
    }


def test_every_format_has_a_sample():
    assert set(FILE_FORMATS) <= set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_reads(name, tmp_path):
    sample = SAMPLES[name]
    sample.write(tmp_path)
    data = load(sample, tmp_path, tmp_path / "cache")
    assert len(data.passages) == COUNT
    known = by_text(data)
    for n in range(COUNT):
        answers, positives, negatives, candidates = known[question(n)]
        title, text = passage(n)
        assert answers == (f"d{n}",)
        assert positives[0] == f"{title}\n{text}"
        if sample.format in ("localrqa", "tevatron") or name.startswith("dpr"):
            assert negatives == ["\n".join(passage((n + 1) % COUNT))]
        if name.startswith("fid"):
            assert candidates == ["\n".join(passage((n + step) % COUNT)) for step in (1, 0, 2)]
    assert all(data.splits[split] for split in ("train", "dev", "test"))


@pytest.mark.parametrize("name", SAMPLES)
def test_round_trips_to_native(name, tmp_path):
    SAMPLES[name].write(tmp_path)
    data = load(SAMPLES[name], tmp_path, tmp_path / "cache")
    write_native(tmp_path / "native", data.passages, data.splits)
    again = load_data(JsonlConfig(path=str(tmp_path / "native")), tmp_path / "cache")
    assert again.splits == data.splits
    assert list(again.passages) == list(data.passages)
    assert again.content_hash == data.content_hash


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_bad_line_is_named(name, tmp_path):
    sample = SAMPLES[name]
    sample.write(tmp_path)
    path = tmp_path / sample.questions
    lines = path.read_text().splitlines()
    lines[6] = lines[6][:-9]
    path.write_text("\n".join(lines))
    with pytest.raises(RequestError, match=rf"{sample.questions}:7: not valid JSON"):
        load(sample, tmp_path, tmp_path / "cache")
    lines[6] = json.dumps({"something": "else"})
    path.write_text("\n".join(lines))
    with pytest.raises(RequestError, match=rf"{sample.questions}:7: there is no"):
        load(sample, tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("name", [name for name in FILE_FORMATS if SAMPLES[name].lose_gold])
def test_missing_gold_is_found(name, tmp_path):
    sample = SAMPLES[name]
    sample.write(tmp_path)
    sample.lose_gold(tmp_path)
    with pytest.raises(RequestError, match=r":\d+: positive_ids has '.*', and no passage has that id"):
        load(sample, tmp_path, tmp_path / "cache")


def test_missing_gold_in_hub_data_is_found(tmp_path):
    """There a gold passage is the context itself: it is missing where the answer is not in a context that is cut."""
    from rag_experiments.data.formats.hub import HubConfig

    long = [" ".join(f"word{n}x{i}" for i in range(60)) for n in range(20)]
    rows = [{"question": f"{n}?", "context": long[n], "answers": f"word{n}x7" if n else "absent"} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_data(HubConfig(path=str(tmp_path), passage_words=20), tmp_path / "cache")
    assert sum(map(len, data.splits.values())) == 19
    assert "answer is not in its context" in data.notes[0]
    assert "train.jsonl:1" in data.notes[0]


# -- broken files ------------------------------------------------------------------------------------

EXAMPLES = int(os.environ.get("DATA_EXAMPLES", "40"))
"""For a format and a test; `DATA_EXAMPLES=500` is the long run."""
BYTES = st.sampled_from([b"", b"\n", b"{", b"}", b'"', b"\x00", b"\xff", b"null", b"[[", b"\\ud800", b"1e999", b"\t"])
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), BYTES | st.binary(max_size=6)), min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=2), max_leaves=4
)


def damaged(content: bytes, damage: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, inserted in damage:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + length :]
    return content


def one_sentence(error: RequestError) -> None:
    assert "\n" not in str(error)


def accounted(sample: Sample, folder: Path) -> tuple[int, int, int]:
    """Rows of the questions' file that are not blank, questions taken, problems and remarks."""
    with tempfile.TemporaryDirectory() as made:
        intake = Intake(Path(made), collect=True)
        data_formats.reader(sample.format).read(sample.config(folder), intake)
        taken = sum(map(len, intake.splits.values()))
        return taken, len(intake.problems), sum(intake._remarks.values())


def load_damaged(name, damage, tmp_path_factory):
    """The damaged bytes of a sample's file, and what is read from it; `None` where it is refused in one sentence."""
    sample = SAMPLES[name]
    folder = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    folder.mkdir(exist_ok=True)
    sample.write(folder)
    path = folder / sample.questions
    content = damaged(path.read_bytes(), damage)
    path.write_bytes(content)
    try:
        with tempfile.TemporaryDirectory() as cache:
            return content, load(sample, folder, Path(cache))
    except RequestError as error:
        one_sentence(error)
        return content, None


@pytest.mark.parametrize("name", FILE_FORMATS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damaged_bytes_end_in_a_sentence(name, damage, tmp_path_factory):
    """Never a traceback; and where nothing is refused, every row of the file is there or accounted for."""
    content, data = load_damaged(name, damage, tmp_path_factory)
    if data is None:
        return
    rows = sum(bool(line.strip()) for line in content.split(b"\n"))
    asked = sum(map(len, data.splits.values()))
    # A byte less may make a question another's, and rows that ask the same are one question.
    left_out = any("left out" in note or "merged into one" in note for note in data.notes)
    extra = COUNT if name == "localrqa" else 0  # each of its passages is asked about once more in the other file
    assert asked >= rows + extra or left_out, "a row was lost without a word"


def rows_of_csv(content: bytes) -> int:
    """Rows below the header by Python's own reader; raises what it raises."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode()
    return sum(any(map(str.strip, row)) for row in csv.reader(io.StringIO(text, newline=""), strict=True)) - 1


def questions_of_squad(content: bytes) -> int:
    """Of a nested file; raises where it is none."""
    return sum(len(part["qas"]) for article in json.loads(content)["data"] for part in article["paragraphs"])


@pytest.mark.parametrize(("name", "count"), [("csv", rows_of_csv), ("squad", questions_of_squad)])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damaged_tables_and_nested_files(name, count, damage, tmp_path_factory):
    """As above, for files whose rows are no lines: what is taken is what another reader counts, or less and said."""
    content, data = load_damaged(name, damage, tmp_path_factory)
    if data is None:
        return
    asked = sum(map(len, data.splits.values()))
    assert asked == count(content) or any("left out" in note for note in data.notes)


@pytest.mark.parametrize("name", FILE_FORMATS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, COUNT - 1), key=st.integers(0, 9), value=JSON)
def test_wrong_values_end_in_a_sentence(name, number, key, value, tmp_path_factory):
    """One field of one row becomes another JSON value: refused with its line, or taken, never lost."""
    sample = SAMPLES[name]
    folder = tmp_path_factory.getbasetemp() / f"wrong-{name}"
    folder.mkdir(exist_ok=True)
    sample.write(folder)
    path = folder / sample.questions
    lines = path.read_text().splitlines()
    row = json.loads(lines[number])
    row[list(row)[key % len(row)]] = value
    lines[number] = json.dumps(row)
    path.write_text("\n".join(lines))
    taken, problems, remarks = accounted(sample, folder)
    try:
        with tempfile.TemporaryDirectory() as cache:
            load(sample, folder, Path(cache))
    except RequestError as error:
        one_sentence(error)
        return
    assert problems == 0
    assert taken + remarks >= COUNT
