"""Whatever contact does and however the clocks go: a fenced task is dead before its place can be given away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.compute.controllers import LOST_AFTER_TTLS
from atoll.compute.runtime import shim

DRIFT = 0.01
"""How much faster or slower than true time a clock may go; crystals are a hundred times better."""

rates = st.floats(1 - DRIFT, 1 + DRIFT)


def killed_at(contacts: list[float], ttl_s: float, rate: float, first_look: float) -> tuple[float, float]:
    """(true time of the kill at the latest, the contact it counts from) of a task that ignores the polite stop.

    `contacts` are true times, the first before the start; the machine's clock goes at `rate`.
    """
    known, now, look_s = contacts[0], contacts[0] + first_look, min(shim.LOOK_S_MAX, shim.LOOK_TTLS * ttl_s) / rate
    while True:
        heard = max(c for c in contacts if c <= now)
        known = shim.renewed(known * rate, heard * rate, ttl_s) / rate
        if (now - known) * rate >= shim.STOP_AFTER_TTLS * ttl_s:
            return max(now, known + shim.KILL_AFTER_TTLS * ttl_s / rate), known
        now += look_s


@given(
    st.floats(0.5, 600.0),
    rates,
    rates,
    st.floats(0.0, 1.0),
    st.lists(st.floats(0.0, 1.5), max_size=12),
)
def test_the_kill_comes_before_the_centre_may_give_the_place_away(
    ttl_s: float, machine_rate: float, centre_rate: float, first_look: float, gaps: list[float]
) -> None:
    contacts = [0.0]
    for gap in gaps:
        contacts.append(contacts[-1] + gap * ttl_s)
    first_look_s = first_look * min(shim.LOOK_S_MAX, shim.LOOK_TTLS * ttl_s)
    kill, counted_from = killed_at(contacts, ttl_s, machine_rate, first_look_s)
    given_away = counted_from + LOST_AFTER_TTLS * ttl_s / centre_rate
    left_s = 0.3 * ttl_s
    assert kill + left_s < given_away, "nothing is left for the kernel to end the processes in"


def test_the_bound_on_the_clocks_is_needed() -> None:
    """Clocks that are fifteen in a hundred apart each way break it: the sum is tight enough to be about something."""
    kill, counted_from = killed_at([0.0], 15.0, 0.85, 0.0)
    assert kill > counted_from + LOST_AFTER_TTLS * 15.0 / 1.15
