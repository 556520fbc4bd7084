"""Hard budgets without asking anybody: requests reserve from slices leased beforehand (decision 6).

A reservation takes its amounts from the slice of every budget on the way up, in every unit they limit, or from none.
When something is not at hand, `wait` asks the centre. Asks are states, not events: they may be lost, repeated, and
answered late; what the centre granted unheard is found in its next answer. While the centre is away the purse goes on
with what it has. What is left of a slice that an earlier process held comes back at the centre, once that process's
records have arrived (`begins_after`).

Promises: what all purses settle never exceeds what was granted, whatever is lost or killed; a waiting request ends in
exactly one call. `run` does the talking; everything else is synchronous, opens nothing and is tested with told time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.serving.gateway.centre import Refused, post
from atoll.serving.gateway.holding import (
    DRY_S,
    MONEY,
    TOKENS,
    BudgetFacts,
    Holding,
    Slice,
    insufficient,
    tokens_for,
    wrong_currency,
)
from atoll.serving.gateway.upstream import Client, Origin, Patience

__all__ = ["NOTHING", "BudgetFacts", "Purse", "Reservation", "Ticket", "charges"]

log = logging.getLogger(__name__)

WAIT_S = 5.0
TICK_S = 0.1
RETRY_S = 0.1
SETTLING_IN_S = 5.0  # after a start the centre may still be closing the slices of the process before
AWAY_S = 3.0  # a centre that starts anew is back within this
BACK_OFF_FIRST_S = 0.1
BACK_OFF_LONGEST_S = 2.0
ASKS_MAX = 500
SLICES = "/api/v1/gateway/slices"
_PATIENCE = Patience(first_byte_s=10.0, idle_s=10.0)

Done = Callable[["Reservation | AtollError"], None]


class Reservation:
    """Amounts set aside for one request; ends in `Purse.settle` or `Purse.cancel`, once."""

    __slots__ = ("_lines",)

    def __init__(self, lines: list[tuple[Holding, Slice, int]]) -> None:
        self._lines = lines

    @property
    def slices(self) -> dict[str, str]:
        """Unit by slice id, for the flight recorder: `charges` makes a lost request's record of it."""
        return {str(held.id): holding.unit for holding, held, _ in self._lines}


NOTHING = Reservation([])


def charges(slices: Mapping[str, str], tokens: int, money_micros: int) -> dict[str, int]:
    """Amount by slice id, for a usage record; `slices` as in `Reservation.slices`."""
    return {id: tokens if unit == TOKENS else money_micros for id, unit in slices.items()}


class Ticket:
    """A request that waits for the centre."""

    __slots__ = ("_purse", "began_at", "currency", "deadline", "done", "money", "path", "tokens")

    def __init__(self, purse: Purse, path: tuple[str, ...], tokens: int, money: int, currency: str) -> None:
        self._purse = purse
        self.path = path
        self.tokens = tokens
        self.money = money
        self.currency = currency
        self.began_at = self.deadline = 0.0
        self.done: Done | None = None

    def cancel(self) -> None:
        """Wait no more; `done` will not be called."""
        self.done = None
        self._purse._waiting.pop(self, None)

    def _end(self, result: Reservation | AtollError) -> None:
        done, self.done = self.done, None
        self._purse._waiting.pop(self, None)
        assert done is not None
        done(result)


