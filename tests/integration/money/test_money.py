"""Money through the real application: slices, usage, statements, top-ups, vouchers, what is known of a request."""

from __future__ import annotations

import csv
import io
import threading
import time
from typing import Any

from atoll.governance.budgets import month_bounds, period_at

from .conftest import Bank

PRICE = {"input_per_million": 1.0, "output_per_million": 4.0, "cached_input_per_million": 0.1, "currency": "EUR"}


def record(seq: int, slices: dict[str, int] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "ts": time.time(),
        "request_id": f"req-{seq}",
        "project": "red",
        "key_id": "key-1",
        "model": "tiny",
        "deployment": "d1",
        "replica": "r1",
        "endpoint": "chat",
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "cached_tokens": 20,
        "status": "ok",
        "http_status": 200,
        "duration_s": 0.5,
        "price": PRICE,
        "slices": slices or {},
        **fields,
    }


def balance(bank: Bank, project: str, name: str, unit: str = "tokens") -> dict[str, Any]:
    found = bank.ask("GET", f"/projects/{project}/balances")["balances"]
    return next(b for b in found if b["budget"] == name and b["unit"] == unit)


def until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_gateway_leases_uses_and_settles_over_http(bank: Bank) -> None:
    uid = bank.budget("red", "spend", tokens=1000, money=0.001)
    asks = [{"budget": uid, "unit": unit, "want": 600, "granted_seen": 0} for unit in ("tokens", "money")]
    tokens, money = bank.lease("lease-1", *asks)["slices"]
    assert (tokens["granted"], tokens["available"], money["granted"], money["scarce"]) == (600, 400, 600, False)
    used = {str(tokens["slice"]): 150, str(money["slice"]): 282}
    assert bank.enter("lease-1", record(1, used)) == {"acknowledged": 1}
    assert bank.enter("lease-1", record(1, used)) == {"acknowledged": 1}
    left = balance(bank, "red", "spend")
    assert (left["allowed"], left["available"], left["held"], left["spent"]) == (1000, 400, 450, 150)
    assert balance(bank, "red", "spend", "money")["spent"] == 282e-6
    assert bank.ask("GET", "/ledger")["wrong"] == []


def test_only_the_platforms_parts_lease_and_a_malformed_ask_is_named(bank: Bank) -> None:
    bank.ask("POST", "/gateway/slices", {}, key=bank.key("red"), code=403)
    refused = bank.lease("lease-2", {"budget": "b", "unit": "beans"}, code=400)
    assert "beans" in refused["error"]["message"]
    bank.ask("POST", "/gateway/slices", [1], key=bank.system, code=400)


def test_a_process_that_was_closed_hears_409_fenced(bank: Bank) -> None:
    uid = bank.budget("red", "fenced", tokens=10)
    ask = {"budget": uid, "unit": "tokens", "want": 1}
    bank.lease("lease-3", ask)
    bank.lease("lease-3", ask, incarnation="i2")
    assert bank.lease("lease-3", ask, code=409)["error"]["code"] == "fenced"


def test_a_poisonous_record_is_put_aside_and_told_of(bank: Bank) -> None:
    before = bank.ask("GET", "/ledger")["refused"]
    assert bank.enter("poison", record(1), 7, record(3, prompt_tokens="many"), record(4)) == {"acknowledged": 4}
    ledger = bank.ask("GET", "/ledger")
    assert ledger["refused"] == before + 2
    assert "atoll_usage_refused_total" in bank.client.get("/metrics").text
    bank.enter("", record(1), code=400)


def test_the_status_of_a_budget_says_when_nothing_is_left(bank: Bank) -> None:
    uid = bank.budget("red", "small", tokens=100)
    path = "/projects/red/budgets/small"
    until(lambda: bank.ask("GET", path)["status"]["phase"] == "ready")
    (leased,) = bank.lease("status-1", {"budget": uid, "unit": "tokens", "want": 100})["slices"]
    bank.enter("status-1", record(1, {str(leased["slice"]): 100}))
    bank.ask("PUT", path, {"spec": {"tokens": 100, "description": "looked at"}})
    until(lambda: bank.ask("GET", path)["status"]["phase"] == "exhausted")
    status = bank.ask("GET", path)["status"]
    assert status["reason"] == "100 of 100 tokens spent"
    assert status["figures"]["tokens"] == {"allowed": 100, "spent": 100, "held": 0, "available": 0}
    bank.ask("PUT", path, {"spec": {"tokens": 150}})
    until(lambda: bank.ask("GET", path)["status"]["phase"] == "ready")


