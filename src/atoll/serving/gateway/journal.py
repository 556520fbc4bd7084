"""The usage journal: what was used, on disk before the client can know that its answer is complete.

`append` writes a record to the file at once (it survives kill -9 of this process); a background thread makes it durable
within SYNC_DELAY_S (it survives a power cut), many records per fsync. Only durable records are ever read for shipping,
so a number that reached the server is never given to another record. Records are numbered from 1 without gaps under an
identity (`source`) that belongs to the folder; a torn tail is cut off at opening and numbering goes on.

Layout: `source` (the identity), `acknowledged` (JSON, a hint: losing it only sends records again), and segments
`<first number>.journal` of frames: length u32, crc32 u32 (little endian), then the record as JSON.
One process at a time may hold the folder. A disk that is full or broken is `error`; records then wait in memory, at
most as many as there were requests in flight, because the gateway admits no new ones until writing works again.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import struct
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from atoll.core.errors import Conflict
from atoll.core.files import read_json, sync, write_bytes, write_json
from atoll.serving.gateway.recorder import Entry

log = logging.getLogger(__name__)

SEGMENT_BYTES_MAX = 16 * 1024 * 1024
SYNC_DELAY_S = 0.025
RETRY_S = 1.0
RECORD_BYTES_MAX = 64 * 1024
_FRAME = struct.Struct("<II")


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole, undamaged records at the start of `data`, each with the offset behind it."""
    at = 0
    while at + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + size]
        if not 0 < size <= RECORD_BYTES_MAX or len(payload) != size or crc32(payload) != checksum:
            return
        at += _FRAME.size + size
        yield at, payload


