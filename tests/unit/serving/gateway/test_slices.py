"""The purse: what is at hand, what is asked for, what is given back, and what waiting requests are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from atoll.core.errors import AtollError, Forbidden, Invalid, RateLimited, Unavailable
from atoll.serving.gateway.holding import IDLE_S, POLL_S
from atoll.serving.gateway.slices import AWAY_S, NOTHING, SLICES, BudgetFacts, Purse, Reservation, charges
from atoll.serving.gateway.upstream import Client, Origin
from integration.gateway.control import SYSTEM_KEY, Control

TOKENS_ONLY = BudgetFacts("t", "tea", "default", frozenset({"tokens"}))
BOTH = BudgetFacts("b", "both", "default", frozenset({"tokens", "money"}), "EUR")


class Bench:
    """A purse with told time, and a centre played by hand."""

    def __init__(self, *facts: BudgetFacts) -> None:
        self.now = 1000.0
        self.purse = Purse("source", 7, now=lambda: self.now, wall=lambda: self.now, chance=lambda: 0.0)
        self.purse.adopt({each.uid: each for each in facts})
        self.results: list[Reservation | AtollError] = []

    def asked(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the purse says now, by budget and unit; nothing when it is silent."""
        message = self.purse.ask()
        if message is None:
            return {}
        assert (message["source"], message["begins_after"]) == ("source", 7)
        self.incarnation = message["incarnation"]
        return {(ask["budget"], ask["unit"]): ask for ask in message["slices"]}

    def told(self, *grants: dict[str, Any]) -> None:
        self.purse.take({"slices": list(grants)})

    def grant(self, granted: int, *, available: int = 1_000_000, scarce: bool = False, **fields: Any) -> dict[str, Any]:
        return (
            {"slice": 1, "granted": granted, "released": 0, "expires_at": None}
            | fields
            | {
                "available": available,
                "scarce": scarce,
            }
        )

    def wait(self, path: tuple[str, ...], tokens: int, money: int = 0, limit_s: float = 5.0) -> Any:
        return self.purse.wait(path, tokens, money, "EUR", self.results.append, limit_s)

    def reserve(self, tokens: int, path: tuple[str, ...] = ("t",)) -> Reservation:
        found = self.purse.reserve(path, tokens, 0, "EUR")
        assert found is not None
        return found


@pytest.fixture
def bench() -> Bench:
    """A purse that holds a slice of 100 of plenty."""
    made = Bench(TOKENS_ONLY)
    made.wait(("t",), 100)
    assert made.asked()["t", "tokens"]["want"] == 100
    made.told(made.grant(100))
    (first,) = made.results
    assert isinstance(first, Reservation)
    made.purse.cancel(first)
    made.results.clear()
    return made


def test_no_budget_on_the_way_costs_nothing() -> None:
    purse = Bench(TOKENS_ONLY).purse
    assert purse.reserve((), 10**9, 10**9, "EUR") is NOTHING
    assert purse.settle(NOTHING, 5, 5) == {}
    assert purse.clamp((), 10, 10, None) is None


def test_budget_that_is_not_known_is_not_unlimited(bench: Bench) -> None:
    assert bench.purse.reserve(("t", "new"), 1, 0, "EUR") is None
    bench.wait(("new",), 1, limit_s=1.0)
    bench.now += 1.0
    bench.purse.tick()
    assert isinstance(bench.results[0], Unavailable)


def test_all_amounts_are_taken_or_none() -> None:
    bench = Bench(TOKENS_ONLY, BOTH)
    bench.wait(("t", "b"), 10, 500)
    asks = bench.asked()
    assert {key: (ask["want"], ask["need"], ask["slice"]) for key, ask in asks.items()} == {
        ("t", "tokens"): (10, 10, None),
        ("b", "tokens"): (10, 10, None),
        ("b", "money"): (500, 500, None),
    }
    grants = {"t": 10, "tokens": 10, "money": 400}
    bench.told(*(bench.grant(grants.get(b if b == "t" else unit, 0), slice=n) for n, (b, unit) in enumerate(asks, 1)))
    assert bench.results == []
    assert all(reserved == 0 for _, reserved in bench.purse.figures.values())
    bench.purse.tick()
    assert bench.purse.waiting == 1


