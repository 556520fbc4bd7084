"""Bench `gateway`: what one request costs the gateway, and LiteLLM beside it. JSON on the last line.

Processes: the gateway under test; a world around it (an engine that answers at once, with events as llama.cpp sends
them, and a centre that hands out the snapshot and slices and takes usage); and this one, which sends the load.
Everything counts: authentication, limits, budget reservation, routing, the usage journal with its fsyncs, shipping.
LiteLLM's proxy (one worker, a master key, the same fake engine, an environment of its own) is asked the same in the
same rounds, and so is the barest gateway Python can be (`bench.parts.bare`), whose cost is the machine's own part.
CPU time is that of the gateway's process with all threads and children (/proc/PID/stat), the median over rounds, so a
busy machine shifts it little; `added_ms_p50_c1` is a difference of two medians of wall times and shifts more. The
gateway under test has one core, everything else the other, where there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.parts import rivals
from bench.parts.load import Door, Tally, load_count, load_for
from bench.parts.processes import answer, cpu_s, descriptors, free_port, memory_mb
from bench.parts.world import GAP_S, KEY, MODEL, STREAM_EVENTS, SYSTEM_KEY

TESTS = Path(__file__).parents[1]
ROUNDS, ROUND_S = 5, 2.0
HELD_STREAMS = 1000
SOAK_REQUESTS = 100_000
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 200}]}
STREAM = BODY | {"stream": True}


@dataclass
class Subject:
    """A gateway under test."""

    name: str
    door: Door
    pid: int
    answered: int = 0

    async def load_for(self, body: dict[str, Any], connections: int, seconds: float) -> Tally:
        """Load for a time; none of it may fail."""
        return self._counted(await load_for(self.door, body, connections, seconds))

    async def load_count(self, body: dict[str, Any], connections: int, requests: int) -> Tally:
        """A number of requests; none of them may fail."""
        return self._counted(await load_count(self.door, [body] * connections, requests))

    def _counted(self, tally: Tally) -> Tally:
        assert not tally.failures, f"{self.name}: {tally.failures} requests failed"
        self.answered += len(tally.latencies_s)
        return tally

    async def cost_us(self, connections: int, *, is_stream: bool = False) -> float:
        """Processor time per request, or per streamed event, of one round."""
        before = cpu_s(self.pid)
        tally = await self.load_for(STREAM if is_stream else BODY, connections, ROUND_S)
        return (cpu_s(self.pid) - before) / (tally.events if is_stream else len(tally.latencies_s)) * 1e6


async def compare(subjects: list[Subject], engine: Door) -> dict[str, dict[str, float]]:
    """The figures of all subjects, from rounds in which they take turns."""
    costs: dict[str, dict[str, list[float]]] = {s.name: {"json": [], "event": [], "added": []} for s in subjects}
    for subject in subjects:
        await subject.load_for(BODY, 8, 0.5)
    for _ in range(ROUNDS):
        for subject in subjects:
            mine = costs[subject.name]
            mine["json"].append(await subject.cost_us(64))
            mine["event"].append(await subject.cost_us(100, is_stream=True))
            direct = await load_for(engine, BODY, 1, ROUND_S / 4)
            through = await subject.load_for(BODY, 1, ROUND_S / 4)
            mine["added"].append((through.median_s - direct.median_s) * 1e3)
    return {
        name: {
            "cpu_us_per_json_request": round(statistics.median(mine["json"]), 1),
            "cpu_us_per_stream_event": round(statistics.median(mine["event"]), 1),
            "added_ms_p50_c1": round(statistics.median(mine["added"]), 3),
        }
        for name, mine in costs.items()
    }


async def hold_streams(subject: Subject) -> dict[str, float]:
    """HELD_STREAMS at once: the most memory they take together, and how many were not whole."""
    highest_mb = 0.0
    running = asyncio.create_task(subject.load_count(STREAM, HELD_STREAMS, HELD_STREAMS))
    while not running.done():
        highest_mb = max(highest_mb, memory_mb(subject.pid))
        await asyncio.sleep(GAP_S * STREAM_EVENTS / 8)
    tally = await running
    ends = len(tally.latencies_s)  # each stream has one more event that says why it ended
    lost = HELD_STREAMS * STREAM_EVENTS - (tally.events - ends)
    return {"held_streams": HELD_STREAMS, "held_streams_memory_mb": highest_mb, "held_streams_events_lost": lost}


async def soak(subject: Subject) -> dict[str, float]:
    """SOAK_REQUESTS one after another on 64 connections: what they leave behind."""
    await subject.load_count(BODY, 64, SOAK_REQUESTS // 10)
    await asyncio.sleep(1.0)
    before = memory_mb(subject.pid), descriptors(subject.pid)
    tally = await subject.load_count(BODY, 64, SOAK_REQUESTS)
    await asyncio.sleep(1.0)
    return {
        "soak_requests": len(tally.latencies_s),
        "soak_memory_growth_mb": round(memory_mb(subject.pid) - before[0], 1),
        "soak_descriptors_growth": descriptors(subject.pid) - before[1],
    }


@contextmanager
def world(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "bench.parts.world", str(port)], cwd=TESTS)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def atoll(folder: Path, world_port: int, core: int) -> Iterator[Subject]:
    port = free_port()
    command = [sys.executable, "-m", "atoll.serving.gateway.main", "--home", str(folder)]
    command += ["--server", f"http://127.0.0.1:{world_port}", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, env=os.environ | {"ATOLL_SYSTEM_KEY": SYSTEM_KEY})
    os.sched_setaffinity(process.pid, {core})
    try:
        yield Subject("atoll", Door(port, KEY), process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def bare(world_port: int, core: int) -> Iterator[Subject]:
    port = free_port()
    command = [sys.executable, "-m", "bench.parts.bare", str(port), str(world_port)]
    process = subprocess.Popen(command, cwd=TESTS)
    os.sched_setaffinity(process.pid, {core})
    try:
        yield Subject("bare", Door(port, KEY), process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def litellm(folder: Path, world_port: int, core: int) -> Iterator[Subject]:
    port = free_port()
    process = rivals.start_litellm(folder, port, world_port, MODEL, KEY)
    os.sched_setaffinity(process.pid, {core})
    try:
        yield Subject("litellm", Door(port, KEY), process.pid)
    finally:
        process.kill()
        process.wait()


async def bench(folder: Path, *, with_rivals: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Our figures, and the rivals' named `litellm_…`."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    world_port = free_port()
    with world(world_port), atoll(folder / "home", world_port, cores[0]) as ours, ExitStack() as others:
        await answer(ours.door.port, f"/v1/models/{MODEL}", KEY)
        idle_mb = memory_mb(ours.pid)
        engine = Door(world_port, KEY)
        subjects = [ours, others.enter_context(bare(world_port, cores[0]))]
        if with_rivals:
            rival = others.enter_context(litellm(folder, world_port, cores[0]))
            await answer(rival.door.port, "/health/liveliness", KEY, 120.0)
            subjects.append(rival)
        results = await compare(subjects, engine)
        others.close()
        figures: dict[str, float] = results["atoll"] | {"idle_memory_mb": idle_mb}
        figures |= await hold_streams(ours) | await soak(ours)
        await asyncio.sleep(1.0)
        counted = json.loads(await answer(ours.door.port, "/figures", KEY))
        figures |= {"requests": ours.answered, "records_lost": ours.answered - counted["records"]}
    theirs = {f"{who}_{name}": v for who in results if who != "atoll" for name, v in results[who].items()}
    for what in ("json_request", "stream_event"):
        figures[f"{what}_ratio_bare"] = round(figures[f"cpu_us_per_{what}"] / theirs[f"bare_cpu_us_per_{what}"], 2)
    if with_rivals:
        ratio = theirs["litellm_cpu_us_per_json_request"] / figures["cpu_us_per_json_request"]
        figures["litellm_cpu_ratio"] = round(ratio, 1)
    return figures, theirs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-rivals", action="store_true", help="do not install and run LiteLLM beside it")
    with_rivals = not parser.parse_args().no_rivals
    with tempfile.TemporaryDirectory() as folder:
        figures, theirs = uvloop.run(bench(Path(folder), with_rivals=with_rivals))
    line = {
        "bench": "gateway",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()},
        "figures": figures,
        "rivals": theirs,
        "command": "python tests/bench/gateway.py",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
