"""The ledger: each record once, sums exact, on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from atoll.core.database import Database
from atoll.core.errors import Invalid
from atoll.governance.ledger import Ledger, Line
from atoll.governance.prices import cost_micros

PRICE = {"input_per_million": 0.15, "output_per_million": 0.6, "currency": "EUR"}


def record(seq: int, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "ts": 100.0 + seq,
        "request_id": f"r{seq}",
        "project": "red",
        "key_id": "k1",
        "model": "m1",
        "deployment": "d1",
        "replica": "m1-0",
        "endpoint": "chat",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 1,
        "status": "ok",
        "http_status": 200,
        "stream": True,
        "ttft_s": 0.1,
        "duration_s": 0.5,
        **fields,
    }


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


def test_a_statement_sums_what_was_entered(ledger: Ledger) -> None:
    assert ledger.enter("g1", [record(1), record(2, model="m2"), record(3, key_id="k2", price=PRICE)]) == 3
    assert ledger.statement("red") == [
        Line("k1", "m1", "", 1, 10, 5, 1, 0),
        Line("k1", "m2", "", 1, 10, 5, 1, 0),
        Line("k2", "m1", "EUR", 1, 10, 5, 1, 5),
    ]
    assert ledger.statement("red", by=["key"])[0] == Line("k1", "", "", 2, 20, 10, 2, 0)
    assert [line.requests for line in ledger.statement("red", by=[])] == [2, 1]
    first = ledger.statement("red", by=["model", "key"])[0]
    assert (first.key, first.model) == ("k1", "m1")


def test_a_record_sent_again_is_counted_once(ledger: Ledger) -> None:
    records = [record(n) for n in range(5)]
    ledger.enter("g1", records[:3])
    assert ledger.enter("g1", records) == 4
    assert ledger.enter("g1", [records[0], records[0]]) == 0
    assert ledger.enter("g2", records[:1]) == 0
    assert ledger.enter("g1", []) == 0
    assert ledger.statement("red")[0].requests == 6


def test_a_statement_covers_its_project_and_time_only(ledger: Ledger) -> None:
    ledger.enter("g", [record(1), record(2), record(3), record(4, project="blue")])
    assert ledger.statement("blue")[0].requests == 1
    assert ledger.statement("red", since=101.0, until=103.0)[0].requests == 2
    assert ledger.statement("red", since=103.0, until=103.0) == []
    assert ledger.statement("green") == []


def test_sums_are_exact_however_many_and_however_large(ledger: Ledger) -> None:
    rng = random.Random(1)
    big = [
        record(n, prompt_tokens=rng.randrange(1 << 40), completion_tokens=rng.randrange(1 << 40), price=PRICE)
        for n in range(500)
    ]
    ledger.enter("g", big)
    (line,) = ledger.statement("red")
    assert line.requests == 500
    assert line.prompt_tokens == sum(r["prompt_tokens"] for r in big)
    assert line.completion_tokens == sum(r["completion_tokens"] for r in big)
    assert line.cost_micros == sum(
        cost_micros(PRICE, r["prompt_tokens"], r["cached_tokens"], r["completion_tokens"]) for r in big
    )
    assert line.to_dict()["cost"] == line.cost_micros / 1e6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_tokens", -1),
        ("prompt_tokens", 1 << 60),
        ("completion_tokens", 1.5),
        ("cached_tokens", True),
        ("seq", "1"),
        ("project", None),
        ("ts", "now"),
        ("price", {"input_per_million": 1.0}),
        ("price", {"input_per_million": "x", "output_per_million": 1, "currency": "EUR"}),
        ("price", "free"),
        ("slices", {"x": 1}),
        ("slices", {"1": -1}),
        ("slices", {"1": 1 << 60}),
    ],
)
def test_a_wrong_record_is_put_aside_with_the_reason_and_holds_up_nobody(
    ledger: Ledger, field: str, value: object
) -> None:
    batch = [record(1), record(2) | {field: value}, record(3)]
    assert ledger.enter("g", batch) == 3
    assert ledger.enter("g", batch) == 3
    assert ledger.statement("red")[0].requests == 2
    assert ledger.count_refused() == 1
    (refused,) = ledger.refused()
    assert f"{field!r} cannot be" in refused["reason"]
    assert "r2" in refused["record"]


@pytest.mark.parametrize("poison", [None, 7, [], {}, {"seq": "x"}, {"seq": 1.5, "note": "\ud800"}])
def test_a_record_without_a_number_takes_the_place_after_the_one_before(ledger: Ledger, poison: object) -> None:
    ledger.enter("g", [record(1), record(2)])
    assert ledger.enter("g", [poison]) == 3
    assert ledger.enter("g", [record(4), poison]) == 5
    assert ledger.count_refused() == 2


def test_text_no_database_takes_is_mended_and_numbers_none_takes_are_refused(ledger: Ledger) -> None:
    records = [record(1, note="\ud800", user="a\0b"), record(2, ts=float("nan")), record(3, http_status=1 << 40)]
    assert ledger.enter("g", [*records, record(4, price=PRICE | {"input_per_million": 1e300})]) == 4
    assert ledger.statement("red", by=["user"])[0].user == "ab"
    assert ledger.count_refused() == 3


def test_a_record_is_not_refused_for_its_clients_odd_request_id(ledger: Ledger) -> None:
    """One record that could never be entered would hold up all behind it in the gateway's journal."""
    assert ledger.enter("g", [record(1, request_id="x" * 1000 + "\0"), record(2, request_id="\0🐋")]) == 2
    assert ledger.statement("red")[0].requests == 2


