"""Documents and tasks for tests of curation."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from atoll.core.blobs import BlobStore
from atoll.data.manifest import read_manifest

WAIT_S = 120

RECIPE: dict[str, Any] = {
    "privacy": {"actions": {"email": "mask"}},
    "dedup": {"url": True, "lines": {}, "repeated_max": 0.9},
    "rules": [{"rule": "many_digits", "drop": "digit_ratio > 0.9"}],
}


def write_documents(folder: Path, count: int = 240) -> Path:
    """JSON lines with copies, near copies, shared lines, addresses, a broken line; in files of several parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(4):
        rows = [_row(number) for number in range(part * count // 4, (part + 1) * count // 4)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{part}.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    return folder


def _row(number: int) -> dict[str, str]:
    family = number - number % 5 if number % 5 == 1 else number
    words = " ".join(f"word{family * 31 + place}" for place in range(60))
    edited = f"{words} edited" if number % 5 == 1 else words
    shared = "This line stands in every one of these documents, word for word.\n" if number % 3 == 0 else ""
    address = f"\nWrite to someone{number}@lagoon-works.net about it." if number % 7 == 0 else ""
    text = "1234567890 " * 30 if number % 40 == 39 else f"{shared}Document {family} says: {edited}.{address}"
    return {"id": f"d{number:05d}", "text": text, "url": f"https://lagoon.net/{number - number % 11 % 2}"}


def task_in(folder: Path, task_input: dict[str, Any]) -> dict[str, str]:
    """A task directory with its input; the environment its engine starts with."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps(task_input))
    own = {"ATOLL_TASK_DIR": folder, "ATOLL_BLOBS": folder / "blobs", "ATOLL_WORK": folder / "work"}
    return {**os.environ, **{name: str(path) for name, path in own.items()}}


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The engine as an agent starts it, at the head of a process group."""
    command = [sys.executable, "-W", "error", "-m", "atoll.data.engine.curate.run"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, process_group=0)


def finish(folder: Path, environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Run the engine to its end; its exit code and result."""
    child = start(folder, environment)
    said = child.communicate(timeout=WAIT_S)[1]
    assert (folder / "result.json").exists(), said.decode()
    return child.returncode, json.loads((folder / "result.json").read_text())


def shards_of(folder: Path, digest: str) -> dict[str, list[str]]:
    """The digests of every shard of every split and table."""
    manifest = read_manifest(BlobStore(str(folder / "blobs")), digest)
    parts = {**manifest.splits, **manifest.tables}
    return {name: [shard.digest for shard in split.shards] for name, split in parts.items()}


def bytes_of(folder: Path) -> dict[str, str]:
    """Path to checksum of every file of a dataset in a folder, but the report and the state."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".work" not in path.parts]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "report.json"
    }
