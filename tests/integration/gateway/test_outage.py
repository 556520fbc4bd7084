"""The server may be away: requests are served, usage waits, keys and limits stay in force."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest

from atoll.serving.gateway import directory
from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import WORDS, Engine
from integration.gateway.wire import read_answer

Start = Callable[..., Running]
HELLO = [{"role": "user", "content": "hello"}]


def health(gateway: Running) -> tuple[int, dict[str, str]]:
    with gateway.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n")
        status, _, body, _ = read_answer(connection)
    return status, json.loads(body)


def chat(gateway: Running, key: str = KEY) -> None:
    with gateway.client(key) as client:
        assert client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content == "".join(WORDS)


def test_change_of_the_snapshot_is_in_force_at_once(gateway: Running, control: Control, engine: Engine) -> None:
    chat(gateway)
    control.add_key("sk-second", "key-2")
    control.add_model("fresh", [engine.url])
    gateway.follow(control)
    chat(gateway, "sk-second")
    control.snapshot["keys"].clear()
    gateway.follow(control)
    with pytest.raises(openai.AuthenticationError):
        chat(gateway)


def test_a_slow_disk_holds_no_change_of_the_snapshot_back(
    gateway: Running, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    kept: list[bytes] = []

    def write(path: Path, data: bytes, *, mode: int) -> None:
        goes_on.wait(60)
        kept.append(data)

    monkeypatch.setattr(directory, "write_bytes", write)
    for number in range(3):
        control.add_key(f"sk-new-{number}", f"key-new-{number}")
        gateway.follow(control)
        chat(gateway, f"sk-new-{number}")
    assert kept == []
    goes_on.set()
    wait_until(lambda: kept and json.loads(kept[-1])["seen"] == control.snapshot["seen"], "the newest is kept")


def test_everything_goes_on_while_the_server_is_down(gateway: Running, control: Control) -> None:
    assert health(gateway) == (200, {"status": "ok", "snapshot": "fresh", "server": "reachable", "journal": "ok"})
    control.stop()
    for _ in range(3):
        chat(gateway)
    wait_until(lambda: health(gateway)[1]["server"] == "unreachable", "the outage is seen")
    assert health(gateway)[0] == 200
    assert control.usage == {}
    control.start()
    records = control.wait_for_usage(3)
    assert [record["seq"] for record in records] == [1, 2, 3]
    wait_until(lambda: health(gateway)[1]["server"] == "reachable", "the server is seen again")


def test_restarted_gateway_serves_without_the_server(
    start: Start, control: Control, engine: Engine, tmp_path: Path
) -> None:
    control.add_model("tiny", [engine.url])
    start().stop()
    control.stop()
    kept = tmp_path / "gateway" / "snapshot.json"
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    running = Running(tmp_path / "gateway", control.url)
    try:
        assert health(running) == (200, {"status": "ok", "snapshot": "file", "server": "unreachable", "journal": "ok"})
        chat(running)
    finally:
        running.stop()


def test_gateway_that_never_saw_the_server_is_not_up(control: Control, tmp_path: Path) -> None:
    control.stop()
    running = Running(tmp_path / "gateway", control.url)
    try:
        assert health(running) == (
            503,
            {"status": "starting", "snapshot": "none", "server": "unreachable", "journal": "ok"},
        )
        control.start()
        wait_until(lambda: health(running)[0] == 200, "the gateway is up")
    finally:
        running.stop()


def test_torn_snapshot_file_is_not_used(control: Control, tmp_path: Path) -> None:
    control.stop()
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "snapshot.json").write_bytes(b'{"seen": 4, "keys": {"a": {"id"')
    running = Running(tmp_path / "gateway", control.url)
    try:
        assert health(running)[1]["snapshot"] == "none"
    finally:
        running.stop()


def test_snapshot_that_cannot_be_read_changes_nothing(gateway: Running, control: Control) -> None:
    good = dict(control.snapshot)
    control.snapshot = {"seen": 77, "keys": "none"}
    control.publish()
    wait_until(lambda: health(gateway)[1]["server"] == "unreachable", "the bad snapshot was seen")
    chat(gateway)
    control.snapshot = good | {"seen": 80}
    gateway.follow(control)
    chat(gateway)


def test_replica_with_an_impossible_address_is_left_out(gateway: Running, control: Control, engine: Engine) -> None:
    control.add_model("tiny", ["gopher://nowhere", engine.url])
    gateway.follow(control)
    chat(gateway)
    (target,) = gateway.gateway.directory.snapshot.models["default"]["tiny"].targets
    assert len(target.replicas) == 1


def test_key_expires_while_the_server_is_down(
    start: Start, control: Control, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.add_model("tiny", [engine.url])
    expires_at = time.time() + 3600.0
    control.add_key("sk-brief", "key-brief", expires_at=expires_at)
    running = start()
    control.stop()
    chat(running, "sk-brief")
    monkeypatch.setattr(directory, "time", SimpleNamespace(time=lambda: expires_at))
    with pytest.raises(openai.AuthenticationError):
        chat(running, "sk-brief")


def test_lost_confirmations_bill_nobody_twice(gateway: Running, control: Control) -> None:
    control.loses_confirmations = 2
    for _ in range(3):
        chat(gateway)
    wait_until(lambda: gateway.gateway.journal.unacknowledged == 0, "everything is confirmed")
    assert control.doubles > 0
    assert [record["seq"] for record in control.wait_for_usage(3)] == [1, 2, 3]


def test_key_has_a_bound_of_parallel_requests(gateway: Running, control: Control, engine: Engine) -> None:
    control.snapshot["limits"] = {"requests_per_key_max": 2}
    control.add_key("sk-second", "key-2")
    gateway.follow(control)
    engine.hold_at = 1
    with gateway.client() as client:
        held = [client.chat.completions.create(model="tiny", messages=HELLO, stream=True) for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="2 requests in flight") as caught:
            chat(gateway)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        engine.released.set()
        chat(gateway, "sk-second")
        for stream in held:
            list(stream)
        chat(gateway)


def test_urls_of_the_metrics_page_parse(gateway: Running) -> None:
    chat(gateway)
    with urllib.request.urlopen(f"{gateway.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(float(sample.rpartition(" ")[2]) >= 0 for sample in samples)
    assert 'atoll_gateway_tokens_total{model="tiny",kind="completion"} 5' in samples
