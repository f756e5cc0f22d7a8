"""What is said of keys: every one has a sentence, the page is current, `--help` finds groups, options and keys."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from rag_experiments import train
from rag_experiments.config import command_line, keys, schema, trainer_keys
from rag_experiments.config.data_formats import FORMATS, config_class
from rag_experiments.config.field_sources import REQUIRED, UNREAD, SourceError, config_of, fields_of, place_of
from rag_experiments.config.groups import OPTION_GROUPS, choices, option_files
from rag_experiments.config.key_sections import all_sections, stated_trainer_keys
from rag_experiments.core.errors import RequestError
from rag_experiments.training.checks import check_common, import_algorithm

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "manual" / "keys.md"
EXAMPLES = ROOT / "docs" / "extending"
ALGORITHMS = choices("algorithm")
MADE_HERE = ("pydocs", "keyvalue")


def target(name: str) -> str:
    """The class that an algorithm's file names."""
    (file,) = [file for file in option_files("algorithm") if file.stem == name]
    return re.findall(r"_target_: (\S+)", file.read_text(encoding="utf-8"))[0]


def with_inner(cls: type) -> Iterator[type]:
    """A dataclass, and those that its fields hold."""
    yield cls
    for hint in get_type_hints(cls).values():
        for member in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(member):
                yield from with_inner(member)


def config_classes() -> list[type]:
    """Every dataclass that a configuration's keys are the fields of."""
    found = [cls for cls in vars(schema).values() if dataclasses.is_dataclass(cls) and cls is not schema.Matching]
    found += [config_class(name) for name in FORMATS]
    found += [import_algorithm(target(name)).Config for name in ALGORITHMS]
    return sorted({inner for cls in found for inner in with_inner(cls)}, key=place_of)


CLASSES = config_classes()


def is_sentence(text: str) -> bool:
    """A capital letter or a name of the code first, a full stop last, and words between."""
    return bool(re.match(r"[A-Z`]", text)) and text.endswith(".") and len(text.split()) >= 4


@pytest.mark.parametrize("cls", CLASSES, ids=place_of)
def test_every_field_has_a_sentence_under_it(cls):
    assert [field.name for field in fields_of(place_of(cls)) if not is_sentence(field.doc)] == []


def test_what_is_no_sentence():
    assert not is_sentence("")
    assert not is_sentence("tokens of a passage at most.")
    assert not is_sentence("Tokens of a passage at most")
    assert not is_sentence("The seed.")


@pytest.mark.parametrize("cls", CLASSES, ids=place_of)
def test_the_source_says_what_the_class_is(cls):
    """Names in their order, and defaults: those of the class are what a run gets where the source is not asked."""
    read = fields_of(place_of(cls))
    assert [field.name for field in read] == [field.name for field in dataclasses.fields(cls)]
    for field, real in zip(read, dataclasses.fields(cls), strict=True):
        wanted: Any = real.default
        if real.default_factory is not dataclasses.MISSING:
            wanted = real.default_factory()
            wanted = dataclasses.asdict(wanted) if dataclasses.is_dataclass(wanted) else wanted
        assert field.default == (REQUIRED if wanted is dataclasses.MISSING else wanted), field.name
        assert type(field.default) is type(wanted) or wanted is dataclasses.MISSING, field.name
    inner = {place_of(one) for one in with_inner(cls)}
    assert {field.inner for field in read if field.inner} <= inner


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_source_says_which_config_an_algorithm_has(name):
    assert config_of(target(name)) == place_of(import_algorithm(target(name)).Config)


@pytest.mark.parametrize(
    ("place", "name", "words"),
    [
        ("rag_experiments.config.schema:RetrieverConfig", "k", "whole number, 1 or more"),
        ("rag_experiments.config.schema:RetrieverConfig", "index", "flat | ivf | hnsw"),
        ("rag_experiments.config.schema:RetrieverConfig", "bm25_b", "number from 0 to 1"),
        ("rag_experiments.config.schema:RetrieverConfig", "encoder", "a model | null"),
        ("rag_experiments.config.schema:DataConfig", "dev_fraction", "number, above 0, below 0.5"),
        ("rag_experiments.config.schema:LoraConfig", "target_modules", "text | a list of: text"),
        ("rag_experiments.config.schema:LoraConfig", "dropout", "number, 0 or more, below 1"),
        ("rag_experiments.config.schema:ReaderConfig", "template_date", "a date such as 2024-07-26 | null"),
        ("rag_experiments.config.schema:ReaderConfig", "lora", "keys of its own | null"),
        ("rag_experiments.config.schema:EvaluationConfig", "splits", "a list of: dev | test"),
        ("rag_experiments.data.formats.hub:HubConfig", "passage_words", "whole number, 10 or more | null"),
        ("rag_experiments.algorithms.dca:DCAConfig", "teacher_score", "cross_attention | adist | adist_peak | auto"),
        ("rag_experiments.algorithms.rpg:RPGConfig", "candidates", "whole number, 2 or more"),
        ("rag_experiments.algorithms.swr:SwRConfig", "packing", "true | false"),
    ],
)
def test_a_type_is_said_in_words(place, name, words):
    assert {field.name: field.type for field in fields_of(place)}[name] == words


