"""Loading: limits, hashes, what is stored and read back, what enters the import's key."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.config import data_formats
from rag_experiments.config.data_formats import FORMATS, config_class
from rag_experiments.core.errors import RequestError
from rag_experiments.data import load
from rag_experiments.data.builder import Asked, Intake
from rag_experiments.data.formats import contexts
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import RagData, check_required_fields, load_data
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage, Question, Turn, Where
from tests.data.samples import samples

FULL = Question(
    id="q7",
    question="Größe?",
    answers=("a", "b"),
    positive_ids=("p1",),
    negative_ids=("p2", "p3"),
    history=(Turn("user", "Hello"), Turn("assistant", "Hm")),
    relevance={"p1": 2},
    candidate_ids=("p3", "p1"),
)


def many(native, tmp_path, **keys: Any) -> RagData:
    rows = [{"id": f"{n:03}", "question": f"{n}?"} for n in range(60)]
    folder = native(train=rows, dev=rows[:40], test=rows[:40])
    return load_data(JsonlConfig(path=str(folder), **keys), tmp_path / "cache")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_limit_is_a_choice_of_its_seed_in_the_datas_order(split, native, tmp_path):
    whole = [q.id for q in many(native, tmp_path).splits[split]]
    choices = []
    for seed in (0, 0, 1, 2):
        data = many(native, tmp_path, split_seed=seed, **{f"max_{split}": 10})
        chosen = [q.id for q in data.splits[split]]
        assert len(chosen) == 10
        assert chosen == [one for one in whole if one in chosen]
        assert list(data.places[split]) == chosen
        assert all(len(data.splits[name]) >= 40 for name in data.splits if name != split)
        choices.append(tuple(chosen))
    assert choices[0] == choices[1]
    assert len({*choices, tuple(whole[:10])}) == 4, "another seed chooses others, and none the beginning"


def test_a_larger_limit_holds_the_smaller_ones_choice(native, tmp_path):
    smaller, larger = ({q.id for q in many(native, tmp_path, max_train=n).splits["train"]} for n in (10, 25))
    assert smaller < larger
    assert len(many(native, tmp_path, max_train=60).splits["train"]) == 60
    assert len(many(native, tmp_path, max_train=600).splits["train"]) == 60


def other(value: Any) -> Any:
    """A value of the same kind that differs."""
    if isinstance(value, tuple):
        return (*value, value[0])
    return {**value, "p9": 1} if isinstance(value, dict) else f"{value}x"


def stored_passages(folder, texts=("one", "two")) -> PassageStore:
    folder.mkdir(parents=True)
    write_passages(folder, [Passage(f"p{n}", text) for n, text in enumerate(texts)])
    return PassageStore(folder)


def test_the_content_hash_changes_with_everything_a_comparison_stands_on(tmp_path):
    store = stored_passages(tmp_path / "a")
    splits = {"train": [FULL], "dev": [dataclasses.replace(FULL, id="d")], "test": []}
    hashes = [load._content_hash(store, splits)]
    assert load._content_hash(stored_passages(tmp_path / "same"), splits) == hashes[0]
    for entry in dataclasses.fields(Question):
        changed = dataclasses.replace(FULL, **{entry.name: other(getattr(FULL, entry.name))})
        hashes.append(load._content_hash(store, {**splits, "train": [changed]}))
    hashes.append(load._content_hash(store, {"train": [], "dev": [FULL, *splits["dev"]], "test": []}))
    hashes.append(load._content_hash(store, {**splits, "dev": [], "test": splits["dev"]}))
    hashes.append(load._content_hash(stored_passages(tmp_path / "b", ("one", "too")), splits))
    assert len(set(hashes)) == len(hashes)


def test_questions_come_out_of_the_cache_as_they_went_in(tmp_path):
    asked = [
        Asked(FULL, Where("/far/away/train.jsonl", 7), "g", ("h",)),
        Asked(Question("q8", "?"), Where("train.json[3]")),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(load._stored(one)) + "\n" for one in asked), encoding="utf-8")
    read = list(load._stored_questions(path))
    assert [one.question for one in read] == [one.question for one in asked]
    assert [str(one.where) for one in read] == ["train.jsonl:7", "train.json[3]"]
    assert [(one.group, one.more_groups) for one in read] == [("g", ("h",)), (None, ())]


def test_groups_survive_the_cache(tmp_path):
    """Articles are kept together when the data is cut, the second time as well."""
    sample = samples()["squad"]
    sample.write(tmp_path)
    first, second = (load_data(sample.config(tmp_path), tmp_path / "cache") for _ in range(2))
    assert first.splits == second.splits
    (manifest,) = (tmp_path / "cache").glob("data/*/manifest.json")
    groups = [json.loads(line)["groups"][0] for line in (manifest.parent / "train.jsonl").read_text().splitlines()]
    assert all(groups)
    assert len(set(groups)) > 1


def test_a_format_that_imports_otherwise_than_before_has_another_key(monkeypatch, native):
    config = JsonlConfig(path=str(native()))
    before = load._import_key(config, "files")
    assert load._import_key(config, "other files") != before
    monkeypatch.setattr(load, "IMPORT_VERSION", load.IMPORT_VERSION + 1)
    assert load._import_key(config, "files") != before


def test_questions_that_train_asks_too_are_counted(native, tmp_path):
    train = [{"question": f"{n}?"} for n in range(5)]
    dev = [{"question": " 1?"}, {"question": "2? "}, {"question": "new?"}]
    test = [{"question": "2?", "history": [{"role": "user", "content": "Hm"}]}, {"question": "4?"}]
    data = load_data(JsonlConfig(path=str(native(train=train, dev=dev, test=test))), tmp_path / "cache")
    assert data.notes == [
        "2 of the 3 dev questions are asked in train as well",
        "1 of the 2 test questions are asked in train as well",
    ]


def test_needs_are_looked_for_in_every_split_and_only_those_asked_for(native, tmp_path):
    full = {"question": "a?", "answers": ["b"], "positive_ids": ["p0"]}
    for split in ("train", "dev", "test"):
        rows = {name: [full] for name in ("train", "dev", "test")} | {split: [full, {"question": "c?"}]}
        data = load_data(JsonlConfig(path=str(native(**rows))), tmp_path / f"cache {split}")
        for name in load.NEEDS.values():
            with pytest.raises(RequestError, match=rf"{split}\.jsonl:2: no {name}.*1 of the 2 {split} questions"):
                check_required_fields(data, {name}, "ctl")
    data.places = {}
    with pytest.raises(RequestError, match="question 'test-2': no answers"):
        check_required_fields(data, {"answers"}, "ctl")


# -- what enters the key of an import ----------------------------------------------------------------

AFTER_THE_IMPORT = {
    "path": "the content of its files is in the key, not where they lie",
    "dev_fraction": "splits are cut from what was imported",
    "test_fraction": "splits are cut from what was imported",
    "split_seed": "splits are cut from what was imported",
    "query_history": "queries are made of what was imported",
    "max_train": "a choice of what was imported",
    "max_dev": "a choice of what was imported",
    "max_test": "a choice of what was imported",
}
OTHERS: dict[str, Any] = {
    "files": {"train": "x"},
    "splits": {"train": "x", "dev": None},
    "gold": "first",
    "preset": "squad",
    "split_by": "passage",
    "packages": ["filelock"],
    "format": "other",
}


def changed(name: str, value: Any) -> Any:
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if value is None or isinstance(value, str) else value


def variants(config: Any) -> dict[str, Any]:
    """The configuration with each field changed, fields of fields by their dotted name."""
    found = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            inner = variants(value)
            found |= {f"{entry.name}.{name}": _with(config, entry.name, made) for name, made in inner.items()}
        else:
            found[entry.name] = _with(config, entry.name, changed(entry.name, value))
    return found


def _with(config: Any, name: str, value: Any) -> Any:
    made = object.__new__(type(config))
    made.__dict__.update({**config.__dict__, name: value})  # past checks of combinations, which are no matter of a key
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_every_key_of_a_format_is_part_of_the_imports_key_unless_said_why_not(name):
    config = config_class(name)()
    before = load._import_key(config, "the same files")
    for field, made in variants(config).items():
        assert made != config, field
        after = load._import_key(made, "the same files")
        assert (after == before) == (field in AFTER_THE_IMPORT), field


@pytest.mark.parametrize("name", ["keyvalue", "pydocs"])
def test_what_a_generated_set_is_made_of_is_in_its_fingerprint(name, monkeypatch):
    module, config = data_formats.reader(name), config_class(name)()
    before = module.fingerprint(config)
    assert module.fingerprint(config) == before
    made = variants(config)
    decide = {"keyvalue": ["size", "seed", "dev_fraction", "test_fraction"], "pydocs": ["packages"]}[name]
    for field in decide:
        assert module.fingerprint(made[field]) != before, field
    monkeypatch.setattr(module, "GENERATOR_VERSION", module.GENERATOR_VERSION + 1)
    assert module.fingerprint(config) != before


@pytest.mark.parametrize("name", samples())
def test_every_file_that_is_read_is_in_the_fingerprint(name, tmp_path):
    """Each file in turn gets one more byte, then one other byte."""
    sample = samples()[name]
    sample.write(tmp_path)
    config, module = sample.config(tmp_path), data_formats.reader(sample.format)
    read: set = set()

    def noted(paths):
        paths = list(paths)
        read.update(path.resolve() for path in paths)
        return files_fingerprint(paths)

    with pytest.MonkeyPatch.context() as patch:
        for place in (module, contexts):  # formats of passages beside questions share one fingerprint
            if hasattr(place, "files_fingerprint"):
                patch.setattr(place, "files_fingerprint", noted)
        before = module.fingerprint(config)
    assert (tmp_path / sample.questions).resolve() in read
    for path in sorted(read):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert module.fingerprint(config) != before, path
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert module.fingerprint(config) != before, path
        path.write_bytes(content)
    assert module.fingerprint(config) == before
    opened = files_opened_by(module, config, tmp_path)
    assert opened <= read, "nothing is read that the key does not know"


LISTENING: list[set[Path]] = []
"""Sets that are told what files the process opens."""


@functools.cache
def listen() -> None:
    """Once for the process: an audit hook cannot be taken out again."""

    def hook(event: str, arguments: tuple) -> None:
        if LISTENING and event == "open" and isinstance(arguments[0], str | Path):
            LISTENING[-1].add(Path(arguments[0]))

    sys.addaudithook(hook)


def files_opened_by(module, config, tmp_path) -> set[Path]:
    """Files under the data's folder that `read` opens."""
    folder = tmp_path / "intake"
    folder.mkdir()
    opened: set[Path] = set()
    listen()
    LISTENING.append(opened)
    try:
        module.read(config, Intake(folder, collect=True))
    finally:
        LISTENING.clear()
    return {path.resolve() for path in opened if tmp_path in path.parents and folder not in path.parents}


