"""A tiny server role for the gateway's tests: hands out a snapshot, takes usage, answers what is proxied to it."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from integration.gateway.ledger import Ledger
from ports import free_port

SYSTEM_KEY = "system-key"


_OF_TARGETS = frozenset(("engine", "adapter", "capabilities", "price", "progress", "parallel", "weight"))


def target_of(name: str, urls: list[str], **fields: Any) -> dict[str, Any]:
    """A target of a model, as the snapshot carries it."""
    replicas = [{"id": f"{name}-{i}", "url": url, "api_key": "engine-key", "weight": 1} for i, url in enumerate(urls)]
    return {
        "id": f"dep-{name}",
        "name": name,
        "weight": 1.0,
        "engine": "llamacpp",
        "model": None,
        "adapter": None,
        "version": "1",
        "context": 512,
        "capabilities": ["chat", "completion", "prefill", "timings"],
        "price": None,
        "progress": None,
        "parallel": None,
        "replicas": replicas,
    } | fields


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Control:
    """Start, change `snapshot` with `publish`, look at `usage`; `stop` and `start` again on the same port."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.changed = threading.Condition()
        self.snapshot: dict[str, Any] = {
            "seen": 1,
            "keys": {},
            "projects": {},
            "budgets": {},
            "models": {},
            "gateways": 1,
            "limits": {},
        }
        self.ledger = Ledger()
        self.loads: list[dict[str, Any]] = []
        self.usage: dict[tuple[str, int], dict[str, Any]] = {}
        self.batches = 0
        self.doubles = 0
        self.loses_confirmations = 0
        self.bodies: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler, bytes], None]] = {}
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Control:
        control = self

        class Handler(_Handler):
            owner = control

        class Http(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.port = self.port or free_port()
        self._http = Http(("127.0.0.1", self.port), Handler)
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Gone, as after kill -9: no listener, no connections."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
        for connection in list(self._sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def add_key(self, key: str, id: str = "key-1", project: str = "default", **fields: Any) -> None:
        entry = {
            "id": id,
            "project": project,
            "projects": [project],
            "name": id,
            "role": "developer",
            "expires_at": None,
            "models": None,
            "addresses": None,
            "limits": None,
            "priority": "normal",
            "budgets": {},
        }
        self.snapshot["keys"][digest(key)] = entry | fields

    def add_budget(self, uid: str, available: dict[str, int], project: str = "default", currency: str = "EUR") -> None:
        """A budget with so much of each unit."""
        self.snapshot["budgets"][uid] = {
            "name": f"budget-{uid}",
            "project": project,
            "units": list(available),
            "currency": currency,
        }
        self.ledger.fund(uid, available)

    def add_model(self, name: str, urls: list[str], project: str = "default", **fields: Any) -> None:
        """A model with one deployment of its name; fields of its target go to that."""
        target = target_of(name, urls) | {name: fields.pop(name) for name in list(fields) if name in _OF_TARGETS}
        if "slots" in fields:
            slots = fields.pop("slots")
            target["replicas"] = [replica | {"slots": slots} for replica in target["replicas"]]
        entry = {
            "version": "1",
            "created": 1700000000,
            "kind": "chat",
            "context": 512,
            "reason": "" if urls else "replicas are starting",
            "affinity": "prefix",
            "hold": None,
            "fallback": [],
            "hedge_s": None,
            "owner": project,
            "targets": [target],
        }
        self.snapshot["models"].setdefault(project, {})[name] = entry | fields

    def publish(self) -> None:
        """Let waiting gateways see the changed snapshot."""
        with self.changed:
            self.snapshot["seen"] += 1
            self.changed.notify_all()

    def take_usage(self, batch: dict[str, Any]) -> int:
        with self.changed:
            self.batches += 1
            for record in batch["records"]:
                identity = (batch["source"], record["seq"])
                if identity in self.usage:
                    self.doubles += 1
                    assert self.usage[identity] == record, "a number was used twice"
                    continue
                self.usage[identity] = record
                self.ledger.settle(batch["source"], record)
            self.changed.notify_all()
        return max(record["seq"] for record in batch["records"])

    def wait_for_usage(self, count: int, within_s: float = 60.0) -> list[dict[str, Any]]:
        """The records once there are `count`, in order."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.usage) >= count, within_s), f"{len(self.usage)} of {count}"
            return [self.usage[identity] for identity in sorted(self.usage, key=lambda i: i[1])]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Control

    def setup(self) -> None:
        super().setup()
        self.owner._sockets.add(self.connection)

    def finish(self) -> None:
        self.owner._sockets.discard(self.connection)
        try:
            super().finish()
        except OSError:
            return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        if self.path == "/early":
            self.reply(413, b"{}")
            return
        body = self._read_body()
        path, _, query = self.path.partition("?")
        owner = self.owner
        owner.requests.append((self.command, self.path, dict(self.headers.items())))
        owner.bodies[path] = body
        if path in owner.routes:
            owner.routes[path](self, body)
        elif path.startswith("/api/v1/gateway/") and self.headers.get("authorization") != f"Bearer {SYSTEM_KEY}":
            self.reply(401, b'{"code":"unauthorized"}')
        elif path == "/api/v1/gateway/snapshot":
            self.reply(200, self._wait_snapshot(dict(part.split("=") for part in query.split("&"))))
        elif path == "/api/v1/gateway/slices":
            self.reply(200, json.dumps(owner.ledger.lease(json.loads(body))).encode())
        elif path == "/api/v1/gateway/load":
            with owner.changed:
                owner.loads.append(json.loads(body))
                owner.changed.notify_all()
            self.reply(200, b"{}")
        elif path == "/api/v1/gateway/usage":
            acknowledged = owner.take_usage(json.loads(body))
            if owner.loses_confirmations > 0:
                owner.loses_confirmations -= 1
                self.close_connection = True
                return
            self.reply(200, json.dumps({"acknowledged": acknowledged}).encode())
        else:
            self.reply(200, json.dumps({"method": self.command, "path": self.path, "bytes": len(body)}).encode())

    def _wait_snapshot(self, query: dict[str, str]) -> bytes:
        owner, seen = self.owner, int(query["seen"])
        with owner.changed:
            owner.changed.wait_for(
                lambda: owner.snapshot["seen"] != seen or owner._http is None, float(query["wait_s"])
            )
            return json.dumps(owner.snapshot).encode()

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _serve


def wait_until(claim: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """Return once the claim holds; fail naming it when it does not within the bound."""
    ends = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < ends, f"not within {within_s} s: {what}"
        time.sleep(0.005)
