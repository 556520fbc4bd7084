"""How the engine's process is set up and stopped."""

import os
import signal
from collections.abc import Iterator

import pytest

from atoll.core.errors import Invalid
from atoll.training.engine.process import STOPPED, Stop, Stopped, thread_count


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGTERM)
    yield Stop()
    signal.signal(signal.SIGTERM, before)


def test_the_recipe_decides_on_threads_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(5) == 5
    assert thread_count(None) == 3
    monkeypatch.setenv("ATOLL_THREADS", "2")
    assert thread_count(None) == 2


def test_without_a_word_the_processors_there_are_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("ATOLL_THREADS", raising=False)
    assert thread_count(None) == len(os.sched_getaffinity(0))


def test_a_number_of_threads_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_THREADS", "many")
    with pytest.raises(Invalid, match="ATOLL_THREADS cannot be 'many'"):
        thread_count(None)


def test_before_there_is_anything_to_save_a_stop_ends_at_once(stop: Stop) -> None:
    with pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == STOPPED == 143


def test_once_watched_a_stop_waits_for_the_next_check(stop: Stop) -> None:
    stop.watch()
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        stop.check()
