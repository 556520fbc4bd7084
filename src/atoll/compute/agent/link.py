"""The agent's conversation with the centre, in two threads that may wait so that the agent never does.

One thread listens: a sync that waits at the centre until something is wanted. The other speaks: it registers, delivers
the outbox, and answers demands for logs. Both come back by themselves after any failure, with jittered back-off.
What the centre wants is handed over as `Reply`, in the order in which the centre decided it.

It knows nothing of how tasks run.
"""

from __future__ import annotations

import base64
import logging
import queue
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atoll.compute.agent.centre import Centre
from atoll.compute.agent.outbox import REMIND_S, Outbox
from atoll.compute.agent.tasks import Wanted, wanted
from atoll.compute.runtime.base import LogPiece, TaskReport
from atoll.compute.runtime.contact import ContactFile
from atoll.core.errors import (
    AtollError,
    Fenced,
    Forbidden,
    Invalid,
    NotFound,
    ResourceExhausted,
    Unauthorized,
    Unavailable,
)

log = logging.getLogger(__name__)

WAIT_S_MAX = 10.0
LEASE_TTL_S = 15.0
"""Until the centre has said its own."""

BACKOFF_S = (0.1, 5.0)
LOG_BYTES_MAX = 4 << 20
LOG_DEMANDS_MAX = 256
EAGER_PAUSE_S = 0.2
"""Pause after a waiting sync that came back early with nothing new, should a centre ever do that."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the centre said: the full set of tasks wanted here (None when not to be used), and what may be forgotten."""

    tasks: tuple[Wanted, ...] | None
    forget: frozenset[str]
    forget_workloads: frozenset[str]


@dataclass(frozen=True, slots=True)
class Registration:
    """What the centre said on registering."""

    node_uid: str
    lease_ttl_s: float
    blobs: str


