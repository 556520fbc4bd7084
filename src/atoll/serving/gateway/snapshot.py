"""Who may call what, as the server last told: keys, projects, budgets, models, their targets and replicas.

Read from the server's JSON entry by entry: one that makes no sense is left out and named in the log, so that it never
keeps the others from being updated. Replicas live on over snapshots, with this gateway's view of their load. Knows
nothing of requests, files or sockets beyond a replica's address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeVar

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.governance.prices import Tariff, read_tariff
from atoll.serving.fairness import NORMAL, PRIORITIES
from atoll.serving.gateway.limits import Rates, read_rates
from atoll.serving.gateway.slices import BudgetFacts
from atoll.serving.gateway.upstream import Origin

log = logging.getLogger(__name__)

UNBOUNDED_SLOTS = 1 << 30
ADDRESSES_KNOWN_MAX = 4096
Network = IPv4Network | IPv6Network
ReplicaName = tuple[str, str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """What a key may do. `models` None means every model of its projects, `addresses` None every client address."""

    id: str
    project: str
    projects: frozenset[str]
    expires_at: float | None
    models: frozenset[str] | None
    addresses: tuple[Network, ...] | None = None
    limits: Rates | None = None
    priority: int = NORMAL
    budgets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _known_addresses: dict[str, bool] = field(default_factory=dict)

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def may_come_from(self, address: str) -> bool:
        """Whether the address of the socket's other end is on the key's list."""
        if self.addresses is None:
            return True
        known = self._known_addresses.get(address)
        if known is None:
            if len(self._known_addresses) >= ADDRESSES_KNOWN_MAX:
                self._known_addresses.clear()
            known = self._known_addresses[address] = _is_within(address, self.addresses)
        return known


def _is_within(address: str, networks: Iterable[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


class Replica:
    """One running copy of a model and this gateway's view of its load. Lives on when a new snapshot still has it."""

    __slots__ = (
        "broken_until",
        "failures",
        "header",
        "heads",
        "id",
        "origin",
        "outstanding",
        "secret",
        "slots",
        "url",
        "weight",
    )

    def __init__(self, id: str, url: str, secret: str) -> None:
        self.id = id
        self.url = url
        self.secret = secret
        self.origin = Origin(url)
        self.header = id.encode("ascii", "replace").translate(None, b"\r\n")
        self.heads: dict[str, bytes] = {}
        self.weight = 1.0
        self.slots = UNBOUNDED_SLOTS
        self.outstanding = 0
        self.failures = 0
        self.broken_until = 0.0

    def head(self, path: str, method: bytes = b"POST") -> bytes:
        """The request head up to the length of the body, for `path` below the replica's address.

        An address that ends in a version (a provider's /v1) takes the place of the one in `path`.
        """
        if method != b"POST":
            return self._head(path, method)
        head = self.heads.get(path)
        if head is None:
            head = self.heads[path] = self._head(path, method)
        return head

    def _head(self, path: str, method: bytes) -> bytes:
        prefix = self.url.split("://", 1)[1].partition("/")[2].rstrip("/")
        rest = path.removeprefix("/v1") if prefix.rpartition("/")[2] == "v1" else path
        where = f"/{prefix}{rest}" if prefix else path
        key = b"authorization: Bearer %b\r\n" % self.secret.encode() if self.secret else b""
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%bcontent-type: application/json\r\n"
        return head % (method, where.encode(), self.origin.authority, key)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A deployment or a provider that answers for a model."""

    id: str
    name: str
    weight: float
    engine: str
    model: str | None
    adapter: int | None
    version: str
    context: int
    capabilities: frozenset[str]
    price: dict[str, Any] | None
    tariff: Tariff | None  # of the price; None is free
    progress: dict[str, Any] | None
    replicas: tuple[Replica, ...]
    route: bytes = b""  # header line that names it

    @property
    def is_provider(self) -> bool:
        return self.engine == "openai"


@dataclass(frozen=True, slots=True)
class Hold:
    """How many requests may wait for a model, and how long."""

    queue_max: int
    wait_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A name requests may carry, and who serves it."""

    name: str
    kind: str
    created: int
    version: str
    context: int
    reason: str
    affinity: str
    hold: Hold | None
    fallback: tuple[str, ...]
    hedge_s: float | None
    owner: str
    targets: tuple[Target, ...]
    tariffs: tuple[Tariff, ...]  # what its targets may cost

    @property
    def identity(self) -> tuple[str, str]:
        """The same for everybody it is shared with."""
        return self.owner, self.name

    @property
    def is_ready(self) -> bool:
        return any(target.replicas for target in self.targets)


