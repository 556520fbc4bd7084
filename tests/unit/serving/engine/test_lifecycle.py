"""The life of an engine: draining, watching, reading figures."""

from __future__ import annotations

import threading

import pytest

from atoll.core.errors import Invalid, Unavailable
from atoll.serving.engine.base import Health
from atoll.serving.engine.lifecycle import PROBE_TIMEOUT_S, drain, keep_watch, sum_of, wait_until_ready

QUICK = Health(every_s=0.001, timeout_s=0.1, failures=3)


class Scripted:
    """A backend that answers a given number of probes and then falls silent or ends."""

    url, api_key = "http://127.0.0.1:1", "key"

    def __init__(self, answers: int, ended: Invalid | None = None) -> None:
        self.answers, self.ended, self.probes = answers, ended, 0

    def check(self) -> None:
        if self.ended is not None and self.probes >= self.answers:
            raise self.ended

    def probe(self, timeout_s: float) -> None:
        self.in_flight(timeout_s)

    def in_flight(self, timeout_s: float) -> int:
        self.probes += 1
        if self.probes > self.answers:
            raise Unavailable("silent")
        return 0


def test_draining_ends_when_nothing_is_in_flight_or_the_time_is_up() -> None:
    waiting = [3, 1, 0, 0]
    drain(lambda within_s: waiting.pop(0), 60.0)
    assert waiting == []
    drain(lambda within_s: 1, 0.0)


def test_draining_waits_for_a_request_that_was_not_counted_at_first_and_for_a_late_answer() -> None:
    waiting, allowed = [0, 1, 0, 0], []

    def in_flight(within_s: float) -> int:
        allowed.append(within_s)
        return waiting.pop(0)

    drain(in_flight, 60.0)
    assert waiting == []
    assert min(allowed) > PROBE_TIMEOUT_S


def test_a_backend_that_falls_silent_fails_after_the_allowed_probes() -> None:
    backend = Scripted(2)
    assert keep_watch(backend, threading.Event(), 0.0, QUICK) == 1
    assert backend.probes == 2 + QUICK.failures


def test_a_backend_that_ended_fails_at_once() -> None:
    backend = Scripted(2, ended=Invalid("it ended"))
    assert keep_watch(backend, threading.Event(), 0.0, QUICK) == 1
    assert backend.probes == 2


def test_a_backend_told_to_stop_ends_well() -> None:
    stop = threading.Event()
    stop.set()
    assert keep_watch(Scripted(100), stop, 5.0, QUICK) == 0


def test_waiting_for_a_backend_ends_with_its_own_reason() -> None:
    wait_until_ready(Scripted(1), 1.0)
    with pytest.raises(Invalid, match="it ended"):
        wait_until_ready(Scripted(0, ended=Invalid("it ended")), 1.0)
    with pytest.raises(Unavailable, match="not ready within 0 s"):
        wait_until_ready(Scripted(0), 0.0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unavailable, match="told to stop"):
        wait_until_ready(Scripted(0), 60.0, stop)


def test_requests_in_flight_are_summed_over_labels() -> None:
    text = '# HELP a:running x\na:running{model="m"} 2.0\na:running{model="n"} 1\na:waiting 4\na:running_total 9\n'
    assert sum_of(text, ("a:running", "a:waiting")) == 7
