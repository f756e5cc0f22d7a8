"""Every option of every group composes into what its file says and passes the checks that need no weights."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rag_experiments.config import command_line
from rag_experiments.config.groups import OPTION_GROUPS, choices, conf_dir, first_comment, preset_kinds
from rag_experiments.config.roles import config_roles
from rag_experiments.core.errors import RequestError
from rag_experiments.training.checks import check_algorithm, check_common, import_algorithm

OPTIONS = {group: [name for name in choices(group) if name != "auto"] for group in OPTION_GROUPS}
"""`data=auto` becomes another format where it is composed: tests/data/test_detection_runs.py."""
MADE_HERE = ("pydocs", "keyvalue")
"""Data that is made, not read: it takes no path."""
KINDS = {model: kind for model, kind in preset_kinds().items() if kind != "auto"}
"""The kind of `model=run` is read from the run: tests/commands/test_reopen.py has such runs."""
TRAINED = {
    "ctl": {"encoder"},
    "dca": {"encoder"},
    "rpg": {"encoder"},
    "joint": {"encoder"},
    "rerank": {"cross_encoder"},
    "sft": {"decoder", "encoder_decoder"},
    "swr": {"decoder", "encoder_decoder"},
    "fid": {"decoder", "encoder_decoder"},
}
"""What each algorithm trains."""
FITTING = {"encoder": "ctl", "cross_encoder": "rerank", "decoder": "sft", "encoder_decoder": "fid"}
"""An algorithm for each kind of model."""


def checked(overrides: list[str]):
    """The checked configuration, the resolved values, and what Hydra composed; to look at, not to change."""
    return _checked(tuple(overrides))


@functools.cache  # options are composed alone by several tests
def _checked(overrides: tuple[str, ...]):
    words = list(overrides)
    read = any(word.startswith("data=") and word[5:] not in MADE_HERE for word in words)
    composed = command_line.compose([*words, "data.path=somewhere"] if read else words)
    if not read and composed.data.format not in MADE_HERE:
        composed = command_line.compose([*words, "data.path=somewhere"])
    config, resolved = check_common(composed)
    check_algorithm(config)
    return config, resolved, composed


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value below a node, with the keys that lead to it."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, node


def stated(group: str, option: str) -> dict[tuple[str, ...], Any]:
    """The values that an option's file states, by their place in the whole configuration.

    Without what it takes from other files, without values that refer to others, and without `{}`: the defaults.
    """
    text = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text) or {}
    found.pop("defaults", None)
    top = () if "@package _global_" in text else (group,)
    return {
        path: value
        for path, value in leaves(found, top)
        if path[-1] != "_target_" and value != {} and not (isinstance(value, str) and ("${" in value or value == "???"))
    }


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def assert_holds(values: Any, wanted: dict[tuple[str, ...], Any]) -> None:
    for path, value in wanted.items():
        if path != ("data", "path"):
            assert at(values, path) == value, ".".join(path)


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in OPTIONS for option in OPTIONS[group] if group not in ("model", "sweep")],
)
def test_an_option_alone_is_a_whole_run_with_the_values_of_its_file(group, option):
    reader = ["algorithm=sft"] if option == "bm25" else []  # there is nothing in BM25 to train
    config, resolved, composed = checked([*reader, f"{group}={option}"])
    # An algorithm's file stands after those of the trainer and the evaluation: what it sets of them stays.
    later = stated("algorithm", config.algorithm.name) if group in ("trainer", "evaluation") else {}
    wanted = {path: value for path, value in stated(group, option).items() if path not in later}
    assert_holds({**resolved, "chain": composed.get("chain")}, wanted)


@pytest.mark.parametrize("model", KINDS)
def test_a_model_preset_has_the_values_of_its_file_and_its_kind(model):
    config, resolved, _ = checked([f"algorithm={FITTING[KINDS[model]]}", f"model={model}"])
    later = stated("algorithm", config.algorithm.name)
    assert_holds(resolved, {path: value for path, value in stated("model", model).items() if path not in later})
    assert config.model.kind == KINDS[model]


@pytest.mark.parametrize("sweep", OPTIONS["sweep"])
def test_a_search_space_has_keys_and_values_that_its_algorithm_takes(sweep):
    config, _, composed = checked([f"sweep={sweep}", "hydra/sweeper=random"])
    assert config.algorithm.name == sweep
    space = dict(composed.hydra.sweeper.params)
    assert space
    for end in (1, 2):  # of `choice(1, 2, 4)` and `interval(1e-5, 1e-4)` the first value and the second
        pattern = r"(?:choice|interval)\(([^,]+), ([^,)]+)"
        values = {key: re.search(pattern, text)[end] for key, text in space.items()}
        _, resolved, _ = checked([f"sweep={sweep}", *(f"{key}={value}" for key, value in values.items())])
        for key, value in values.items():
            assert str(at(resolved, tuple(key.split(".")))) in (value, str(yaml.safe_load(value)), str(float_or(value)))


def float_or(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def pairwise(columns: dict[str, list[str]]) -> list[dict[str, str]]:
    """Rows in which every two options of two different columns meet: each row takes what is still missing most.

    Always the same rows. With columns of 9 and 6 there cannot be fewer than 54.
    """
    names = list(columns)
    missing = {
        ((one, left), (other, right))
        for one, other in itertools.combinations(names, 2)
        for left in columns[one]
        for right in columns[other]
    }
    rows = []
    while missing:
        row = dict(min(missing, key=lambda pair: [(names.index(n), columns[n].index(option)) for n, option in pair]))
        for name in names:
            if name in row:
                continue
            gains = []
            for option in columns[name]:
                met = {tuple(sorted(((name, option), other), key=lambda p: names.index(p[0]))) for other in row.items()}
                gains.append(len(met & missing))
            row[name] = columns[name][gains.index(max(gains))]
        ordered = [(name, row[name]) for name in names]
        missing -= set(itertools.combinations(ordered, 2))
        rows.append(dict(ordered))
    return rows


PAIRS = pairwise(
    {
        "data": OPTIONS["data"],
        "algorithm": OPTIONS["algorithm"],
        "retriever": OPTIONS["retriever"],
        "model": ["minilm", "minilm_reranker", "smollm2_135m", "flan_t5_small"],  # one of each kind
        "trainer": OPTIONS["trainer"],
        "tracking": OPTIONS["tracking"],
        "evaluation": OPTIONS["evaluation"],
    }
)


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: "-".join(row.values()))
def test_options_together_hold_what_each_states_or_are_refused_with_the_reason(row):
    overrides = [f"{group}={option}" for group, option in row.items()]
    trains, kind = TRAINED[row["algorithm"]], KINDS[row["model"]]
    if kind not in trains:
        with pytest.raises(RequestError, match="choose model="):
            checked(overrides)
    elif row["retriever"] == "bm25" and trains == {"encoder"}:
        with pytest.raises(RequestError, match="bm25"):
            checked(overrides)
    else:
        _, resolved, _ = checked(overrides)
        wanted: dict[tuple[str, ...], Any] = {}
        for group in ("model", "data", "retriever", "trainer", "evaluation", "tracking", "algorithm"):
            wanted |= stated(group, row[group])
        assert_holds(resolved, wanted)


def test_the_pairs_are_all_pairs():
    met = {pair for row in PAIRS for pair in itertools.combinations(row.items(), 2)}
    for one, other in itertools.combinations(PAIRS[0], 2):
        lists = [sorted({row[name] for row in PAIRS}) for name in (one, other)]
        for left, right in itertools.product(*lists):
            assert ((one, left), (other, right)) in met
    longest = sorted((len({row[name] for row in PAIRS}) for name in PAIRS[0]), reverse=True)
    assert len(PAIRS) <= 1.1 * longest[0] * longest[1]  # fewer than the product cannot hold all pairs


def test_a_model_on_the_command_line_wins_over_the_algorithms():
    config, _, _ = checked(["algorithm=ctl", "model=e5_small"])
    assert "e5" in config.model.path


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("hydra.run.dirr=x", "hydra.run.dirr is an unknown key (did you mean 'dir'?)"),
        ("hydra.sweper.n_trials=3", "hydra.sweper.n_trials is an unknown key (did you mean 'sweeper' or 'sweep'?)"),
        ("hydra.launcher.n_job=3", "did you mean 'n_jobs'?); another hydra/launcher may have it (local, ray"),
        ("hydra.sweeper.n_trials=3", "another hydra/sweeper may have it (grid, optuna, random)"),
        ("hydra/swep=optuna", "hydra/swep is an unknown config group (did you mean 'hydra/sweeper'?)"),
        ("hydra/sweeper=optun", "hydra/sweeper=optun is not one of the hydra/sweeper options (did you mean 'optuna'?)"),
        ("hydra.job.chdir=maybe", "hydra.job.chdir: value 'maybe' is not a valid bool"),
        ("hydra=x", "hydra is no config group"),
        ("seed.x=1", "seed.x is an unknown key: seed has no keys of its own"),
        ("sedd=1", "sedd is an unknown key (did you mean 'seed'?)"),
        ("experiments=demo", "experiments is an unknown key (did you mean 'experiment'?)"),
        ("experiment=dem", "experiment=dem is not one of the experiment options (did you mean 'demo'?)"),
        ("model@retriver.encoder=minilm", "unknown place (did you mean 'model@retriever.encoder' or"),
        ("paths=x", "paths='x' is no configuration: set its keys, as paths.<key>=…"),
    ],
)
def test_what_does_not_compose_is_said_with_what_would(override, sentence):
    with pytest.raises(RequestError) as refused:
        checked([override])
    assert sentence in str(refused.value)


def test_every_yaml_says_what_it_is():
    for file in conf_dir().rglob("*.yaml"):
        assert len(first_comment(file)) > 10, file


NAMES = {"name", "format", "kind", "type", "backend"}
"""Keys that say which of several things an option is: it states them even where that is the default."""
OF_TEACHERS = {"batch_size", "max_new_tokens", "lora"}
"""A reader may be the teacher of DCA and RPG, of which a run's hash holds what the preset states: these were always
stated, and leaving one out would make another run of every earlier one."""


def stated_defaults(config: Any, values: dict[tuple[str, ...], Any]) -> list[str]:
    """Keys among `values` whose value their dataclass has as its default; `config` shows the classes."""
    found = []
    for path, value in values.items():
        holder = config
        for key in path[:-1]:
            holder = getattr(holder, key, None)
        if dataclasses.is_dataclass(holder) and not (path[-1] in NAMES and len(path) == 2):
            fields = {field.name: field for field in dataclasses.fields(holder)}
            default = fields[path[-1]].default
            if fields[path[-1]].default_factory is not dataclasses.MISSING:
                default = fields[path[-1]].default_factory()
            if value == default:
                found.append(".".join(path))
    return found


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in OPTIONS for option in OPTIONS[group] if option != "run"]
)
def test_no_option_states_a_value_that_is_the_default_anyway(group, option):
    reader = (
        ["algorithm=sft"] if option == "bm25" else [f"algorithm={FITTING[KINDS[option]]}"] if group == "model" else []
    )
    config, _, _ = checked([*reader, f"{group}={option}"])
    values = stated(group, option)
    if KINDS.get(option) in ("decoder", "encoder_decoder") and group == "model":
        values = {path: value for path, value in values.items() if path[1] not in OF_TEACHERS}
    assert stated_defaults(config, values) == []


def test_the_configuration_itself_states_no_default():
    config, _, _ = checked([])
    found = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    assert set(found) == {"defaults", "name", "paths", "hydra"}
    values = {path: value for path, value in leaves(found) if path[0] in ("name", "paths")}
    assert stated_defaults(config, values) == []


def test_a_stated_default_is_found():
    config, _, _ = checked([])
    values = {("retriever", "k"): 4, ("retriever", "index"): "hnsw", ("algorithm", "temperature"): 0.05}
    assert stated_defaults(config, values) == ["retriever.k", "algorithm.temperature"]
    assert stated_defaults(config, {("evaluation", "cutoffs"): [1, 4, 20], ("retriever", "type"): "faiss"}) == [
        "evaluation.cutoffs"
    ]


@pytest.mark.parametrize("algorithm", OPTIONS["algorithm"])
def test_a_further_model_of_an_algorithm_is_chosen_without_a_plus(algorithm):
    """Also where it has none by default: the manual names its place so."""
    composed = command_line.compose([f"algorithm={algorithm}"])
    for role in config_roles(import_algorithm(composed.algorithm["_target_"]).Config):
        chosen = command_line.compose([f"algorithm={algorithm}", f"model@algorithm.{role}=flan_t5_base"])
        assert chosen.algorithm[role].kind == "encoder_decoder"
