"""What this gateway holds of one budget in one unit: the slice in force, and how much of it is wise to keep.

    granted - released = free + reserved + used

Amounts are whole and in the unit's measure (tokens, or micro-units of money). A slice ends with its period: nothing new
is reserved from it then, while what was reserved before still settles in it. How much to keep free follows the use of
the last seconds, and is never more than a small part of what the budget has left, so that the last of a budget is not
idle somewhere; while there is plenty it is kept for long, so that a gateway without the centre can go on. Of a scarce
budget nothing is kept. Pure: whoever owns it tells the time and sends the asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Forbidden, RateLimited

TOKENS, MONEY = "tokens", "money"
LEAD_S = 1.0  # of what is reserved
AHEAD_S = 60.0  # of what is used
PART = 16  # at most one in so many of what the budget has left is kept, beyond the biggest request
IDLE_S = 2.5
IDLE_PLENTY_S = 3600.0
SMOOTHING = 0.1
POLL_S = 1.5
DRY_S = 5.0


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """A budget as the snapshot tells it. `units` are those it limits."""

    uid: str
    name: str
    project: str
    units: frozenset[str]
    currency: str = ""


class Slice:
    """One leased slice and what became of it."""

    __slots__ = ("expires_at", "granted", "id", "released", "released_heard", "reserved", "used")

    def __init__(self, id: int | None = None, expires_at: float | None = None) -> None:
        self.id = id  # None before the first answer
        self.expires_at = expires_at  # Unix time
        self.granted = 0
        self.released = 0
        self.released_heard = 0  # by the centre
        self.reserved = 0
        self.used = 0

    @property
    def free(self) -> int:
        """What may still be reserved; below zero when requests used more than they had reserved."""
        return self.granted - self.released - self.reserved - self.used


class Holding:
    """The slice of one budget and unit, and the pace at which it is used."""

    __slots__ = (
        "_idle_since",
        "_is_unsure",
        "_rate_reserved",
        "_rate_used",
        "_ticked_at",
        "answered_at",
        "asked_at",
        "available",
        "biggest",
        "dry_until",
        "facts",
        "is_live",
        "is_scarce",
        "is_tokens",
        "need_told",
        "reserved_lately",
        "slice",
        "unit",
        "used_lately",
    )

    def __init__(self, facts: BudgetFacts, unit: str) -> None:
        self.facts = facts
        self.unit = unit
        self.is_tokens = unit == TOKENS
        self.is_live = True  # False once the budget or its unit is gone
        self.slice = Slice()
        self.available: int | None = None  # ungranted in the budget, as last told; None before the first answer
        self.is_scarce = False
        self.asked_at = self.answered_at = float("-inf")
        self.need_told: int | None = None  # the least amount waited for, when the last ask told it
        self.dry_until = float("-inf")  # until then nothing is expected to come back from other gateways
        self.biggest = 0
        self.reserved_lately = self.used_lately = 0
        self._is_unsure = False  # an ask had no answer
        self._rate_reserved = self._rate_used = 0.0  # per second
        self._ticked_at = self._idle_since = float("-inf")

    def usable(self, wall: float) -> int:
        """What can be reserved here and now; below zero when requests used more than they had reserved."""
        return 0 if self._is_over(wall) else self.slice.free

    def affordable(self, wall: float) -> int | None:
        """What one request could be given at most: here and at the centre. None when that is not known."""
        return None if self.available is None else max(0, self.usable(wall)) + self.available

    def _is_over(self, wall: float) -> bool:
        return self.slice.expires_at is not None and wall >= self.slice.expires_at

    def tick(self, now: float) -> None:
        """Take the pace of the time since the last tick."""
        elapsed_s = now - self._ticked_at
        if elapsed_s <= 0:
            return
        if elapsed_s < float("inf"):
            self._rate_reserved += SMOOTHING * (self.reserved_lately / elapsed_s - self._rate_reserved)
            self._rate_used += SMOOTHING * (self.used_lately / elapsed_s - self._rate_used)
        if self.reserved_lately:
            self._idle_since = now
        elif now - self._idle_since > (IDLE_PLENTY_S if self.is_plenty else IDLE_S):
            self.biggest = 0
            self._rate_reserved = self._rate_used = 0.0
        self._ticked_at = now
        self.reserved_lately = self.used_lately = 0

    @property
    def is_plenty(self) -> bool:
        """Whether what is free here is a small part of what the budget has left."""
        return self.available is not None and self.available >= PART * max(self.biggest, self.slice.free)

    @property
    def target(self) -> int:
        """How much is wise to have free."""
        if self.is_scarce or not self.is_live:
            return 0
        ahead = int(self._rate_reserved * LEAD_S + self._rate_used * AHEAD_S)
        return max(self.biggest, min(ahead, (self.available or 0) // PART))

    def ask(self, needs: list[int], now: float, wall: float, *, gives_way: bool, rests: bool) -> dict[str, Any] | None:
        """What to tell the centre, None when there is nothing to say; what is given back is gone with this call.

        `needs` are the amounts waited for. `gives_way`: give all back that is free and want nothing for now, so that
        of several gateways, each with a part of what it needs, one gets all; `rests`: want nothing yet, after that.
        """
        held, free = self.slice, self.usable(wall)
        want, surplus = self._wish(needs, free, now, gives_way)
        if rests:
            want = 0
        if surplus > 0:
            held.released += surplus
        is_told = held.released == held.released_heard and not self._is_unsure
        if not want and is_told and not self._is_poll_due(now, free):
            return None
        self.asked_at = now
        self.need_told = min(needs) if needs and not gives_way else None
        self._is_unsure = True
        return {
            "budget": self.facts.uid,
            "unit": self.unit,
            "slice": held.id,
            "granted_seen": held.granted,
            "released": held.released,
            "want": want,
            "need": max(0, self.need_told - free) if self.need_told is not None else 0,
        }

    def _wish(self, needs: list[int], free: int, now: float, gives_way: bool) -> tuple[int, int]:
        """How much more to want, and how much to give back."""
        if gives_way or not self.is_live or (self.is_scarce and not needs):
            return 0, free
        target = self.target
        if needs:
            return max(0, sum(needs) + target - free), 0
        is_hopeful = self.available != 0 or now - self.answered_at >= POLL_S
        if (free < target // 2 or free < 0) and is_hopeful:
            return target - free, 0
        return 0, (free - target if free > 2 * target + self.biggest else 0)

    def _is_poll_due(self, now: float, free: int) -> bool:
        """Who holds something idle has to hear when it has become scarce."""
        return free > 0 and now - max(self.answered_at, self.asked_at) >= POLL_S

    def take(self, told: dict[str, Any], now: float, wall: float) -> None:
        """Take over what the centre says of the slice; another number is a new slice, of another period."""
        number, expires_at = told["slice"], told.get("expires_at")
        held = self.slice
        held.released_heard = held.released
        if number is not None and held.id is not None and int(number) != held.id:
            held = self.slice = Slice()
        if number is not None:
            held.id = int(number)
            held.granted = max(held.granted, int(told["granted"]))
        if number is not None or (expires_at is not None and float(expires_at) <= wall):
            held.expires_at = None if expires_at is None else float(expires_at)
        self.available = int(told["available"])
        self.is_scarce = bool(told["scarce"])
        self.answered_at = now
        self._is_unsure = False

    def retire(self, wall: float) -> None:
        """Give back all that is free and want nothing more."""
        self.is_live = False
        self.slice.released += max(0, self.usable(wall))

    def begin_anew(self) -> None:
        """The slice belongs to an earlier life."""
        self.slice = Slice()
        self.available = self.need_told = None
        self.is_scarce = self._is_unsure = False


def tokens_for(left: int, prompt_bound: int, price: Mapping[str, Any] | None) -> int:
    """Output tokens that `left` micro-units of money pay for after the prompt."""
    if not price:
        return 1 << 53
    output = float(price.get("output_per_million") or 0.0)
    rest = (
        left
        - 1
        - prompt_bound
        * max(float(price.get("input_per_million") or 0.0), float(price.get("cached_input_per_million") or 0.0))
    )
    if rest < 0:
        return 0
    return int(rest / output) if output > 0 else 1 << 53


def insufficient(holding: Holding, needed: int, wall: float) -> RateLimited:
    """The error of a request that needs more of a budget than there is."""
    left, facts, unit = holding.affordable(wall) or 0, holding.facts, holding.unit
    ends_at = holding.slice.expires_at
    said = (f"{left}", f"{needed}") if unit == TOKENS else (f"{left / 1e6:.6f}", f"{needed / 1e6:.6f}")
    what = "tokens" if unit == TOKENS else facts.currency
    return RateLimited(
        f"The budget {facts.name!r} of project {facts.project!r} has {said[0]} {what} left; this request may need up "
        f"to {said[1]} {what}.",
        hint="lower max_tokens, shorten the prompt, or have the budget raised",
        code="insufficient_quota",
        budget=facts.name,
        unit=unit,
        needed=needed,
        available=left,
        retry_after_s=min(max(1.0, ends_at - wall), 3600.0) if ends_at is not None else 60.0,
    )


def wrong_currency(facts: BudgetFacts, currency: str) -> Forbidden:
    """The error of a request whose price a budget on its way cannot count."""
    return Forbidden(
        f"The budget {facts.name!r} of project {facts.project!r} counts {facts.currency}, but the model is priced in "
        f"{currency or 'no currency'}.",
        hint="price the model in the budget's currency",
        code="budget_currency",
    )