def test_members_never_raise_their_own_projects_budget(bank: Bank) -> None:
    bank.budget("red", "whole", money=1)
    for role in ("owner", "member", "viewer"):
        key = bank.key("red", role)
        bank.ask("PUT", "/projects/red/budgets/whole", {"spec": {"money": 99}}, key=key, code=403)
        bank.ask("DELETE", "/projects/red/budgets/whole", key=key, code=403)
        top_up = {"unit": "money", "amount": 5, "id": f"mine-{role}"}
        bank.ask("POST", "/projects/red/budgets/whole/top-ups", top_up, key=key, code=403)
    owner = bank.key("red", "owner")
    bank.ask("PUT", "/projects/red/budgets/of-a-key", {"spec": {"money": 9, "key": "key-7"}}, key=owner)
    bank.ask("PUT", "/projects/red/budgets/of-a-key", {"spec": {"money": 9}}, key=owner, code=403)
    refused = bank.ask("PUT", "/projects/red/budgets/whole", {"spec": {"money": 1, "currency": "USD"}}, code=400)
    assert "currency of a budget cannot change" in refused["error"]["message"]


def test_a_top_up_counts_once_however_often_it_is_sent(bank: Bank) -> None:
    bank.budget("red", "prepaid", money=0)
    body = {"unit": "money", "amount": 12.5, "id": "invoice-7", "note": "paid"}
    first = bank.ask("POST", "/projects/red/budgets/prepaid/top-ups", body)
    assert bank.ask("POST", "/projects/red/budgets/prepaid/top-ups", body) == first
    bank.ask("POST", "/projects/red/budgets/prepaid/top-ups", body | {"amount": 13}, code=409)
    refused = bank.ask("POST", "/projects/red/budgets/prepaid/top-ups", body | {"unit": "tokens", "id": "x"}, code=400)
    assert "does not limit tokens" in refused["error"]["message"]
    left = balance(bank, "red", "prepaid", "money")
    assert (left["allowed"], left["available"]) == (12.5, 12.5)
    assert [t["id"] for t in bank.ask("GET", "/projects/red/top-ups")["top_ups"]].count("invoice-7") == 1


