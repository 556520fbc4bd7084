"""Load reports: what they say and when they go out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from atoll.serving.gateway import loads as module
from atoll.serving.gateway.loads import SAMPLE_LIFE_S, Loads
from atoll.serving.gateway.upstream import Client, Origin
from integration.gateway.control import SYSTEM_KEY, Control


def test_report_says_what_is_under_way() -> None:
    loads = Loads("source", host="here")
    for _ in range(3):
        loads.began("t1")
    loads.ended("t1", 40)
    loads.queued("t2", 1)
    report = loads.report()
    assert (report["source"], report["host"]) == ("source", "here")
    assert report["targets"] == {
        "t1": {"outstanding": 2, "queued": 0, "started_total": 3, "tokens_total": 40, "ttft_p95_s": None},
        "t2": {"outstanding": 0, "queued": 1, "started_total": 0, "tokens_total": 0, "ttft_p95_s": None},
    }
    loads.queued("t2", -1)
    assert loads.report()["targets"]["t2"]["queued"] == 0


def test_time_to_the_first_token_is_of_the_last_minute() -> None:
    now = 0.0
    loads = Loads("source", now=lambda: now)
    loads.first_token("t", 9.0)
    now = SAMPLE_LIFE_S + 1.0
    for number in range(1, 101):
        loads.first_token("t", number / 100)
    assert loads.report()["targets"]["t"]["ttft_p95_s"] == 0.95
    now *= 3
    assert loads.report()["targets"]["t"]["ttft_p95_s"] is None


def test_target_long_idle_is_left_out() -> None:
    now = 0.0
    loads = Loads("source", now=lambda: now)
    loads.began("idle")
    loads.began("busy")
    loads.ended("idle", 1)
    now = 10_000.0
    assert list(loads.report()["targets"]) == ["busy"]


@pytest.fixture
def control() -> Iterator[Control]:
    control = Control()
    control.start()
    yield control
    control.stop()


def test_held_request_is_told_at_once_and_the_rest_within_a_second(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is a long one, and then a short one, so that no stall of the machine changes what is seen."""
    told: list[tuple[float, dict[str, object]]] = []

    def seconds(busy: float, quiet: float) -> None:
        monkeypatch.setattr(module, "BUSY_S", busy)
        monkeypatch.setattr(module, "QUIET_S", quiet)

    def take(handler: object, body: bytes) -> None:
        told.append((time.monotonic(), json.loads(body)["targets"]))
        seconds(*[(300.0, 300.0), (0.1, 300.0), (0.1, 1.0)][min(len(told), 3) - 1])
        handler.reply(200, b"{}")  # type: ignore[attr-defined]

    control.routes["/api/v1/gateway/load"] = take

    async def until(count: int) -> float:
        async with asyncio.timeout(60):
            while len(told) < count:
                await asyncio.sleep(0.002)
        return told[count - 1][0]

    async def live() -> None:
        loads, client = Loads("source"), Client()
        running = asyncio.create_task(loads.run(client, Origin(control.url), SYSTEM_KEY))
        await until(1)
        loads.queued("t", 1)
        await until(2)
        loads.began("t")
        changed = await until(3)
        assert await until(4) - changed > 1.0
        running.cancel()
        client.close()
        await asyncio.sleep(0)

    asyncio.run(live())
    assert [targets.get("t", {}).get("queued") for _, targets in told[:3]] == [None, 1, 1]
    assert [targets["t"]["outstanding"] for _, targets in told[1:3]] == [0, 1]  # type: ignore[index]