def test_a_class_from_outside_is_read_without_its_module(tmp_path, monkeypatch):
    (tmp_path / "outside_base.py").write_text(
        "from dataclasses import dataclass\nLEAST = 3\n@dataclass\nclass Base:\n    a: int = LEAST\n    '''Base's.'''\n"
    )
    (tmp_path / "outside_trainer.py").write_text(
        "raise SystemExit('imported')\nfrom dataclasses import dataclass\nimport outside_base\n"
        "@dataclass\nclass Mine(outside_base.Base):\n    b: 'str | None' = None\n    c: float = 1 / 3\n    a: int = 4\n"
        "class Trainer:\n    Config = Mine\nclass Second(Trainer):\n    pass\nloop = loop\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    place = config_of("outside_trainer.Second")
    assert place == "outside_trainer:Mine"
    a, b, c = fields_of(place)
    assert (a.name, a.default, a.doc) == ("a", 4, "Base's.")
    assert (b.type, b.default) == ("text | null", None)
    assert c.default is UNREAD
    for missing in (
        "outside_trainer.Nobody",
        "outside_trainer.loop",
        "no_such_module.Trainer",
        "",
        "outside_base.Base",
    ):
        with pytest.raises(SourceError):
            config_of(missing)


# -- the page --------------------------------------------------------------------------------------


def test_the_page_of_keys_is_current():
    """`python -m rag_experiments.config.keys > docs/manual/keys.md` makes it."""
    assert PAGE.read_text(encoding="utf-8") == keys.keys_page()


def typed_keys(node: Any, prefix: str) -> Iterator[str]:
    """Every key of a group of a run's configuration, as it is typed; a further model's keys are those of `model`."""
    for name, value in node.items():
        key = f"{prefix}.{name}"
        if name != "_target_":
            yield key
        if isinstance(value, dict) and "kind" in value:
            yield from typed_keys(value, "model")
        elif isinstance(value, dict) and name not in ("files", "splits", "architecture", "learning_rates"):
            yield from typed_keys(value, key)


RUNS = [
    *([f"algorithm={name}"] for name in ALGORITHMS),
    *([f"data={name}", *([] if name in MADE_HERE else ["data.path=x"])] for name in FORMATS if name != "auto"),
    *(["algorithm=sft", f"model={model}"] for model in ("smollm2_135m_lora", "flan_t5_base", "t5_tiny_scratch")),
    *([f"retriever={name}"] for name in ("faiss_flat", "hybrid")),
]


@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_every_key_of_a_run_is_on_the_page_with_a_sentence(overrides):
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.*\| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    _, resolved = check_common(command_line.compose(overrides))
    for group, node in resolved.items():
        if group != "trainer":
            for key in typed_keys(node, group) if isinstance(node, dict) else [group]:
                name = key if key in rows else key.rpartition(".")[0]  # a mapping has one row: rates by role
                assert is_sentence(rows[name]), key


def test_every_key_that_an_option_of_trainer_sets_has_a_sentence():
    said = {key.name for key in stated_trainer_keys() if is_sentence(key.doc)}
    for option in choices("trainer"):
        composed = command_line.compose([f"trainer={option}"])
        algorithm = command_line.compose(["~trainer"])
        assert said >= {f"trainer.{name}" for name in {*composed.trainer} - {*algorithm.trainer}}
    assert {*trainer_keys.ELSEWHERE, *trainer_keys.REFUSED} <= set(
        re.findall(r"`trainer\.(\w+)`", PAGE.read_text(encoding="utf-8"))
    )


# -- help ------------------------------------------------------------------------------------------


def text_of(*words: str) -> str:
    return keys.help_text("train", "purpose", ["--help", *words])


def test_help_alone_lists_every_option():
    page = text_of()
    for group in OPTION_GROUPS:
        for option in choices(group):
            assert option in page
    assert page == keys.help_page("train", "purpose")


@pytest.mark.parametrize("group", [group for group, _ in all_sections() if group])
def test_help_on_a_group_says_all_its_keys(group):
    page = text_of(group)
    for section in dict(all_sections())[group]:
        for key in section.keys:
            assert f"  {key.name}\n" in page
            assert key.doc.split()[-1] in page


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (
            "algorithm=dca",
            ["algorithm=dca", "Distil a reader", "trainer.learning_rate=2.0e-05", "algorithm.teacher_steps"],
        ),
        ("ctl", ["algorithm=ctl", "algorithm.matryoshka_dims", "sweep=ctl"]),
        ("data=pydocs", ["data.test_fraction=0.15", "data.max_words", "default 0.1"]),
        ("retriever.k", ["whole number, 1 or more; default 4", "Passages a reader gets."]),
        ("retriever.k=8", ["whole number, 1 or more; default 4"]),
        ("model.lora.r", ["The rank of the adapters."]),
        ("retriever.encoder.pooling", ["mean | cls | last"]),
        ("model@algorithm.teacher=minilm", ["model=minilm", "model.pooling=mean"]),
        ("rrf_k", ["retriever.rrf_k", "default 60"]),
        ("seed", ["default 0", "The seed of everything"]),
        ("trainer", ["trainer.warmup_steps", "huggingface.co/docs/transformers", "trainer.fsdp", "trainer.output_dir"]),
        ("trainer.weight_decay", ["0.01 with trainer=default"]),
        ("trainer.output_dir", ["cannot be set: `hydra.run.dir`"]),
        ("trainer.fsdp", ["not supported: each process"]),
        ("trainer.adam_beta2", ["A field of transformers.TrainingArguments"]),
        ("hydra/sweeper", ["optuna", "random"]),
        ("hydra/launcher=local", ["hydra.launcher.n_jobs=1"]),
        ("experiment=demo", ["name=demo", "trainer.num_train_epochs=1"]),
    ],
)
def test_help_on_an_option_or_a_key(word, wanted):
    page = text_of(word)
    for words in wanted:
        assert words in page
    assert "_target_" not in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["retreiver"], "--help retreiver: that is no group, option or key (did you mean 'retriever'"),
        (["algorithm=dcaa"], "algorithm=dcaa is not one of the algorithm options (did you mean 'dca'?)"),
        (["retriever.kk"], "did you mean 'retriever.k'"),
        (["trainer.learning_rat"], "did you mean 'learning_rate'"),
        (["--config-dir", "no/such"], "--config-dir no/such: there is no such directory"),
        (["--config-dir"], "--config-dir needs a value"),
    ],
)
def test_help_on_nothing_there_is_a_wrong_request(words, sentence):
    with pytest.raises(RequestError) as refused:
        train.start(["--help", *words])
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_wraps_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, text_of("evaluation").splitlines()[4:])) <= 60
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, text_of("algorithm=dca").splitlines())) > 100


def test_help_lists_options_of_ones_own(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    own = ["--config-dir", str(EXAMPLES / "conf")]
    page = text_of(*own)
    for option in ("pull", "both", "late_minilm", "pairs"):
        assert re.search(rf"^    {option} .*conf/\w+/{option}\.yaml\)$", page, re.MULTILINE)
        assert not re.search(rf"^    {option} ", text_of(), re.MULTILINE)
    assert "late_minilm" in text_of("model", *own)
    pull = text_of("algorithm=pull", f"--config-dir={EXAMPLES / 'conf'}")
    assert "algorithm.weight=2.0" in pull
    assert "The loss is multiplied by it." in pull
    assert "algorithm.learning_rates" in text_of("algorithm", *own)
    assert "data=pairs" in text_of("data", *own)
    with pytest.raises(RequestError, match="algorithm=pull is not one of"):
        text_of("algorithm=pull")


def test_help_imports_no_torch():
    code = (
        "import sys\nfrom rag_experiments.config import keys\n"
        "assert all(keys.help_text('', '', [word]) for word in ('algorithm', 'model', 'data', 'trainer', 'dca'))\n"
        "assert keys.keys_page()\nassert not {'torch', 'transformers', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
