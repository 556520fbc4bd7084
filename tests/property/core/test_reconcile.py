"""Whatever fails, conflicts or is slow: after the last change of a key its controller has looked, and had peace to."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.clock import VirtualClock
from atoll.core.errors import Conflict, Unavailable
from atoll.core.reconcile import Controller, Loop, Writer
from atoll.core.resources import Key
from atoll.core.store import Create, SetSpec, SetStatus, Store
from memory import memory_database


class Copier(Controller):
    """Copies spec.n to status.n, with the mishaps a list prescribes."""

    name = "copier"
    owns = "Thing"

    def __init__(self, mishaps: list[str]) -> None:
        self.mishaps = mishaps

    def reconcile(self, key: Key, world: Writer) -> float | None:
        thing = world.read(key)
        mishap = self.mishaps.pop() if self.mishaps else ""
        if mishap == "later":
            return 7.0
        if mishap == "breaks before":
            raise RuntimeError
        if thing is not None and thing.status.get("n") != thing.spec["n"]:
            world.write(SetStatus(thing, {"n": thing.spec["n"]}))
        if mishap == "breaks after":
            raise Unavailable("away")
        if mishap == "conflicts":
            raise Conflict("moved")
        return None


MISHAPS = st.lists(st.sampled_from(["later", "breaks before", "breaks after", "conflicts", ""]), max_size=20)
EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from([0.0, 0.5, 30.0])), max_size=15)


@given(MISHAPS, EVENTS, st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_world_ends_up_as_wanted(mishaps: list[str], events: list[tuple[str, int, float]], restart: bool) -> None:
    database, clock = memory_database(), VirtualClock()
    store = Store(database, clock)
    scope = store.everything("person")
    controller = Copier(mishaps)
    loop = Loop(store, clock, [controller], random.Random(1))
    for name, number, pause_s in events:
        thing = scope.find("Thing", name, "p")
        scope.write([SetSpec(thing, {"n": number}) if thing else Create("Thing", "p", name, {"n": number})])
        loop.take_changes()
        for _ in range(number):
            loop.step()
        clock.advance(pause_s)
    if restart:
        loop = Loop(store, clock, [controller], random.Random(2))
    deadline = clock.monotonic() + 600
    while clock.monotonic() < deadline and (controller.mishaps or loop.next_due_s() == 0.0):
        loop.take_changes()
        while loop.step():
            loop.take_changes()
        clock.advance(max(0.01, loop.next_due_s()))
    assert {t.name: t.status.get("n") for t in scope.find_all("Thing")} == {
        t.name: t.spec["n"] for t in scope.find_all("Thing")
    }
    database.close()
