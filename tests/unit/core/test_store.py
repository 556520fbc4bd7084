"""The store keeps its promises on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, Fenced, Forbidden, Invalid, NotFound
from atoll.core.leases import Leases
from atoll.core.resources import Key, Resource
from atoll.core.store import Create, Fence, MarkDeleting, Note, Remove, Scope, SetSpec, SetStatus, Store, Write


def make(scope: Scope, name: str = "one", project: str = "red", **fields: object) -> Resource:
    scope.write([Create("Thing", project, name, {"size": 1}, **fields)])  # type: ignore[arg-type]
    return scope.get("Thing", name, project)


def test_what_is_written_is_read_back(store: Store) -> None:
    scope = store.scope("red", "somebody")
    store.clock.advance(5)  # type: ignore[attr-defined]
    scope.write([Create("Thing", "red", "one", {"größe": [1, {"a": None}]}, {"phase": "ready"}, {"team": "ä"})])
    found = scope.get("Thing", "one")
    assert found.spec == {"größe": [1, {"a": None}]}
    assert (found.phase, found.labels, found.owner, found.generation) == ("ready", {"team": "ä"}, None, 1)
    assert found.created_at == found.updated_at == store.clock.now()
    assert scope.by_uid(found.uid) == scope.read(Key("Thing", "red", "one")) == found


def test_an_absent_resource_is_named_in_the_error(store: Store) -> None:
    with pytest.raises(NotFound, match="Thing 'gone' is not in project 'red'"):
        store.scope("red").get("Thing", "gone")
    with pytest.raises(NotFound, match="which project"):
        store.everything().find("Thing", "gone")


def test_names_are_unique_in_a_project_and_kind_only(store: Store) -> None:
    scope = store.everything()
    make(scope)
    make(scope, project="blue")
    scope.write([Create("Other", "red", "one", {})])
    with pytest.raises(Conflict, match="Thing 'one' exists already"):
        make(scope)


def test_a_name_that_cannot_be_one_is_refused(store: Store) -> None:
    for name in ("", "Upper", "-dash", "dot.", "a/b", "ü", "x" * 129):
        with pytest.raises(Invalid, match="cannot be a name"):
            make(store.everything(), name)
    assert store.head() == 0


def test_another_projects_resources_cannot_be_read(store: Store) -> None:
    theirs = make(store.scope("blue"), project="blue")
    child = Create("Thing", "blue", "child", {}, owner=theirs.uid)
    store.scope("blue").write([child, MarkDeleting(theirs)][:1])
    mine = store.scope("red")
    assert mine.find("Thing", "one") is None
    assert mine.find("Thing", "one", "blue") is None
    assert mine.read(theirs.key) is None
    assert mine.by_uid(theirs.uid) is None
    assert mine.find_all("Thing") == mine.find_all("Thing", owner=theirs.uid) == mine.children(theirs.uid) == []
    assert mine.find_deleting() == []
    assert mine.changes(0) == mine.events() == mine.events(uids=[theirs.uid]) == []


@pytest.mark.parametrize("op", [SetSpec, SetStatus, MarkDeleting, Remove, Note])
def test_another_projects_resources_cannot_be_written(store: Store, op: Callable[..., Write]) -> None:
    theirs = make(store.scope("blue"), project="blue")
    fields = {SetSpec: ({},), SetStatus: ({},), Note: ("Seen",)}.get(op, ())  # type: ignore[call-overload]
    with pytest.raises(Forbidden, match="project 'red' may not write into project 'blue'"):
        store.scope("red").write([op(theirs, *fields)])
    if op is not Note:
        with pytest.raises(Conflict):  # a resource dressed up as one's own is not found under that project
            store.scope("red").write([op(replace(theirs, project="red"), *fields)])
    assert store.scope("blue").get("Thing", "one") == theirs


def test_nothing_can_be_created_in_or_owned_by_another_project(store: Store) -> None:
    theirs = make(store.scope("blue"), project="blue")
    with pytest.raises(Forbidden):
        store.scope("red").write([Create("Thing", "blue", "two", {})])
    with pytest.raises(Conflict, match="owner"):
        store.scope("red").write([Create("Thing", "red", "two", {}, owner=theirs.uid)])


def test_a_stale_write_is_refused_and_the_batch_with_it(store: Store) -> None:
    scope = store.everything()
    first, second = make(scope), make(scope, "two")
    scope.write([SetStatus(first, {"phase": "ready"})])
    head = store.head()
    with pytest.raises(Conflict, match="1 of 2 resources changed"):
        scope.write([SetStatus(second, {"phase": "ready"}), SetStatus(first, {"phase": "failed"})])
    with pytest.raises(Conflict):
        scope.write([Create("Thing", "red", "three", {}), Remove(first)])
    assert scope.get("Thing", "two", "red") == second
    assert scope.find("Thing", "three", "red") is None
    assert store.head() == head
    assert scope.changes(head) == []


def test_one_resource_cannot_be_written_twice_in_a_batch(store: Store) -> None:
    scope = store.everything()
    one = make(scope)
    with pytest.raises(Conflict):
        scope.write([SetStatus(one, {"phase": "a"}), SetStatus(one, {"phase": "b"})])
    assert scope.get("Thing", "one", "red") == one


def test_generation_counts_spec_changes_only(store: Store) -> None:
    scope = store.everything()
    one = make(scope)
    scope.write([SetSpec(one, one.spec, {"a": "b"})])
    one = scope.get("Thing", "one", "red")
    assert (one.generation, one.labels) == (1, {"a": "b"})
    scope.write([SetStatus(one, {"phase": "x"})])
    one = scope.get("Thing", "one", "red")
    scope.write([SetSpec(one, {"size": 2})])
    one = scope.get("Thing", "one", "red")
    assert (one.generation, one.labels, one.status, one.spec) == (2, {"a": "b"}, {"phase": "x"}, {"size": 2})


def test_each_write_leaves_its_change_numbered_without_gaps(store: Store) -> None:
    scope = store.everything("me")
    one = make(scope)
    two = make(scope, "two", reason="Born", message="here")
    head = scope.write([SetStatus(one, {}), MarkDeleting(two), Note(one, "Looked", "at it")])
    found = scope.changes(0)
    assert head == store.head() == 5
    assert [c.seq for c in found] == [1, 2, 3, 4, 5]
    assert [c.action for c in found] == ["created", "created", "status", "deleting", "note"]
    assert (found[1].reason, found[1].message, found[1].actor) == ("Born", "here", "me")
    assert scope.get("Thing", "one", "red").version == 3
    assert scope.get("Thing", "two", "red").version == 4
    assert [c.reason for c in scope.events()] == ["Created", "Born", "Deleting", "Looked"]
    assert [c.seq for c in scope.events(uids=[two.uid], limit=1)] == [4]
    assert [c.seq for c in scope.changes(1, limit=2)] == [2, 3]


def test_a_removed_resource_leaves_its_change_and_frees_its_name(store: Store) -> None:
    scope = store.everything()
    one = make(scope)
    scope.write([Remove(one)])
    assert scope.by_uid(one.uid) is None
    assert scope.changes(1)[0].action == "deleted"
    assert make(scope).uid != one.uid


def test_nothing_can_belong_to_what_is_going(store: Store) -> None:
    scope = store.everything()
    one = make(scope)
    scope.write([MarkDeleting(one)])
    with pytest.raises(Conflict, match="gone or being deleted"):
        make(scope, "child", owner=one.uid)
    with pytest.raises(Conflict, match="gone or being deleted"):
        make(scope, "child", owner="nobody")


def test_children_are_found_by_owner_and_kind(store: Store) -> None:
    scope = store.everything()
    one = make(scope)
    child = make(scope, "child", owner=one.uid, labels={"a": "1", "b": "2"})
    scope.write([Create("Other", "red", "other", {}, owner=one.uid)])
    assert {r.name for r in scope.children(one.uid)} == {"child", "other"}
    assert scope.find_all("Thing", owner=one.uid) == [child]
    assert scope.find_all("Thing", labels={"a": "1"}) == [child]
    assert scope.find_all("Thing", labels={"a": "2"}) == []


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    assert store.everything().write([]) == 0
    assert store.head() == 0


def test_a_fenced_writer_writes_nothing(store: Store, database: Database, clock: VirtualClock) -> None:
    leases = Leases(database, clock)
    old = leases.take("lead", "a")
    make(store.everything())
    store.everything().write([Create("Thing", "red", "two", {})], old.fence)
    leases.take("lead", "b")
    with pytest.raises(Fenced, match="at epoch 2, this writer holds 1"):
        store.everything().write([Create("Thing", "red", "three", {})], old.fence)
    with pytest.raises(Fenced):
        store.everything().write([Create("Thing", "red", "three", {})], Fence("nobody's", 1))
    assert store.head() == 2


def test_a_take_over_waits_for_a_fenced_write_under_way(
    url: str, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    """Else the old leader's batch could land after the new one looked."""
    leases = Leases(opened(url), clock)
    old, order = leases.take("lead", "a"), []
    is_inside, is_taken = threading.Event(), threading.Event()

    def new_uid() -> str:
        """Called in the middle of the batch's transaction; gives a take-over its chance."""
        is_inside.set()
        is_taken.wait(0.3)
        order.append("written")
        return "u1"

    def take() -> None:
        is_inside.wait(60)
        leases.take("lead", "b")
        order.append("taken")
        is_taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    Store(opened(url), clock, new_uid).everything().write([Create("Thing", "red", "one", {})], old.fence)
    thread.join(60)
    assert order == ["written", "taken"]


