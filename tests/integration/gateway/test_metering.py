"""What is on the bill is what the engine did, however the request ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from integration.gateway.conftest import IMPATIENT, Running
from integration.gateway.control import Control
from integration.gateway.engine import CACHED_TOKENS, PROMPT_TOKENS, WORDS, Engine
from integration.gateway.wire import chat, post, read_answer, read_until

HELLO = [{"role": "user", "content": "hello"}]


def bill(record: dict[str, Any]) -> tuple[str, int, int, int]:
    return record["status"], record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]


def test_record_says_who_what_how_long_and_at_what_price(
    start: Callable[..., Running], control: Control, engine: Engine
) -> None:
    price = {"input_per_million": 0.5, "output_per_million": 1.5, "currency": "EUR"}
    control.add_model("tiny", [engine.url], price=price)
    gateway = start()
    with gateway.client() as client:
        client.chat.completions.create(model="tiny", messages=HELLO, extra_headers={"x-request-id": "mine-1"})
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("ok", PROMPT_TOKENS, len(WORDS), CACHED_TOKENS)
    assert record["ts"] > 1.6e9 and 0 < record["duration_s"] < 60
    expected = {
        "seq": 1,
        "request_id": "mine-1",
        "project": "default",
        "key_id": "key-1",
        "model": "tiny",
        "deployment": "dep-tiny",
        "replica": "tiny-0",
        "endpoint": "chat",
        "http_status": 200,
        "stream": False,
        "price": price,
        "ttft_s": None,
    }
    assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize("wants_usage", [False, True])
def test_stream_is_billed_by_the_engines_own_usage(gateway: Running, control: Control, wants_usage: bool) -> None:
    with gateway.client() as client:
        options = {"include_usage": wants_usage}
        list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True, stream_options=options))
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("ok", PROMPT_TOKENS, len(WORDS), CACHED_TOKENS)
    assert record["stream"] and 0 < record["ttft_s"] <= record["duration_s"]


def test_several_streamed_choices_are_all_billed(gateway: Running, control: Control) -> None:
    with gateway.client() as client:
        list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True, n=2))
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("ok", PROMPT_TOKENS, 2 * len(WORDS), CACHED_TOKENS)


def test_several_prompts_are_all_billed(gateway: Running, control: Control) -> None:
    with gateway.client() as client:
        answer = client.completions.create(model="tiny", prompt=["one", "two"])
    assert len(answer.choices) == 2
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("ok", 2 * PROMPT_TOKENS, 2 * len(WORDS), 2 * CACHED_TOKENS)


@pytest.mark.parametrize("words", [1, 2, 4])
def test_client_leaving_a_stream_is_billed_what_it_was_sent(
    gateway: Running, control: Control, engine: Engine, words: int
) -> None:
    engine.hold_at, engine.tokens_per_word = words, 3
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        read_until(connection, engine.words[words - 1].encode())
    engine.wait_for("disconnects", 1)
    gateway.wait_for_rest()
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("cancelled", PROMPT_TOKENS, 3 * words, CACHED_TOKENS)
    assert record["http_status"] == 499


def test_client_leaving_while_the_prompt_is_read_is_billed_the_prompt(
    gateway: Running, control: Control, engine: Engine
) -> None:
    engine.hold_at = 0
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, return_progress=True))
        read_until(connection, b'"prompt_progress"')
    engine.wait_for("disconnects", 1)
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("cancelled", PROMPT_TOKENS, 0, CACHED_TOKENS)


def test_client_leaving_before_the_engine_said_anything_is_billed_nothing(
    gateway: Running, control: Control, engine: Engine
) -> None:
    engine.hold_at = 0
    with gateway.connect() as connection:
        connection.sendall(chat())
        engine.wait_for("active", 1)
    engine.wait_for("disconnects", 1)
    gateway.wait_for_rest()
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("cancelled", 0, 0, 0)


def test_half_closed_client_counts_as_gone(gateway: Running, control: Control, engine: Engine) -> None:
    engine.hold_at = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        read_until(connection, engine.words[1].encode())
        connection.shutdown(1)
        engine.wait_for("disconnects", 1)
        gateway.wait_for_rest()
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("cancelled", PROMPT_TOKENS, 2, CACHED_TOKENS)


def test_engine_dying_in_a_stream_is_told_and_billed(gateway: Running, control: Control, engine: Engine) -> None:
    engine.dies_after = 3
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        data = read_until(connection, b'"upstream_broken"')
        while piece := connection.recv(65536):
            data += piece
    assert b"[DONE]" not in data and not data.endswith(b"0\r\n\r\n")
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("error", PROMPT_TOKENS, 3, CACHED_TOKENS)
    gateway.wait_for_rest()


def test_engine_falling_silent_in_a_stream_is_dropped(
    start: Callable[..., Running], control: Control, engine: Engine
) -> None:
    control.add_model("tiny", [engine.url])
    gateway = start(patience=IMPATIENT)
    engine.hold_at = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        read_until(connection, b'"gateway_timeout"')
    engine.wait_for("disconnects", 1)
    (record,) = control.wait_for_usage(1)
    assert bill(record) == ("error", PROMPT_TOKENS, 2, CACHED_TOKENS)
    gateway.wait_for_rest()


def test_refused_requests_leave_no_record(gateway: Running, control: Control) -> None:
    with gateway.connect() as connection:
        for body in (b"{", b'{"model":"tiny"}', b'{"model":"nope","messages":[{"role":"user","content":"x"}]}'):
            connection.sendall(post(body))
            status, _, _, _ = read_answer(connection)
            assert status in (400, 404)
        connection.sendall(chat())
        assert read_answer(connection)[0] == 200
    (record,) = control.wait_for_usage(1)
    assert record["seq"] == 1


def test_answer_is_on_disk_before_it_is_complete(gateway: Running) -> None:
    journal = gateway.gateway.journal
    with gateway.connect() as connection:
        for count in range(1, 6):
            connection.sendall(chat(stream=count % 2 == 0))
            read_until(connection, b"0\r\n\r\n" if count % 2 == 0 else b'"predicted_n"')
            segments = list(journal.folder.glob("*.journal"))
            assert sum(segment.read_bytes().count(b'"request_id"') for segment in segments) == count
