"""Who may call what, as the server last told: kept in memory for every request and in a file for a restart.

The gateway long-polls the server for it. With the server gone it works on with what it has, for as long as it must;
keys still expire on time. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.core.files import write_bytes
from atoll.serving.gateway.upstream import Client, Origin, Patience, fetch

log = logging.getLogger(__name__)

POLL_WAIT_S = 20
UNCHANGED_PAUSE_S = 0.02  # should a server not wait at all
BACK_OFF_FIRST_S = 0.2
BACK_OFF_LONGEST_S = 5.0
DIGESTS_MAX = 10_000
SECRET_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may do. `models` None means every model of its project."""

    id: str
    project: str
    expires_at: float | None
    models: frozenset[str] | None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


class Replica:
    """One running copy of a model and this gateway's view of its load. Lives on when a new snapshot still has it."""

    __slots__ = ("broken_until", "failures", "heads", "id", "origin", "outstanding", "secret", "slots", "url", "weight")

    def __init__(self, id: str, url: str, secret: str) -> None:
        self.id = id
        self.url = url
        self.secret = secret
        self.origin = Origin(url)
        self.heads: dict[str, bytes] = {}
        self.weight = 1.0
        self.slots = 1
        self.outstanding = 0
        self.failures = 0
        self.broken_until = 0.0

    def head(self, path: str) -> bytes:
        """The request head up to the length of the body, for `path` below the replica's address."""
        head = self.heads.get(path)
        if head is None:
            prefix = self.url.split("://", 1)[1].partition("/")[2].rstrip("/")
            where = f"/{prefix}{path}" if prefix else path
            head = self.heads[path] = (
                b"POST %b HTTP/1.1\r\nhost: %b\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n"
                % (where.encode(), self.origin.authority, self.secret.encode())
            )
        return head


@dataclass(frozen=True, slots=True)
class Model:
    """A name requests may carry, and who serves it."""

    name: str
    deployment: str
    kind: str
    created: int
    version: str
    context: int
    replicas: tuple[Replica, ...]
    reason: str
    price: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one gateway lets in. None is unbounded."""

    body_bytes_max: int = 32 * 1024 * 1024
    requests_per_key_max: int | None = None
    requests_queued_max: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the hot path looks up, by key digest and by project and name."""

    seen: int
    keys: Mapping[str, Key]
    models: Mapping[str, Mapping[str, Model]]
    bounds: Bounds

    @property
    def replicas(self) -> set[Replica]:
        return {r for models in self.models.values() for model in models.values() for r in model.replicas}


NOTHING = Snapshot(0, {}, {}, Bounds())