def test_settling_frees_what_was_not_used(bench: Bench) -> None:
    reservation = bench.reserve(80)
    assert bench.purse.reserve(("t",), 30, 0, "EUR") is None
    assert reservation.slices == {"1": "tokens"}
    assert bench.purse.settle(reservation, 20, 0) == {"1": 20}
    assert bench.purse.settle(reservation, 20, 0) == {}, "a reservation ends once"
    assert bench.purse.figures == {("default", "tea", "tokens"): (80, 0)}


def test_waiting_request_is_served_by_what_others_free(bench: Bench) -> None:
    reservation = bench.reserve(80)
    bench.wait(("t",), 60)
    bench.purse.settle(reservation, 10, 0)
    assert isinstance(bench.results[0], Reservation)


def test_cancelled_ticket_is_never_called(bench: Bench) -> None:
    bench.wait(("t",), 500).cancel()
    assert bench.purse.waiting == 0
    bench.now += 60
    bench.purse.tick()
    assert bench.results == []


def test_more_is_fetched_before_it_runs_out(bench: Bench) -> None:
    wanted = 0
    for _ in range(100):
        bench.now += 0.1
        if bench.purse.reserve(("t",), 20, 0, "EUR") is None:
            bench.purse.reserve(("t",), 10, 0, "EUR")
        for ask in bench.asked().values():
            wanted += ask["want"]
            bench.told(bench.grant(ask["granted_seen"] + ask["want"]))
    assert wanted > 1000
    assert bench.purse.figures["default", "tea", "tokens"][0] >= 100, "half a second's worth is at hand"


def test_grant_whose_answer_was_lost_is_asked_for_again(bench: Bench) -> None:
    bench.reserve(100)
    bench.wait(("t",), 50)
    ask = bench.asked()["t", "tokens"]
    bench.purse.miss("no answer")
    assert bench.asked()["t", "tokens"] | {"want": 0} == ask | {"want": 0}
    bench.told(bench.grant(150))
    assert isinstance(bench.results[0], Reservation)


def test_lost_return_is_told_again(bench: Bench) -> None:
    bench.now += POLL_S
    assert bench.asked()["t", "tokens"]["want"] == 0
    bench.told(bench.grant(100, available=10, scarce=True))
    for _ in range(3):
        assert bench.asked()["t", "tokens"]["released"] == 100
        bench.purse.miss("no answer")
    assert bench.asked()["t", "tokens"]["released"] == 100
    bench.told(bench.grant(100, available=10, scarce=True))
    assert bench.asked() == {}


def test_idle_slice_of_a_small_rest_is_returned(bench: Bench) -> None:
    bench.now += POLL_S
    bench.asked()
    bench.told(bench.grant(100, available=300))
    bench.now += IDLE_S + 0.1
    assert bench.asked()["t", "tokens"]["released"] == 100


def test_idle_slice_of_plenty_is_kept_for_a_centre_that_goes_away(bench: Bench) -> None:
    for _ in range(100):
        bench.now += POLL_S
        for ask in bench.asked().values():
            assert ask["released"] == 0
            bench.told(bench.grant(100))
    bench.reserve(100)


def test_slice_ends_with_its_period_but_settles_in_it(bench: Bench) -> None:
    bench.now += POLL_S
    bench.asked()
    bench.told(bench.grant(100, expires_at=bench.now + 10))
    reservation = bench.reserve(40)
    bench.now += 10
    assert bench.purse.reserve(("t",), 1, 0, "EUR") is None
    bench.wait(("t",), 5)
    ask = bench.asked()["t", "tokens"]
    assert (ask["slice"], ask["released"]) == (1, 0)
    bench.told(bench.grant(70, slice=2, expires_at=bench.now + 100))
    (after,) = bench.results
    assert isinstance(after, Reservation) and after.slices == {"2": "tokens"}
    assert bench.purse.settle(reservation, 30, 0) == {"1": 30}
    assert bench.purse.figures["default", "tea", "tokens"] == (65, 5)


