"""How fast requests may come: requests a minute, tokens a minute and requests at a time, per key and per project.

Rates are sliding window counters: the count of this minute plus the part of the last minute's that still lies within
the past 60 s, taken as evenly spread (Cloudflare, "How we built rate limiting capable of scaling to millions of
domains", 2017). A request counts when it begins, its tokens when it ends.

All gateway workers of a host share one memory-mapped file. Each writes only its own column of it, one aligned 8-byte
word at a time, and adds up everybody's: it first enters its own claim and then looks, so of two workers that reach for
the last place at most one gets it (in the same microsecond perhaps neither). The places of a worker that died count no
more, its requests and tokens of the past minute still do. Between hosts a limit is divided evenly, never below one.

Knows nothing of budgets, which are exact everywhere (see `slices`).
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from atoll.core.errors import RateLimited

log = logging.getLogger(__name__)

WINDOW_S = 60.0
SLOTS = 8192
PROBES_MAX = 64
PEERS_EVERY_S = 1.0
_MAGIC = b"atolllim"
_HEADER = struct.Struct("<8sII16s")  # magic, workers, slots, boot
_PAGE_BYTES = 4096
_REQUESTS, _TOKENS, _PARALLEL, _FIELDS = 0, 2, 4, 5  # words of a column; counts have one for odd, one for even minutes
_COUNT_BITS = 40
_COUNT_END = 1 << _COUNT_BITS


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits of one key or project; None does not limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel: int | None = None


NO_RATES = Rates()


def read_rates(fields: Mapping[str, Any] | None) -> Rates | None:
    """The limits in a snapshot's JSON; None when nothing is limited."""
    given = {name: int(fields[name]) for name in Rates.__slots__ if fields.get(name) is not None} if fields else {}
    return Rates(**given) if given else None


class _Meter:
    """This worker's counts of one key or project, and where it writes them for the others."""

    __slots__ = (
        "at",
        "before_requests",
        "before_tokens",
        "digest",
        "name",
        "parallel",
        "rates",
        "requests",
        "tokens",
        "window",
    )

    def __init__(self, name: str, digest: int) -> None:
        self.name = name  # as people read it: "key key-1"
        self.digest = digest
        self.at = -1  # of its slot, in words; -1 while it has none
        self.window = 0
        self.requests = self.before_requests = 0
        self.tokens = self.before_tokens = 0
        self.parallel = 0
        self.rates = NO_RATES  # in force when a request last began

    def turn(self, window: int) -> None:
        """Go to another minute."""
        follows = window == self.window + 1
        self.before_requests = self.requests if follows else 0
        self.before_tokens = self.tokens if follows else 0
        self.requests = self.tokens = 0
        self.window = window


