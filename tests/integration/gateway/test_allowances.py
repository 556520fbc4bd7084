"""What keys and projects may: addresses, projects, rates, budgets. Nothing is ever left taken."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest

from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import CACHED_TOKENS, PROMPT_TOKENS, WORDS, Engine
from integration.gateway.wire import chat, post, read_answer, read_until

Start = Callable[..., Running]
HELLO: Any = [{"role": "user", "content": "hello"}]
PRICE = {"input_per_million": 2.0, "cached_input_per_million": 1.0, "output_per_million": 10.0, "currency": "EUR"}
USED = PROMPT_TOKENS + len(WORDS)


def ask(gateway: Running, key: str = KEY, **options: Any) -> Any:
    with gateway.client(key) as client:
        return client.chat.completions.create(model="tiny", messages=HELLO, **options)


# who and where


def test_key_works_from_its_addresses_only(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    control.add_key("sk-near", "key-near", addresses=["10.0.0.0/8", "127.0.0.1/32"])
    control.add_key("sk-far", "key-far", addresses=["10.0.0.0/8", "2001:db8::/32"])
    gateway = start()
    ask(gateway, "sk-near")
    with pytest.raises(openai.PermissionDeniedError, match=r"127\.0\.0\.1") as caught:
        ask(gateway, "sk-far")
    assert caught.value.code == "address_not_allowed"
    with pytest.raises(openai.PermissionDeniedError):
        ask(gateway, "sk-far", extra_headers={"x-forwarded-for": "10.1.2.3"})


def test_openai_project_chooses_among_the_keys_projects(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    control.add_model("tiny", [engine.url], project="lab")
    control.add_key("sk-both", "key-both", projects=["default", "lab"])
    gateway = start()
    ask(gateway, "sk-both")
    ask(gateway, "sk-both", extra_headers={"openai-project": "lab"})
    assert [r["project"] for r in control.wait_for_usage(2)] == ["default", "lab"]
    with pytest.raises(openai.PermissionDeniedError, match="It may in: default, lab"):
        ask(gateway, "sk-both", extra_headers={"openai-project": "other"})


def test_key_comes_in_anthropics_header_too(gateway: Running) -> None:
    with gateway.connect() as connection:
        body = chat().partition(b"\r\n\r\n")[2]
        connection.sendall(post(body).replace(b"authorization: Bearer ", b"x-api-key: "))
        assert read_answer(connection)[0] == 200


def test_entry_that_makes_no_sense_blocks_no_other(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    control.add_model("broken", [engine.url], hold={"queue_max": "many"})
    control.add_key("sk-broken", "key-broken", addresses=["nowhere"])
    control.snapshot["projects"] = {"x": 7}
    control.snapshot["budgets"] = {"b": {"units": 5}}
    gateway = start()
    ask(gateway)
    with pytest.raises(openai.AuthenticationError):
        ask(gateway, "sk-broken")
    with gateway.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]


# rates


@pytest.mark.parametrize("holder", ["key", "project"])
def test_rate_of_requests_is_kept(start: Start, control: Control, engine: Engine, holder: str) -> None:
    limits = {"requests_per_minute": 3, "tokens_per_minute": None, "parallel": None}
    control.add_model("tiny", [engine.url])
    if holder == "key":
        control.add_key(KEY, limits=limits)
    else:
        control.snapshot["projects"] = {"default": {"limits": limits, "weight": 1.0}}
    gateway = start()
    for _ in range(3):
        ask(gateway)
    with pytest.raises(openai.RateLimitError, match="3") as caught:
        ask(gateway)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    gateway.wait_for_rest()


def test_rate_of_tokens_counts_what_was_used(start: Start, control: Control, engine: Engine) -> None:
    """The limit is well below what two answers use: a minute may begin between them, and the last counts less then."""
    limits = {"requests_per_minute": None, "tokens_per_minute": USED + USED // 2, "parallel": None}
    control.add_model("tiny", [engine.url])
    control.add_key(KEY, limits=limits)
    gateway = start()
    for _ in range(2):
        ask(gateway)
    with pytest.raises(openai.RateLimitError):
        ask(gateway)


def test_parallel_requests_are_bounded_and_given_back(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    control.add_key(KEY, limits={"requests_per_minute": None, "tokens_per_minute": None, "parallel": 1})
    gateway = start()
    engine.hold_at = 1
    with gateway.connect() as first:
        first.sendall(chat(stream=True))
        read_until(first, WORDS[0].encode())
        with pytest.raises(openai.RateLimitError):
            ask(gateway)
    gateway.wait_for_rest()
    engine.hold_at = None
    for _ in range(3):
        ask(gateway)


# budgets


def budgeted(control: Control, engine: Engine, tokens: int | None, money: int | None = None, **fields: Any) -> None:
    amounts = {"tokens": tokens, "money": money}
    control.add_budget("b-1", {unit: amount for unit, amount in amounts.items() if amount is not None})
    control.add_key(KEY, budgets={"default": ["b-1"]})
    control.add_model("tiny", [engine.url], price=PRICE, **fields)


def test_use_is_charged_exactly_in_every_unit(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 100_000, 1_000_000)
    gateway = start()
    for stream in (False, True):
        with gateway.client() as client:
            answer: Any = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, stream=stream)
            list(answer)
    records = control.wait_for_usage(2)
    cost = (PROMPT_TOKENS - CACHED_TOKENS) * 2 + CACHED_TOKENS * 1 + len(WORDS) * 10
    for record in records:
        assert sorted(record["slices"].values()) == sorted([USED, cost])
        assert (record["cost_micros"], record["currency"]) == (cost, "EUR")
    assert control.ledger.spent == {("b-1", "tokens"): 2 * USED, ("b-1", "money"): 2 * cost}
    gateway.wait_for_rest()


def test_budget_that_cannot_pay_is_429_with_the_numbers(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 100)
    gateway = start()
    with pytest.raises(openai.RateLimitError, match=r"budget-b-1.*100 tokens left") as caught:
        ask(gateway, max_tokens=200)
    assert caught.value.code == "insufficient_quota"
    assert engine.requests == []
    gateway.wait_for_rest()


def test_answer_without_a_bound_is_bounded_by_what_is_left(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 800, context=4096)
    gateway = start()
    ask(gateway)
    (request,) = engine.requests
    assert 300 < request["max_tokens"] < 500
    gateway.wait_for_rest()


def test_refusals_and_failures_cost_nothing(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    engine.refusals = [(400, b'{"error":{"message":"no"}}'), (500, b'{"error":{"message":"no"}}')]
    with pytest.raises(openai.BadRequestError):
        ask(gateway, max_tokens=10)
    with pytest.raises(openai.InternalServerError):
        ask(gateway, max_tokens=10)
    with pytest.raises(openai.NotFoundError), gateway.client() as client:
        client.chat.completions.create(model="none", messages=HELLO)
    gateway.wait_for_rest()
    control.wait_for_usage(2)
    assert control.ledger.spent["b-1", "tokens"] == 0


def test_client_that_leaves_pays_for_what_was_computed(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    engine.hold_at = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, max_tokens=50))
        read_until(connection, WORDS[1].encode())
    control.wait_for_usage(1)
    assert control.ledger.spent["b-1", "tokens"] == PROMPT_TOKENS + 2
    gateway.wait_for_rest()


def test_client_that_leaves_while_it_waits_for_the_centre_leaves_nothing(
    start: Start, control: Control, engine: Engine
) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    control.ledger.pause()
    with gateway.connect() as connection:
        connection.sendall(chat(max_tokens=50))
        wait_until(lambda: gateway.gateway.purse.waiting == 1, "it waits for the centre")
    control.ledger.go_on()
    gateway.wait_for_rest()
    assert engine.requests == []


def test_tiny_quota_is_never_overspent_by_many_at_once(start: Start, control: Control, engine: Engine) -> None:
    """Requests of which most must be refused; what was served is paid, and no more than there was."""
    quota = 1500
    budgeted(control, engine, quota)
    gateway = start()
    statuses: list[int] = []

    def ask_often() -> None:
        with gateway.connect() as connection:
            for count in range(12):
                connection.sendall(chat(max_tokens=20 + count))
                statuses.append(read_answer(connection)[0])

    threads = [threading.Thread(target=ask_often) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = statuses.count(200)
    assert set(statuses) == {200, 429}
    records = control.wait_for_usage(served)
    assert sum(r["prompt_tokens"] + r["completion_tokens"] for r in records) == served * USED
    spent = control.ledger.spent["b-1", "tokens"]
    assert spent == served * USED <= quota
    assert control.ledger.overspent == 0
    gateway.wait_for_rest()


def test_gateway_serves_on_its_slices_while_the_server_is_down(start: Start, control: Control, engine: Engine) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    for _ in range(2):
        ask(gateway, max_tokens=10)
    control.stop()
    ask(gateway, max_tokens=10)
    control.start()
    control.wait_for_usage(3)
    assert control.ledger.spent["b-1", "tokens"] == 3 * USED


# bodies that ask for the absurd


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 10**9}, b"'n'"),
        ({"n": -1}, b"'n'"),
        ({"n": 1.5}, b"'n'"),
        ({"max_tokens": 10**30}, b"max_tokens"),
        ({"max_tokens": "lots"}, b"max_tokens"),
        ({"max_tokens": -7}, b"max_tokens"),
        ({"messages": []}, b"messages"),
        ({"messages": "hello"}, b"messages"),
        ({"messages": [[]]}, b"messages"),
        ({"model": 7}, b"model"),
        ({"model": "x" * 10_000}, b"model"),
        ({"stream": "yes"}, b"stream"),
        ({"no_such_parameter": 1}, b"no_such_parameter"),
    ],
)
def test_absurd_request_is_400_by_name_and_takes_nothing(
    start: Start, control: Control, engine: Engine, fields: dict[str, Any], named: bytes
) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(chat(**fields))
        status, _, body, _ = read_answer(connection)
        assert status == 400 and named in body, body
        connection.sendall(chat(max_tokens=5))
        assert read_answer(connection)[0] == 200
    assert len(engine.requests) == 1
    gateway.wait_for_rest()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"model": "tiny"',
        b"{" * 100_000,
        b"[" * 100_000,
        b"\x00" * 100,
    ],
)
def test_malformed_json_is_400_and_takes_nothing(start: Start, control: Control, engine: Engine, body: bytes) -> None:
    budgeted(control, engine, 100_000)
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(post(body))
        status, _, answer, _ = read_answer(connection)
        assert status == 400 and json.loads(answer)["error"]["type"] == "invalid_request_error"
        connection.sendall(chat(max_tokens=5))
        assert read_answer(connection)[0] == 200
    gateway.wait_for_rest()
