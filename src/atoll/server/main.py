"""The server role: `python -m atoll.server.main`."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from atoll.core.errors import AtollError
from atoll.core.logs import log_to_stderr
from atoll.core.settings import Settings, load
from atoll.server.app import make_app
from atoll.server.centre import Centre
from atoll.server.processes import exit_with_parent, hold_lock, listening_socket
from atoll.server.wait import Waiter

STOP_S = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 0 on a clean end, 2 when it cannot begin."""
    parser = argparse.ArgumentParser(prog="atoll server", description="The management API and the controllers.")
    parser.add_argument("--home", help="folder of this machine's state")
    parser.add_argument("--listen", help="host:port of the management API (default: the door's, 127.0.0.1:8400)")
    options = parser.parse_args(argv)
    try:
        settings = load({"home": options.home, "listen": options.listen})
        log_to_stderr("server", settings.log_level)
        settings.home.mkdir(parents=True, exist_ok=True)
        with hold_lock(settings.home / "run" / "server.lock", "a server", wait_s=10.0):
            return serve(settings, listening_socket(settings))
    except AtollError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def serve(settings: Settings, listener: socket.socket) -> int:
    """Run the application on `listener`."""
    app = make_app(Centre(settings))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=STOP_S,
        timeout_keep_alive=75,
        ws="none",
        proxy_headers=False,  # whom to believe about addresses is decided in access
    )
    server = _Server(config, app.state.waiter)
    exit_with_parent(server.stop)
    server.run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Answers everybody who waits for changes before it counts who is left."""

    def __init__(self, config: uvicorn.Config, waiter: Waiter) -> None:
        super().__init__(config)
        self._waiter = waiter

    def stop(self) -> None:
        self._waiter.stop()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._waiter.stop()
        super().handle_exit(sig, frame)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
