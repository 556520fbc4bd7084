"""A real `atoll up` in a home of its own: started, asked, killed piece by piece, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import openai

from atoll.core.resources import Resource
from atoll.sdk import Client, resolve_credentials
from ports import free_port as free_port

T = TypeVar("T")
ATOLL = str(Path(sys.executable).with_name("atoll"))
ROLES = {
    "server": "atoll.server.main",
    "gateway": "atoll.serving.gateway.main",
    "agent": "atoll.compute.agent.main",
}

LOG_LINES = 15
"""Of each log, told when a test failed."""


def until(condition: Callable[[], T], what: str, limit_s: float = 60.0) -> T:
    """The first true value of `condition`; fails after `limit_s`, saying `what` was waited for."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}, last: {value!r}"
        time.sleep(0.05)


def processes(home: Path, needle: str) -> list[int]:
    """Pids whose command line holds `needle` and that belong to `home` by command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                around = words.encode() + (entry / "environ").read_bytes()
                if needle in words and str(home).encode() in around and state != "Z":
                    found.append(int(entry.name))
    return found


def files_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `folder` with its bytes; what others take away meanwhile is left out."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            data = None
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes() if path.is_file() else None
            if data is not None:
                yield path, data


@dataclass
class Platform:
    """One home and, while it runs, its supervisor."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _doors: list[openai.OpenAI] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ATOLL_")}
        return {**kept, "ATOLL_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def start(self) -> Platform:
        """Start, and wait until the door answers and the node is there."""
        self.launch()
        until(self._is_up, f"{self.address} to answer")
        return self

    def launch(self) -> None:
        """Start, and wait for nothing."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.log").open("ab") as log:
            command = [ATOLL, "up", "--listen", f"127.0.0.1:{self.port}"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def is_healthy(self) -> bool:
        """Whether /healthz answers well."""
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def is_answering(self) -> bool:
        """Whether the server behind the door answers, and knows a node."""
        with contextlib.suppress(Exception), self.client() as client:
            return bool(client.status()["nodes"])
        return False

    def stop(self) -> int:
        """Ctrl-C, and wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        """Whatever still runs of this home ends."""
        for door in self._doors:
            door.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        for pid in processes(self.home, ""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pid(self, role: str) -> int:
        """Process id of a role; waits for it."""
        if role == "up":
            assert self.process is not None
            return self.process.pid
        return until(lambda: processes(self.home, ROLES[role]), f"a {role} process")[0]

    def kill(self, *roles: str) -> None:
        """`kill -9`, all at once."""
        pids = [self.pid(role) for role in roles]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if "up" in roles and self.process is not None:
            self.process.wait(60)

    def client(self) -> Client:
        return Client.connect(resolve_credentials(home=self.home, environment={}))

    def openai(self, key: str = "", retries: int = 0) -> openai.OpenAI:
        """The official client at this door, closed with the platform."""
        key = key or resolve_credentials(home=self.home, environment={}).key
        door = openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, timeout=60, max_retries=retries)
        self._doors.append(door)
        return door

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one `atoll` command against this platform."""
        command = [ATOLL, *words]
        settings = {"capture_output": True, "text": True, "timeout": 120, "check": False, **options}
        return subprocess.run(command, env=self.environment, **settings)

    def read(self, kind: str, name: str) -> Resource | None:
        """The resource, None while there is none or nobody answers."""
        with contextlib.suppress(Exception), self.client() as client:
            return client.find(kind, name)
        return None

    def is_gone(self, kind: str, name: str) -> bool:
        """Whether the centre says that there is no such resource; not while nobody answers."""
        with contextlib.suppress(Exception), self.client() as client:
            return client.find(kind, name) is None
        return False

    def reaches(self, kind: str, name: str, *phases: str, limit_s: float = 180.0) -> Resource:
        """The resource once its phase is one of `phases`."""

        def reached() -> Resource | None:
            found = self.read(kind, name)
            return found if found is not None and found.phase in phases else None

        return until(reached, f"{kind} {name} to be {' or '.join(phases)}", limit_s)

    def knows(self, model: str, key: str = "", *, is_ready: bool = False) -> None:
        """Wait until the gateway lets the key use the model; it is told of all changes a moment after the server."""
        with self.openai(key, retries=3) as door:

            def is_known() -> bool:
                with contextlib.suppress(openai.AuthenticationError):
                    ready = {m.id: (m.model_extra or {})["ready"] for m in door.models.list()}
                    return model in ready and (ready[model] or not is_ready)
                return False

            until(is_known, f"the gateway to know {model}")

    def tasks(self) -> list[Resource]:
        with self.client() as client:
            return client.find_all("Task").items

    def account(self) -> str:
        """What a failed test wants to know: every task and workload as it is, and the last lines of all logs."""
        told = [f"platform at {self.home}"]
        with contextlib.suppress(Exception), self.client() as client:
            for kind in ("Deployment", "Replica", "Workload", "Task"):
                told += [_line(kind, found) for found in client.find_all(kind).items]
        for log in [self.home / "up.log", *sorted((self.home / "logs").glob("*"))]:
            with contextlib.suppress(OSError):
                told += [f"{log.name}:", *log.read_text(errors="replace").splitlines()[-LOG_LINES:]]
        return "\n".join(told)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "up.log").read_text()
        return self.is_answering()


def _line(kind: str, found: Resource) -> str:
    going = " (deleting)" if found.is_deleting else ""
    return f"{kind} {found.name}: {found.phase}{going} {found.status.get('reason', '')}"


@contextlib.contextmanager
def platform(home: Path) -> Iterator[Platform]:
    """A started platform that leaves nothing behind."""
    made = Platform(home)
    try:
        yield made.start()
    finally:
        made.close()


def counted_workload(path: Path, seconds: float = 600.0) -> dict[str, Any]:
    """A workload whose task appends a line to `path` each time it is started, then sleeps."""
    code = (
        f"import os, time; open({str(path)!r}, 'a').write(f'{{os.getpid()}}\\n'); "
        f"print('began', flush=True); time.sleep({seconds}); print('ended')"
    )
    role = {"command": ["{python}", "-c", code], "resources": {"cpu": 0.1}}
    return {"roles": [role], "restart": {"backoff_min_s": 0.1}}


def starts(path: Path) -> list[int]:
    """Pids of all starts of a counted workload."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []
