"""A centre for one agent under test: a real HTTP server that speaks the agent's protocol, and remembers."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from atoll.compute.runtime.contact import contact_path
from atoll.compute.runtime.shim import Contact
from fault.compute.life import unique, until

KEY = "sk-test"


class Peer:
    """`want`, `stop` and `drop` change what the agent is told; `latest` and `history` are what it told.

    It answers a sync within `answer_within_s` if that is less than the agent would wait: contact is that fresh.
    """

    def __init__(self, lease_ttl_s: float = 60.0, answer_within_s: float = float("inf")) -> None:
        self.lease_ttl_s = lease_ttl_s
        self.answer_within_s = answer_within_s
        self.wanted: dict[str, dict[str, Any]] = {}
        self.latest: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[float, str, str]] = []
        self.registrations: list[dict[str, Any]] = []
        self.syncs: list[dict[str, Any]] = []
        self.forget: set[str] = set()
        self.forget_workloads: set[str] = set()
        self.forgets_unknown = False
        self.demands: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, dict[str, Any]] = {}
        self.refusal: tuple[int, str] | None = None
        self._changed = threading.Condition()
        self._is_open = False
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))  # never listens: keeps the port from others while nobody serves there
        self._port = self._place.getsockname()[1]
        self.open()

    # -- what the test does -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        peer = self

        class Handler(_Handler):
            centre = peer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                """Agents are killed in the middle of requests here."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._is_open = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and break every connection."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def leave(self) -> None:
        """Close for good."""
        if self._is_open:
            self.close()
        self._place.close()

    def want(self, *command: str, **fields: Any) -> str:
        """A new task for the node; its uid."""
        uid = fields.pop("uid", None) or unique()
        task = {"epoch": 1, "workload_uid": f"w-{uid}", "workload": "job", "role": "worker", "index": 0, "rank": 0}
        more = {"world_size": 1, "env": {}, "input": {}, "resources": {"cpu": 1.0}, "stop_grace_s": 60, "stop": False}
        with self._changed:
            self.wanted[uid] = {"uid": uid, "project": "default", **task, **more, "command": list(command), **fields}
            self._changed.notify_all()
        return uid

    def stop(self, uid: str) -> None:
        with self._changed:
            self.wanted[uid] = {**self.wanted[uid], "stop": True}
            self._changed.notify_all()

    def drop(self, *uids: str, forget: bool = False, workloads: bool = False) -> None:
        """Want `uids` no more, and let them be forgotten."""
        with self._changed:
            for uid in uids:
                task = self.wanted.pop(uid, {})
                self.forget |= {uid} if forget else set()
                self.forget_workloads |= {task["workload_uid"]} if workloads and task else set()
            self._changed.notify_all()

    def demand(self, uid: str, offset: int, limit_bytes: int) -> dict[str, Any]:
        """Ask for a piece of log, and wait for it."""
        name = unique()
        with self._changed:
            self.demands[name] = {"id": name, "uid": uid, "offset": offset, "limit_bytes": limit_bytes}
            self._changed.notify_all()
        answer = until(lambda: self.logs.get(name), what="the log")
        return {**answer, "data": base64.b64decode(answer["data"])}

    def reaches(self, uid: str, state: str, within_s: float = 60.0) -> dict[str, Any]:
        """The agent's report of `uid` once it says `state`."""

        def look() -> dict[str, Any] | None:
            report = self.latest.get(uid)
            return report if report is not None and report["state"] == state else None

        report = until(look, within_s, f"{uid} {state}, but is {self.latest.get(uid)}")
        assert report is not None
        return report

    # -- what the agent gets ------------------------------------------------------------------------------------

    def answer(self, path: str, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        if key != f"Bearer {KEY}":
            return 401, _error("unauthorized", "the key is wrong")
        if self.refusal is not None:
            return self.refusal[0], _error(self.refusal[1], f"refused: {self.refusal[1]}")
        if path == "/api/v1/agent/register":
            with self._changed:
                self.registrations.append(body)
            return 200, {"node_uid": "n1", "lease_ttl_s": self.lease_ttl_s, "blobs": "file:///blobs"}
        if path == "/api/v1/agent/logs":
            with self._changed:
                self.demands.pop(body["id"], None)
                self.logs[body["id"]] = body
            return 200, {}
        return 200, self._sync(body)

    def _sync(self, body: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + min(body["wait_s"], self.answer_within_s)
        with self._changed:
            self.syncs.append(body)
            if self.forgets_unknown:
                self.forget_workloads |= set(body["works"]) - {task["workload_uid"] for task in self.wanted.values()}
            for report in body["observed"]:
                self.latest[report["uid"]] = report
                self.history.append((time.monotonic(), report["uid"], report["state"]))
            while True:
                tasks = list(self.wanted.values())
                seen = zlib.crc32(json.dumps(tasks).encode()) or 1
                forget = sorted(self.forget)
                is_news = seen != body["seen"] or body["observed"] or self.demands or forget
                left_s = deadline - time.monotonic()
                if is_news or left_s <= 0 or not self._is_open:
                    self.forget.clear()
                    workloads, self.forget_workloads = sorted(self.forget_workloads), set()
                    logs = list(self.demands.values())
                    told = {"seen": seen, "tasks": tasks, "lease_ttl_s": self.lease_ttl_s, "logs": logs}
                    return told | {"forget": forget, "forget_workloads": workloads}
                self._changed.wait(left_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    centre: Peer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, value = self.centre.answer(self.path, body, self.headers.get("Authorization", ""))
        if not self.centre._is_open:
            self.close_connection = True
            return
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": "", "details": {}}}


class AgentProcess:
    """An agent as a process, which tests kill, stop and start again on one home."""

    def __init__(self, home: Path, peer: Peer, *options: str) -> None:
        self.home, self.peer, self.options = home, peer, options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def tasks(self) -> Path:
        return self.home / "agent" / "tasks"

    @property
    def contact(self) -> Path:
        """Its contact file."""
        return contact_path(self.home / "agent")

    @property
    def contact_s(self) -> float:
        """The last contact it noted, on the clock of sleeping machines."""
        return self.contact.stat().st_mtime_ns / 1e9

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, **options: Any) -> AgentProcess:
        command = [sys.executable, "-m", "atoll.compute.agent.main", "--home", str(self.home), "--join", self.peer.url]
        env = {**os.environ, "ATOLL_SYSTEM_KEY": KEY, **options.pop("env", {})}
        self.home.mkdir(exist_ok=True)
        with (self.home / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--node", "n1", *self.options], env=env, stdout=log, stderr=log, **options
            )
        return self

    def joined(self) -> AgentProcess:
        """Wait until it has told all it has."""
        before = len(self.peer.registrations)
        self.start()
        until(lambda: len(self.peer.registrations) > before and self.peer.syncs, what=self.words())
        return self

    def shorten_lease(self, ttl_s: float) -> None:
        """Only now, so that a slow start of a task costs no lease. The peer must answer soon: old contact is stale."""
        assert self.peer.answer_within_s <= 0.5
        self.peer.lease_ttl_s = ttl_s
        until(lambda: Contact(str(self.contact)).lease_ttl_s == ttl_s, what="the shorter lease")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self, within_s: float = 60.0) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within_s)

    def ends(self, within_s: float = 60.0) -> int:
        """Its exit code, when it ends by itself."""
        assert self.process is not None
        return self.process.wait(within_s)

    def words(self) -> str:
        """What it logged."""
        path = self.home / "agent.log"
        return path.read_text() if path.exists() else ""
