"""Budgets' figures, top-ups, vouchers, statements and requests of one project, through the API.

    client.money.top_up("shop", "money", 50, id="invoice-2026-117")

Answers are as the API gives them, documented in the reference of its routes.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from atoll.sdk.connection import Connection


class Money:
    """What a client can ask about money; made by `Client.money`."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def balances(self) -> list[dict[str, Any]]:
        """What each budget has, holds and spent in its present period, by unit."""
        return list(self._call("GET", self._path("balances"))["balances"])

    def top_up(self, budget: str, unit: str, amount: float, *, id: str | None = None, note: str = "") -> dict[str, Any]:
        """Add to a budget. Give an `id` of your own (an invoice's, say) to be able to repeat the call safely."""
        body = {"unit": unit, "amount": amount, "id": id or uuid.uuid4().hex, "note": note}
        return dict(self._call("POST", self._path("budgets", budget, "top-ups"), body=body))

    def top_ups(self, *, since: float | None = None, until: float | None = None) -> list[dict[str, Any]]:
        """What was added to the project's budgets, vouchers too, oldest first."""
        return list(self._call("GET", self._path("top-ups"), params={"since": since, "until": until})["top_ups"])

    def redeem(self, budget: str, code: str) -> dict[str, Any]:
        """Put a voucher into a budget."""
        return dict(self._call("POST", self._path("budgets", budget, "redeem"), body={"code": code}))

    def make_vouchers(
        self,
        unit: str,
        amount: float,
        *,
        currency: str = "EUR",
        count: int = 1,
        description: str = "",
        expires_in_s: float | None = None,
    ) -> list[dict[str, str]]:
        """Make vouchers; their codes are in this answer and nowhere else."""
        body = {
            "unit": unit,
            "amount": amount,
            "currency": currency,
            "count": count,
            "description": description,
            "expires_in_s": expires_in_s,
        }
        return list(self._call("POST", "/api/v1/vouchers", body=body)["vouchers"])

    def vouchers(self) -> list[dict[str, Any]]:
        """All vouchers, newest first, without their codes."""
        return list(self._call("GET", "/api/v1/vouchers")["vouchers"])

    def cancel_voucher(self, number: str) -> None:
        """Make a voucher that was not redeemed worthless."""
        self._call("DELETE", f"/api/v1/vouchers/{quote(number, safe='')}")

    def statement(self, month: str = "") -> dict[str, Any]:
        """The statement of a month such as 2026-11; empty: this month."""
        return dict(self._call("GET", self._path("statement"), params={"month": month}))

    def statement_text(self, month: str = "", format: str = "csv") -> str:
        """The statement as text: csv or html."""
        params = {"month": month, "format": format}
        with self._connection.stream("GET", self._path("statement"), params=params, silence_max_s=60.0) as response:
            response.read()
            return response.text

    def request(self, request_id: str) -> list[dict[str, Any]]:
        """What is known of a request, newest first."""
        return list(self._call("GET", self._path("requests", request_id))["requests"])

    def gateways(self) -> list[dict[str, Any]]:
        """Every gateway the ledger has heard of."""
        return list(self._call("GET", "/api/v1/gateways")["gateways"])

    def forget_gateway(self, source: str) -> int:
        """Give up a gateway that will not come back; returns how many slices of budgets it held."""
        return int(self._call("POST", f"/api/v1/gateways/{quote(source, safe='')}/forget")["closed"])

    def _path(self, *parts: str) -> str:
        return "/".join(["/api/v1/projects", *(quote(part, safe="") for part in (self._project, *parts))])

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._connection.call(method, path, **options)
