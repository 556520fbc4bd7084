"""The outbox: what is news, when it is due, and when it is told again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.compute.agent import outbox as module
from atoll.compute.agent.outbox import Outbox
from atoll.compute.runtime.base import TaskReport

RUNNING = TaskReport("a", 1, "running", pid=7)


def told(report: TaskReport) -> Outbox:
    outbox = Outbox()
    outbox.update([report])
    outbox.delivered([report])
    return outbox


def test_a_report_is_due_until_it_is_delivered() -> None:
    outbox = Outbox()
    assert outbox.update([RUNNING])
    assert outbox.due() == [RUNNING]
    assert outbox.uids_delivered() == set()
    outbox.delivered([RUNNING])
    assert outbox.due() == []
    assert outbox.due_in_s() is None
    assert outbox.uids_delivered() == {"a"}


def test_a_change_during_delivery_is_due_again() -> None:
    outbox = Outbox()
    outbox.update([RUNNING])
    sent = outbox.due()
    ended = replace(RUNNING, state="failed")
    outbox.update([ended])
    outbox.delivered(sent)
    assert outbox.due() == [ended]


def test_new_log_lines_alone_are_no_news() -> None:
    outbox = told(RUNNING)
    assert not outbox.update([replace(RUNNING, log_tail=("more",))])
    assert outbox.due() == []


def test_progress_alone_waits_and_a_new_state_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", 600.0)
    outbox = told(RUNNING)
    progress = replace(RUNNING, progress={"done": 1})
    assert outbox.update([progress])
    assert outbox.due() == []
    assert 0 < (outbox.due_in_s() or 0) <= module.PROGRESS_EVERY_S
    outbox.update([replace(progress, state="stopping")])
    assert outbox.due_in_s() == 0.0


def test_progress_becomes_due_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", 0.0)
    outbox = told(RUNNING)
    outbox.update([replace(RUNNING, progress={"done": 1})])
    assert len(outbox.due()) == 1


def test_an_ended_task_is_told_again_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = replace(RUNNING, state="succeeded")
    outbox = told(ended)
    assert outbox.due() == []
    monkeypatch.setattr(module, "REMIND_S", 0.0)
    assert outbox.due() == [ended]
    outbox.update([])
    assert outbox.due() == []


def test_after_a_reset_all_is_news() -> None:
    outbox = told(RUNNING)
    outbox.reset()
    assert outbox.due() == [RUNNING]
    assert outbox.uids_delivered() == set()
