"""`resume=…`: what is replayed, what may be added, what is refused, without a run being trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rag_experiments.config import command_line
from rag_experiments.config.overrides import quote
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.identity import config_hash
from rag_experiments.training import resume

STORED = ["algorithm=ctl", "seed=3", "data=jsonl", "data.path=x", "tracking=none"]


def begun(directory: Path, overrides: list[str] = STORED, **status) -> Path:
    """A run directory as Hydra and `recording` leave it when a run is killed."""
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(overrides)))
    hash_ = resume.composed_hash(command_line.compose(overrides))
    stored = {"state": "interrupted", "config_hash": hash_, "started": "2026-01-01", **status}
    (directory / "status.json").write_text(json.dumps(stored))
    return directory


@pytest.fixture
def run(tmp_path) -> Path:
    return begun(tmp_path / "run")


def test_without_resume_everything_is_as_typed():
    for asked in ([], ["resume=null"], ["resume="], ["resume=None"]):
        plan = resume.resolve([*STORED, *asked], "/conf")
        assert (plan.overrides, plan.config_dir, plan.directory) == (STORED, "/conf", None)
    assert resume.CommandPlan(["a=1"], "/conf", None).arguments == ["--config-dir", "/conf", "a=1"]
    assert resume.CommandPlan(["a=1"], None, None).arguments == ["a=1"]


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        ([], None),
        (["seed=1"], None),
        (["resume=a"], "a"),
        (["resume='a b'"], "a b"),
        (['resume="a=b"'], "a=b"),
        (["resume=a", "resume=b"], "b"),
        (["resume=''"], ""),
        (["resume='"], "'"),
        (["resume='a\""], "'a\""),
        (["resume=ab"], "ab"),
        (["resume=aba"], "aba"),
    ],
)
def test_what_is_asked_for(overrides, asked):
    assert resume.asked_for(overrides) == asked


def test_the_stored_command_line_is_replayed_into_its_directory(run):
    plan = resume.resolve([f"resume={run}"], None)
    assert plan.directory == run
    assert plan.overrides[: len(STORED)] == STORED
    assert resume.asked_for(plan.overrides) == str(run)
    composed = command_line.compose(plan.overrides)
    assert (composed.seed, composed.hydra.run.dir) == (3, str(run))
    assert composed.hydra.output_subdir is None  # the first .hydra/ is never overwritten


def test_what_changes_no_figure_may_be_added_and_wins(run):
    plan = resume.resolve(["name=another", f"resume={run}", "tracking.project=p"], None)
    composed = command_line.compose(plan.overrides)
    assert (composed.name, composed.tracking.project, composed.seed) == ("another", "p", 3)


@pytest.mark.parametrize(
    "override", ["seed=4", "trainer.learning_rate=1", "+model.revision=x", "algorithm=sft", "data.titles=false"]
)
def test_what_changes_a_figure_is_refused_by_name(run, override):
    key = override.lstrip("+~").partition("=")[0]
    with pytest.raises(RequestError, match=rf"{key} would change the result"):
        resume.resolve(["name=x", override, f"resume={run}"], None)


def test_a_value_typed_again_is_no_change(run):
    assert resume.resolve(["seed=3", f"resume={run}"], None).directory == run


def test_a_command_line_that_composes_to_something_else_now_is_refused(run):
    """A file of the configuration was edited, or the package's version has other defaults."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "config_hash": "0123456789abcdef"}))
    with pytest.raises(RequestError, match="no longer compose to the configuration it began with"):
        resume.resolve([f"resume={run}"], None)


def test_a_run_of_before_there_were_hashes_is_resumed(run):
    (run / "status.json").write_text('{"state": "failed"}')
    assert resume.resolve([f"resume={run}"], None).directory == run


def test_a_completed_run_is_not_resumed_and_a_folder_is_none(run, tmp_path):
    (run / "status.json").write_text('{"state": "completed"}')
    with pytest.raises(RequestError, match=r"that run is completed; evaluate it with .*model=run model\.path=run://"):
        resume.resolve([f"resume={run}"], None)
    with pytest.raises(RequestError, match=r"there is no run there \(no status\.json\)"):
        resume.resolve([f"resume={tmp_path}"], None)