def test_a_voucher_is_redeemed_exactly_once_by_whoever_is_first(bank: Bank) -> None:
    for name in ("one", "two"):
        bank.budget("red", f"gift-{name}", money=0)
    wanted = {"unit": "money", "amount": 10, "currency": "EUR", "description": "welcome", "count": 2}
    made = bank.ask("POST", "/vouchers", wanted)["vouchers"]
    code = made[0]["code"]
    answers: list[int] = []

    def redeem(name: str) -> None:
        path = f"/projects/red/budgets/gift-{name}/redeem"
        sent = {"Authorization": f"Bearer {bank.admin}"}
        answers.append(bank.client.post(path, json={"code": code}, headers=sent).status_code)

    threads = [threading.Thread(target=redeem, args=(name,)) for name in ("one", "two") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(answers) == [200] + [409] * 7
    got = [balance(bank, "red", f"gift-{name}", "money")["available"] for name in ("one", "two")]
    assert sorted(got) == [0, 10]
    listed = {v["id"]: v for v in bank.ask("GET", "/vouchers")["vouchers"]}
    assert listed[made[0]["id"]]["redeemed_by"] and listed[made[1]["id"]]["redeemed_at"] is None
    assert "code" not in listed[made[0]["id"]] and "sha256" not in listed[made[0]["id"]]


def test_a_voucher_refused_by_a_budget_is_still_good_elsewhere(bank: Bank) -> None:
    bank.budget("red", "dollars", money=0, currency="USD")
    bank.budget("red", "euros", money=0)
    (made,) = bank.ask("POST", "/vouchers", {"unit": "money", "amount": 3})["vouchers"]
    code = {"code": made["code"]}
    bank.ask("POST", "/projects/red/budgets/dollars/redeem", code, code=400)
    member = bank.key("red")
    bank.ask("POST", "/projects/red/budgets/euros/redeem", code, key=member)
    bank.ask("POST", "/projects/red/budgets/euros/redeem", {"code": "atoll-voucher-NONE"}, code=404)
    bank.ask("POST", "/vouchers", {"unit": "money", "amount": 3}, key=member, code=403)
    (spare,) = bank.ask("POST", "/vouchers", {"unit": "money", "amount": 3})["vouchers"]
    bank.ask("DELETE", f"/vouchers/{spare['id']}")
    bank.ask("POST", "/projects/red/budgets/euros/redeem", {"code": spare["code"]}, code=404)


def test_a_statement_of_a_month_adds_up_in_every_form(bank: Bank) -> None:
    month = "2025-03"
    begin, end = month_bounds(month)
    records = [record(n + 1, ts=begin + 3600.0 * n, project="blue", key_id=f"key-{n % 3}") for n in range(48)]
    bank.enter("months", *records, record(49, ts=end, project="blue"), record(50, ts=begin - 1, project="blue"))
    cost_micros = (80 * 1_000_000 + 20 * 100_000 + 50 * 4_000_000) // 1_000_000
    said = bank.ask("GET", f"/projects/blue/statement?month={month}")
    (total,) = said["totals"]
    assert (total["requests"], total["prompt_tokens"], total["completion_tokens"]) == (48, 4800, 2400)
    assert total["cost"] == round(48 * cost_micros / 1e6, 6)
    assert [(d["name"], d["requests"]) for d in said["by_day"]] == [("2025-03-01", 24), ("2025-03-02", 24)]
    assert [k["requests"] for k in said["by_key"]] == [16, 16, 16]
    answer = bank.send("GET", f"/projects/blue/statement?month={month}&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert sum(int(row["requests"]) for row in rows) == 48
    assert round(sum(float(row["cost"]) for row in rows), 6) == total["cost"]
    page = bank.send("GET", f"/projects/blue/statement?month={month}&format=html")
    assert page.headers["content-type"].startswith("text/html")
    assert "Statement 2025-03" in page.text and "key-2" in page.text
    bank.ask("GET", "/projects/blue/statement?month=soon", code=400)


def test_a_statement_never_runs_what_a_client_wrote(bank: Bank) -> None:
    bank.enter("script", record(1, ts=month_bounds("2025-05")[0], project="blue", model="<script>alert(1)</script>"))
    page = bank.send("GET", "/projects/blue/statement?month=2025-05&format=html").text
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_statement_shows_budgets_top_ups_and_the_derived_cost_of_accelerators(bank: Bank) -> None:
    month = period_at("month", time.time())[0]
    bank.budget("red", "shown", money=5)
    bank.ask("POST", "/projects/red/budgets/shown/top-ups", {"unit": "money", "amount": 1, "id": "shown-1"})
    page = bank.send("GET", f"/projects/red/statement?month={month}&format=html").text
    said = bank.ask("GET", "/projects/red/statement")
    assert said["month"] == month
    assert {"budget": "shown", "allowed": 6.0}.items() <= next(
        b for b in said["budgets"] if b["budget"] == "shown"
    ).items()
    assert "shown-1" in page


def test_a_request_tells_why_it_went_where_it_went(bank: Bank) -> None:
    bank.enter("why", record(1, request_id="req/why", note="least outstanding of 2", queue_s=0.25, user="ann"))
    (found,) = bank.ask("GET", "/projects/red/requests/req/why")["requests"]
    assert (found["note"], found["queue_s"], found["user"]) == ("least outstanding of 2", 0.25, "ann")
    assert found["cost"] == 282e-6
    bank.ask("GET", "/projects/blue/requests/req/why", code=404)
    bank.ask("GET", "/projects/red/requests/req/why", key=bank.key("blue"), code=403)


def test_an_operator_forgets_a_gateway_that_will_not_come_back(bank: Bank) -> None:
    uid = bank.budget("red", "lost", tokens=100)
    bank.lease("gone", {"budget": uid, "unit": "tokens", "want": 100})
    assert balance(bank, "red", "lost")["available"] == 0
    assert "gone" in [g["source"] for g in bank.ask("GET", "/gateways")["gateways"] if g["slices"] == 1]
    assert bank.ask("POST", "/gateways/gone/forget") == {"closed": 1}
    assert balance(bank, "red", "lost")["available"] == 100
    bank.ask("POST", "/gateways/nobody/forget", code=404)
    bank.ask("POST", "/gateways/gone/forget", key=bank.key("red", "owner"), code=403)
