"""Any history of writes, fresh and stale, by tenants and controllers: the store is what a plain dictionary would be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atoll.core.clock import VirtualClock
from atoll.core.errors import Conflict, Forbidden
from atoll.core.resources import Resource
from atoll.core.store import Create, MarkDeleting, Note, Remove, Scope, SetSpec, SetStatus, Store, Write
from memory import memory_database

PROJECTS = st.sampled_from(["red", "blue"])
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2), max_size=2)


@dataclass
class Entry:
    """What the model knows of one resource."""

    version: int
    spec: dict[str, Any]
    status: dict[str, Any]
    generation: int = 1
    is_deleting: bool = False


class Histories(RuleBasedStateMachine):
    """Batches of one to three writes on resources read now or long ago."""

    def __init__(self) -> None:
        super().__init__()
        self.database = memory_database()
        self.store = Store(self.database, VirtualClock())
        self.model: dict[tuple[str, str], Entry] = {}
        self.read: list[Resource] = []
        self.head = 0

    def teardown(self) -> None:
        self.database.close()

    @rule(project=PROJECTS, name=NAMES, spec=VALUES, scoped=st.none() | PROJECTS)
    def create(self, project: str, name: str, spec: dict[str, Any], scoped: str | None) -> None:
        scope = self._scope(scoped)
        allowed = scoped in (None, project)
        free = (project, name) not in self.model
        if self._write(scope, [Create("Thing", project, name, spec)], allowed, free):
            self.model[project, name] = Entry(self.head, spec, {})

    @rule(scoped=st.none() | PROJECTS)
    def read_all(self, scoped: str | None) -> None:
        found = self._scope(scoped).find_all("Thing")
        expected = {key for key in self.model if scoped in (None, key[0])}
        assert {(r.project, r.name) for r in found} == expected
        self.read = [*self.read, *found][-12:]

    @rule(data=st.data(), scoped=st.none() | PROJECTS)
    def write(self, data: st.DataObject, scoped: str | None) -> None:
        if not self.read:
            return
        chosen = data.draw(st.lists(st.sampled_from(self.read), min_size=1, max_size=3, unique_by=lambda r: r.uid))
        ops = [data.draw(self._op(resource)) for resource in chosen]
        allowed = all(scoped in (None, r.project) for r in chosen)
        fresh = all(isinstance(op, Note) or self._is_fresh(op.resource) for op in ops)  # type: ignore[union-attr]
        if self._write(self._scope(scoped), ops, allowed, fresh):
            for number, op in enumerate(ops):
                self._apply(op, self.head - len(ops) + 1 + number)

    @invariant()
    def the_store_is_the_model(self) -> None:
        found = {(r.project, r.name): r for r in self.store.everything().find_all("Thing")}
        assert {
            key: Entry(r.version, r.spec, r.status, r.generation, r.is_deleting) for key, r in found.items()
        } == self.model

    @invariant()
    def changes_have_no_gap_and_end_at_the_head(self) -> None:
        assert self.store.head() == self.head
        assert [c.seq for c in self.store.everything().changes(0)] == list(range(1, self.head + 1))
        mine = [c for p in ("red", "blue") for c in self.store.scope(p).changes(0)]
        assert sorted(c.seq for c in mine) == list(range(1, self.head + 1))

    def _scope(self, project: str | None) -> Scope:
        return self.store.everything() if project is None else self.store.scope(project)

    def _is_fresh(self, resource: Resource) -> bool:
        entry = self.model.get((resource.project, resource.name))
        return entry is not None and entry.version == resource.version

    def _op(self, resource: Resource) -> st.SearchStrategy[Write]:
        return st.one_of(
            VALUES.map(lambda spec: SetSpec(resource, spec)),
            VALUES.map(lambda status: SetStatus(resource, status)),
            st.sampled_from([MarkDeleting(resource), Remove(resource), Note(resource, "Seen")]),
        )

    def _write(self, scope: Scope, ops: list[Write], allowed: bool, possible: bool) -> bool:
        """Write; whether it was done, having judged that it was right to be done or not."""
        if allowed and possible:
            self.head += len(ops)
            assert scope.write(ops) == self.head
            return True
        with pytest.raises(Conflict if allowed else Forbidden):
            scope.write(ops)
        return False

    def _apply(self, op: Write, seq: int) -> None:
        assert not isinstance(op, Create)
        key = (op.resource.project, op.resource.name)
        if isinstance(op, Remove):
            del self.model[key]
        elif not isinstance(op, Note):
            entry = self.model[key] = replace(self.model[key], version=seq)
            if isinstance(op, SetSpec):
                entry.generation += op.spec != entry.spec
                entry.spec = op.spec
            elif isinstance(op, SetStatus):
                entry.status = op.status
            else:
                entry.is_deleting = True


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