def test_use_beyond_the_reservation_is_made_up_for(bench: Bench) -> None:
    bench.purse.settle(bench.reserve(100), 130, 0)
    assert bench.asked()["t", "tokens"]["want"] >= 30


def test_insufficient_quota_names_budget_need_and_rest(bench: Bench) -> None:
    bench.now += 10
    bench.wait(("t",), 5000)
    bench.asked()
    bench.told(bench.grant(100, available=40))
    (error,) = bench.results
    assert isinstance(error, RateLimited)
    assert "'tea' of project 'default' has 140 tokens left; this request may need up to 5000 tokens" in error.message
    assert "max_tokens" in error.hint
    assert (error.details["code"], error.details["budget"], error.details["unit"]) == (
        "insufficient_quota",
        "tea",
        "tokens",
    )
    assert (error.details["needed"], error.details["available"]) == (5000, 140)


def test_refusal_waits_for_what_other_gateways_may_give_back(bench: Bench) -> None:
    bench.now += 10
    bench.wait(("t",), 5000)
    bench.asked()
    bench.told(bench.grant(100, available=40, scarce=True))
    assert bench.results == []
    bench.now += 5.0
    bench.purse.tick()
    assert isinstance(bench.results[0], RateLimited)
    bench.wait(("t",), 5000)
    for _ in range(3):
        bench.now += 0.2
        if bench.asked():
            bench.told(bench.grant(100, released=100, available=140, scarce=True))
    assert isinstance(bench.results[1], RateLimited), "for a while after that it is refused at once"


def test_part_of_what_is_needed_is_let_go_under_scarcity(bench: Bench) -> None:
    bench.now += 10
    bench.wait(("t",), 150)
    assert bench.asked()["t", "tokens"]["need"] == 50
    bench.told(bench.grant(100, available=20, scarce=True))
    gives_way = bench.asked()["t", "tokens"]
    assert (gives_way["released"], gives_way["want"]) == (100, 0)
    bench.told(bench.grant(100, available=120, scarce=False))
    assert bench.asked() == {}
    bench.now += 0.2
    again = bench.asked()["t", "tokens"]
    assert (again["released"], again["want"] >= 150, again["need"]) == (100, True, 150)


def test_what_is_at_hand_is_used_while_the_centre_is_away(bench: Bench) -> None:
    bench.reserve(60)
    bench.purse.miss("connection refused")
    bench.now += AWAY_S + 1
    bench.purse.miss("connection refused")
    bench.reserve(40)
    bench.wait(("t",), 10)
    bench.purse.tick()
    (error,) = bench.results
    assert isinstance(error, Unavailable)
    assert "connection refused" in error.message and "used up" in error.message


def test_centre_that_is_back_soon_is_waited_for(bench: Bench) -> None:
    bench.reserve(100)
    bench.wait(("t",), 10)
    bench.asked()
    bench.purse.miss("connection refused")
    bench.now += AWAY_S / 2
    bench.purse.tick()
    bench.asked()
    bench.told(bench.grant(130))
    assert isinstance(bench.results[0], Reservation)


def test_answer_is_clamped_to_what_can_be_afforded() -> None:
    bench = Bench(BOTH)
    price = {"input_per_million": 2.0, "output_per_million": 10.0, "currency": "EUR"}
    assert bench.purse.clamp(("b",), 100, 4096, price) is None, "not known yet"
    bench.wait(("b",), 1, 1)
    asks = bench.asked()
    by_unit = {"tokens": bench.grant(1, available=999), "money": bench.grant(1, slice=2, available=5200)}
    bench.told(*(by_unit[unit] for _, unit in asks))
    bench.purse.cancel(bench.results[0])  # type: ignore[arg-type]
    assert bench.purse.clamp(("b",), 100, 4096, None) == 900
    assert bench.purse.clamp(("b",), 100, 4096, price) == 500
    assert bench.purse.clamp(("b",), 100, 500, price) is None
    assert bench.purse.clamp(("b",), 5000, 10, price) == 0


