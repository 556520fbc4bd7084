"""A worker: a child process that works off items handed over a pipe; and the nursery that workers are forked from.

`python -m atoll.data.engine.runtimes.worker SOCKET PARENT`: the nursery is started once, made ready, and forks a worker
whenever the parent hands it two pipes, so that workers share the memory of all that is loaded. It runs no thread.
Worker and nursery die with the parent. Messages are pickles between our own processes; nothing else has these pipes.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

from atoll.core.errors import AtollError
from atoll.data.engine.runtimes.without_pandas import do_without_pandas

PR_SET_PDEATHSIG = 1
FORK, KILL, PREPARE = b"f", b"k", b"p"
"""Messages to the nursery: fork a worker with the two pipes that come along; kill worker PID; call what is pickled."""
NAME_BYTES = 8
OPERATORS = "atoll.data.engine.curate.curation"
"""What brings all that items call; imported at once, while the parent still makes its plan."""
MESSAGE_BYTES = 1 << 20


def main() -> None:
    """Be the nursery until the socket ends."""
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    do_without_pandas()
    importlib.import_module(OPERATORS)
    with socket.socket(fileno=int(sys.argv[1])) as door:
        _nurse(door)
    while _has_children():
        os.wait()
    sys.stderr.flush()
    os._exit(0)  # taking an interpreter apart that is not needed any more would keep the parent waiting


def _nurse(door: socket.socket) -> None:
    children: set[int] = set()
    while True:
        message, pipes, _, _ = socket.recv_fds(door, MESSAGE_BYTES, 2)
        if not message:
            return
        kind, content = message[:1], message[1:]
        if kind == FORK:
            child = _forked(door, *pipes)
            children.add(child)
            door.send(child.to_bytes(NAME_BYTES, "big"))
        elif kind == KILL and int.from_bytes(content, "big") in children:
            child = int.from_bytes(content, "big")
            os.kill(child, signal.SIGKILL)  # it is ours and not waited for, so the number is still its own
            os.waitpid(child, 0)
            children.discard(child)
        elif kind == PREPARE:
            door.send(pickle.dumps(_prepared(content)))


def _forked(door: socket.socket, calls: int, answers: int) -> int:
    """Fork a worker that serves these pipes; its process number."""
    nursery = os.getpid()
    child = os.fork()
    if child:
        os.close(calls)
        os.close(answers)
        return child
    status = 1
    try:
        door.close()
        die_with_parent(nursery)
        serve(Connection(calls, writable=False), Connection(answers, readable=False))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _prepared(content: bytes) -> AtollError | None:
    """Call what is asked for, first in a child where that compiles, whose memory is gone with it; what went wrong."""
    ready, value = pickle.loads(content)  # noqa: S301 - from our parent
    try:
        from atoll.data.engine.curate.prepare import is_compiling

        if is_compiling():
            _apart(ready, value)
        ready(value)
    except AtollError as error:
        return error
    return None


def _apart(ready: Any, value: Any) -> None:
    """Call it in a child; what goes wrong there goes wrong here, too."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        die_with_parent(os.getppid())
        ready(value)
    finally:
        os._exit(0)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def serve(calls: Connection, answers: Connection) -> None:
    """Perform each call and answer (None, processor seconds) or (what went wrong, 0)."""
    from atoll.data.engine.read import close as end_parsers
    from atoll.data.engine.runtimes.stages import give_back, perform

    while True:
        try:
            call = calls.recv()
        except EOFError:
            end_parsers()  # or what they took would not be counted
            return
        answer: tuple[Any, float]
        try:
            answer = (None, perform(*call))
        except AtollError as error:
            answer = (error, 0.0)
        answers.send(answer)
        give_back()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends (Linux); elsewhere the end of the pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
