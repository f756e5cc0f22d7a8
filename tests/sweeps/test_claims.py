"""One sweep has a job at a time, and looking takes nothing."""

from __future__ import annotations

import errno
import os

import pytest

from rag_experiments.sweeps import claims
from rag_experiments.sweeps.claims import Claims
from tests.stand_in import stand_in


@pytest.fixture
def two(tmp_path) -> tuple[Claims, Claims]:
    """Two sweeps on one folder; each has its own open files, as two processes would."""
    return Claims(tmp_path), Claims(tmp_path)


def test_what_one_has_another_cannot_take(two):
    one, other = two
    assert one.take("a/job")
    assert not other.take("a/job")
    assert other.take("a/next")
    assert one.take("a/job")  # has it still


def test_what_is_given_back_can_be_taken(two):
    one, other = two
    one.take("a/job")
    one.give_back("a/job")
    one.give_back("a/job")
    assert other.take("a/job")
    other.take("a/next")
    other.give_back_all()
    assert other.held == {}
    assert one.take("a/job")
    assert one.take("a/next")


def test_looking_at_a_job_does_not_take_it(two):
    one, other = two
    one.take("a/job")
    one.give_back("a/job")
    assert not other.elsewhere("a/job")
    assert other.held == {}
    assert one.take("a/job")


def test_elsewhere_is_another_sweep_at_this_moment(two):
    one, other = two
    assert not other.elsewhere("a/job")  # nobody has had it
    one.take("a/job")
    assert other.elsewhere("a/job")
    assert not one.elsewhere("a/job")
    assert one.held.keys() == {"a/job"}
    one.give_back_all()
    assert not other.elsewhere("a/job")


def test_looking_makes_nothing(two, tmp_path):
    two[0].elsewhere("a/job")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_claim_leaves_no_open_file(two):
    one, other = two
    one.take("a/job")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        other.take("a/job")
        other.elsewhere("a/job")
    assert len(os.listdir("/proc/self/fd")) == before
    one.give_back_all()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_without_locks_every_sweep_has_every_job(two, monkeypatch):
    """Better twice than never."""

    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    stand_in(monkeypatch, claims, "fcntl", flock=flock)
    one, other = two
    assert one.take("a/job")
    assert other.take("a/job")
    assert not other.elsewhere("a/job")


def test_a_folder_that_cannot_be_looked_at_has_no_claims(two, monkeypatch):
    one, other = two
    one.take("a/job")

    def denied(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    stand_in(monkeypatch, claims, "os", open=denied)
    assert not other.elsewhere("a/job")


def test_claims_lie_out_of_sight(two, tmp_path):
    two[0].take("a/job")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        ".claims/job.lock"
    ]
