"""The sandbox: a child process that parses risky files for us, one after the other.

It is started when first needed, kept for the next file, and replaced when it died or was too slow; a file that it died
of is quarantined, and no other. Each thread has its own, for a child ends with the thread that started it.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import orjson

import atoll
from atoll.core.errors import Unavailable
from atoll.data.engine.read.child import ALIVE, DONE, FOUND, FRAME, PASSED_OVER, READY, REFUSED, REQUEST, UNUSABLE
from atoll.data.engine.read.item import File, Found, Item, Limits, Part, PassedOver, Quarantined

READ_BYTES = 256 << 10
WAIT_FACTOR = 20
"""A child on a busy machine may take so many times its CPU seconds; only one that waits for ever needs more."""

_KINDS: dict[int, Callable[..., Item]] = {FOUND: Found, REFUSED: Quarantined, PASSED_OVER: PassedOver}
_KEPT_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "TMPDIR")


class _Ended(Exception):
    """The child will send no more; the message says why."""


class _Died(_Ended):
    """It ended by itself, not for being slow."""


class Sandbox:
    """One child at a time, with these limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.owner = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._buffer = bytearray()

    def items(self, file: File, part: Part) -> Iterator[Item]:
        """What is in the part's share of the file; a Quarantined says why if the child does not live through it.

        Raises Unavailable when no child can be had, or it cannot load a reader: that is no fault of the file.
        """
        try:
            stream = open(file.path, "rb", buffering=0)  # noqa: SIM115 - closed below
        except OSError as error:
            yield Quarantined(file.name, 0, f"cannot be read: {error.strerror}")
            return
        with stream:
            yield from self._read(file, stream, part)

    def _read(self, file: File, stream: IO[bytes], part: Part) -> Iterator[Item]:
        request = {
            "name": file.name,
            "fields": asdict(part.fields),
            "patterns": part.patterns,
            **{name: getattr(part, name) for name in ("start", "stop", "first_line")},
            "limits": asdict(self.limits),
        }
        is_done = False
        try:
            item = self._first_answer(orjson.dumps(request), stream)
            while item:
                yield item
                item = self._answer()
            is_done = True
        except _Ended as error:
            yield Quarantined(file.name, 0, str(error))
        finally:
            if not is_done:
                self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        child, self._child = self._child, None
        requests, self._requests = self._requests, None
        self._buffer.clear()
        if child and self.owner == os.getpid():
            child.kill()
            child.wait()
        for end in (requests, child.stdout if child else None):
            if end:
                end.close()

    def _first_answer(self, request: bytes, stream: IO[bytes]) -> Item | None:
        """The first item of a file. A child that dies before it may have died of an earlier file: ask a new one."""
        if self._child:
            try:
                return self._asked(request, stream)
            except _Died:
                self.close()
        self._start()
        return self._asked(request, stream)

    def _asked(self, request: bytes, stream: IO[bytes]) -> Item | None:
        assert self._requests
        stream.seek(0)  # a child before may have read of it, and its place is ours
        try:
            socket.send_fds(self._requests, [REQUEST.pack(len(request))], [stream.fileno()])
            self._requests.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._end() from error
        return self._answer()

    def _start(self) -> None:
        """Start a child and wait until it is ready; Unavailable when it does not come to that."""
        try:
            self._spawn()
            kind, _ = self._frame()
            assert kind == READY
        except OSError as error:
            self.close()
            what = f"the process of the parsers cannot be started: {error.strerror}"
            raise Unavailable(what, hint="see what this user may have of it (ulimit -a)") from error
        except _Ended as error:
            self.close()
            hint = "see what it said before; no file is at fault"
            raise Unavailable(f"the process of the parsers could not start: {error}", hint=hint) from error

    def _spawn(self) -> None:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(_module_paths()),
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-P", "-m", "atoll.data.engine.read.child"]
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [*command, str(os.getpid()), str(self.limits.parser_memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment,
            )

    def _answer(self) -> Item | None:
        """The next item, None when the file is done; raises _Ended."""
        while True:
            kind, content = self._frame()
            if kind == DONE:
                return None
            if kind != ALIVE:
                return _KINDS[kind](*content)

    def _frame(self) -> tuple[int, list[Any]]:
        length, kind = FRAME.unpack(self._take(FRAME.size))
        if length > 8 * self.limits.text_bytes_max + READ_BYTES:
            raise _Ended(f"its parser sent {length} bytes at once")
        content = orjson.loads(self._take(length))
        if kind == UNUSABLE:
            raise Unavailable(content[0], hint="see what is wrong with this machine or Python; no file is at fault")
        return kind, content

    def _take(self, size: int) -> bytes:
        """The next bytes from the child."""
        assert self._child and self._child.stdout
        pipe = self._child.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while len(self._buffer) < size:
            if not poll.poll(WAIT_FACTOR * self.limits.parser_s * 1000):
                raise _Ended(f"its parser sent nothing for {WAIT_FACTOR * self.limits.parser_s:g} s")
            data = os.read(pipe, READ_BYTES)
            if not data:
                raise self._end()
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _end(self) -> _Ended:
        """Why the child has ended."""
        assert self._child
        status = self._child.wait()
        if status == -signal.SIGXCPU:
            return _Ended(f"its parser took more than {self.limits.parser_s:g} s of CPU time")
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return _Died(f"its parser {how}; it may have {self.limits.parser_memory_bytes} bytes of memory")


def _module_paths() -> list[str]:
    """Where the child finds modules, and may read: where we find them, and this package.

    Not the folder we were started in or that of the program, which Python adds by itself: they may hold anything.
    """
    program = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    added = {_real("."), _real(os.path.dirname(program))} - {_real(path) for path in named if path}
    found = [path for path in sys.path if path and _real(path) not in added]
    ours = Path(atoll.__file__)
    return list(dict.fromkeys([*found, *(str(file.parents[1]) for file in (ours, ours.resolve()))]))


def _real(path: str) -> str:
    """What a path names, whatever the links; "" in a folder that was removed, of which it names nothing."""
    try:
        return os.path.realpath(path or ".")
    except FileNotFoundError:
        return ""


_local = threading.local()
_all: weakref.WeakSet[Sandbox] = weakref.WeakSet()


def sandbox(limits: Limits) -> Sandbox:
    """This thread's sandbox with these limits."""
    found: Sandbox | None = getattr(_local, "sandbox", None)
    if found and (found.limits != limits or found.owner != os.getpid()):
        found.close()
        found = None
    if found is None:
        found = _local.sandbox = Sandbox(limits)
        _all.add(found)
    return found


def close() -> None:
    """End every child of this process."""
    for each in list(_all):
        each.close()


atexit.register(close)
