"""The commands and the SDK's calls about money, against the real application."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from atoll.cli import budgets, explain, gateways, statement, usage, vouchers
from atoll.cli.session import Session
from atoll.core.errors import Invalid, NotFound
from atoll.sdk import Client

from .conftest import Bank
from .test_money import record


class Door(httpx.BaseTransport):
    """The way from a client to the application, without a socket."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name: request.headers[name] for name in ("authorization", "content-type") if name in request.headers}
        found = self._bank.client.request(request.method, str(request.url), content=request.read(), headers=headers)
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)


@pytest.fixture
def session(bank: Bank) -> Session:
    return Session(_client=Client("http://door", bank.admin, "red", transport=Door(bank)))


def test_a_budget_is_set_topped_up_and_listed(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    budgets.set_budget(session, "cli", money=5.0, tokens=1000, period="month")
    assert "budget cli of red: 1000 tokens, 5 money, period month" in capsys.readouterr().out
    budgets.set_budget(session, "cli", tokens=2000)
    budgets.top_up(session, "cli", 2.5, id="cli-1", note="thanks")
    budgets.top_up(session, "cli", 500, unit="tokens", id="cli-2")
    assert "added 2.5 EUR to budget cli" in capsys.readouterr().out
    budgets.list_budgets(session, "json")
    found = {(b["budget"], b["unit"]): b for b in json.loads(capsys.readouterr().out)["balances"]}
    assert (found["cli", "money"]["allowed"], found["cli", "tokens"]["allowed"]) == (7.5, 2500)
    budgets.list_budgets(session)
    budgets.history(session)
    said = capsys.readouterr().out
    assert "cli-1" in said and "thanks" in said
    with pytest.raises(Invalid, match="nothing to set"):
        budgets.set_budget(session, "cli")


def test_a_voucher_is_made_redeemed_and_shown(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    budgets.set_budget(session, "cli-gift", money=0.0)
    vouchers.create(session, 4, count=2, description="welcome", expires_in="90d")
    code = capsys.readouterr().out.split()[-1]
    budgets.redeem(session, "cli-gift", code.lower())
    assert "added 4 EUR to budget cli-gift" in capsys.readouterr().out
    vouchers.list_vouchers(session, "json")
    listed = json.loads(capsys.readouterr().out)["vouchers"]
    unused = next(v["id"] for v in listed if v["redeemed_at"] is None and v["description"] == "welcome")
    vouchers.list_vouchers(session)
    assert "red/cli-gift" in capsys.readouterr().out
    vouchers.cancel(session, unused)
    with pytest.raises(NotFound):
        vouchers.cancel(session, unused)


def test_a_statement_is_printed_in_every_form(bank: Bank, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    bank.enter("cli", record(1, model="cli-model"))
    for output, wanted in (("table", "cli-model"), ("json", '"by_model"'), ("csv", "day,key,model"), ("html", "<h1>")):
        statement.statement(session, output=output)
        assert wanted in capsys.readouterr().out
    usage.usage(session, by="day,model")
    assert "DAY" in capsys.readouterr().out


def test_a_request_is_explained(bank: Bank, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    bank.enter("cli-why", record(1, request_id="cli-req", note="prefix affinity", ts=time.time()))
    explain.explain(session, "request", "cli-req")
    said = capsys.readouterr().out
    assert "note: prefix affinity" in said and "cost: 0.000282 EUR" in said
    for words in (("request", ""), ("requst", "cli-req")):
        with pytest.raises(Invalid, match="cannot explain"):
            explain.explain(session, *words)


def test_gateways_are_listed_and_forgotten(bank: Bank, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    bank.enter("cli-gone", record(1))
    gateways.list_gateways(session)
    assert "cli-gone" in capsys.readouterr().out
    gateways.forget(session, "cli-gone")
    assert "held 0 slices" in capsys.readouterr().out