def test_a_run_without_its_command_line_is_refused(run):
    (run / ".hydra" / "overrides.yaml").unlink()
    with pytest.raises(RequestError, match=r"has no \.hydra/overrides\.yaml"):
        resume.resolve([f"resume={run}"], None)


def test_places_of_the_first_start_are_left_out(tmp_path):
    """Of a sweep's job, or where `hydra.run.dir` was typed: the directory is the one that is resumed."""
    where = ["hydra.run.dir=elsewhere", "hydra.sweep.dir=s", "hydra.sweep.subdir=j", "hydra/launcher=serial"]
    run = begun(tmp_path / "a b", [*STORED, *where])
    plan = resume.resolve([f"resume='{run}'"], None)
    assert not set(where) & set(plan.overrides)
    assert command_line.compose(plan.overrides).hydra.run.dir == str(run)


def test_auto_is_the_newest_unfinished_of_this_configuration(tmp_path):
    outputs = tmp_path / "outputs"
    typed = [*STORED, f"paths.outputs={outputs}"]
    assert resume.resolve([*typed, "resume=auto"], None).directory is None
    begun(outputs / "old", typed, started="2026-01-01")
    newest = begun(outputs / "new", typed, started="2026-01-02")
    begun(outputs / "other", [*typed, "seed=9"], started="2026-01-03")
    begun(outputs / "done", typed, started="2026-01-04", state="completed")
    plan = resume.resolve([*typed, "resume=auto"], None)
    assert plan.directory == newest
    assert plan.overrides[: len(typed)] == typed
    composed = command_line.compose(plan.overrides)
    assert (composed.resume, composed.hydra.run.dir, composed.hydra.output_subdir) == ("auto", str(newest), None)
    fresh = resume.resolve([*typed, "seed=5", "resume=auto"], None)
    assert (fresh.directory, fresh.overrides) == (None, [*typed, "seed=5"])


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", "a\\b", "a=b,c", "[x]", "{y}", "$z", "ü数", "a\\'b", "a\\\\'", "a\\", "\\\\a\\\\"]
)
def test_a_quoted_value_reads_back(text):
    assert command_line.compose([f"name={quote(text)}"]).name == text
    assert resume.asked_for([f"resume={quote(text)}"]) == text


def test_the_config_folder_of_the_first_start_is_taken(tmp_path, run):
    def sources(*entries):
        node = {
            "hydra": {"runtime": {"config_sources": [dict(zip(("provider", "path"), e, strict=True)) for e in entries]}}
        }
        (run / ".hydra" / "hydra.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(node)))

    assert resume.stored_config_dir(run) is None
    sources(("hydra", "pkg://hydra.conf"), ("main", "/conf"))
    assert resume.stored_config_dir(run) is None
    own = tmp_path / "own"
    (own / "algorithm").mkdir(parents=True)
    sources(("hydra", "pkg://hydra.conf"), ("command-line", str(own)), ("command-line", "/second"))
    assert resume.stored_config_dir(run) == str(own)
    assert resume.resolve([f"resume={run}"], None).config_dir == str(own)
    other = tmp_path / "other"
    other.mkdir()
    assert resume.resolve([f"resume={run}"], str(other)).config_dir == str(other)


def test_the_hash_of_a_composed_configuration_is_that_of_the_run():
    from rag_experiments.training.checks import check_common

    composed = command_line.compose(STORED)
    assert resume.composed_hash(composed) == config_hash(check_common(composed)[1])


def test_a_readers_run_of_before_goes_on_with_the_length_it_began_with(tmp_path):
    """`model.max_new_tokens` was 32 where nothing was said; now the training answers settle it."""
    stored = ["algorithm=sft", "data=jsonl", "data.path=x", "tracking=none"]
    directory = tmp_path / "run"
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "overrides.yaml").write_text(json.dumps(stored))
    before = resume.composed_hash(command_line.compose([*stored, "model.max_new_tokens=32"]))
    (directory / "status.json").write_text(json.dumps({"state": "interrupted", "config_hash": before}))
    plan = resume.resolve([f"resume={directory}"], None)
    assert command_line.compose(plan.overrides).model.max_new_tokens == 32
    now = resume.composed_hash(command_line.compose(stored))
    assert now != before
    (directory / "status.json").write_text(json.dumps({"state": "interrupted", "config_hash": now}))
    assert command_line.compose(resume.resolve([f"resume={directory}"], None).overrides).model.max_new_tokens is None
