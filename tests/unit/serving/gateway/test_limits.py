"""Rates and places: what is refused, with what reason and until when; alone and among workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import RateLimited
from atoll.serving.gateway import limits
from atoll.serving.gateway.limits import WINDOW_S, Limiter, Rates, frees_in_s, read_rates


class Clock:
    def __init__(self, now: float = 6000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def begin(
    limiter: Limiter, rates: Rates | None, *, project: Rates | None = None, key: str = "k", hosts: int = 1
) -> None:
    limiter.begin(key, rates, "default", project, hosts)


def refusal(limiter: Limiter, rates: Rates | None, **more: Rates) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        begin(limiter, rates, **more)
    return caught.value


def count_admitted(limiter: Limiter, rates: Rates, most: int = 100, hosts: int = 1) -> int:
    for count in range(most):
        try:
            begin(limiter, rates, hosts=hosts)
        except RateLimited:
            return count
    return most


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alone(tmp_path: Path, clock: Clock) -> Limiter:
    return Limiter(tmp_path, now=clock)


@pytest.fixture
def pair(tmp_path: Path, clock: Clock) -> Iterator[tuple[Limiter, Limiter]]:
    first = Limiter(tmp_path, 0, 2, now=clock)
    second = Limiter(tmp_path, 1, 2, now=clock)
    clock.now += 2.0  # they look around
    yield first, second
    first.close()
    second.close()


def test_nothing_is_limited_without_limits(alone: Limiter) -> None:
    for _ in range(1000):
        begin(alone, None)
    assert read_rates({"parallel": None}) is None
    assert read_rates(None) is None
    assert read_rates({"parallel": 3, "requests_per_minute": None}) == Rates(parallel=3)


def test_places_are_given_back(alone: Limiter) -> None:
    rates = Rates(parallel=2)
    assert count_admitted(alone, rates) == 2
    error = refusal(alone, rates)
    assert "key 'k'" in error.message and "2" in error.message
    assert (error.details["limit"], error.details["value"]) == ("parallel", 2)
    alone.end("k", "default", 0)
    assert count_admitted(alone, rates) == 1


def test_refused_request_takes_nothing(alone: Limiter) -> None:
    key, project = Rates(parallel=10, requests_per_minute=10), Rates(parallel=1)
    begin(alone, key, project=project)
    for _ in range(50):
        assert "project 'default'" in refusal(alone, key, project=project).message
    assert count_admitted(alone, key) == 9


def test_limit_of_zero_admits_nobody(alone: Limiter) -> None:
    assert refusal(alone, Rates(requests_per_minute=0)).retry_after_s == WINDOW_S
    assert refusal(alone, Rates(tokens_per_minute=0)).retry_after_s == WINDOW_S
    refusal(alone, Rates(parallel=0))


def test_requests_of_the_past_minute_count(alone: Limiter, clock: Clock) -> None:
    rates = Rates(requests_per_minute=10)
    clock.now = 6030.0
    assert count_admitted(alone, rates) == 10
    error = refusal(alone, rates)
    assert (error.details["limit"], error.details["value"]) == ("requests_per_minute", 10)
    clock.now = 6066.0  # a tenth of the next minute has passed: nine of the ten still count
    assert count_admitted(alone, rates) == 1
    clock.now = 6180.0
    assert count_admitted(alone, rates) == 10


def test_tokens_count_when_a_request_ends(alone: Limiter, clock: Clock) -> None:
    rates = Rates(tokens_per_minute=100)
    for tokens in (60, 60):
        begin(alone, rates)
        alone.end("k", "default", tokens)
    error = refusal(alone, rates)
    assert "120 tokens" in error.message
    clock.now += error.retry_after_s + 0.01
    begin(alone, rates)


@given(
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 8)), max_size=20),
    st.integers(1, 20),
    st.sampled_from(["requests", "tokens"]),
)
def test_retry_time_is_when_the_window_frees(steps: list[tuple[float, int]], limit: int, unit: str) -> None:
    clock = Clock()
    limiter = Limiter(Path(), now=clock)
    rates = Rates(**{f"{unit}_per_minute": limit})
    for seconds, count in steps:
        clock.now += seconds
        for _ in range(count):
            try:
                begin(limiter, rates)
            except RateLimited as error:
                told_at, after_s = clock.now, error.retry_after_s
                assert 0.0 <= after_s <= 2 * WINDOW_S
                if after_s > 0.02:
                    clock.now = told_at + after_s - 0.01
                    refusal(limiter, rates)
                clock.now = told_at + after_s + 0.01
                begin(limiter, rates)
            limiter.end("k", "default", 3)


def test_time_until_a_window_frees() -> None:
    assert frees_in_s(0, 10, 5.0, 0.0) == 30.0
    assert frees_in_s(0, 10, 5.0, 12.0) == 18.0
    assert frees_in_s(10, 0, 5.0, 20.0) == pytest.approx(70.0)
    assert frees_in_s(3, 0, 5.0, 20.0) == 0.0


def test_hosts_share_a_limit(alone: Limiter) -> None:
    assert count_admitted(alone, Rates(parallel=10), hosts=4) == 2
    assert count_admitted(alone, Rates(requests_per_minute=3), hosts=8) == 0, "two are in flight already"
    with pytest.raises(RateLimited, match=r"10, here 2 \(one of 4 gateway hosts\)"):
        begin(alone, Rates(parallel=10), hosts=4)


def test_idle_keys_are_forgotten(alone: Limiter, clock: Clock) -> None:
    for number in range(100):
        begin(alone, Rates(requests_per_minute=5), key=f"k{number}")
        alone.end(f"k{number}", "default", 1)
    clock.now += 3 * WINDOW_S
    begin(alone, Rates(requests_per_minute=5))
    assert list(alone._keys) == ["k"]


def test_workers_share_every_limit(pair: tuple[Limiter, Limiter], clock: Clock) -> None:
    for rates, what in ((Rates(parallel=6), "parallel"), (Rates(requests_per_minute=6), "requests")):
        for turn in range(6):
            begin(pair[turn % 2], rates, key=what)
        for limiter in pair:
            with pytest.raises(RateLimited):
                begin(limiter, rates, key=what)
    pair[0].end("parallel", "default", 0)
    begin(pair[1], Rates(parallel=6), key="parallel")
    rates = Rates(tokens_per_minute=10)
    begin(pair[0], rates, key="tokens")
    pair[0].end("tokens", "default", 10)
    with pytest.raises(RateLimited) as caught:
        begin(pair[1], rates, key="tokens")
    clock.now += caught.value.retry_after_s + 0.01
    begin(pair[1], rates, key="tokens")


def test_successor_frees_the_places_and_keeps_the_counts(tmp_path: Path, clock: Clock) -> None:
    rates = Rates(parallel=4, requests_per_minute=9)
    first, second = Limiter(tmp_path, 0, 2, now=clock), Limiter(tmp_path, 1, 2, now=clock)
    assert count_admitted(first, rates) == 4
    first.close()
    successor = Limiter(tmp_path, 0, 2, now=clock)
    clock.now += 2.0
    assert count_admitted(second, rates) == 4
    with pytest.raises(RateLimited):
        begin(successor, rates)
    for _ in range(4):
        second.end("k", "default", 0)
    assert count_admitted(successor, rates) == 1, "eight of nine requests were made in this minute"


PARTNER = """
import sys
from pathlib import Path
from atoll.core.errors import RateLimited
from atoll.serving.gateway.limits import Limiter, Rates
folder, worker, workers, rates = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
limiter = Limiter(folder, worker, workers, **({"now": lambda: 6000.0} if len(sys.argv) > 5 else {}))
count = refused = 0
print("ready", flush=True)
sys.stdin.readline()
while refused < 500:
    try:
        limiter.begin("k", rates, "default", None, 1)
        count += 1
    except RateLimited:
        refused += 1
