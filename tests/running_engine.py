"""Serving engines started for real, as an agent would start them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from task_folder import TaskFolder

MODULE = "atoll.serving.engine.llamacpp"
READY_WITHIN_S = 180.0
ENDS_WITHIN_S = 60.0


def wait_until(claim: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """Return once `claim` holds; fail, naming `what`, when it does not within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Running:
    """A ready engine and its endpoint."""

    folder: TaskFolder
    process: subprocess.Popen[bytes]
    endpoint: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.endpoint["url"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.endpoint['api_key']}"}

    def client(self) -> openai.OpenAI:
        """The official client; close it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.endpoint["api_key"], max_retries=0, timeout=120.0)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(self.url + path, json=body, headers=self.headers, timeout=120.0)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def busy_slots(self) -> int:
        slots = httpx.get(f"{self.url}/slots", headers=self.headers, timeout=30.0).json()
        return sum(1 for slot in slots if slot["is_processing"])

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDS_WITHIN_S)


def serve(root: Path, model: Path, *adapters: Path, grace_s: float = 10.0, **changes: Any) -> Running:
    """Start llama.cpp on `model` and return it once it is ready."""
    folder = TaskFolder(root, MODULE)
    files = [{"name": path.name, "digest": folder.store.put_file(path).digest} for path in (model, *adapters)]
    least = {"model": files[0], "adapters": files[1:], "alias": "tiny", "context": 256, "slots": 2, "threads": 1}
    return started(folder, least | changes, grace_s)


def folder_input(folder: TaskFolder, model: Path, adapters: dict[str, Path] | None = None) -> dict[str, Any]:
    """The input that serves a folder of safetensors, and folders of adapters by their names."""
    files = _stored(folder, model)
    whole = {"model": files[0], "files": files, "format": "safetensors", "alias": "tiny", "context": 256, "slots": 2}
    parts = {name: _stored(folder, path) for name, path in (adapters or {}).items()}
    return whole | {
        "threads": 1,
        "adapters": [{"name": name, "file": files[0], "files": files} for name, files in parts.items()],
    }


def started(folder: TaskFolder, spec: dict[str, Any], grace_s: float = 10.0, **environment: str) -> Running:
    """Start the engine of `folder` and return it once it is ready."""
    folder.prepare(spec, stop_grace_s=grace_s)
    process = folder.start(**environment)
    try:
        wait_until(
            lambda: folder.read("endpoint.json") or process.poll() is not None, "the engine is ready", READY_WITHIN_S
        )
        endpoint = folder.read("endpoint.json")
        assert endpoint is not None, f"the engine ended with {process.returncode}: {folder.log}"
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Running(folder, process, endpoint)


def _stored(folder: TaskFolder, model: Path) -> list[dict[str, str]]:
    paths = sorted((path for path in model.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    return [
        {"name": str(path.relative_to(model)), "digest": folder.store.put_file(path).digest} for path in reversed(paths)
    ]
