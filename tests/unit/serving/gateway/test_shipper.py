"""Shipping: what the server refuses for good does not hold up the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from atoll.serving.gateway import shipper as module
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.shipper import Shipper
from atoll.serving.gateway.upstream import Client, Origin
from integration.gateway.control import SYSTEM_KEY, Control


@pytest.fixture
def control() -> Iterator[Control]:
    control = Control()
    control.start()
    yield control
    control.stop()


def deliver(folder: Path, control: Control, records: int, monkeypatch: pytest.MonkeyPatch) -> Shipper:
    """Append so many records and ship until the journal is empty."""
    monkeypatch.setattr(module, "BACK_OFF_FIRST_S", 0.01)

    async def live() -> Shipper:
        journal, client = Journal(folder), Client()
        shipper = Shipper(journal, client, Origin(control.url), SYSTEM_KEY)
        running = asyncio.create_task(shipper.run())
        for number in range(1, records + 1):
            journal.append({"request_id": f"r{number}"})
        async with asyncio.timeout(60):
            while journal.unacknowledged:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        client.close()
        await journal.close()
        return shipper

    return asyncio.run(live())


def refuse(control: Control, bad: set[int], status: int) -> list[int]:
    """The server cannot take batches with these records; the sizes of the batches it saw."""
    sizes: list[int] = []

    def take(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        batch = json.loads(body)
        sizes.append(len(batch["records"]))
        if any(record["seq"] in bad for record in batch["records"]):
            handler.reply(status, b'{"message":"not so"}')  # type: ignore[attr-defined]
        else:
            acknowledged = control.take_usage(batch)
            handler.reply(200, json.dumps({"acknowledged": acknowledged}).encode())  # type: ignore[attr-defined]

    control.routes["/api/v1/gateway/usage"] = take
    return sizes


@pytest.mark.parametrize("status", [400, 422])
def test_refused_record_is_put_aside_and_the_rest_arrives(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    bad = {7, 8, 300}
    sizes = refuse(control, bad, status)
    shipper = deliver(tmp_path, control, 300, monkeypatch)
    assert sorted(seq for _, seq in control.usage) == [n for n in range(1, 301) if n not in bad]
    lines = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [line["record"]["seq"] for line in lines] == sorted(bad)
    assert all("not so" in line["reason"] for line in lines)
    assert shipper.refused == 3
    assert sizes[:3] == [300, 300, 300], "the whole batch is tried more than once"
    assert len(sizes) < 60


def test_count_of_refused_records_outlives_the_process(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(control, {2}, 400)
    assert deliver(tmp_path, control, 3, monkeypatch).refused == 1
    assert deliver(tmp_path, control, 3, monkeypatch).refused == 1
    assert sorted(seq for _, seq in control.usage) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_trouble_of_the_server_puts_nothing_aside(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    calls = 0

    def take(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls <= 6:
            handler.reply(status, b"{}")  # type: ignore[attr-defined]
        else:
            handler.reply(200, json.dumps({"acknowledged": control.take_usage(json.loads(body))}).encode())  # type: ignore[attr-defined]

    control.routes["/api/v1/gateway/usage"] = take
    assert deliver(tmp_path, control, 20, monkeypatch).refused == 0
    assert len(control.usage) == 20
    assert not (tmp_path / "refused.jsonl").exists()
