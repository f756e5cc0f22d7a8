"""What makes two runs the same, and which unfinished run is continued."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.config import command_line
from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.config.schema import DataConfig
from rag_experiments.core import provenance
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import ADDED_KEYS, config_hash, find_runs, newest_unfinished
from rag_experiments.training.checks import check_common, import_algorithm

WITHOUT_EFFECT = ("name", "tracking", "paths", "plan", "resume", "sweep", "hydra")


@pytest.fixture(scope="module")
def resolved(tmp_path_factory) -> dict[str, Any]:
    """A whole configuration, with a second model and adapters."""
    arguments = ["algorithm=fid", "data=jsonl", "data.path=x", "model=smollm2_135m_lora", "retriever=hybrid"]
    return check_common(command_line.compose(arguments))[1]


def leaves(node: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]
    return [path]


def changed(config: dict[str, Any], path: tuple) -> dict[str, Any]:
    """A copy in which the value at `path` is another."""
    config = copy.deepcopy(config)
    node = config
    for key in path[:-1]:
        node = node[key]
    old = node[path[-1]]
    node[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else [old, "another"]
    return config


def test_every_value_of_a_configuration_is_in_its_hash_but_those_without_effect(resolved):
    first = config_hash(resolved)
    paths = leaves(resolved)
    assert len(paths) > 80
    for path in paths:
        same = config_hash(changed(resolved, path)) == first
        assert same == (path[0] in WITHOUT_EFFECT), ".".join(map(str, path))


@pytest.mark.parametrize("kind", [kind for kind in ADDED_KEYS if kind in MODEL_KINDS])
@pytest.mark.parametrize("path", [("model",), ("retriever", "encoder"), ("algorithm", "guide")])
def test_keys_that_models_got_later_change_a_hash_where_they_are_not_at_their_default(kind, path):
    added = ADDED_KEYS[kind]
    assert {name: getattr(MODEL_KINDS[kind].config, name) for name in added} == added

    def config(**more):
        node = {"kind": kind, "path": "a", **more}
        for key in reversed(path):
            node = {key: node}
        return {"seed": 0, **node}

    assert config_hash(config(**added)) == config_hash(config())
    for name in added:
        assert config_hash(config(**{**added, name: {"r": 16}})) != config_hash(config()), name
    assert config_hash(config(**added, other=None)) != config_hash(config())


@pytest.mark.parametrize("target", [target for target in ADDED_KEYS if "." in target])
def test_keys_that_came_later_change_a_hash_where_they_are_not_at_their_default(target):
    added = ADDED_KEYS[target]
    config_class = import_algorithm(target).Config
    assert {name: getattr(config_class, name) for name in added} == added
    before = {"seed": 0, "algorithm": {"_target_": target, "name": "x", "temperature": 0.5}}
    now = {**before, "algorithm": {**before["algorithm"], **added}}
    assert config_hash(now) == config_hash(before)
    for name in added:
        assert config_hash(changed(now, ("algorithm", name))) != config_hash(before), name
    other = {**now, "algorithm": {**now["algorithm"], "_target_": "my.Other"}}
    assert config_hash(other) != config_hash({**before, "algorithm": {**before["algorithm"], "_target_": "my.Other"}})


def test_keys_of_every_data_format_that_came_later_do_the_same():
    before = {"seed": 0, "data": {"format": "hub", "path": "a"}}
    assert {name: getattr(DataConfig, name) for name in ADDED_KEYS["data"]} == ADDED_KEYS["data"]
    assert config_hash({**before, "data": {**before["data"], **ADDED_KEYS["data"]}}) == config_hash(before)
    for name in ADDED_KEYS["data"]:
        assert config_hash({**before, "data": {**before["data"], name: "cp1252"}}) != config_hash(before), name


def test_every_group_without_effect_may_be_missing(resolved):
    first = config_hash(resolved)
    for name in WITHOUT_EFFECT:
        assert config_hash({**resolved, name: {"x": 1}}) == first
        assert config_hash({key: value for key, value in resolved.items() if key != name}) == first
    assert config_hash({**resolved, "another": None}) != first


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, 1.5, False),
        (1, "1", False),
        (0.1 + 0.2, 0.3, False),
        ([1, 2], (1.0, 2.0), True),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2.0}, {"b": 2, "a": 1.0}, True),
        ({"a": {"b": 1.0}}, {"a": {"b": 1}}, True),
        ([{"a": 1.0}], [{"a": 1}], True),
        ({1: "x"}, {"1": "x"}, True),
        (None, "None", False),
        (None, 0, False),
        (Path("/a"), "/a", True),
        ("é", "e", False),
    ],
)
def test_values_that_are_the_same(one, other, same):
    assert (config_hash({"x": one}) == config_hash({"x": other})) is same


def test_a_hash_is_16_hexadecimal_digits_and_stays_between_versions():
    """Stored in every run directory: another way to compute it would find none of them again."""
    assert config_hash({"seed": 0, "name": "x", "a": {"b": [1, 2.5, "é", None, True]}}) == "5ba31c611b462847"


def begun(path: Path, **status: Any) -> RunDirectory:
    run = RunDirectory.create(path)
    run.update_status(**{"state": "interrupted", "config_hash": "abc", "started": "2026-01-01", **status})
    return run


@pytest.mark.parametrize(("state", "found"), [("interrupted", True), ("failed", True), ("completed", False)])
def test_which_states_are_unfinished(tmp_path, state, found):
    begun(tmp_path / "a", state=state)
    assert (newest_unfinished(tmp_path, "abc") is not None) is found


def test_a_running_run_is_not_continued_and_a_killed_one_is(tmp_path):
    run = begun(tmp_path / "a", state="running", **provenance.process_identity())
    assert newest_unfinished(tmp_path, "abc") is None
    run.update_status(pid=2**22 + 1)
    assert newest_unfinished(tmp_path, "abc").path == run.path


def test_the_one_that_started_last_is_continued(tmp_path):
    begun(tmp_path / "c", started="2026-01-02")
    begun(tmp_path / "a", started="2026-01-03")
    begun(tmp_path / "z", started="2026-01-04", config_hash="other")
    begun(tmp_path / "b", started=None)
    assert newest_unfinished(tmp_path, "abc").path.name == "a"
    begun(tmp_path / "d", started="2026-01-03")
    assert newest_unfinished(tmp_path, "abc").path.name == "d"  # of two at one time the last by name


def test_a_broken_status_stops_nobody_else(tmp_path):
    begun(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "status.json").write_text("{")
    assert newest_unfinished(str(tmp_path), "abc").path.name == "b"
    assert newest_unfinished(tmp_path / "gone", "abc") is None


def test_runs_are_found_in_the_order_of_their_paths(tmp_path):
    for name in ("b/2", "b/1", "a/9", "c"):
        begun(tmp_path / name)
    begun(tmp_path / ".trash" / "x")
    assert [run.path.relative_to(tmp_path).as_posix() for run in find_runs(str(tmp_path))] == [
        "a/9",
        "b/1",
        "b/2",
        "c",
    ]


# -- where the code comes from -------------------------------------------------------------------------


def test_versions_of_what_is_installed():
    import platform

    found = provenance.library_versions()
    assert found["python"] == platform.python_version()
    assert {"torch", "transformers", "numpy"} <= set(found) <= {"python", *provenance.LIBRARIES}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A git repository that the package seems to run from."""
    import subprocess

    root = tmp_path / "checkout"
    (root / "rag_experiments").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "pyproject.toml").touch()
    (root / "rag_experiments" / "provenance.py").touch()
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    monkeypatch.setattr(provenance, "__file__", str(root / "rag_experiments" / "core" / "provenance.py"))
    return root


def test_a_commit_and_whether_the_code_differs_from_it(checkout):
    commit, dirty = provenance.git_state()
    assert len(commit) == 40
    assert dirty is False
    (checkout / "notes.txt").touch()  # is no code
    assert provenance.git_state() == (commit, False)
    for name in ("rag_experiments/new.py", "conf/new.yaml"):
        (checkout / name).touch()
        assert provenance.git_state() == (commit, True)
        (checkout / name).unlink()


@pytest.mark.parametrize("missing", [".git", "pyproject.toml"])
def test_a_package_that_is_installed_has_no_commit(checkout, missing):
    """Even inside somebody's own repository."""
    (checkout / missing).rename(checkout / "aside")
    assert provenance.git_state() == (None, None)


def test_without_git_nothing_is_known(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() == (None, None)
