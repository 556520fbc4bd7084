"""The journal of a batch: one line a request that is done, on disk before it counts.

After a kill the whole lines are found again and a torn last one is cut off. Results are read back in any order.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Any

import orjson

from atoll.core.files import disk_full_named


class Journal:
    """The journal at `path`, of one process; safe for its threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("a+b")
        self._done: dict[int, tuple[int, int, bool]] = {}
        self._end = 0
        self._load()

    def __contains__(self, number: int) -> bool:
        return number in self._done

    @property
    def counts(self) -> tuple[int, int]:
        """How many requests were answered well, and how many were not."""
        with self._lock:
            good = sum(is_good for _, _, is_good in self._done.values())
            return good, len(self._done) - good

    def add(self, number: int, record: dict[str, Any], *, is_good: bool) -> None:
        """Keep what request `number` came to; durable on return. The first of two counts."""
        line = orjson.dumps({"number": number, "good": is_good, "record": record}) + b"\n"
        with self._lock, disk_full_named(self._path):
            if number in self._done:
                return
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._done[number] = (self._end, len(line), is_good)
            self._end += len(line)

    def write_results(self, output: IO[bytes], error: IO[bytes]) -> tuple[int, int]:
        """Write the records in the order of their numbers, good ones to `output`; how many went to each."""
        counts = [0, 0]
        with self._lock:
            for number in sorted(self._done):
                start, length, is_good = self._done[number]
                self._file.seek(start)
                record = orjson.loads(self._file.read(length))["record"]
                (output if is_good else error).write(orjson.dumps(record) + b"\n")
                counts[not is_good] += 1
        return counts[0], counts[1]

    def close(self) -> None:
        self._file.close()

    def _load(self) -> None:
        self._file.seek(0)
        for line in self._file:
            try:
                entry = orjson.loads(line) if line.endswith(b"\n") else None
            except orjson.JSONDecodeError:
                entry = None
            if entry is None:
                break
            self._done[entry["number"]] = (self._end, len(line), entry["good"])
            self._end += len(line)
        self._file.truncate(self._end)
        self._file.seek(0, os.SEEK_END)