class Purse:
    """The slices of this gateway process. `source` is its journal's identity, `begins_after` that journal's last number
    before this process wrote to it; `written` tells the last number now (for a process that was declared gone)."""

    def __init__(
        self,
        source: str,
        begins_after: int,
        *,
        written: Callable[[], int] | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._begins_after = begins_after
        self._written = written or (lambda: begins_after)
        self._now, self._wall, self._chance = now, wall, chance
        self._incarnation = uuid.uuid4().hex
        self._holdings: dict[tuple[str, str], Holding] = {}
        self._budgets: Mapping[str, BudgetFacts] = {}
        self._plans: dict[tuple[str, ...], tuple[Holding, ...]] = {}
        self._waiting: dict[Ticket, None] = {}
        self._asked: list[Holding] = []
        self._is_announced = False
        self._asks_again_at = float("-inf")
        self._gives_way = self._gave_way = False
        self._born_at = now()
        self._away_since: float | None = self._born_at
        self._away_why = "it has not answered yet"
        self._wake = asyncio.Event()
        self._defer: Callable[[Callable[[], None]], object] = lambda call: call()
        self._is_serving_due = False

    # what requests do

    def adopt(self, budgets: Mapping[str, BudgetFacts]) -> None:
        """The budgets there are now."""
        self._budgets = budgets
        self._plans.clear()
        for (uid, unit), holding in self._holdings.items():
            holding.is_live = uid in budgets and unit in budgets[uid].units
        for facts in budgets.values():
            for unit in facts.units & {TOKENS, MONEY}:
                known = self._holdings.get((facts.uid, unit))
                if known is None:
                    self._holdings[facts.uid, unit] = Holding(facts, unit)
                else:
                    known.facts = facts

    def reserve(self, path: tuple[str, ...], tokens: int, money_micros: int, currency: str) -> Reservation | None:
        """Set the amounts aside in every budget of `path` (uids); None when that cannot be done without the centre.

        A budget that was not adopted has nothing: not known is not unlimited. Raises Forbidden when a budget on the
        way is in another currency than the price.
        """
        if not path:
            return NOTHING
        plan = self._plans.get(path)
        if plan is None:
            plan = self._plan(path)
            if plan is None:
                return None
        lines: list[tuple[Holding, Slice, int]] = []
        wall = self._wall() if plan else 0.0
        for holding in plan:
            amount = tokens if holding.is_tokens else money_micros
            if amount <= 0:
                continue
            if not holding.is_tokens and holding.facts.currency != currency:
                raise wrong_currency(holding.facts, currency)
            held = holding.slice
            if held.granted - held.released - held.reserved - held.used < amount or (
                held.expires_at is not None and wall >= held.expires_at
            ):
                return None
            lines.append((holding, held, amount))
        if not lines:
            return NOTHING
        for holding, held, amount in lines:
            held.reserved += amount
            holding.reserved_lately += amount
            if amount > holding.biggest:
                holding.biggest = amount
        return Reservation(lines)

    def wait(
        self,
        path: tuple[str, ...],
        tokens: int,
        money_micros: int,
        currency: str,
        done: Done,
        limit_s: float = WAIT_S,
    ) -> Ticket:
        """Reserve once it can be done; `done` gets the reservation or the reason, never before this returns.

        RateLimited (insufficient_quota) names budget, unit, need and rest; Unavailable says the centre is away.
        """
        ticket = Ticket(self, path, tokens, money_micros, currency)
        ticket.began_at = self._now()
        ticket.deadline = ticket.began_at + limit_s
        ticket.done = done
        self._waiting[ticket] = None
        self._asks_again_at = float("-inf")
        self._wake.set()
        return ticket

    def clamp(
        self, path: tuple[str, ...], prompt_bound: int, output_bound: int, price: Mapping[str, Any] | None
    ) -> int | None:
        """How many of `output_bound` tokens can be afforded after `prompt_bound` prompt tokens; 0 means none.

        None: all of them, or not known before the centre was asked (then ask again when `wait` was told of too little).
        """
        bound = output_bound
        wall = self._wall()
        for holding in self._plans.get(path) or self._plan(path) or ():
            left = holding.affordable(wall)
            if left is None:
                continue
            bound = min(bound, left - prompt_bound if holding.is_tokens else tokens_for(left, prompt_bound, price))
        return None if bound >= output_bound else max(0, bound)

    def settle(self, reservation: Reservation, tokens: int, money_micros: int) -> dict[str, int]:
        """What the request used; the amounts by slice id, for its usage record. A second time it is nothing."""
        lines, reservation._lines = reservation._lines, []
        amounts: dict[str, int] = {}
        for holding, held, amount in lines:
            used = tokens if holding.is_tokens else money_micros
            held.reserved -= amount
            held.used += used
            holding.used_lately += used
            amounts[str(held.id)] = used
        if lines:
            self._serve_soon()
        return amounts

    def cancel(self, reservation: Reservation) -> None:
        """The request used nothing."""
        lines, reservation._lines = reservation._lines, []
        for _, held, amount in lines:
            held.reserved -= amount
        if lines:
            self._serve_soon()

    @property
    def waiting(self) -> int:
        """Requests that wait for the centre."""
        return len(self._waiting)

    @property
    def figures(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Free and reserved amounts by project, budget name and unit, for the metrics."""
        wall = self._wall()
        return {
            (h.facts.project, h.facts.name, h.unit): (h.usable(wall), h.slice.reserved) for h in self._holdings.values()
        }

    def _plan(self, path: tuple[str, ...]) -> tuple[Holding, ...] | None:
        """The holdings a request of this path is charged to; None when a budget on the way is not known."""
        if any(uid not in self._budgets for uid in path):
            return None
        plan = tuple(
            self._holdings[uid, unit] for uid in path for unit in sorted(self._budgets[uid].units & {TOKENS, MONEY})
        )
        self._plans[path] = plan
        return plan

    # what the centre is told and says

    def ask(self) -> dict[str, Any] | None:
        """The next message to the centre, None while there is nothing to say. Then call `take` or `miss`."""
        now, wall = self._now(), self._wall()
        self._gave_way, self._gives_way = self._gives_way, False
        waited_for, is_due = self._needs(), now >= self._asks_again_at
        needs = waited_for if self._gave_way or is_due else {}
        asked, told = [], []
        for holding in self._holdings.values():
            holding.tick(now)
            gives_way = self._gave_way and holding in needs and not holding.is_plenty
            rests = holding in waited_for and not is_due
            told_one = holding.ask(needs.get(holding, []), now, wall, gives_way=gives_way, rests=rests)
            if told_one is not None:
                asked.append(holding)
                told.append(told_one)
            if len(told) >= ASKS_MAX:
                break
        if not told and self._is_announced:
            return None
        self._asked = asked
        return {
            "source": self._source,
            "incarnation": self._incarnation,
            "begins_after": self._begins_after,
            "slices": told,
        }

    def take(self, answer: Mapping[str, Any]) -> None:
        """Take over an answer to the last `ask`; raises Invalid when it is none."""
        asked, self._asked = self._asked, []
        grants = answer.get("slices")
        if not isinstance(grants, list) or len(grants) != len(asked):
            raise Invalid("the server's answer on slices does not fit what was asked")
        now, wall = self._now(), self._wall()
        try:
            for holding, told in zip(asked, grants, strict=True):
                holding.take(told, now, wall)
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid(f"the server's answer on slices cannot be read: {error!r}") from error
        self._is_announced = True
        self._away_since = None
        self._serve()
        self._refuse_hopeless(now, wall)
        # Whoever has a part of what it needs lets go of it, and asks again in a while: so one of several gets all.
        self._gives_way = bool(self._waiting) and not self._gave_way and self._has_idle_parts(wall)
        self._asks_again_at = now + RETRY_S * (0.5 + self._chance()) if self._waiting else float("-inf")

    def miss(self, why: str) -> None:
        """The last `ask` had no answer; the centre may have heard it or not."""
        now = self._now()
        self._asked = []
        if self._away_since is None:
            self._away_since = now
        self._away_why = why
        self.tick()

    def begin_anew(self) -> None:
        """The centre has closed this process's slices: go on as a new one. What is reserved still settles by record."""
        self._incarnation = uuid.uuid4().hex
        self._begins_after = self._written()
        self._is_announced = False
        for holding in self._holdings.values():
            holding.begin_anew()

    def tick(self) -> None:
        """End what has waited long enough; about every TICK_S."""
        now = self._now()
        is_away = self._away_since is not None and now - self._away_since > AWAY_S
        for ticket in list(self._waiting):
            if ticket.done is not None and (now >= ticket.deadline or is_away):
                ticket._end(self._why_not(ticket))

    def _needs(self) -> dict[Holding, list[int]]:
        """What is waited for, by holding."""
        needs: dict[Holding, list[int]] = {}
        for ticket in self._waiting:
            for holding, amount in self._amounts(ticket):
                needs.setdefault(holding, []).append(amount)
        return needs

    def _amounts(self, ticket: Ticket) -> Iterable[tuple[Holding, int]]:
        for holding in self._plans.get(ticket.path) or self._plan(ticket.path) or ():
            amount = ticket.tokens if holding.is_tokens else ticket.money
            if amount > 0:
                yield holding, amount

    def _serve_soon(self) -> None:
        """Something became free: let those who wait have it, after whoever freed it has finished."""
        if self._waiting and not self._is_serving_due:
            self._is_serving_due = True
            self._defer(self._serve)

    def _serve(self) -> None:
        """Reserve for those who wait, in their order; a small one may pass a big one that does not fit."""
        self._is_serving_due = False
        for ticket in list(self._waiting):
            if ticket.done is None:
                continue
            try:
                result = self.reserve(ticket.path, ticket.tokens, ticket.money, ticket.currency)
            except AtollError as error:
                ticket._end(error)
                continue
            if result is not None:
                ticket._end(result)

    def _has_idle_parts(self, wall: float) -> bool:
        return any(holding.usable(wall) > 0 and not holding.is_plenty for holding in self._needs())

    def _refuse_hopeless(self, now: float, wall: float) -> None:
        """End those at once that nothing can help which may still come back."""
        for ticket in list(self._waiting):
            for holding, amount in self._amounts(ticket):
                if ticket.done is not None and self._is_hopeless(holding, amount, ticket.began_at, now, wall):
                    ticket._end(insufficient(holding, amount, wall))

    def _is_hopeless(self, holding: Holding, amount: int, since: float, now: float, wall: float) -> bool:
        """Whether the centre, asked for it, has not enough and nobody else can give some back."""
        left, told = holding.affordable(wall), holding.need_told
        if left is None or told is None or min(amount, told) <= left or holding.asked_at < since:
            return False
        if holding.is_scarce:
            return now < holding.dry_until
        return now - self._born_at > SETTLING_IN_S and amount > left + holding.slice.reserved

    def _why_not(self, ticket: Ticket) -> AtollError:
        """Why a request that waited to its end gets nothing."""
        now, wall = self._now(), self._wall()
        for holding, amount in self._amounts(ticket):
            left = holding.affordable(wall)
            if left is not None and amount > left and holding.answered_at >= ticket.began_at:
                if holding.is_scarce:
                    holding.dry_until = now + DRY_S
                return insufficient(holding, amount, wall)
        why = self._away_why if self._away_since is not None else "it has not answered in time"
        return Unavailable(
            f"The centre is not reachable ({why}), and what this gateway had leased of the budgets is used up.",
            hint="try again soon",
            code="budget_unreachable",
            retry_after_s=2.0,
        )

    # talking

    async def run(self, client: Client, server: Origin, secret: str) -> None:
        """Ask the centre for ever."""
        loop = asyncio.get_running_loop()
        self._defer = loop.call_soon
        ticking = loop.create_task(self._keep_ticking())
        back_off_s = BACK_OFF_FIRST_S
        try:
            while True:
                if await self._exchange(client, server, secret):
                    back_off_s = BACK_OFF_FIRST_S
                    await self._rest(TICK_S)
                else:
                    await asyncio.sleep(back_off_s)
                    back_off_s = min(2 * back_off_s, BACK_OFF_LONGEST_S)
        finally:
            ticking.cancel()

    async def give_back(self, client: Client, server: Origin, secret: str) -> None:
        """Return all that is free, at the end of the process. Raises when the centre did not hear it."""
        wall = self._wall()
        for holding in self._holdings.values():
            holding.retire(wall)
        message = self.ask()
        if message is not None:
            self.take(await post(client, server, secret, SLICES, orjson.dumps(message), _PATIENCE))

    async def _exchange(self, client: Client, server: Origin, secret: str) -> bool:
        """Ask once if there is something to ask; False when the centre could not be reached."""
        message = self.ask()
        if message is None:
            return True
        try:
            self.take(await post(client, server, secret, SLICES, orjson.dumps(message), _PATIENCE))
        except AtollError as error:
            if isinstance(error, Refused) and error.status == 409:
                log.error("the centre has closed the slices of this gateway: %s", error)
                self.begin_anew()
            if self._away_since is None:
                log.warning("no slices from the server: %s", error)
            self.miss(error.message)
            return False
        return True

    async def _rest(self, longest_s: float) -> None:
        """Until a request waits, or for a while."""
        if self._gives_way:
            return
        left_s = self._asks_again_at - self._now()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, longest_s) if left_s > 0 else longest_s):
                await self._wake.wait()
        self._wake.clear()

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