def read_snapshot(data: bytes, known: Mapping[tuple[str, str, str], Replica]) -> Snapshot:
    """The snapshot in the server's JSON, with the replicas already `known` taken over. Raises Invalid."""
    try:
        raw = orjson.loads(data)
        keys = {digest: _key(fields) for digest, fields in raw["keys"].items()}
        models = {
            project: {name: _model(name, fields, known) for name, fields in entries.items()}
            for project, entries in raw["models"].items()
        }
        return Snapshot(int(raw["seen"]), keys, models, _bounds(raw.get("limits") or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"the server's snapshot cannot be read: {error!r}") from error


def _key(fields: dict[str, Any]) -> Key:
    expires_at, models = fields.get("expires_at"), fields.get("models")
    return Key(
        str(fields["id"]),
        str(fields["project"]),
        None if expires_at is None else float(expires_at),
        None if models is None else frozenset(models),
    )


def _model(name: str, fields: dict[str, Any], known: Mapping[tuple[str, str, str], Replica]) -> Model:
    return Model(
        name=name,
        deployment=str(fields["deployment"]),
        kind=str(fields.get("kind") or "chat"),
        created=int(fields.get("created") or 0),
        version=str(fields.get("version") or ""),
        context=int(fields.get("context") or 0),
        replicas=_replicas(fields.get("replicas") or (), known),
        reason=str(fields.get("reason") or ""),
        price=fields.get("price"),
    )


def _replicas(entries: Iterable[dict[str, Any]], known: Mapping[tuple[str, str, str], Replica]) -> tuple[Replica, ...]:
    """The usable ones: a replica with an impossible address must not keep all others from being updated."""
    replicas = []
    for entry in entries:
        try:
            replicas.append(_replica(entry, known))
        except Invalid as error:
            log.error("replica %r is not used: %s", entry.get("id"), error)
    return tuple(replicas)


def _replica(fields: dict[str, Any], known: Mapping[tuple[str, str, str], Replica]) -> Replica:
    identity = (str(fields["id"]), str(fields["url"]), str(fields.get("api_key") or ""))
    replica = known.get(identity) or Replica(*identity)
    replica.weight = max(float(fields.get("weight") or 1.0), 1e-6)
    replica.slots = max(int(fields.get("slots") or 1), 1)
    return replica


def _bounds(fields: dict[str, Any]) -> Bounds:
    given = {name: int(fields[name]) for name in Bounds.__slots__ if fields.get(name) is not None}
    return Bounds(**given)


class Directory:
    """The snapshot in force; `follow` keeps it fresh, `find_key` looks a key up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: dict[bytes, str] = {}
        self.snapshot = NOTHING
        self.origin_of_snapshot = "none"
        self.is_server_reachable = False
        self.was_server_reached = False

    def load(self) -> None:
        """Take the snapshot of an earlier run, if there is a good one."""
        try:
            self.snapshot = read_snapshot(self._path.read_bytes(), {})
        except FileNotFoundError:
            return
        except Invalid as error:
            log.error("%s is not used: %s", self._path, error)
            return
        self.origin_of_snapshot = "file"

    def find_key(self, secret: bytes) -> Key | None:
        """The key with this secret, unless it has expired."""
        digest = self._digests.get(secret)
        if digest is None:
            if len(secret) > SECRET_BYTES_MAX:
                return None
            if len(self._digests) >= DIGESTS_MAX:
                self._digests.clear()
            digest = self._digests[secret] = hashlib.sha256(secret).hexdigest()
        key = self.snapshot.keys.get(digest)
        if key is None or (key.expires_at is not None and key.expires_at <= time.time()):
            return None
        return key

    async def follow(self, client: Client, server: Origin, secret: str) -> None:
        """Long-poll the server for ever."""
        back_off_s = BACK_OFF_FIRST_S
        while True:
            try:
                await self._poll(client, server, secret)
                back_off_s = BACK_OFF_FIRST_S
            except AtollError as error:
                if self.is_server_reachable or not self.was_server_reached:
                    log.warning("no snapshot from the server: %s", error)
                self.is_server_reachable = False
                await asyncio.sleep(back_off_s)
                back_off_s = min(back_off_s * 2, BACK_OFF_LONGEST_S)

    async def _poll(self, client: Client, server: Origin, secret: str) -> None:
        """Ask once; whoever lost sight of the server asks for everything anew, whatever numbers it had."""
        seen = self.snapshot.seen if self.is_server_reachable else 0
        request = (
            f"GET /api/v1/gateway/snapshot?seen={seen}&wait_s={POLL_WAIT_S if seen else 0} HTTP/1.1\r\n"
            f"host: {server.authority.decode()}\r\nauthorization: Bearer {secret}\r\n\r\n"
        ).encode()
        answer = await fetch(client, server, request, Patience(first_byte_s=POLL_WAIT_S + 10.0, idle_s=30.0))
        self.was_server_reached = True
        if answer.status != 200:
            raise Invalid(f"the server answered {answer.status}: {answer.body[:200].decode(errors='replace')}")
        fresh = read_snapshot(answer.body, {(r.id, r.url, r.secret): r for r in self.snapshot.replicas})
        self.is_server_reachable = True
        if fresh.seen != seen:
            await self._adopt(fresh, answer.body)
        else:
            await asyncio.sleep(UNCHANGED_PAUSE_S)

    async def _adopt(self, fresh: Snapshot, data: bytes) -> None:
        gone = self.snapshot.replicas - fresh.replicas
        self.snapshot, self.origin_of_snapshot = fresh, "fresh"
        for replica in gone:
            replica.origin.close()
        try:
            await asyncio.to_thread(write_bytes, self._path, data, mode=0o600)
        except (OSError, AtollError) as error:
            log.error("the snapshot is in use but could not be kept for a restart: %s", error)
