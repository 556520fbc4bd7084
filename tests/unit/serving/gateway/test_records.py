"""Usage records of requests that a killed gateway left."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from atoll.serving.gateway.explain import NOTE_CHARACTERS_MAX, note
from atoll.serving.gateway.recorder import HEAD_BYTES_MAX
from atoll.serving.gateway.records import lost_record, recorder_head

PRICE = {"input_per_million": 1.0, "output_per_million": 2.0, "currency": "EUR"}
HEAD: dict[str, Any] = {
    "ts": 1.0,
    "request_id": "req-1",
    "project": "p",
    "model": "m",
    "price": PRICE,
    "priority": "normal",
    "slices": {"7": "tokens", "8": "money"},
    "user": "",
}
TIMED = b'data: {"choices":[{"delta":{"content":"x"}}],"timings":{"cache_n":2,"prompt_n":3,"predicted_n":4}}\n\n'


def lost(event: bytes) -> dict[str, Any]:
    record = lost_record(orjson.dumps(HEAD), event)
    assert record is not None
    return record


@pytest.mark.parametrize("event", [TIMED, TIMED[20:], TIMED.rstrip()])
def test_lost_request_is_counted_by_its_last_event(event: bytes) -> None:
    record = lost(event)
    assert (record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]) == (5, 4, 2)
    assert record["status"] == "lost" and record["request_id"] == "req-1"
    assert record["cost_micros"] == 5 * 1 + 4 * 2 and record["currency"] == "EUR"
    assert record["slices"] == {"7": 9, "8": 13}


def test_lost_request_of_an_engine_without_a_count_is_counted_by_what_the_gateway_counted() -> None:
    assert lost(b'data: {"usage":{"prompt_tokens":0,"completion_tokens":12}}')["completion_tokens"] == 12
    assert lost(b"")["completion_tokens"] == 0


@pytest.mark.parametrize("head", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_note_that_cannot_be_read_is_no_record(head: bytes) -> None:
    assert lost_record(head, b"") is None


def test_recorders_head_is_never_too_long() -> None:
    assert recorder_head(HEAD) == orjson.dumps(HEAD)
    shorter = recorder_head(HEAD | {"user": "u" * 900, "request_id": "r" * 128})
    assert shorter is not None and len(shorter) <= HEAD_BYTES_MAX
    assert recorder_head(HEAD | {"model": "m" * 2000}) is None


def test_note_is_cut_at_its_bound() -> None:
    assert note(["a", "b"]) == "a; b"
    assert len(note(["x" * 400] * 3)) == NOTE_CHARACTERS_MAX