def test_text_no_database_takes_is_made_fit(store: Store) -> None:
    scope = store.everything("agent/" + "n" * 128)
    one = make(scope)
    scope.write([SetStatus(one, {"log_tail": ["\0 \U0001f40b"]}, "Failed", "last words: \0")])
    assert scope.get("Thing", "one", "red").status == {"log_tail": ["\0 \U0001f40b"]}
    assert scope.events()[-1].message == "last words: \ufffd"


def test_old_changes_can_be_forgotten(store: Store) -> None:
    scope = store.everything()
    for name in "abcd":
        make(scope, name)
    assert store.forget_changes(2) == 2
    assert [c.seq for c in scope.changes(0)] == [3, 4]
    assert store.head() == 4


def test_commits_are_announced_with_their_number(store: Store) -> None:
    heard: list[int] = []
    store.on_commit(heard.append)
    make(store.everything())
    with pytest.raises(Conflict):
        make(store.everything())
    make(store.everything(), "two")
    assert heard == [1, 2]


def test_writers_at_once_lose_nothing_and_leave_no_gap(
    url: str, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    """Four writers count one resource up, each retrying its conflicts."""
    make(Store(opened(url), clock).everything(), "count")
    errors: list[BaseException] = []

    def count_up(store: Store) -> None:
        scope, done = store.everything(), 0
        while done < 10:
            one = scope.get("Thing", "count", "red")
            try:
                scope.write([SetStatus(one, {"n": one.status.get("n", 0) + 1})])
                done += 1
            except Conflict:
                continue
            except BaseException as error:
                errors.append(error)
                raise

    stores = [Store(opened(url), clock) for _ in range(2)]
    threads = [threading.Thread(target=count_up, args=(s,)) for s in stores for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    scope = stores[0].everything()
    assert errors == []
    assert scope.get("Thing", "count", "red").status == {"n": 40}
    assert [c.seq for c in scope.changes(0)] == list(range(1, 42))


def test_a_store_in_memory_is_safe_for_threads(clock: VirtualClock) -> None:
    database = Database("sqlite://")
    database.migrate()
    store = Store(database, clock)
    threads = [
        threading.Thread(target=lambda n=n: [make(store.everything(), f"t{n}-{i}") for i in range(20)])  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.everything().find_all("Thing")) == store.head() == 80
    database.close()
