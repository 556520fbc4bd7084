"""Hard quotas with the real ledger: never overspent, and used up to the last request that fits."""

from __future__ import annotations

import asyncio
import random

import pytest

from atoll.core.errors import AtollError, RateLimited
from atoll.core.store import Store
from integration.metering.gateways import Centre, Gateway, run

REQUESTS = 10_000
BOUND = 10


@pytest.mark.parametrize("least_used", [BOUND, 1], ids=["all of the bound is used", "a part of it is"])
def test_tiny_quota_is_used_up_and_never_overspent(sqlite_store: Store, least_used: int) -> None:
    """10,000 requests at once through 4 gateways."""
    quota = 2003
    centre = Centre(sqlite_store, tokens=quota)
    chance = random.Random(5)
    refused: list[AtollError] = []
    used: list[int] = []

    async def ask(gateway: Gateway) -> None:
        try:
            reservation = await gateway.reserve(BOUND)
        except RateLimited as error:
            refused.append(error)
            return
        await asyncio.sleep(chance.random() * 0.02)
        tokens = chance.randint(least_used, BOUND)
        gateway.settle(reservation, tokens)
        used.append(tokens)

    async def work(gateways: list[Gateway]) -> None:
        async with asyncio.timeout(300):
            await asyncio.gather(*(ask(gateways[number % 4]) for number in range(REQUESTS)))

    run(centre, 4, work)
    balance = centre.balance()
    assert len(used) + len(refused) == REQUESTS
    assert (balance.overspent, balance.held) == (0, 0)
    assert balance.spent == sum(used) <= quota
    assert quota - balance.spent < BOUND, "there was room for one more"
    assert all(error.details["code"] == "insufficient_quota" for error in refused)
    assert centre.ledger.check() == []