class Limiter:
    """`begin` when a request was admitted, `end` when it is over, whatever became of it.

    `folder` is the same for all workers of a host; `worker` is this one's number below `workers`.
    """

    def __init__(
        self, folder: Path, worker: int = 0, workers: int = 1, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        assert 0 <= worker < workers
        self._now = now
        self._window = -1
        self._window_at = 0.0  # when it began
        self._checked_at = 0.0
        self._keys: dict[str, _Meter] = {}
        self._projects: dict[str, _Meter] = {}
        self._table = _Table(folder / "limits", worker, workers) if workers > 1 else None

    def begin(
        self, key_id: str, key_limits: Rates | None, project: str, project_limits: Rates | None, hosts: int = 1
    ) -> None:
        """Count a request and take its places; raises RateLimited, and then has taken none."""
        if key_limits is None and project_limits is None:
            return
        now = self._now()
        if not 0.0 <= now - self._window_at < WINDOW_S or now - self._checked_at > PEERS_EVERY_S:
            self._advance(now)
        key = None
        if key_limits is not None:
            key = self._keys.get(key_id) or self._meet(self._keys, "key", key_id)
            self._take(key, key_limits, now, hosts)
        if project_limits is not None:
            meter = self._projects.get(project) or self._meet(self._projects, "project", project)
            try:
                self._take(meter, project_limits, now, hosts)
            except RateLimited:
                if key is not None:
                    self._untake(key)
                raise

    def end(self, key_id: str, project: str, tokens: int) -> None:
        """Give the places back; count the tokens."""
        for meter in (self._keys.get(key_id), self._projects.get(project)):
            if meter is None:
                continue
            if meter.window != self._window:
                meter.turn(self._window)
            if meter.parallel:
                meter.parallel -= 1
            meter.tokens += tokens
            if self._table is not None:
                self._table.publish_end(meter)

    def close(self) -> None:
        """Let the shared file go."""
        if self._table is not None:
            self._table.close()

    def _take(self, meter: _Meter, rates: Rates, now: float, hosts: int) -> None:
        """Enter the claim, look whether it holds, take it back if not."""
        if meter.window != self._window:
            meter.turn(self._window)
        meter.parallel += 1
        meter.requests += 1
        if self._table is None:
            parallel, requests, before = meter.parallel, meter.requests, meter.before_requests
            tokens, before_tokens = meter.tokens, meter.before_tokens
        else:
            parallel, requests, before, tokens, before_tokens = self._table.claim(meter, rates)
        limit = rates.parallel
        if limit is not None and parallel > (limit if hosts <= 1 else _share(limit, hosts)):
            raise self._too_many(meter, limit, hosts)
        part = 1.0 - (now - self._window_at) / WINDOW_S  # of the last minute, still within the past 60 s
        limit = rates.requests_per_minute
        if limit is not None and requests + before * part > (limit if hosts <= 1 else _share(limit, hosts)):
            raise self._too_fast(meter, "requests", limit, hosts, now, requests - 1, before)
        limit = rates.tokens_per_minute
        if limit is not None and tokens + before_tokens * part >= (limit if hosts <= 1 else _share(limit, hosts)):
            raise self._too_fast(meter, "tokens", limit, hosts, now, tokens, before_tokens)

    def _untake(self, meter: _Meter) -> None:
        meter.parallel -= 1
        meter.requests -= 1
        if self._table is not None:
            self._table.write(meter)

    def _too_many(self, meter: _Meter, limit: int, hosts: int) -> RateLimited:
        self._untake(meter)
        return RateLimited(
            f"The {meter.name} has as many requests in flight as it may: {_said(limit, hosts)}.",
            hint="wait for one of them to end",
            code="rate_limit_exceeded",
            limit="parallel",
            value=limit,
            retry_after_s=1.0,
        )

    def _too_fast(
        self, meter: _Meter, unit: str, limit: int, hosts: int, now: float, count: int, before: int
    ) -> RateLimited:
        self._untake(meter)
        share = _share(limit, hosts)
        room = float(share - 1) if unit == "requests" else share - 1e-6  # the estimate a next request needs
        after_s = frees_in_s(count, before, room, now - self._window_at)
        return RateLimited(
            f"The {meter.name} has used {round(count + before * (1 - (now - self._window_at) / WINDOW_S))} {unit} in "
            f"the past minute; it may use {_said(limit, hosts)}.",
            hint=f"try again in {after_s:.1f} s",
            code="rate_limit_exceeded",
            limit=f"{unit}_per_minute",
            value=limit,
            retry_after_s=after_s,
        )

    def _advance(self, now: float) -> None:
        """Go to the minute of `now`, look who of the other workers lives, drop what is idle."""
        window = int(now // WINDOW_S)
        if window != self._window:
            self._window, self._window_at = window, window * WINDOW_S
            for meters in (self._keys, self._projects):
                for name, meter in list(meters.items()):
                    if meter.window < window - 1 and not meter.parallel:
                        del meters[name]
        self._checked_at = now
        if self._table is not None:
            self._table.look_around()

    def _meet(self, meters: dict[str, _Meter], what: str, name: str) -> _Meter:
        """The meter of a key or project seen for the first time in a while."""
        meter = meters[name] = _Meter(f"{what} {name!r}", _digest(what, name))
        if self._table is not None:
            self._table.find(meter, self._window)
        return meter


def frees_in_s(count: int, before: int, room: float, elapsed_s: float) -> float:
    """Seconds until the estimate is at most `room`, if nothing else comes.

    `count` came in this minute, of which `elapsed_s` has passed, and `before` in the last one. A room below zero never
    frees; that is told as a whole window.
    """
    if room < 0:
        return WINDOW_S
    if count <= room:  # the last minute's share has to shrink: count + before * (1 - t / W) <= room
        at_s = WINDOW_S * (1.0 - (room - count) / before) if before else 0.0
    else:  # this minute becomes the last one: count * (1 - (t - W) / W) <= room
        at_s = WINDOW_S * (2.0 - room / count)
    return max(0.0, at_s - elapsed_s)


def _share(limit: int, hosts: int) -> int:
    """What one of `hosts` may let through."""
    return max(1, limit // hosts) if limit and hosts > 1 else limit


def _said(limit: int, hosts: int) -> str:
    return f"{limit}" if hosts <= 1 else f"{limit}, here {_share(limit, hosts)} (one of {hosts} gateway hosts)"


def _digest(what: str, name: str) -> int:
    """Never 0 and never 1; two names of one digest would share their limits (one chance in 10**15 among 100)."""
    return int.from_bytes(blake2b(f"{what}:{name}".encode(), digest_size=8).digest(), "little") | 2


class _Table:
    """The shared file: a column a worker (pid, start ticks), then slots of a digest and each worker's counts.

    A slot is found by open addressing and claimed under a file lock. One whose counts are all of older minutes is
    given to another name when room is needed; so a worker looks again, after each write, whether the slot is still its.
    """

    def __init__(self, path: Path, worker: int, workers: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._worker, self._workers = worker, workers
        self._stride = 1 + workers * _FIELDS
        self._columns_at = _PAGE_BYTES // 8 - 2 * workers
        self._slots_at = _PAGE_BYTES // 8
        self._lock_path = path.with_suffix(".lock")
        with self._locked():
            self._map = _open_map(path, workers, _PAGE_BYTES + SLOTS * self._stride * 8)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._own = 1 + worker * _FIELDS
        self._others = tuple(1 + other * _FIELDS for other in range(workers) if other != worker)
        self._living: tuple[int, ...] = ()
        self._window = 0
        self._take_column()
        self.look_around()

    def close(self) -> None:
        self._words.release()
        self._view.release()
        self._map.close()

    def _take_column(self) -> None:
        """Sign the column as ours; the places a predecessor held are free."""
        words, at = self._words, self._columns_at + 2 * self._worker
        words[at] = 0
        first = self._slots_at + self._own + _PARALLEL
        for place in range(first, first + SLOTS * self._stride, self._stride):
            if words[place]:
                words[place] = 0
        words[at + 1] = _start_ticks(os.getpid())
        words[at] = os.getpid()

    def look_around(self) -> None:
        """Find out which other workers live; the places of those that do not are not counted."""
        words, living = self._words, []
        for other in range(self._workers):
            pid, ticks = words[self._columns_at + 2 * other], words[self._columns_at + 2 * other + 1]
            if other != self._worker and pid and _start_ticks(pid) == ticks:
                living.append(1 + other * _FIELDS)
        self._living = tuple(living)

    # counts

    def claim(self, meter: _Meter, rates: Rates) -> tuple[int, int, int, int, int]:
        """Publish a request that begins, then add up what all workers have of what is limited.

        Requests in flight, requests of this minute and of the last, tokens of this minute and of the last.
        """
        at, words = meter.at, self._words
        parallel, requests, before = meter.parallel, meter.requests, meter.before_requests
        tokens, before_tokens = meter.tokens, meter.before_tokens
        if rates is not meter.rates:
            meter.rates = rates
            self.write(meter)
        if at < 0:
            return parallel, requests, before, tokens, before_tokens
        odd = meter.window & 1
        tag = meter.window << _COUNT_BITS
        if rates.parallel is not None:
            words[at + self._own + _PARALLEL] = parallel
            for other in self._living:
                parallel += words[at + other + _PARALLEL]
        if rates.requests_per_minute is not None:
            words[at + self._own + odd] = tag + requests
            requests, before = self._with_others(at + odd, at + 1 - odd, tag, requests, before)
        if rates.tokens_per_minute is not None:
            now_at = at + _TOKENS + odd
            tokens, before_tokens = self._with_others(now_at, now_at + 1 - 2 * odd, tag, tokens, before_tokens)
        if words[at] != meter.digest:
            self._move(meter)
            return self.claim(meter, rates)
        return parallel, requests, before, tokens, before_tokens

    def _with_others(self, now_at: int, before_at: int, tag: int, count: int, before: int) -> tuple[int, int]:
        """Own counts of this and of the last minute with those of all other workers."""
        words, tag_before = self._words, tag - _COUNT_END
        for other in self._others:
            found = words[now_at + other] - tag
            if 0 <= found < _COUNT_END:
                count += found
            found = words[before_at + other] - tag_before
            if 0 <= found < _COUNT_END:
                before += found
        return count, before

    def publish_end(self, meter: _Meter) -> None:
        """Publish what the end of a request changes."""
        own, rates, words = meter.at + self._own, meter.rates, self._words
        if meter.at < 0:
            return
        if rates.parallel is not None:
            words[own + _PARALLEL] = meter.parallel
        if rates.tokens_per_minute is not None:
            words[own + _TOKENS + (meter.window & 1)] = (meter.window << _COUNT_BITS) + meter.tokens
        if words[meter.at] != meter.digest:
            self._move(meter)

    def write(self, meter: _Meter) -> None:
        """Publish all of this worker's counts."""
        at, window, words = meter.at, meter.window, self._words
        if at < 0:
            return
        own, odd = at + self._own, window & 1
        tag = window << _COUNT_BITS
        words[own + _PARALLEL] = meter.parallel
        words[own + odd] = tag + meter.requests
        words[own + _TOKENS + odd] = tag + meter.tokens
        if words[at] != meter.digest:
            self._move(meter)

    # slots

    def find(self, meter: _Meter, window: int) -> None:
        """Give the meter its slot, a new one if need be; without room it counts for this worker alone."""
        self._window = meter.window = window
        with self._locked():
            meter.at = self._search(meter.digest)
        if meter.at < 0:
            log.error("the table of limits is full: %s is limited by each worker on its own", meter.name)
            return
        self._resume(meter)

    def _resume(self, meter: _Meter) -> None:
        """Go on with what a predecessor, or we some time ago, counted in this column."""
        window, words, own = meter.window, self._words, meter.at + self._own
        for field, (name, name_before) in (
            (_REQUESTS, ("requests", "before_requests")),
            (_TOKENS, ("tokens", "before_tokens")),
        ):
            now_word, before_word = words[own + field + (window & 1)], words[own + field + 1 - (window & 1)]
            if now_word >> _COUNT_BITS == window:
                setattr(meter, name, now_word % _COUNT_END)
            if before_word >> _COUNT_BITS == window - 1:
                setattr(meter, name_before, before_word % _COUNT_END)

    def _move(self, meter: _Meter) -> None:
        """The slot was taken from us while we were idle: leave nothing in it, and claim another."""
        own = meter.at + self._own
        for place in range(own, own + _FIELDS):
            self._words[place] = 0
        with self._locked():
            meter.at = self._search(meter.digest)
        self.write(meter)

    def _search(self, digest: int) -> int:
        """The slot of a digest, else a free or an idle one claimed for it; -1 when there is none. Under the lock."""
        words = self._words
        vacant = -1
        for at in self._probe(digest):
            if words[at] == digest:
                return at
            if words[at] == 0:
                vacant = at if vacant < 0 else vacant
                break
            if vacant < 0 and words[at] == 1:
                vacant = at
        if vacant < 0:
            vacant = next((at for at in self._probe(digest) if self._vacate(at)), -1)
        if vacant >= 0:
            words[vacant] = digest
        return vacant

    def _probe(self, digest: int) -> Iterator[int]:
        for step in range(PROBES_MAX):
            yield self._slots_at + (digest + step) % SLOTS * self._stride

    def _vacate(self, at: int) -> bool:
        """Take a slot from a name nobody used for two minutes. Its word goes first: see `write`."""
        words, owner = self._words, self._words[at]
        words[at] = 1
        for column in range(self._workers):
            own = at + 1 + column * _FIELDS
            newest = max(words[own + field] >> _COUNT_BITS for field in range(_PARALLEL))
            is_held = words[own + _PARALLEL] and (own - at in self._living or own - at == self._own)
            if is_held or newest + 1 >= self._window:
                words[at] = owner
                return False
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _open_map(path: Path, workers: int, size_bytes: int) -> mmap.mmap:
    """The file, laid out afresh when it is of another boot (counts name minutes since boot) or number of workers."""
    header = _HEADER.pack(_MAGIC, workers, SLOTS, _boot())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.pread(descriptor, len(header), 0) != header or os.fstat(descriptor).st_size != size_bytes:
            os.close(descriptor)
            path.unlink()  # whoever still maps the old one keeps it
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.posix_fallocate(descriptor, 0, size_bytes)
            os.pwrite(descriptor, header, 0)
        return mmap.mmap(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _boot() -> bytes:
    """Which boot of the machine this is."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone. With the pid this names it for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
