"""The roles started one by one, as on several machines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import ATOLL, Platform, free_port, until


@contextlib.contextmanager
def role(home: Platform, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        process = subprocess.Popen([ATOLL, *words], env=home.environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


def test_server_gateway_and_agent_run_as_separate_processes(tmp_path: Path) -> None:
    centre, far = Platform(tmp_path / "centre"), Platform(tmp_path / "far")
    inner = f"127.0.0.1:{free_port()}"
    log = tmp_path / "roles.log"
    with contextlib.ExitStack() as running:
        server = running.enter_context(role(centre, log, "server", "--listen", inner))
        key = centre.home / "run" / "system.key"
        until(lambda: key.exists() and (centre.home / "credentials.toml").exists(), "the server's first start")
        gateway = ("gateway", "--server", f"http://{inner}", "--listen", f"127.0.0.1:{centre.port}")
        running.enter_context(role(centre, log, *gateway))
        agent = (
            "agent",
            "--join",
            f"http://{inner}",
            "--key-file",
            str(key),
            "--node",
            "far-1",
            "--label",
            "zone=north",
        )
        running.enter_context(role(far, log, *agent))

        def node() -> str:
            done = centre.cli("get", "node", "far-1", "-o", "json", "--address", centre.address, "--key", admin(centre))
            return json.loads(done.stdout)["status"]["phase"] if done.returncode == 0 else ""

        until(lambda: node() == "schedulable", "far-1 to join", 180)
        assert server.poll() is None


def admin(centre: Platform) -> str:
    from atoll.sdk import resolve_credentials

    return resolve_credentials(home=centre.home, environment={}).key


def test_an_agent_without_a_key_says_which(tmp_path: Path) -> None:
    done = Platform(tmp_path / "home").cli("agent", "--join", "http://127.0.0.1:9", "--key-file", "/nothing/here")
    assert done.returncode != 0
    assert "/nothing/here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["agent"], ["gateway"]], ids=" ".join)
def test_a_role_without_its_address_is_refused(words: list[str], tmp_path: Path) -> None:
    done = Platform(tmp_path / "home").cli(*words)
    assert done.returncode == 2
    assert "Missing option" in done.stderr
    assert not os.listdir(tmp_path)
