"""Deleting: children first, then what nothing in the world holds, then it is gone."""

from __future__ import annotations

import random

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.collect import LOOK_AGAIN_S, Collector
from atoll.core.reconcile import Loop
from atoll.core.resources import KINDS, Kind, Resource, Spec, Status
from atoll.core.store import Create, MarkDeleting, SetStatus, Store

if "House" not in KINDS:
    KINDS.register(Kind("House", "houses", "A project.", Spec, Status, dependents=lambda w, r: w.within(r.name)))
if "Anchor" not in KINDS:
    KINDS.register(Kind("Anchor", "anchors", "Held while down.", Spec, Status, holds=lambda r: r.phase == "down"))


@pytest.fixture
def loop(sqlite_store: Store) -> Loop:
    return Loop(sqlite_store, sqlite_store.clock, [Collector()], random.Random(1))


def make(store: Store, kind: str, name: str, owner: Resource | None = None, phase: str = "") -> Resource:
    owner_uid = owner.uid if owner else None
    store.everything().write([Create(kind, "red", name, {}, {"phase": phase}, owner=owner_uid)])
    return store.everything().get(kind, name, "red")


def delete(store: Store, resource: Resource) -> None:
    store.everything().write([MarkDeleting(resource)])


def run(loop: Loop, clock: VirtualClock, rounds: int = 20) -> None:
    for _ in range(rounds):
        loop.take_changes()
        while loop.step():
            continue
        clock.advance(LOOK_AGAIN_S)


def names(store: Store) -> set[str]:
    return {r.name for kind in ("Thing", "Anchor") for r in store.everything().find_all(kind)}


def test_a_deleted_resource_goes_and_others_stay(sqlite_store: Store, loop: Loop, clock: VirtualClock) -> None:
    one = make(sqlite_store, "Thing", "one")
    make(sqlite_store, "Thing", "two")
    run(loop, clock)
    delete(sqlite_store, one)
    run(loop, clock)
    assert names(sqlite_store) == {"two"}


def test_children_go_before_their_owner(sqlite_store: Store, loop: Loop, clock: VirtualClock) -> None:
    root = make(sqlite_store, "Thing", "root")
    child = make(sqlite_store, "Thing", "child", root)
    make(sqlite_store, "Thing", "grandchild", child)
    delete(sqlite_store, root)
    run(loop, clock)
    assert names(sqlite_store) == set()
    gone = [c.name for c in sqlite_store.everything().changes(0) if c.action == "deleted"]
    assert gone == ["grandchild", "child", "root"]


def test_what_the_world_holds_stays_and_its_owner_with_it(sqlite_store: Store, loop: Loop, clock: VirtualClock) -> None:
    root = make(sqlite_store, "Thing", "root")
    make(sqlite_store, "Anchor", "anchor", root, "down")
    delete(sqlite_store, root)
    run(loop, clock)
    anchor = sqlite_store.everything().get("Anchor", "anchor", "red")
    assert anchor.is_deleting
    assert names(sqlite_store) == {"root", "anchor"}
    sqlite_store.everything().write([SetStatus(anchor, {"phase": "up"})])
    run(loop, clock)
    assert names(sqlite_store) == set()


def test_a_collector_started_anew_finishes_what_another_began(
    sqlite_store: Store, loop: Loop, clock: VirtualClock
) -> None:
    root = make(sqlite_store, "Thing", "root")
    make(sqlite_store, "Thing", "child", root)
    delete(sqlite_store, root)
    loop.take_changes()
    loop.step()
    run(Loop(sqlite_store, clock, [Collector()], random.Random(2)), clock)
    assert names(sqlite_store) == set()


def test_what_depends_on_a_resource_goes_with_it(sqlite_store: Store, loop: Loop, clock: VirtualClock) -> None:
    root = make(sqlite_store, "Thing", "root")
    make(sqlite_store, "Thing", "child", root)
    make(sqlite_store, "Anchor", "anchor", phase="up")
    sqlite_store.everything().write([Create("Thing", "blue", "other", {}, {})])
    sqlite_store.everything().write([Create("House", "all", "red", {}, {})])
    delete(sqlite_store, sqlite_store.everything().get("House", "red", "all"))
    run(loop, clock)
    assert names(sqlite_store) == {"other"}
    assert sqlite_store.everything().find_all("House") == []
    gone = [c.name for c in sqlite_store.everything().changes(0) if c.action == "deleted"]
    assert gone[-1] == "red"