class Backoff:
    """Delays that double from the first to the longest, each shortened at random by up to a half."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s, self._next_s = first_s, longest_s, first_s

    def next_s(self) -> float:
        delay_s, self._next_s = self._next_s, min(self._longest_s, self._next_s * 2)
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy

    def reset(self) -> None:
        self._next_s = self._first_s


class Link:
    """Speaks with the centre for `hello["node"]`. `notify` is called, from any thread, when there is news here."""

    def __init__(
        self,
        url: str,
        key: Callable[[], str],
        hello: Mapping[str, Any],
        outbox: Outbox,
        contact: ContactFile,
        tail: Callable[[str, int, int], LogPiece],
        works: Callable[[], list[str]],
        notify: Callable[[], None],
    ) -> None:
        self.registration: Registration | None = None
        self.fatal: AtollError | None = None
        self._hello = dict(hello)
        self._agent_id = uuid.uuid4().hex
        self._outbox, self._contact, self._tail, self._works = outbox, contact, tail, works
        self._notify = notify
        self._speaker, self._listener = Centre(url, key), Centre(url, key)
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._demands: deque[dict[str, Any]] = deque(maxlen=LOG_DEMANDS_MAX)
        self._lock = threading.Lock()
        self._seen = self._accepted = 0
        self._is_known = False
        self._works_due_at = 0.0
        self._closed, self._kick, self._joined = threading.Event(), threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(turn,), name=turn.__name__, daemon=True)
            for turn in (self._speak, self._listen)
        ]

    # -- for the agent ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. The outbox holds all tasks of this node by now: the first sync tells them all."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End both threads, also in the middle of a wait."""
        self._closed.set()
        for event in (self._kick, self._joined):
            event.set()
        for connection in (self._speaker, self._listener):
            connection.end()
        for thread in self._threads:
            thread.join(timeout=1.0)
        for connection in (self._speaker, self._listener):
            connection.close()

    def kick(self) -> None:
        """The outbox has news."""
        self._kick.set()

    def replies(self) -> list[Reply]:
        """What the centre said since the last call, in order."""
        return [self._replies.get() for _ in range(self._replies.qsize())]

    def silent_s(self) -> float:
        """Seconds since the last request the centre surely received was sent, by this agent or one before it."""
        return self._contact.silent_s()

    @property
    def lease_ttl_s(self) -> float:
        return self.registration.lease_ttl_s if self.registration else LEASE_TTL_S

    # -- the threads --------------------------------------------------------------------------------------------

    def _run(self, turn: Callable[[], None]) -> None:
        backoff, complaint = Backoff(*BACKOFF_S), ""
        while not self._closed.is_set():
            try:
                turn()
                backoff.reset()
                complaint = ""
            except AtollError as error:
                if self._closed.is_set() or self._is_fatal(error):
                    return
                if str(error) != complaint:
                    complaint = str(error)
                    log.warning("%s; trying again", complaint)
                self._closed.wait(max(backoff.next_s(), getattr(error, "retry_after_s", 0.0)))
            except Exception:  # a thread that died would leave the node mute
                log.exception("the link stumbled; trying again")
                self._closed.wait(backoff.next_s())

    def _is_fatal(self, error: AtollError) -> bool:
        """Decide what a failure means beyond trying again."""
        if isinstance(error, NotFound):  # the centre does not know us (any more)
            self._joined.clear()
            self.registration = None
            self._kick.set()
        is_refused = isinstance(error, Unauthorized | Forbidden | Invalid) and not self._is_known
        if isinstance(error, Fenced) or is_refused:
            self.fatal = error
            self._closed.set()
            self._notify()
        return self.fatal is not None

    def _speak(self) -> None:
        """One turn of the speaking thread: register if need be, deliver what is due, answer demands, wait.

        Now and then it names the workloads that have a folder here: of one whose last task ran elsewhere, or was
        forgotten before it, no report would ever tell the centre.
        """
        if self.registration is None:
            self._register()
        if not self._joined.is_set():
            self._sync(self._speaker, self._outbox.due(), wait_s=0.0)
            self._joined.set()
        while due := self._outbox.due():
            self._sync(self._speaker, due, wait_s=0.0)
        if (now := time.monotonic()) >= self._works_due_at:
            self._sync(self._speaker, [], wait_s=0.0, works=self._works())
            self._works_due_at = now + REMIND_S
        while self._demands and not self._closed.is_set():
            self._answer(self._demands[0])
            self._demands.popleft()
        due_in_s, works_in_s = self._outbox.due_in_s(), self._works_due_at - time.monotonic()
        self._kick.wait(max(0.0, works_in_s if due_in_s is None else min(due_in_s, works_in_s)))
        self._kick.clear()

    def _listen(self) -> None:
        """One turn of the listening thread: a sync that waits."""
        self._joined.wait()
        if self._closed.is_set():
            return
        wait_s = min(WAIT_S_MAX, self.lease_ttl_s / 3)
        began, seen, accepted = time.monotonic(), self._seen, self._accepted
        self._sync(self._listener, [], wait_s)
        is_news = self._seen != seen or self._accepted != accepted + 1
        if not is_news and time.monotonic() - began < wait_s / 2:
            self._closed.wait(EAGER_PAUSE_S)

    # -- requests -----------------------------------------------------------------------------------------------

    def _register(self) -> None:
        answer = self._speaker.post("agent/register", {**self._hello, "agent_id": self._agent_id})
        with self._lock:
            self._seen = 0
            self._accepted += 1
        self._outbox.reset()
        self._works_due_at = 0.0
        self.registration = Registration(
            str(answer.get("node_uid", "")),
            float(answer.get("lease_ttl_s") or LEASE_TTL_S),
            str(answer.get("blobs", "")),
        )
        self._is_known = True
        log.info("registered as node %s", self._hello["node"])

    def _sync(self, connection: Centre, reports: list[TaskReport], wait_s: float, works: Sequence[str] = ()) -> None:
        with self._lock:
            mark, seen = self._accepted, self._seen
        sent_at_s = self._contact.now_s()
        body = {
            "node": self._hello["node"],
            "agent_id": self._agent_id,
            "seen": seen,
            "wait_s": wait_s,
            "observed": [report.to_dict() for report in reports],
            "works": list(works),
        }
        answer = connection.post("agent/sync", body, answer_timeout_s=wait_s + 10.0)
        self._outbox.delivered(reports)
        with self._lock:
            self._renew_contact(sent_at_s, answer)
            self._replies.put(self._accept(answer, mark))
        self._notify()

    def _renew_contact(self, sent_at_s: float, answer: Mapping[str, Any]) -> None:
        """Tell the shims, before the reply can start another task; the time counts from the request, not the answer."""
        lease_ttl_s = answer.get("lease_ttl_s")
        if self.registration is not None and isinstance(lease_ttl_s, int | float) and lease_ttl_s > 0:
            self.registration = replace(self.registration, lease_ttl_s=float(lease_ttl_s))
        try:
            self._contact.renew(sent_at_s, self.lease_ttl_s)
        except (OSError, ResourceExhausted) as error:
            log.error("tasks that may not outlive contact will stop, for it cannot be noted: %s", error)

    def _accept(self, answer: Mapping[str, Any], mark: int) -> Reply:
        """Read the reply to a request sent when `mark` replies had been accepted.

        If another was accepted meanwhile, the two crossed and either may be the older: this one's wants are dropped.
        So the accepted ones are in the centre's order, and a change in a dropped one comes at once with the next sync,
        whose `seen` is then out of date.
        """
        has_crossed = self._accepted != mark
        if not has_crossed:
            self._seen, self._accepted = _whole(answer.get("seen")), self._accepted + 1
        demands = [d for d in _objects(answer.get("logs")) if d not in self._demands]
        self._demands.extend(demands)
        if demands:
            self._kick.set()
        tasks = tuple(w for value in _objects(answer.get("tasks")) if (w := wanted(value)) is not None)
        return Reply(None if has_crossed else tasks, _names(answer, "forget"), _names(answer, "forget_workloads"))

    def _answer(self, demand: Mapping[str, Any]) -> None:
        uid, offset = str(demand.get("uid", "")), _whole(demand.get("offset"))
        try:
            limit_bytes = min(LOG_BYTES_MAX, max(0, _whole(demand.get("limit_bytes"))))
            piece = self._tail(uid, offset, limit_bytes)
        except (NotFound, OSError):
            piece = LogPiece(b"", max(0, offset), 0, is_ended=True)
        body = {
            "id": demand.get("id"),
            "uid": uid,
            "offset": piece.offset,
            "data": base64.b64encode(piece.data).decode(),
            "size_bytes": piece.size_bytes,
            "ended": piece.is_ended,
        }
        try:
            self._speaker.post("agent/logs", body)
        except (Unavailable, Fenced):
            raise
        except AtollError as error:
            log.warning("the centre does not take the log it asked for: %s", error)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _names(answer: Mapping[str, Any], field: str) -> frozenset[str]:
    value = answer.get(field)
    return frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) else frozenset()
