"""Ports for servers that tests start, and start again where they were."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator


def free_port() -> int:
    """A port for whoever asks, also a while later: the kernel gives it to nobody, and no other test worker takes it."""
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _own_ports() -> Iterator[int]:
    """Every 16th port below the kernel's own (which begin at 32768), from one that depends on this process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    for number in itertools.count(os.getpid() * 37):
        yield 12_000 + number % 1250 * 16 + worker


_ports = _own_ports()
