"""Usage records: what a request was, for the journal; and the flight recorder's short form of the same.

Pure. Knows nothing of how they are kept or shipped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from atoll.governance.prices import cost_micros
from atoll.serving.fairness import PRIORITIES
from atoll.serving.gateway.dialects.order import Endpoint
from atoll.serving.gateway.dispatch import Place
from atoll.serving.gateway.events import EventFilter
from atoll.serving.gateway.http import Request
from atoll.serving.gateway.recorder import HEAD_BYTES_MAX
from atoll.serving.gateway.slices import charges
from atoll.serving.gateway.snapshot import Key, Model
from atoll.serving.gateway.usage import Tokens

PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}


class Told:
    """What is remembered of a request's life; monotonic times in seconds, None before they come."""

    __slots__ = (
        "asked_s",
        "begun_s",
        "ended_s",
        "engine_s",
        "first_s",
        "is_settled",
        "is_stream",
        "priority",
        "project",
        "queue_s",
        "read_s",
        "user",
    )

    def __init__(self, begun_s: float, project: str, priority: int) -> None:
        self.begun_s = self.read_s = begun_s
        self.project = project
        self.priority = priority
        self.asked_s: float | None = None
        self.first_s: float | None = None
        self.engine_s: float | None = None
        self.ended_s = begun_s
        self.queue_s = 0.0
        self.is_stream = False
        self.is_settled = False
        self.user = ""

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.begun_s


def record_of(
    key: Key, request: Request, endpoint: Endpoint, model: Model, place: Place, told: Told, slices: Mapping[str, str]
) -> dict[str, Any]:
    """What is known of a request when it is first sent to a replica; `slices` are those it may be charged to."""
    target = place.target
    return {
        "ts": time.time(),
        "request_id": request.request_id.decode(),
        "project": told.project,
        "key_id": key.id,
        "model": model.name,
        "deployment": target.id,
        "replica": place.replica.id,
        "endpoint": endpoint.name,
        "stream": told.is_stream,
        "price": target.price,
        "priority": PRIORITY_NAMES[told.priority],
        "provider": target.is_provider,
        "queue_s": told.queue_s,
        "slices": slices,
        "user": told.user,
    }


def recorder_head(record: dict[str, Any]) -> bytes | None:
    """That for the flight recorder, at most HEAD_BYTES_MAX; None when it cannot be made so short."""
    data = orjson.dumps(record)
    if len(data) > HEAD_BYTES_MAX:
        data = orjson.dumps(record | {"user": "", "request_id": record["request_id"][:64]})
    return data if len(data) <= HEAD_BYTES_MAX else None


def finish_record(
    record: dict[str, Any], place: Place, told: Told, used: Tokens, outcome: str, http_status: int
) -> None:
    """Add how it ended, and where it was answered if that is elsewhere than where it was first sent."""
    target = place.target
    record["deployment"], record["replica"] = target.id, place.replica.id
    record["price"], record["provider"] = target.price, target.is_provider
    record["currency"] = "" if target.tariff is None else target.tariff.currency
    record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"] = used
    record["status"], record["http_status"] = outcome, http_status
    record["ts"] = time.time()
    record["ttft_s"], record["duration_s"], record["queue_s"] = told.ttft_s, told.ended_s - told.begun_s, told.queue_s


def lost_record(head: bytes, event: bytes) -> dict[str, Any] | None:
    """The usage record of a request that a killed gateway left; None when its head cannot be read.

    `event` is the last one that told a count.
    """
    try:
        told: dict[str, Any] = orjson.loads(head)
        slices, price = told["slices"], told["price"]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    counting = EventFilter()
    counting.feed(event if event.endswith(b"\n\n") else event + b"\n\n")
    tokens = counting.tokens()
    cost = cost_micros(price, tokens.prompt, tokens.cached, tokens.completion)
    return told | {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "cached_tokens": tokens.cached,
        "status": "lost",
        "http_status": 0,
        "currency": str(price.get("currency") or "") if price else "",
        "cost_micros": cost,
        "slices": charges(slices, tokens.prompt + tokens.completion, cost),
        "ttft_s": None,
        "duration_s": max(0.0, time.time() - told["ts"]),
        "note": "the gateway was killed while it ran",
    }