print(count, flush=True)
sys.stdin.readline()
"""


def partner(folder: Path, worker: int, workers: int, rates: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PARTNER, str(folder), str(worker), str(workers), rates, *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def counted(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_no_more_than_the_limit_is_admitted_by_racing_processes(tmp_path: Path) -> None:
    rates = "Rates(requests_per_minute=3000)"
    racing = [partner(tmp_path, worker, 3, rates, "same minute") for worker in range(3)]
    for process in racing:
        go(process)
    assert sum(map(counted, racing)) == 3000
    for process in racing:
        end(process)


def test_places_of_a_killed_worker_count_no_more(tmp_path: Path, clock: Clock) -> None:
    mine = Limiter(tmp_path, 0, 2, now=clock)
    process = partner(tmp_path, 1, 2, "Rates(parallel=4)")
    go(process)
    assert counted(process) == 4
    clock.now += 2.0
    refusal(mine, Rates(parallel=4))
    end(process)
    clock.now += 2.0
    assert count_admitted(mine, Rates(parallel=4)) == 4
    mine.close()


def test_slots_of_idle_keys_are_used_again(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SLOTS", 16)
    monkeypatch.setattr(limits, "PROBES_MAX", 16)
    first, second = Limiter(tmp_path, 0, 2, now=clock), Limiter(tmp_path, 1, 2, now=clock)
    rates = Rates(parallel=1)
    begin(first, rates, key="held")
    for wave in range(5):
        for number in range(15):
            key = f"{wave}-{number}"
            begin(first, rates, key=key)
            with pytest.raises(RateLimited):
                begin(second, rates, key=key)
            first.end(key, "default", 0)
        clock.now += 3 * WINDOW_S
    with pytest.raises(RateLimited):
        begin(second, rates, key="held")
    first.close()
    second.close()


def test_worker_whose_slot_was_taken_leaves_nothing_in_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SLOTS", 1)
    monkeypatch.setattr(limits, "PROBES_MAX", 1)
    first, second = Limiter(tmp_path, 0, 2, now=clock), Limiter(tmp_path, 1, 2, now=clock)
    rates = Rates(parallel=1)
    for _ in range(3):  # only places are limited, so no minute is written
        begin(first, rates, key="a")
        first.end("a", "default", 0)
        clock.now += WINDOW_S
    begin(second, rates, key="b")
    begin(first, rates, key="a")
    with pytest.raises(RateLimited):
        begin(first, rates, key="a")
    second.end("b", "default", 0)
    begin(second, rates, key="b")
    first.close()
    second.close()


def test_full_table_limits_each_worker_alone(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SLOTS", 2)
    monkeypatch.setattr(limits, "PROBES_MAX", 2)
    first = Limiter(tmp_path, 0, 2, now=clock)
    for key in ("a", "b", "c"):
        begin(first, Rates(parallel=1), key=key)
    with pytest.raises(RateLimited):
        begin(first, Rates(parallel=1), key="c")
    assert "'c' is limited by each worker on its own" in caplog.text
    first.close()


def test_file_of_another_number_of_workers_is_made_anew(tmp_path: Path, clock: Clock) -> None:
    three = Limiter(tmp_path, 2, 3, now=clock)
    begin(three, Rates(parallel=1))
    two = Limiter(tmp_path, 1, 2, now=clock)
    begin(two, Rates(parallel=1))
    three.close()
    two.close()
