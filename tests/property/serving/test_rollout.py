"""Rollouts under random life: replicas start, die, fail for good; revisions and numbers change in the middle."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.serving.rollout import Copy, Steps, next_steps


class Service:
    """Replicas as copies, a present and a previous revision, and what happens to them."""

    def __init__(self, rng: random.Random, surge: int, keep: bool) -> None:
        self.rng, self.surge, self.keep = rng, surge, keep
        self.copies: list[Copy] = []
        self.history = ["r0"]
        self.wanted = rng.randint(1, 4)
        self.is_done = False
        self.bad: set[str] = set()

    @property
    def ready(self) -> int:
        """Replicas that requests may go to."""
        serving = [c for c in self.copies if not c.is_deleting and c.is_ready]
        return sum(1 for c in serving if not self.is_done or c.revision == self.history[0])

    @property
    def alive(self) -> int:
        return sum(1 for c in self.copies if not c.is_deleting)

    def act(self) -> Steps:
        """One reconcile; asserts what must hold for every single one."""
        ready, alive, kept = self.ready, self.alive, self.wanted if self.keep else 0
        steps = next_steps(
            self.copies,
            self.history[0],
            self.wanted,
            self.surge,
            previous=self.history[1] if len(self.history) > 1 else "",
            kept=kept,
            is_done=self.is_done,
        )
        self.is_done = steps.is_done
        gone = set(steps.delete)
        assert gone <= {c.name for c in self.copies if not c.is_deleting}
        self.copies = [replace(c, is_deleting=True) if c.name in gone else c for c in self.copies]
        self.copies += [Copy(f"{r}-{i}", r, i) for r, i in steps.create]
        assert len({c.name for c in self.copies}) == len(self.copies)
        assert self.ready >= min(ready, self.wanted) - (self.surge == 0), (
            "a ready replica went before its successor was there"
        )
        assert self.alive <= max(alive, self.wanted + max(self.surge, kept)), "more than wanted and surge"
        return steps

    def live(self) -> None:
        """Something happens."""
        event = self.rng.random()
        if event < 0.05:
            self.wanted = self.rng.randint(0, 4)
        elif event < 0.1:
            fresh = f"r{len(self.bad) + len(self.history)}x{self.rng.randint(0, 9999)}"
            if self.rng.random() < 0.3:
                self.bad.add(fresh)
            self.history, self.is_done = [fresh, *self.history], False
        elif event < 0.13 and len(self.history) > 1:
            self.history = [self.history[1], self.history[0], *self.history[2:]]
            self.is_done = False
        elif self.copies:
            self._change(self.rng.randrange(len(self.copies)))

    def _change(self, place: int) -> None:
        copy = self.copies[place]
        if copy.is_deleting:
            del self.copies[place]
        elif copy.revision in self.bad:
            self.copies[place] = replace(copy, is_failing=True)
        elif copy.is_ready and self.rng.random() < 0.1:
            self.copies[place] = replace(copy, is_ready=False)
        else:
            self.copies[place] = replace(copy, is_ready=True, was_ready=True)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 2), st.booleans())
def test_no_ready_replica_goes_before_its_successor_and_never_more_than_surge(
    seed: int, surge: int, keep: bool
) -> None:
    service = Service(random.Random(seed), surge, keep)
    for _ in range(120):
        service.live()
        service.act()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 2), st.booleans())
def test_when_life_calms_down_the_present_revision_serves_alone(seed: int, surge: int, keep: bool) -> None:
    service = Service(random.Random(seed), max(surge, 1), keep)
    for _ in range(60):
        service.live()
        service.act()
    service.keep, service.surge = False, surge
    service.bad.discard(service.history[0])
    service.copies = [replace(c, is_failing=False) if c.revision == service.history[0] else c for c in service.copies]
    for _ in range(60):
        service.act()
        service.copies = [replace(c, is_ready=True, was_ready=True) for c in service.copies if not c.is_deleting]
    assert service.act() == Steps(is_done=True)
    assert [c.revision for c in service.copies] == [service.history[0]] * service.wanted


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_revision_that_never_starts_costs_nothing_that_served(seed: int) -> None:
    service = Service(random.Random(seed), 1, keep=False)
    for _ in range(20):
        service.act()
        service.copies = [replace(c, is_ready=True, was_ready=True) for c in service.copies]
    before = service.ready
    service.history, service.is_done = ["broken", *service.history], False
    service.bad.add("broken")
    for _ in range(50):
        service._change(service.rng.randrange(len(service.copies)))
        died = sum(1 for c in service.copies if c.was_ready and not c.is_ready)
        steps = service.act()
        assert service.ready >= before - died
        assert not steps.is_done
