"""`python -m atoll.serving.gateway.main`: the gateway as a process, or as several with `--workers`.

Listens where told, or on the socket handed down in ATOLL_LISTEN_FD. SIGTERM, SIGINT, or the end of the pipe in
ATOLL_PARENT_FD (the supervisor is gone) drain: no new connections, answers under way get DRAIN_S, what is free of the
slices is given back, then exit 0.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from atoll.core.errors import AtollError, Invalid
from atoll.core.logs import log_to_stderr
from atoll.serving.gateway.app import Gateway
from atoll.serving.gateway.shipper import Shipper
from atoll.serving.gateway.upstream import Origin
from atoll.serving.gateway.workers import inherit, orphans, prepare, supervise

DRAIN_S = 10.0
TICK_S = 0.5
FAREWELL_S = 2.0
BACKLOG = 2048
DEAD_PEER_MS = 60_000  # a client that vanished without a word is noticed; its connections inherit this

log = logging.getLogger(__name__)


def main() -> None:
    """Parse, listen, serve."""
    arguments = parse(sys.argv[1:])
    log_to_stderr("gateway", os.environ.get("ATOLL_LOG_LEVEL") or "INFO")
    try:
        key = read_key(arguments.key_file)
        _raise_descriptor_limit()
        if arguments.workers > 1 and arguments.worker is None:
            sys.exit(supervise(sys.argv[1:], split_address(arguments.listen), arguments.workers))
        listener = open_listener(arguments.listen)
        uvloop.run(run(arguments.home / "gateway", arguments.server, key, listener, arguments))
    except (AtollError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="atoll gateway", description="Serve the platform's one public address.")
    parser.add_argument("--home", type=Path, required=True, help="folder for the snapshot and the usage journal")
    parser.add_argument("--server", required=True, help="address of the Atoll server, http://host:port")
    parser.add_argument("--listen", default="127.0.0.1:8000", help="host:port; unused with ATOLL_LISTEN_FD")
    parser.add_argument("--key-file", type=Path, help="file with the key to the server, instead of ATOLL_SYSTEM_KEY")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the address")
    parser.add_argument("--worker", type=int, help="be this one of the workers; for whoever starts them")
    return parser.parse_args(words)


def read_key(path: Path | None) -> str:
    """The key to the server."""
    key = path.read_text() if path else os.environ.get("ATOLL_SYSTEM_KEY", "")
    if not key.strip():
        raise Invalid("the gateway has no key to the server", hint="set ATOLL_SYSTEM_KEY or give --key-file")
    return key.strip()


def open_listener(address: str) -> socket.socket:
    """The socket handed down by the supervisor, or one of our own on `address`."""
    handed_down = os.environ.get("ATOLL_LISTEN_FD")
    listener = socket.socket(fileno=int(handed_down)) if handed_down else _bind(address)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
    return listener


def _bind(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port; raises Invalid."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise Invalid(f"{address!r} is no host:port", field="listen")
    return host.strip("[]") or "127.0.0.1", int(port)


async def run(home: Path, server: str, key: str, listener: socket.socket, arguments: argparse.Namespace) -> None:
    """The life of the process: serve until a signal comes or the supervisor goes."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _watch_parent(loop, stop)
    worker, workers = arguments.worker or 0, arguments.workers
    gateway = Gateway(prepare(home, worker), Origin(server), key, shared=home, worker=worker, workers=workers)
    gc.collect()
    gc.freeze()
    heir = loop.create_task(inherit(orphans(home, worker, workers), gateway.client, gateway.server, key))
    try:
        await serve(gateway, listener, stop)
    finally:
        heir.cancel()
        await asyncio.wait([heir])


async def serve(gateway: Gateway, listener: socket.socket, stop: asyncio.Event, *, tick_s: float = TICK_S) -> None:
    """Serve until `stop`, then drain."""
    loop = asyncio.get_running_loop()
    client, server, key = gateway.client, gateway.server, gateway.system_key
    shipper = Shipper(gateway.journal, client, server, key)
    gateway.metrics.gauges["journal_refused"] = ("Usage records put aside.", lambda: shipper.refused)
    tasks = [
        loop.create_task(_tick(gateway, tick_s)),
        loop.create_task(gateway.directory.follow(client, server, key)),
        loop.create_task(shipper.run()),
        loop.create_task(gateway.purse.run(client, server, key)),
        loop.create_task(gateway.loads.run(client, server, key)),
    ]
    listening = await loop.create_server(gateway.http.connect, sock=listener, backlog=BACKLOG)
    log.info("gateway listens on %s", listener.getsockname())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    listening.close()
    await _drain(gateway)
    failed = [task for task in tasks if task.done()]
    for task in (stopping, *tasks):
        task.cancel()
    await asyncio.gather(stopping, *tasks, return_exceptions=True)
    if not failed and gateway.directory.is_server_reachable:
        await _say_farewell(gateway, shipper)
    client.close()
    await gateway.journal.close()
    gateway.recorder.close()
    gateway.limiter.close()
    for task in failed:
        task.result()  # a gateway that lost one of its tasks says why and lets itself be started anew


async def _say_farewell(gateway: Gateway, shipper: Shipper) -> None:
    """The last records and what is free of the slices, to a server that is there."""
    with suppress(TimeoutError, AtollError, OSError):
        async with asyncio.timeout(FAREWELL_S):
            await gateway.journal.sync()
            while await shipper.ship():
                pass
            await gateway.purse.give_back(gateway.client, gateway.server, gateway.system_key)


async def _tick(gateway: Gateway, tick_s: float) -> None:
    while True:
        gateway.tick()
        await asyncio.sleep(tick_s)


async def _drain(gateway: Gateway) -> None:
    """Let answers under way end, for at most DRAIN_S."""
    gateway.http.drain()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while gateway.http.connections:
                await asyncio.sleep(0.02)
    gateway.http.abort()
    await asyncio.sleep(0)


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the supervisor's end of the pipe closes."""
    descriptor = os.environ.get("ATOLL_PARENT_FD")
    if descriptor:
        pipe = int(descriptor)

        def on_readable() -> None:
            if not os.read(pipe, 4096):
                loop.remove_reader(pipe)
                stop.set()

        loop.add_reader(pipe, on_readable)


def _raise_descriptor_limit() -> None:
    """As many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
