"""The plan of a W&B report, and its objects where the package is installed. Nothing here goes online."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.compare import make_document, parser, start
from rag_experiments.comparison.output import wandb_report
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import rows_with, write_run


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for index, share in enumerate((0.4, 0.8)):
        write_run(
            tmp_path / f"r{index}",
            {"test": rows_with(share, seed=index)},
            {"trainer.learning_rate": 10.0**-index, "trainer.warmup": index, "tracking.entity": "team"},
            status={"wandb_run_id": f"id{index}"},
            figures={"seconds/train": 1.0 + index},
        )
    write_run(tmp_path / "untracked", {"test": rows_with(0.1)}, {"trainer.learning_rate": 7.0})
    return tmp_path


def plan(root: Path) -> wandb_report.ReportPlan:
    return wandb_report.plan_report(make_document(parser().parse_args([str(root), "--baseline", str(root / "r0")])))


def test_offline_says_what_it_would_create(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start([str(tracked), "--baseline", str(tracked / "r0"), "--metric", "recall@1", "--wandb-report"]) == 0
    said = capsys.readouterr().err
    assert "Online this would create" in said
    assert "2 runs of team/p: id0, id1" in said
    assert "1 runs are left out" in said
    assert "final/test/recall_at_1 against final/seconds/train" in said
    assert "is better on recall@1" in said


def test_plan_uses_wandbs_names(tracked: Path) -> None:
    panels = {panel.kind: panel for panel in plan(tracked).panels}
    assert panels["bar"].metrics == ("final/test/recall_at_4",)
    assert wandb_report.Panel("line", ("dev/recall_at_4",)) in plan(tracked).panels
    assert panels["parallel"].config == ("trainer.learning_rate", "trainer.warmup")


def test_objects_can_be_built(tracked: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    report = wandb_report.build(plan(tracked))
    grid = report.blocks[-1]
    assert len(grid.panels) == len(plan(tracked).panels)
    for panel in grid.panels:
        panel._to_model()
    assert "id0" in str(grid.runsets[0].filters)


def test_refused_by_wandb_is_one_sentence(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")

    def refuse(plan: object) -> str:
        raise Exception("not logged in\nmore")

    monkeypatch.setattr(wandb_report, "publish", refuse)
    with pytest.raises(RequestError, match=r"did not take the report: not logged in$"):
        wandb_report.make_report(make_document(parser().parse_args([str(tracked)])))


def test_untracked_runs_alone_are_refused(tracked: Path) -> None:
    with pytest.raises(RequestError, match="tracked by W&B"):
        start([str(tracked / "untracked"), "--wandb-report"])
