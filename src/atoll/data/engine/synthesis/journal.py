"""The journal of a synthesis: every answer of a model, on disk before it counts.

After a kill the whole lines are found again and a torn last one is cut off. Memory holds only where each answer is.
A journal belongs to one input; one of another input is begun anew.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import orjson

from atoll.core.files import disk_full_named
from atoll.data.engine.synthesis.answers import Said


class Journal:
    """The journal at `path`, of one process; safe for its threads. `fingerprint` names the input."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._end = 0
        self.tokens = 0
        self._file = path.open("a+b")
        if not self._load(fingerprint):
            self._begin(fingerprint)

    def said(self, target: int) -> dict[str, Said]:
        """What was said for a target so far, by step."""
        with self._lock:
            places = list(self._places.get(target, ()))
        found: dict[str, Said] = {}
        for start, length in places:
            entry = orjson.loads(os.pread(self._file.fileno(), length, start))
            found[entry["step"]] = Said(*(entry[name] for name in ("status", "text", "finish", "tokens")))
        return found

    def add(self, target: int, step: str, said: Said) -> None:
        """Keep an answer; durable on return."""
        entry = {"target": target, "step": step, "status": said.status, "text": said.text}
        line = orjson.dumps(entry | {"finish": said.finish, "tokens": said.tokens}) + b"\n"
        with self._lock, disk_full_named(self._path):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._note(target, len(line), said.tokens)

    def close(self) -> None:
        self._file.close()

    def _note(self, target: int, length: int, tokens: int) -> None:
        self._places.setdefault(target, []).append((self._end, length))
        self._end += length
        self.tokens += tokens

    def _load(self, fingerprint: str) -> bool:
        """Find the whole lines again; False when they are of another input."""
        self._file.seek(0)
        for number, line in enumerate(self._file):
            entry = _entry(line)
            if number == 0:
                if entry is None or entry.get("fingerprint") != fingerprint:
                    return False
                self._end = len(line)
            elif entry is None:
                break
            else:
                self._note(entry["target"], len(line), entry["tokens"])
        self._file.truncate(self._end)
        return self._end > 0

    def _begin(self, fingerprint: str) -> None:
        with disk_full_named(self._path):
            self._file.truncate(0)
            line = orjson.dumps({"fingerprint": fingerprint}) + b"\n"
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        self._end = len(line)


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a whole line; None for a torn one."""
    try:
        value = orjson.loads(line) if line.endswith(b"\n") else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
