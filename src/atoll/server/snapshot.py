"""What gateways work from: keys, projects, budgets and models as one document, made anew only where something changed.

The document is made in parts; a part is made again when a kind it speaks of changed, and kept as bytes, so that a
change of one replica does not read ten thousand keys again. `seen` is a number of the content, not of time: two
servers with the same content give the same.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from atoll.core.clock import Clock
from atoll.core.resources import SYSTEM_PROJECT
from atoll.core.settings import Settings
from atoll.core.store import Change, Scope, Store
from atoll.governance.budgets import BudgetTree
from atoll.governance.members import key_entries
from atoll.serving.demand import Demand
from atoll.serving.routes import Facts, model_table, no_secrets

if TYPE_CHECKING:
    from atoll.core.resources import Resource

CHANGES_AT_ONCE = 1000
SPEAKING_STATUS = frozenset({"Deployment", "Replica"})
"""Kinds whose status is in the document; those of budgets and keys change with every request."""


@dataclass(frozen=True, slots=True)
class Made:
    """One version of the whole document."""

    seen: int
    body: bytes


@dataclass
class _Part:
    """A member of the document, the kinds it is made of, and its bytes as last made."""

    name: str
    kinds: frozenset[str]
    make: Callable[[Scope], Any]
    data: bytes = b""
    is_stale: bool = True


class Snapshots:
    """The present snapshot of one store. `secret_of` as in serving.routes.Facts."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        demand: Demand,
        secret_of: Callable[[str, str], str] = no_secrets,
    ) -> None:
        self._store = store
        self._clock: Clock = store.clock
        self._demand = demand
        self._secret_of = secret_of
        self._lock = threading.Lock()
        self._seen_change = -1
        limits = {
            "body_bytes_max": settings.body_bytes_max,
            "requests_per_key_max": settings.requests_per_key_max,
        }
        self._limits = orjson.dumps(limits)
        self._parts = (
            _Part("keys", frozenset({"ApiKey", "User", "Membership", "Project", "Budget"}), self._keys),
            _Part("projects", frozenset({"Project"}), _projects),
            _Part("budgets", frozenset({"Budget", "ApiKey", "Project"}), _budgets),
            _Part(
                "models",
                frozenset({"Deployment", "Replica", "Provider", "Route", "Price", "Secret", "Project"}),
                self._models,
            ),
        )
        self._made: Made | None = None
        self._hosts = 0

    def current(self) -> Made:
        """The snapshot of now; cheap when nothing it speaks of has changed."""
        with self._lock:
            has_changed = self._mark_stale()
            hosts = max(1, self._demand.hosts(self._clock.now()))
            if self._made is None or has_changed or hosts != self._hosts:
                self._hosts = hosts
                self._made = self._make()
            return self._made

    def _mark_stale(self) -> bool:
        """Mark the parts that changes since the last look concern; true when there are any."""
        scope = self._store.everything()
        if self._seen_change < 0:
            self._seen_change = self._store.head()
            return True
        kinds: set[str] = set()
        has_gap = False
        while found := scope.changes(self._seen_change, CHANGES_AT_ONCE):
            has_gap = has_gap or found[0].seq != self._seen_change + 1  # older ones are forgotten after a while
            kinds.update(change.kind for change in found if _matters(change))
            self._seen_change = found[-1].seq
        for part in self._parts:
            part.is_stale = part.is_stale or has_gap or not part.kinds.isdisjoint(kinds)
        return any(part.is_stale for part in self._parts)

    def _make(self) -> Made:
        scope = self._store.everything()
        number = zlib.crc32(self._limits, self._hosts)
        members = []
        for part in self._parts:
            if part.is_stale:
                part.data = orjson.dumps(part.make(scope))
                part.is_stale = False
            number = zlib.crc32(part.data, number)
            members.append(b'"%b":%b' % (part.name.encode(), part.data))
        number = number or 1
        members.append(b'"gateways":%d,"limits":%b' % (self._hosts, self._limits))
        return Made(number, b'{"seen":%d,%b}' % (number, b",".join(members)))

    def _keys(self, scope: Scope) -> dict[str, Any]:
        entries = key_entries(scope, self._clock.now())
        budgets = [b for b in _living(scope, "Budget") if _gateway_units(b)]
        tree = BudgetTree(budgets, scope.find_all("Project"))
        for entry in entries.values():
            line = entry.pop("lineage")
            entry["budgets"] = _budgets_of(tree, entry, line) if budgets else {}
        return entries

    def _models(self, scope: Scope) -> dict[str, Any]:
        return model_table(
            Facts(
                deployments=scope.find_all("Deployment"),
                replicas=scope.find_all("Replica"),
                providers=scope.find_all("Provider"),
                routes=[route for route in scope.find_all("Route") if not route.is_deleting],
                prices=scope.find_all("Price"),
                projects=[p.name for p in scope.find_all("Project") if not p.is_deleting],
                secret_of=self._secret_of,
            )
        )


def _matters(change: Change) -> bool:
    """Whether a change may change the document: of most kinds only the spec is in it."""
    return change.action != "note" and (change.action != "status" or change.kind in SPEAKING_STATUS)


def _budgets_of(tree: BudgetTree, entry: dict[str, Any], line: list[str]) -> dict[str, list[str]]:
    """Every way up, by project: the budgets of the key and of those it was rotated from, then the projects'."""
    home = entry["project"]
    shared = tree.path(home)
    keyed = [uid for key in line for uid in tree.path(home, key) if uid not in shared]
    ways = {project: [*keyed, *tree.path(project)] for project in entry["projects"]}
    return {project: way for project, way in ways.items() if way}


def _projects(scope: Scope) -> dict[str, Any]:
    return {
        p.name: {"limits": p.spec.get("limits"), "weight": p.spec.get("weight", 1.0)}
        for p in _living(scope, "Project")
        if p.name != SYSTEM_PROJECT
    }


def _budgets(scope: Scope) -> dict[str, Any]:
    """Those that gateways hold back for."""
    return {
        b.uid: {"name": b.name, "project": b.project, "units": units, "currency": b.spec["currency"]}
        for b in _living(scope, "Budget")
        if (units := _gateway_units(b))
    }


def _gateway_units(budget: Resource) -> list[str]:
    """What a gateway reserves of the budget; accelerator-hours are charged at the centre."""
    return [unit for unit in ("tokens", "money") if budget.spec[unit] is not None]


def _living(scope: Scope, kind: str) -> list[Resource]:
    return [r for r in scope.find_all(kind) if not r.is_deleting]
