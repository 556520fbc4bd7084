"""The contact file: what agents write, what shims make of it."""

from __future__ import annotations

import fcntl
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.compute.runtime import contact as contact_module
from atoll.compute.runtime import shim as shim_module
from atoll.compute.runtime.contact import ContactFile, contact_path
from atoll.compute.runtime.shim import Contact, lease_clock_s, renewed
from atoll.core.errors import ResourceExhausted
from atoll.core.files import read_json, write_json


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lease clocks stand still, so that a stall of the machine is no time."""
    now_s = {is_centre_here: lease_clock_s(is_centre_here) for is_centre_here in (False, True)}
    for module in (contact_module, shim_module):
        monkeypatch.setattr(module, "lease_clock_s", now_s.__getitem__)


def seen(home: Path) -> Contact:
    return Contact(str(contact_path(home)))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_contact_is_read_as_it_was_written_and_never_goes_back(tmp_path: Path) -> None:
    agent = ContactFile(tmp_path)
    assert (agent.silent_s(), agent.is_own) == (math.inf, False)
    now_s = agent.now_s()
    agent.renew(now_s - 1.0, 15.0)
    agent.renew(now_s - 3.0, 15.0)
    contact = seen(tmp_path)
    assert contact.at_s == pytest.approx(now_s - 1.0, abs=1e-6)
    assert contact.lease_ttl_s == 15.0
    assert 13.0 < contact.left_s(1.0) <= 14.0
    assert str(contact) == "no contact with the centre for 15 s"
    assert agent.is_own


def test_the_next_agent_goes_on_counting(tmp_path: Path) -> None:
    ContactFile(tmp_path).renew(lease_clock_s(False) - 9.0, 15.0)
    after = ContactFile(tmp_path)
    assert after.silent_s() == pytest.approx(9.0, abs=1.0)
    assert not after.is_own


def test_a_full_disk_does_not_look_like_a_lost_centre(tmp_path: Path) -> None:
    agent = ContactFile(tmp_path)
    agent.renew(agent.now_s() - 9.0, 15.0)
    with full_disk():
        agent.renew(agent.now_s(), 15.0)
    assert seen(tmp_path).left_s(1.0) > 14.0


def test_a_contact_that_cannot_be_written_is_said_and_the_one_before_stays(tmp_path: Path) -> None:
    agent = ContactFile(tmp_path)
    agent.renew(agent.now_s() - 9.0, 15.0)
    with full_disk(), pytest.raises(ResourceExhausted):
        agent.renew(agent.now_s(), 20.0)
    assert (seen(tmp_path).lease_ttl_s, round(seen(tmp_path).left_s(1.0))) == (15.0, 6)


def test_a_contact_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    agent = ContactFile(tmp_path)
    agent.renew(agent.now_s() - 1.0, 15.0)
    contact_path(tmp_path).unlink()
    agent.renew(agent.now_s(), 15.0)
    assert seen(tmp_path).left_s(1.0) > 14.0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": "another", "lease_ttl_s": 15, "centre_lock": ""}'])
def test_what_cannot_be_read_is_no_contact_and_changes_nothing(tmp_path: Path, text: str) -> None:
    agent = ContactFile(tmp_path)
    agent.renew(agent.now_s(), 15.0)
    contact = seen(tmp_path)
    at_s = contact.at_s
    contact_path(tmp_path).write_text(text)
    contact.look()
    assert contact.at_s == at_s
    assert (seen(tmp_path).at_s, seen(tmp_path).is_stale) == (-math.inf, True)


def test_a_contact_in_the_future_is_nobodys(tmp_path: Path) -> None:
    """A file touched by hand carries a date, decades ahead of any boot clock."""
    agent = ContactFile(tmp_path)
    agent.renew(agent.now_s(), 15.0)
    os.utime(contact_path(tmp_path))
    assert seen(tmp_path).is_stale
    assert ContactFile(tmp_path).silent_s() == math.inf


def test_a_free_lock_is_as_good_as_contact_and_a_missing_one_tells_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "server.lock"
    agent = ContactFile(tmp_path, str(lock))
    agent.renew(agent.now_s() - 60.0, 15.0)
    assert seen(tmp_path).is_stale
    lock.touch()
    assert seen(tmp_path).left_s(1.0) > 14.0
    assert agent.silent_s() < 1.0
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert seen(tmp_path).is_stale


def test_a_home_that_changes_its_centre_starts_counting_anew(tmp_path: Path) -> None:
    """The two lease clocks differ by the time the machine slept."""
    here, there = ContactFile(tmp_path, str(tmp_path / "lock")), ContactFile(tmp_path)
    here.renew(here.now_s(), 15.0)
    contact = seen(tmp_path)
    there.renew(there.now_s() - 2.0, 15.0)
    contact.look()
    assert contact.at_s == pytest.approx(there.now_s() - 2.0, abs=1.0)
    said = read_json(contact_path(tmp_path))
    assert said is not None
    write_json(contact_path(tmp_path), said | {"centre_lock": "x"})
    os.utime(contact_path(tmp_path), (1.0, 1.0))
    contact.look()
    assert contact.at_s == 1.0


def test_a_lease_that_has_ended_is_not_renewed() -> None:
    assert renewed(-math.inf, 5.0, 10.0) == 5.0
    assert renewed(5.0, 4.0, 10.0) == 5.0
    assert renewed(5.0, 15.0, 10.0) == 15.0
    assert renewed(5.0, 15.1, 10.0) == 5.0
