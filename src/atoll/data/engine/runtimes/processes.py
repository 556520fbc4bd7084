"""Processes: items worked off by child processes.

They are forked, once, from one child of this process that is made ready before, and serve every stage. One that dies
(killed, out of memory) is replaced and its item tried once more; when that kills a worker, too, the run fails, naming
stage and item.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from atoll.core.errors import Unavailable
from atoll.data.engine.runtimes.stages import ATTEMPTS, Call, killed_twice
from atoll.data.engine.runtimes.worker import FORK, KILL, MESSAGE_BYTES, PREPARE

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT")
MEMORY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "4000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000",
}
"""Of a worker: what is large is given back to the system at once. Much less, and pages that are used again at once
would be asked for again, which costs a fifth of the time that writing takes."""

END_S = 5.0


class _Nursery:
    """The process that workers are forked from (see `worker`)."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "atoll.data.engine.runtimes.worker"]
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(os.getpid())],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_stderr() else subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()

    def prepare(self, ready: Callable[[Any], None], value: Any, meanwhile: Callable[[], None]) -> None:
        """Call `ready(value)` there, and `meanwhile()` here; what it raises is raised here."""
        with _alive():
            self._door.send(PREPARE + pickle.dumps((ready, value)))
        meanwhile()
        error = pickle.loads(self._answer())  # noqa: S301 - from our child
        if error is not None:
            raise error

    def fork(self) -> _Worker:
        """A new worker."""
        child_calls, calls = os.pipe()
        answers, child_answers = os.pipe()
        worker = Connection(calls, readable=False), Connection(answers, writable=False)
        try:
            with _alive():
                socket.send_fds(self._door, [FORK], [child_calls, child_answers])
        finally:
            os.close(child_calls)
            os.close(child_answers)
        return _Worker(self._answer(), *worker)

    def kill(self, worker: _Worker) -> None:
        """End a worker whatever it does."""
        with suppress(OSError):
            self._door.send(KILL + worker.name)

    def end(self) -> None:
        """End, after the workers."""
        self._door.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> bytes:
        with _alive():
            found = self._door.recv(MESSAGE_BYTES)
        if not found:
            raise _died()
        return found


@contextmanager
def _alive() -> Iterator[None]:
    """Tell a door that leads nowhere as what it is: a broken pipe may be any, the command's own output too."""
    try:
        yield
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _died() from error


def _died() -> Unavailable:
    return Unavailable("the process that workers come from has died", hint="see what it said before; try again")


@dataclass(slots=True)
class _Worker:
    """A child of the nursery and its pipes."""

    name: bytes
    calls: Connection
    answers: Connection
    call: Call | None = None

    def give(self, call: Call) -> None:
        self.call = call
        try:
            self.calls.send(call)
        except BrokenPipeError:
            return  # its death is noticed at the other pipe

    def end(self, nursery: _Nursery) -> None:
        """End the child."""
        self.calls.close()
        self.answers.close()
        if self.call is not None:
            nursery.kill(self)


class Processes:
    """`workers` child processes, started when the first items come; what they are forked from starts at once."""

    is_local = True

    def __init__(self, workers: int) -> None:
        self.cpu_s = 0.0
        self._count = workers
        self._workers: list[_Worker] = []
        self._nursery: _Nursery | None = _Nursery()

    def run(self, calls: Sequence[Call]) -> Iterator[Path]:
        waiting = deque(calls)
        attempts: Counter[Path] = Counter()
        try:
            while waiting or any(worker.call for worker in self._workers):
                self._hand_out(waiting, attempts)
                for worker in self._answering():
                    call = worker.call
                    assert call is not None
                    if self._is_done(worker):
                        yield call[2]
                    else:
                        self._bury(worker, attempts)
                        waiting.appendleft(call)
        finally:
            if any(worker.call for worker in self._workers):
                self.close()

    def prepare(self, ready: Callable[[Any], None], value: Any, meanwhile: Callable[[], None]) -> None:
        self._started().prepare(ready, value, meanwhile)

    def close(self) -> None:
        if self._nursery is not None:
            for worker in self._workers:
                worker.end(self._nursery)
            self._nursery.end()
        self._workers, self._nursery = [], None

    def _started(self) -> _Nursery:
        self._nursery = self._nursery or _Nursery()
        return self._nursery

    def _hand_out(self, waiting: deque[Call], attempts: Counter[Path]) -> None:
        while len(self._workers) < self._count and len(waiting) > sum(not worker.call for worker in self._workers):
            self._workers.append(self._started().fork())
        for worker in self._workers:
            if waiting and worker.call is None:
                call = waiting.popleft()
                attempts[call[2]] += 1
                worker.give(call)

    def _answering(self) -> list[_Worker]:
        """The workers that have something to say, or have died; at least one."""
        busy: dict[Any, _Worker] = {worker.answers: worker for worker in self._workers if worker.call}
        return [busy[connection] for connection in wait(list(busy))]

    def _is_done(self, worker: _Worker) -> bool:
        """Whether the worker did its item; False when it died, and what it raised is raised here."""
        try:
            error, cpu_s = worker.answers.recv()
        except (EOFError, OSError):
            return False
        if error is not None:
            raise error
        self.cpu_s += cpu_s
        worker.call = None
        return True

    def _bury(self, worker: _Worker, attempts: Counter[Path]) -> None:
        """Let go of a worker that died; ResourceExhausted when its item has killed its last."""
        self._workers.remove(worker)
        assert worker.call is not None
        _, item, place, _ = worker.call
        worker.end(self._started())
        if attempts[place] >= ATTEMPTS:
            raise killed_twice(place, item)


def environment() -> dict[str, str]:
    """The environment of a worker: one thread each, for there is one worker a core, and memory given back soon."""
    return {**MEMORY, **os.environ, **dict.fromkeys(THREADS, "1")}


def _has_stderr() -> bool:
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