def test_another_tokenizer_under_the_same_name_cuts_anew(tmp_path):
    """`data.tokenizer` names a folder; what lies in it decides where documents are cut."""
    pytest.importorskip("semantic_text_splitter")
    from tokenizers import Tokenizer, models, pre_tokenizers

    def write(split):
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = split
        tokenizer.save(str(tmp_path / "tokens" / "tokenizer.json"))

    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "config.json").write_text("{}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a-b-c-d " * 40)
    keys = {"chunk_tokens": 20, "overlap_tokens": 0, "tokenizer": str(tmp_path / "tokens")}
    config = config_class("documents")(path=str(tmp_path / "docs"), **keys)
    write(pre_tokenizers.WhitespaceSplit())
    assert len(load_data(config, tmp_path / "cache").passages) == 2
    write(pre_tokenizers.Whitespace())
    assert len(load_data(config, tmp_path / "cache").passages) > 10


def test_swapped_files_are_another_fingerprint(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    prints = set()
    for first, second in itertools.permutations(["ab", "c"]):
        one.write_text(first)
        two.write_text(second)
        prints |= {files_fingerprint([one, two]), files_fingerprint([two, one])}
    one.write_text("a")
    two.write_text("bc")
    prints.add(files_fingerprint([one, two]))
    assert len(prints) == 5