@dataclass(frozen=True, slots=True)
class Project:
    """What holds for all keys of a project together; `weight` is its share where requests wait."""

    limits: Rates | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one gateway lets in. None is unbounded."""

    body_bytes_max: int = 32 * 1024 * 1024
    requests_per_key_max: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the hot path looks up, by key digest and by project and name."""

    seen: int
    keys: Mapping[str, Key]
    projects: Mapping[str, Project]
    budgets: Mapping[str, BudgetFacts]
    models: Mapping[str, Mapping[str, Model]]
    hosts: int
    bounds: Bounds

    @property
    def replicas(self) -> set[Replica]:
        return {
            replica
            for models in self.models.values()
            for model in models.values()
            for target in model.targets
            for replica in target.replicas
        }


NOTHING = Snapshot(0, {}, {}, {}, {}, 1, Bounds())
NO_PROJECT = Project()


def read_snapshot(data: bytes, known: Mapping[ReplicaName, Replica]) -> Snapshot:
    """The snapshot in the server's JSON, with the replicas already `known` taken over. Raises Invalid."""
    try:
        raw = orjson.loads(data)
        replicas = dict(known)
        models = {
            str(project): _each(entries, lambda name, fields: _model(name, fields, replicas), "model")
            for project, entries in raw["models"].items()
        }
        return Snapshot(
            seen=int(raw["seen"]),
            keys=_each(raw["keys"], _key, "key"),
            projects=_each(raw.get("projects") or {}, _project, "project"),
            budgets=_each(raw.get("budgets") or {}, _budget, "budget"),
            models=models,
            hosts=max(int(raw.get("gateways") or 1), 1),
            bounds=_bounds(raw.get("limits") or {}),
        )
    except _UNREADABLE as error:
        raise Invalid(f"the server's snapshot cannot be read: {error!r}") from error


_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


def _each(entries: Mapping[str, Any], read: Callable[[str, Any], T], what: str) -> dict[str, T]:
    """The entries that can be read; the others are named in the log."""
    found = {}
    for name, fields in entries.items():
        try:
            found[name] = read(name, fields)
        except (*_UNREADABLE, AtollError) as error:
            log.error("%s %r is not used: %r", what, _id_of(fields, name), error)
    return found


def _id_of(fields: Any, otherwise: str = "?") -> str:
    """How to name an entry that may be anything."""
    return str(fields.get("id") or otherwise) if isinstance(fields, dict) else otherwise


def _key(_digest: str, fields: dict[str, Any]) -> Key:
    expires_at, models, addresses = fields.get("expires_at"), fields.get("models"), fields.get("addresses")
    project = str(fields["project"])
    budgets = {str(name): tuple(map(str, path)) for name, path in (fields.get("budgets") or {}).items()}
    return Key(
        id=str(fields["id"]),
        project=project,
        projects=frozenset(map(str, fields.get("projects") or ())) | {project},
        expires_at=None if expires_at is None else float(expires_at),
        models=None if models is None else frozenset(models),
        addresses=None if addresses is None else tuple(ip_network(a, strict=False) for a in addresses),
        limits=read_rates(fields.get("limits")),
        priority=PRIORITIES[fields.get("priority") or "normal"],
        budgets=budgets,
    )


