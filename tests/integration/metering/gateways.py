"""Purses of several gateways that lease from a real ledger over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from typing import Any

from atoll.core.errors import AtollError
from atoll.core.store import Create, Store
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import read_lease
from atoll.serving.gateway.slices import BudgetFacts, Purse, Reservation
from atoll.serving.gateway.upstream import Client, Origin
from integration.gateway.control import SYSTEM_KEY, Control


class Centre:
    """A ledger with one budget behind the routes that gateways call."""

    def __init__(self, store: Store, **budget: Any) -> None:
        store.everything("test").write([Create("Budget", "red", "b", BUDGET.parse_spec(budget))])
        self.uid = store.everything().get("Budget", "b", "red").uid
        self.ledger = Ledger(store.database)
        self.control = Control()
        self.control.routes["/api/v1/gateway/slices"] = self._lend
        self.control.start()
        units = frozenset(unit for unit in ("tokens", "money") if unit in budget)
        self.facts = BudgetFacts(self.uid, "b", "red", units, "EUR")

    def _lend(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        try:
            granted = self.ledger.lease(read_lease(json.loads(body)))
            answer, status = {"slices": [asdict(grant) for grant in granted]}, 200
        except AtollError as error:
            answer, status = error.to_dict(), error.http_status
        handler.reply(status, json.dumps(answer).encode())  # type: ignore[attr-defined]

    def balance(self, unit: str = "tokens") -> Any:
        return next(b for b in self.ledger.balances(self.uid, "total") if b.unit == unit)


class Gateway:
    """A purse that talks, and a journal that is shipped as it grows."""

    def __init__(self, name: str, centre: Centre) -> None:
        self.name = name
        self.centre = centre
        self.client = Client()
        self.purse = Purse(name, 0)
        self.purse.adopt({centre.uid: centre.facts})
        self._numbers = itertools.count(1)
        self._unshipped: list[dict[str, Any]] = []

    async def reserve(self, tokens: int, money: int = 0, limit_s: float = 10.0) -> Reservation:
        """As the gateway does: from what is at hand, else from the centre."""
        path = (self.centre.uid,)
        found = self.purse.reserve(path, tokens, money, "EUR")
        if found is not None:
            return found
        result: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

        def done(given: Reservation | AtollError) -> None:
            if isinstance(given, AtollError):
                result.set_exception(given)
            else:
                result.set_result(given)

        self.purse.wait(path, tokens, money, "EUR", done, limit_s)
        return await result

    def settle(self, reservation: Reservation, tokens: int, money: int = 0) -> None:
        amounts = self.purse.settle(reservation, tokens, money)
        self._unshipped.append(
            {
                "seq": next(self._numbers),
                "ts": 1.0,
                **dict.fromkeys(("request_id", "project", "key_id", "model", "deployment", "replica"), "x"),
                "prompt_tokens": tokens,
                **dict.fromkeys(("completion_tokens", "cached_tokens"), 0),
                "endpoint": "chat",
                "status": "ok",
                "http_status": 200,
                "duration_s": 0.5,
                "slices": amounts,
            }
        )

    async def ship(self) -> None:
        batch, self._unshipped = self._unshipped, []
        if batch:
            await asyncio.to_thread(self.centre.ledger.enter, self.name, batch)

    async def live(self) -> None:
        """Talk and ship until cancelled."""
        origin = Origin(self.centre.control.url)
        talking = asyncio.create_task(self.purse.run(self.client, origin, SYSTEM_KEY))
        try:
            while True:
                await self.ship()
                await asyncio.sleep(0.05)
        finally:
            talking.cancel()
            await asyncio.wait([talking])
            await self.ship()
            await self.purse.give_back(self.client, origin, SYSTEM_KEY)
            self.client.close()
            await asyncio.sleep(0)


def run(centre: Centre, count: int, work: Callable[[list[Gateway]], Awaitable[None]]) -> None:
    """Do `work` with so many gateways, then let them end politely."""

    async def inside() -> None:
        gateways = [Gateway(f"gateway-{number}", centre) for number in range(count)]
        living = [asyncio.create_task(gateway.live()) for gateway in gateways]
        try:
            await work(gateways)
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)

    try:
        asyncio.run(inside())
    finally:
        centre.control.stop()
