"""Any interleaving of holders, observers, pauses and clock jumps: one holder an epoch, and none robbed while alive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.clock import VirtualClock
from atoll.core.errors import Fenced
from atoll.core.leases import Lease, Leases
from memory import memory_database

TTL_S = 10.0
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.integers(0, 2)),
        st.tuples(st.just("renew"), st.integers(0, 2)),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 3.0, 9.9, 10.0, 25.0])),
        st.tuples(st.just("jump"), st.sampled_from([-1e6, 1e6])),
    ),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_a_lease_moves_only_from_who_stood_still(steps: list[tuple[str, float]]) -> None:
    database, clock = memory_database(), VirtualClock()
    observers = [Leases(database, clock) for _ in range(3)]
    held: list[Lease | None] = [None] * 3
    holder, moved_at, epochs = -1, 0.0, []
    for what, value in steps:
        number = int(value) if what in ("acquire", "renew") else 0
        if what == "advance":
            clock.advance(value)
        elif what == "jump":
            clock.jump(value)
        elif what == "acquire":
            lease = observers[number].acquire("lead", f"n{number}", TTL_S)
            if lease is None:
                assert holder != number
                continue
            if holder != number:
                assert holder == -1 or clock.monotonic() - moved_at >= TTL_S
                epochs.append(lease.epoch)
            held[number], holder, moved_at = lease, number, clock.monotonic()
        elif (mine := held[number]) is not None:
            if holder == number:
                held[number], moved_at = observers[number].renew(mine), clock.monotonic()
            else:
                with pytest.raises(Fenced):
                    observers[number].renew(mine)
    assert epochs == list(range(1, len(epochs) + 1))
    database.close()