def test_usage_can_be_grouped_by_what_there_is_only(ledger: Ledger) -> None:
    with pytest.raises(Invalid, match=r"cannot group usage by 'colour'.*valid: key, model, user, deployment, day"):
        ledger.statement("red", by=["colour"])


def test_days_are_of_utc_and_begin_at_midnight(ledger: Ledger) -> None:
    midnight = 1_793_491_200.0  # 2026-11-01
    ledger.enter("g", [record(1, ts=midnight - 0.4), record(2, ts=midnight), record(3, ts=midnight + 86_399.6)])
    assert [(line.day, line.requests) for line in ledger.statement("red", by=["day"])] == [
        ("2026-10-31", 1),
        ("2026-11-01", 2),
    ]


def test_the_last_use_of_a_key_is_the_newest_record_that_ever_came(ledger: Ledger) -> None:
    ledger.enter("g", [record(1, ts=50.0), record(2, ts=70.0), record(3, key_id="k2", ts=9.0)])
    ledger.enter("h", [record(1, ts=60.0)])
    assert ledger.last_used(["k1", "k2", "k3"]) == {"k1": 70.0, "k2": 9.0}


def test_a_request_can_be_looked_up_with_all_that_was_recorded(ledger: Ledger) -> None:
    ledger.enter("g", [record(1, note="least outstanding", queue_s=0.2, priority="high", user="u", price=PRICE)])
    (found,) = ledger.requests("red", "r1")
    assert (found["note"], found["queue_s"], found["priority"], found["end_user"]) == (
        "least outstanding",
        0.2,
        "high",
        "u",
    )
    assert (found["output_per_million"], found["cached_input_per_million"]) == (0.6, None)
    assert ledger.requests("blue", "r1") == []


def test_gateways_that_ship_at_once_lose_and_double_nothing(url: str, opened: Callable[[str], Database]) -> None:
    """Each record goes out twice, by different connections, in different order."""
    databases = [opened(url) for _ in range(4)]
    errors: list[BaseException] = []

    def ship(number: int) -> None:
        rng, ledger = random.Random(number), Ledger(databases[number])
        batches = [[record(n + i) for i in range(10)] for n in range(0, 200, 10)]
        rng.shuffle(batches)
        try:
            for batch in batches:
                ledger.enter(f"g{number % 2}", batch)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ship, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert Ledger(databases[0]).statement("red")[0].requests == 400
