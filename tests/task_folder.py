"""A task directory, as an agent would prepare it, and the engine run in it as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """One task of `module`; folders for blobs and cache lie beside it."""

    root: Path
    module: str

    @property
    def path(self) -> Path:
        return self.root / "task"

    @property
    def store(self) -> BlobStore:
        return BlobStore(str(self.root / "blobs"))

    @property
    def environment(self) -> dict[str, str]:
        folders = {
            "ATOLL_TASK_DIR": self.path,
            "ATOLL_BLOBS": self.root / "blobs",
            "ATOLL_CACHE": self.root / "cache",
            "ATOLL_WORK": self.root / "work",
        }
        return os.environ | {name: str(path) for name, path in folders.items()}

    def prepare(self, task_input: dict[str, Any], **task: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "endpoint.json", "progress.json"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / "input.json").write_text(json.dumps(task_input))
        (self.path / "task.json").write_text(json.dumps({"input": task_input, **task}))

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the engine; its output goes to output.log."""
        with (self.path / "output.log").open("ab") as log:
            command = [sys.executable, "-W", "error", "-m", self.module]
            settings = self.environment | environment
            return subprocess.Popen(command, cwd=self.path, env=settings, stdout=log, stderr=log)

    def run(
        self, task_input: dict[str, Any], timeout_s: float = 180.0, **environment: str
    ) -> tuple[int, dict[str, Any]]:
        """Run the engine to its end; its exit code and result (empty when it left none)."""
        self.prepare(task_input)
        with self.start(**environment) as process:
            code = process.wait(timeout_s)
        return code, self.read("result.json") or {}

    def read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def log(self) -> str:
        return (self.path / "output.log").read_text(errors="replace")