class Journal:
    """Open with the folder; `append` on the event loop; `read` and `acknowledge` when shipping; `close` at the end."""

    def __init__(
        self, folder: Path, *, segment_bytes_max: int = SEGMENT_BYTES_MAX, sync_delay_s: float = SYNC_DELAY_S
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = _lock(folder)
        self._segment_bytes_max = segment_bytes_max
        self._sync_delay_s = sync_delay_s
        self.source = _identity(folder)
        self.acknowledged = _stored_acknowledgement(folder)
        self._firsts = sorted(int(path.stem) for path in folder.glob("*.journal")) or [self.acknowledged + 1]
        self._file, self._size, count = _open_segment(self._path(self._firsts[-1]))
        self.written = self.durable = self._firsts[-1] + count - 1
        self.error: OSError | None = None
        self.on_durable: Callable[[], None] = lambda: None
        self._waiting: deque[tuple[bytes, Entry | None]] = deque()
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._syncing: asyncio.Task[None] | None = None
        self._next = (0, 0, 0)  # segment, offset and number of the record behind the last batch read
        if self.acknowledged > self.written:
            self._skip_to(self.acknowledged)

    # writing

    @property
    def unacknowledged(self) -> int:
        """Records the server has not confirmed."""
        return self.assigned - self.acknowledged

    @property
    def assigned(self) -> int:
        """The last number given to a record, written yet or waiting for the disk."""
        return self.written + len(self._waiting)

    def append(self, record: dict[str, Any], entry: Entry | None = None) -> None:
        """Write one record, numbered; it is in the file when this returns, unless `error` is set.

        The flight recorder's `entry` of the request is closed with it, as one step: killed anywhere, the request is on
        record once.
        """
        record["seq"] = seq = self.written + len(self._waiting) + 1
        payload = orjson.dumps(record)
        assert len(payload) <= RECORD_BYTES_MAX, f"usage record {seq} has {len(payload)} bytes"
        frame = _FRAME.pack(len(payload), crc32(payload)) + payload
        if entry is not None:
            entry.settle_as(seq)
        if self._waiting or not self._write(frame):
            self._waiting.append((frame, entry))
        elif entry is not None:
            entry.close()
        if self._syncing is None:
            self._syncing = asyncio.get_running_loop().create_task(self._keep_durable())

    def _write(self, frame: bytes) -> bool:
        """Put a frame at the end of the file; what a failed attempt leaves there is overwritten by the next."""
        try:
            if self._size + len(frame) > self._segment_bytes_max and self._size:
                self._rotate()
            if os.pwrite(self._file, frame, self._size) != len(frame):
                raise OSError(errno.ENOSPC, "the disk took only a part of a record")
        except OSError as error:
            self._report(error)
            return False
        self._size += len(frame)
        self.written += 1
        return True

    def _rotate(self) -> None:
        """Go on in a new segment. The old one is durable first, so that numbers can never have a gap."""
        os.fsync(self._file)
        first = self.written + 1
        fresh, _, _ = _open_segment(self._path(first))
        os.close(self._file)
        self._file, self._size = fresh, 0
        self._firsts.append(first)

    def _skip_to(self, seq: int) -> None:
        """Never give a number twice that the server has seen, even if our own records of it are gone."""
        log.error("usage records %d to %d are gone from %s; the server has them", self.written + 1, seq, self.folder)
        self.written = self.durable = seq
        self._rotate()

    # durability

    async def _keep_durable(self) -> None:
        """Make what was written durable, in steps, until nothing new has come."""
        loop = asyncio.get_running_loop()
        while self.durable < self.written or self._waiting:
            await asyncio.sleep(self._sync_delay_s if self.error is None else RETRY_S)
            self._write_waiting()
            target, file = self.written, os.dup(self._file)
            try:
                await loop.run_in_executor(self._syncer, os.fdatasync, file)
            except OSError as error:
                self._report(error)
            else:
                self._settle(target)
            finally:
                os.close(file)
        self._syncing = None

    async def sync(self) -> None:
        """Return once all that was appended is durable."""
        while self._syncing is not None:
            await asyncio.wait([self._syncing])

    def _write_waiting(self) -> None:
        while self._waiting and self._write(self._waiting[0][0]):
            _, entry = self._waiting.popleft()
            if entry is not None:
                entry.close()

    def _settle(self, target: int) -> None:
        self.durable = target
        if not self._waiting:
            self.error = None
        self.on_durable()

    def _report(self, error: OSError) -> None:
        if self.error is None:
            log.error("usage cannot be written to %s: %s", self.folder, error)
        self.error = error

    # shipping

    def read(self, records_max: int = 500, bytes_max: int = 512 * 1024) -> list[bytes]:
        """The oldest durable records not acknowledged, as JSON texts; skips (and reports) damaged ones."""
        assert bytes_max > RECORD_BYTES_MAX + _FRAME.size
        first, offset = self._locate()
        with open(self._path(first), "rb") as file:
            file.seek(offset)
            data = file.read(bytes_max)
        wanted = min(records_max, self.durable - self.acknowledged)
        batch = list(islice(frames(data), wanted))
        if batch:
            self._next = (first, offset + batch[-1][0], self.acknowledged + len(batch) + 1)
        elif wanted and first != self._firsts[-1]:
            following = self._firsts[self._firsts.index(first) + 1]
            log.error("usage records %d to %d are damaged in %s", self.acknowledged + 1, following - 1, self.folder)
            self.acknowledge(following - 1)
            return self.read(records_max, bytes_max)
        return [payload for _, payload in batch]

    def _locate(self) -> tuple[int, int]:
        """The segment and the offset in it of the first record not acknowledged."""
        seq = self.acknowledged + 1
        first = next((f for f in reversed(self._firsts) if f <= seq), self._firsts[0])
        if self._next[0] == first and self._next[2] == seq:
            return first, self._next[1]
        passed = islice(frames(self._path(first).read_bytes()), seq - first) if seq > first else ()
        return first, max((end for end, _ in passed), default=0)

    def acknowledge(self, seq: int) -> None:
        """The server has everything up to `seq`; drop the segments this makes useless."""
        if seq <= self.acknowledged:
            return
        self.acknowledged = seq
        write_json(self.folder / "acknowledged", {"seq": seq}, durable=False)
        while len(self._firsts) > 1 and self._firsts[1] <= seq + 1:
            self._path(self._firsts.pop(0)).unlink(missing_ok=True)

    async def close(self) -> None:
        """Make everything durable and let the folder go."""
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.wait([self._syncing])
        self._write_waiting()
        self._syncer.shutdown()
        os.fsync(self._file)
        os.close(self._file)
        os.close(self._lock)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:020d}.journal"


def _lock(folder: Path) -> int:
    """Hold the folder against other processes until closed or dead."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(
            f"another gateway writes usage to {folder}", hint="give each gateway a --home of its own"
        ) from None
    return lock


def _identity(folder: Path) -> str:
    """The name under which the server knows this journal; made once."""
    path = folder / "source"
    if not path.exists():
        write_bytes(path, uuid.uuid4().hex.encode())
    return path.read_text().strip()


def _stored_acknowledgement(folder: Path) -> int:
    seq = (read_json(folder / "acknowledged") or {}).get("seq", 0)
    return seq if isinstance(seq, int) else 0


def _open_segment(path: Path) -> tuple[int, int, int]:
    """Open for writing, cut off a torn tail, make the rest durable: the descriptor, its bytes, its records."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    size, count = 0, 0
    for end, _ in frames(path.read_bytes()):
        size, count = end, count + 1
    torn = os.fstat(descriptor).st_size - size
    if torn:
        log.warning("cut %d torn bytes off %s", torn, path)
        os.ftruncate(descriptor, size)
    os.fsync(descriptor)
    sync(path.parent)
    return descriptor, size, count