def test_price_in_another_currency_is_refused() -> None:
    bench = Bench(BOTH)
    with pytest.raises(Forbidden, match="'both' of project 'default' counts EUR, but the model is priced in USD"):
        bench.purse.reserve(("b",), 0, 5, "USD")
    assert bench.purse.reserve(("b",), 0, 0, "USD") is NOTHING


def test_removed_budget_is_given_back(bench: Bench) -> None:
    bench.purse.adopt({})
    assert bench.asked()["t", "tokens"]["released"] == 100
    bench.told(bench.grant(100, released=100))
    assert bench.asked() == {}


@pytest.mark.parametrize("answer", [{}, {"slices": 3}, {"slices": []}, {"slices": [{}]}, {"slices": [{"slice": "x"}]}])
def test_answer_that_is_none_is_told(bench: Bench, answer: dict[str, Any]) -> None:
    bench.wait(("t",), 500)
    bench.asked()
    with pytest.raises(Invalid, match="answer on slices"):
        bench.purse.take(answer)


def test_lost_requests_are_charged_by_their_slices() -> None:
    assert charges({"3": "tokens", "4": "money"}, 12, 500) == {"3": 12, "4": 500}


@pytest.fixture
def control() -> Iterator[Control]:
    control = Control()
    control.start()
    yield control
    control.stop()


def test_closed_process_begins_anew_and_serves_on(control: Control) -> None:
    """409 once: the centre had given this gateway up."""
    incarnations: list[tuple[str, int]] = []

    def lend(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        message = json.loads(body)
        incarnations.append((message["incarnation"], message["begins_after"]))
        if len(incarnations) == 1:
            handler.reply(409, b'{"code":"fenced"}')  # type: ignore[attr-defined]
            return
        told = {"slice": 9, "released": 0, "expires_at": None, "available": 100, "scarce": False}
        slices = [told | {"granted": ask["granted_seen"] + ask["want"]} for ask in message["slices"]]
        handler.reply(200, json.dumps({"slices": slices}).encode())  # type: ignore[attr-defined]

    control.routes[SLICES] = lend
    results: list[Reservation | AtollError] = []

    async def live() -> None:
        client, purse = Client(), Purse("source", 7, written=lambda: 12)
        purse.adopt({"t": TOKENS_ONLY})
        purse.wait(("t",), 10, 0, "", results.append)
        running = asyncio.create_task(purse.run(client, Origin(control.url), SYSTEM_KEY))
        async with asyncio.timeout(60):
            while not results:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert isinstance(results[0], Reservation)
        purse.cancel(results[0])
        await purse.give_back(client, Origin(control.url), SYSTEM_KEY)
        assert purse.figures["default", "tea", "tokens"] == (0, 0)
        client.close()
        await asyncio.sleep(0)

    asyncio.run(live())
    assert incarnations[0][1] == 7
    assert {after for name, after in incarnations if name != incarnations[0][0]} == {12}


def test_request_that_waits_for_a_centre_that_is_gone_is_told_so() -> None:
    results: list[Reservation | AtollError] = []

    async def live() -> None:
        client, purse = Client(), Purse("source", 0)
        purse.adopt({"t": TOKENS_ONLY})
        running = asyncio.create_task(purse.run(client, Origin("http://127.0.0.1:9"), SYSTEM_KEY))
        async with asyncio.timeout(60):
            while purse._away_since is None:
                await asyncio.sleep(0.005)
            purse.wait(("t",), 10, 0, "", results.append, 0.3)
            while not results:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        client.close()

    asyncio.run(live())
    assert isinstance(results[0], Unavailable)
    assert "127.0.0.1:9" in results[0].message