def _project(_name: str, fields: dict[str, Any]) -> Project:
    weight = fields.get("weight")
    return Project(read_rates(fields.get("limits")), 1.0 if weight is None else float(weight))


def _budget(uid: str, fields: dict[str, Any]) -> BudgetFacts:
    units = frozenset(map(str, fields["units"]))
    return BudgetFacts(uid, str(fields["name"]), str(fields["project"]), units, str(fields.get("currency") or ""))


def _model(name: str, fields: dict[str, Any], known: dict[ReplicaName, Replica]) -> Model:
    hold, hedge_s = fields.get("hold"), fields.get("hedge_s")
    targets = tuple(_target(name, entry, known) for entry in fields.get("targets") or ())
    return Model(
        name=name,
        kind=str(fields.get("kind") or "chat"),
        created=int(fields.get("created") or 0),
        version=str(fields.get("version") or ""),
        context=int(fields.get("context") or 0),
        reason=str(fields.get("reason") or ""),
        affinity=str(fields.get("affinity") or "none"),
        hold=None if hold is None else Hold(int(hold["queue_max"]), float(hold["wait_s"])),
        fallback=tuple(map(str, fields.get("fallback") or ())),
        hedge_s=None if hedge_s is None else float(hedge_s),
        owner=str(fields.get("owner") or ""),
        targets=targets,
        tariffs=tuple(target.tariff for target in targets if target.tariff),
    )


def _target(model: str, fields: dict[str, Any], known: dict[ReplicaName, Replica]) -> Target:
    name, weight, adapter = str(fields["name"]), fields.get("weight"), fields.get("adapter")
    price, upstream, parallel = fields.get("price"), fields.get("model"), fields.get("parallel")
    slots = UNBOUNDED_SLOTS if parallel is None else max(int(parallel), 1)
    route = f"{model} > {name}".encode("ascii", "replace").translate(None, b"\r\n")
    return Target(
        id=str(fields["id"]),
        name=name,
        weight=1.0 if weight is None else max(float(weight), 0.0),
        engine=str(fields.get("engine") or "llamacpp"),
        model=None if upstream is None else str(upstream),
        adapter=None if adapter is None else int(adapter),
        version=str(fields.get("version") or ""),
        context=int(fields.get("context") or 0),
        capabilities=frozenset(map(str, fields.get("capabilities") or ())),
        price=price,
        tariff=read_tariff(price) if price else None,
        progress=fields.get("progress"),
        replicas=_replicas(fields.get("replicas") or (), slots, known),
        route=b"x-atoll-route: %b\r\n" % route,
    )


def _replicas(
    entries: Iterable[dict[str, Any]], slots_max: int, known: dict[ReplicaName, Replica]
) -> tuple[Replica, ...]:
    """The usable ones: a replica with an impossible address must not keep all others from being updated."""
    replicas = []
    for entry in entries:
        try:
            replicas.append(_replica(entry, slots_max, known))
        except (*_UNREADABLE, Invalid) as error:
            log.error("replica %r is not used: %s", _id_of(entry), error)
    return tuple(replicas)


def _replica(fields: dict[str, Any], slots_max: int, known: dict[ReplicaName, Replica]) -> Replica:
    identity = (str(fields["id"]), str(fields["url"]), str(fields.get("api_key") or ""))
    replica = known.get(identity)
    if replica is None:
        replica = known[identity] = Replica(*identity)
    weight, slots = fields.get("weight"), fields.get("slots")
    replica.weight = 1.0 if weight is None else max(float(weight), 1e-6)
    replica.slots = min(UNBOUNDED_SLOTS if slots is None else max(int(slots), 1), slots_max)
    return replica


def _bounds(fields: dict[str, Any]) -> Bounds:
    given = {name: int(fields[name]) for name in Bounds.__slots__ if fields.get(name) is not None}
    return Bounds(**given)
