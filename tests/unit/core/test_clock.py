"""Clocks: the virtual one moves only when told, and its wall jumps alone."""

from __future__ import annotations

import pytest

from atoll.core.clock import SystemClock, VirtualClock


def test_virtual_time_moves_when_told() -> None:
    clock = VirtualClock(100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)
    clock.jump(-50)
    assert (clock.now(), clock.monotonic()) == (52.5, 2.5)
    with pytest.raises(AssertionError):
        clock.advance(-1)


def test_the_systems_clock_never_goes_back() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.now() > 1.6e9
