"""The parsers' child process: `python -m atoll.data.engine.read.child PARENT MEMORY_BYTES`.

It is sent requests, each with the open file it is about, and answers with frames: length, kind, content. It may not
take more memory than it is told, more CPU seconds between two signs of life than a request says, nor write files; it
ends with its parent. A parser that breaks these rules is killed by the kernel, and the parent quarantines the file.

Where the kernel has Landlock, a parser that a file has taken over reaches nothing but that file and the libraries of
this Python: no other file, no TCP port, no other process.
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import orjson

from atoll.core import landlock
from atoll.data.engine.curate.plan import Fields
from atoll.data.engine.read.content import Content
from atoll.data.engine.read.dispatch import items
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.formats import format_of
from atoll.data.engine.read.item import Found, Item, Limits, Quarantined, Unloadable, Unreadable

REQUEST = struct.Struct("<I")
"""What stands before a request, and comes with its file: the length of its JSON."""
FRAME = struct.Struct("<IB")
FOUND, REFUSED, PASSED_OVER, ALIVE, DONE, READY, UNUSABLE = range(7)

SIGN_OF_LIFE_S = 0.25
FILES_OPEN_MAX = 64
_PR_SET_PDEATHSIG = 1
_OF_THE_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/mime.types", "/etc/localtime"),
    *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom"),
)
"""What libraries are loaded from, or look at when they are loaded."""


class Answers:
    """Frames to the parent, and the alarm clock of the parser."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._told_s = 0.0
        self._parser_s = 0.0

    def ready(self) -> None:
        """From now on what goes wrong is the fault of a file."""
        self._send(READY, [])
        self._out.flush()

    def start(self, parser_s: float) -> None:
        self._parser_s = parser_s
        self._wind()

    def item(self, item: Item) -> None:
        if isinstance(item, Quarantined):
            self._send(REFUSED, [item.name, item.line, item.reason])
        else:
            self._send(FOUND if isinstance(item, Found) else PASSED_OVER, list(item))
        if time.monotonic() - self._told_s > SIGN_OF_LIFE_S:
            self._out.flush()
            self._wind()

    def touch(self) -> None:
        if time.monotonic() - self._told_s > SIGN_OF_LIFE_S:
            self._send(ALIVE, [])
            self._out.flush()
            self._wind()

    def unusable(self, reason: str) -> None:
        """What is wrong with this process, whatever the file."""
        self._send(UNUSABLE, [reason])

    def done(self) -> None:
        self._send(DONE, [])
        self._out.flush()

    def _send(self, kind: int, values: list[Any]) -> None:
        try:
            content = orjson.dumps(values)
        except TypeError:  # a text with half characters, as PDFs give
            content = orjson.dumps([_mended(value) if isinstance(value, str) else value for value in values])
        self._out.write(FRAME.pack(len(content), kind) + content)

    def _wind(self) -> None:
        """Give the parser its seconds anew: the kernel ends the process when they are over."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        until_s = math.ceil(used.ru_utime + used.ru_stime + self._parser_s)
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        self._told_s = time.monotonic()


def serve(request: dict[str, Any], file: IO[bytes], answers: Answers) -> None:
    """Send what is in one file."""
    limits, name = Limits(**request["limits"]), str(request["name"])
    answers.start(limits.parser_s)
    try:
        with foreign("file"):
            content = Content(
                name,
                file,
                format_of(name),
                limits,
                Fields(**request["fields"]),
                tuple(request["patterns"]),
                start=request["start"],
                stop=request["stop"],
                first_line=request["first_line"],
                is_whole=True,
                touch=answers.touch,
            )
            for item in items(content):
                answers.item(item)
    except Unreadable as error:
        answers.item(Quarantined(name, error.line, str(error)))
    except Unloadable as error:
        answers.unusable(str(error))
    answers.done()


def confine(parent: int, memory_bytes: int) -> None:
    """End with the parent, take no more memory than this, and reach nothing but what is sent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, FILES_OPEN_MAX)
    landlock.only_read({*sys.path, sys.prefix, sys.base_prefix, *_linked(), *_libraries(), *_OF_THE_SYSTEM})


def _limit(kind: int, most: int) -> None:
    """Take no more than `most` of it, or than we may have anyway where that is less."""
    allowed = resource.getrlimit(kind)[1]
    bound = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    resource.setrlimit(kind, (bound, bound))


def _linked() -> set[str]:
    """Where packages really are that were installed as links to one copy for all environments."""
    known = (file for folder in sys.path for file in glob.iglob(f"{glob.escape(folder)}/*.dist-info/METADATA"))
    return {os.path.dirname(os.path.dirname(os.path.realpath(file))) for file in known}


def _libraries() -> list[str]:
    return list(filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))


def requests(parent: socket.socket) -> Iterator[tuple[dict[str, Any], IO[bytes]]]:
    """Requests with their files until the parent closes its end."""
    while True:
        head, files, _, _ = socket.recv_fds(parent, REQUEST.size, 1)
        if not head:
            return
        with os.fdopen(files[0], "rb") as file:
            head += _received(parent, REQUEST.size - len(head))
            yield orjson.loads(_received(parent, *REQUEST.unpack(head))), file


def _received(parent: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := parent.recv(size - len(data))):
        data += piece
    return data


def _mended(text: str) -> str:
    """With pairs of half characters joined, and single ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _own_output() -> IO[bytes]:
    """The way to the parent, out of reach of what parsers print."""
    out = os.fdopen(fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3), "wb")  # not 2, which may be closed: it is taken later
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    return out


def main() -> None:
    """Serve until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    with _own_output() as out, socket.socket(fileno=0) as parent:
        answers = Answers(out)
        try:
            confine(int(sys.argv[1]), int(sys.argv[2]))
        except (OSError, ValueError, OverflowError) as error:
            answers.unusable(f"the process of the parsers cannot be confined: {error}")
            return
        os.dup2(1, 2)  # what parsers say is nobody's to read
        answers.ready()
        for request, file in requests(parent):
            serve(request, file, answers)


if __name__ == "__main__":
    main()
