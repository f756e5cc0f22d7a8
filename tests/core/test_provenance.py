"""Which code and which process a run is of."""

from __future__ import annotations

import subprocess

from rag_experiments.core import provenance


def test_git_state_is_of_the_package_and_not_of_the_folder_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "site-packages" / "rag_experiments" / "core" / "provenance.py")
    )
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert provenance.git_state() == (None, None)


def test_a_process_number_used_again_is_not_the_run():
    me = provenance.process_identity()
    assert provenance.process_lives(me) is True
    assert provenance.process_lives({**me, "pid_started": me["pid_started"] - 1}) is False
    assert provenance.process_lives({**me, "host": "elsewhere"}) is None
