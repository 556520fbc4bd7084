"""Load reports: what they say and when they go out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from atoll.serving.gateway.loads import BUSY_S, QUIET_S, SAMPLE_LIFE_S, Loads
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


def test_held_request_is_told_at_once_and_the_rest_within_a_second(control: Control) -> None:
    told: list[tuple[float, dict[str, object]]] = []

    def take(handler: object, body: bytes) -> None:
        told.append((time.monotonic(), json.loads(body)["targets"]))
        handler.reply(200, b"{}")  # type: ignore[attr-defined]

    control.routes["/api/v1/gateway/load"] = take

    async def until(count: int) -> float:
        async with asyncio.timeout(10):
            while len(told) < count:
                await asyncio.sleep(0.002)
        return told[count - 1][0]

    async def live() -> None:
        loads, client = Loads("source"), Client()
        running = asyncio.create_task(loads.run(client, Origin(control.url), SYSTEM_KEY))
        await until(1)
        begun = time.monotonic()
        loads.queued("t", 1)
        assert await until(2) - begun < BUSY_S / 2
        loads.began("t")
        assert await until(3) - begun < 3 * BUSY_S
        assert await until(4) - begun > QUIET_S
        running.cancel()
        client.close()
        await asyncio.sleep(0)

    asyncio.run(live())
    assert [targets.get("t", {}).get("queued") for _, targets in told[:3]] == [None, 1, 1]
