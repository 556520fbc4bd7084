"""What the link makes of replies, before any thread or socket is involved."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from atoll.compute.agent.link import BACKOFF_S, Backoff, Link
from atoll.compute.agent.main import node_name
from atoll.compute.agent.outbox import Outbox
from atoll.compute.runtime.base import LogPiece
from atoll.compute.runtime.contact import ContactFile
from atoll.core.files import write_json


@pytest.fixture
def one(tmp_path: Path) -> Link:
    contact, nothing = ContactFile(tmp_path), LogPiece(b"", 0, 0, True)
    return Link("centre:1", str, {"node": "n"}, Outbox(), contact, lambda *_: nothing, list, lambda: None)


TASK = {"uid": "a", "epoch": 1, "command": ["true"]}


def test_a_reply_says_what_is_wanted_and_what_may_go(one: Link) -> None:
    reply = one._accept({"seen": 5, "tasks": [TASK], "forget": ["b"], "forget_workloads": ["w"]}, mark=0)
    assert reply.tasks is not None
    assert [task.spec.uid for task in reply.tasks] == ["a"]
    assert (reply.forget, reply.forget_workloads) == (frozenset({"b"}), frozenset({"w"}))


def test_of_two_crossing_replies_the_first_to_arrive_counts(one: Link) -> None:
    """The second may be older, and would bring back what is over; it also must not pass for seen."""
    first = one._accept({"seen": 7, "tasks": []}, mark=0)
    second = one._accept({"seen": 6, "tasks": [TASK], "forget": ["b"]}, mark=0)
    assert first.tasks == ()
    assert (second.tasks, second.forget) == (None, frozenset({"b"}))
    assert one._seen == 7
    later = one._accept({"seen": 3, "tasks": [TASK]}, mark=1)
    assert later.tasks is not None
    assert one._seen == 3


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"seen": "x", "tasks": {}, "forget": [1, None], "logs": "y"},
        {"tasks": [1, {"uid": 5}, {"uid": "../x"}, {"uid": "ok", "epoch": "NaN"}]},
    ],
)
def test_a_reply_that_makes_no_sense_harms_nobody(one: Link, answer: dict[str, object]) -> None:
    reply = one._accept(answer, mark=0)
    assert reply.tasks is not None
    assert reply.forget == frozenset()


def test_delays_grow_to_a_limit_and_are_spread() -> None:
    backoff = Backoff(*BACKOFF_S)
    delays = [backoff.next_s() for _ in range(20)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(2.5 <= delay <= 5.0 for delay in delays[-5:])
    assert len(set(delays[-5:])) == 5
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_a_node_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_name(tmp_path, "given") == "given"
    write_json(tmp_path / "node.json", {"node": "before"})
    assert node_name(tmp_path, None) == "before"
    assert node_name(tmp_path, "given") == "given"


def test_a_host_name_becomes_a_name_a_node_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in (("GPU_Box 7.local", "gpu-box-7.local"), ("-", "node"), (socket.gethostname(), None)):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        found = node_name(tmp_path, None)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", found)
        assert found == (name or found)
