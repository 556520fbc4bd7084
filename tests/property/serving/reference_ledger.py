"""The centre's side of leased slices in as few words as possible, to hold purses against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

PERIOD_S = 1000.0


@dataclass(slots=True)
class Lease:
    """One slice as the ledger knows it."""

    id: int
    owner: tuple[str, str]
    account: tuple[str, int, str]
    granted: int = 0
    released: int = 0
    settled: int = 0
    is_open: bool = True

    @property
    def held(self) -> int:
        return self.granted - self.released - self.settled if self.is_open else 0


class ReferenceLedger:
    """`allowances` by (budget, unit); each holds anew in every period."""

    def __init__(self, allowances: dict[tuple[str, str], int]) -> None:
        self.allowances = allowances
        self.leases: list[Lease] = []
        self.spent: Counter[tuple[str, int, str]] = Counter()
        self.entered: Counter[str] = Counter()
        self.incarnations: dict[str, str] = {}
        self.begins_after: Counter[str] = Counter()

    def held(self, account: tuple[str, int, str]) -> int:
        return sum(lease.held for lease in self.leases if lease.account == account)

    def available(self, account: tuple[str, int, str]) -> int:
        budget, _, unit = account
        return self.allowances[budget, unit] - self.spent[account] - self.held(account)

    def answer(self, message: dict[str, Any], wall: float) -> dict[str, Any]:
        source, incarnation = message["source"], message["incarnation"]
        owner = (source, incarnation)
        self.incarnations[source] = incarnation
        self.begins_after[source] = message["begins_after"]
        self._close_earlier(source)
        return {"slices": [self._grant(owner, ask, wall) for ask in message["slices"]]}

    def _close_earlier(self, source: str) -> None:
        """The slices of processes before the present one, once all their records are here."""
        if source in self.incarnations and self.entered[source] >= self.begins_after[source]:
            for lease in self.leases:
                if lease.owner[0] == source and lease.owner[1] != self.incarnations[source]:
                    lease.is_open = False

    def _grant(self, owner: tuple[str, str], ask: dict[str, Any], wall: float) -> dict[str, Any]:
        number = int(wall // PERIOD_S)
        account = (ask["budget"], number, ask["unit"])
        named = next((lease for lease in self.leases if lease.id == ask["slice"]), None)
        if named is not None:
            assert named.owner == owner, "a purse asked for the slice of another"
            more = ask["released"] - named.released
            assert more <= named.held, "a purse gave back more than it had"
            named.released += max(0, more)
        is_current = named is None or named.account == account
        lease = next((e for e in self.leases if e.owner == owner and e.account == account and e.is_open), None)
        if lease is None:
            lease = Lease(len(self.leases) + 1, owner, account)
            self.leases.append(lease)
        unseen = max(0, lease.granted - (ask["granted_seen"] if is_current and named is not None else 0))
        want, need = max(0, ask["want"] - unseen), max(0, ask["need"] - unseen)
        has_rivals = any(e.held for e in self.leases if e.account == account and e.owner[0] != owner[0])
        left = self.available(account)
        share = max(need, (left + 1) // 2) if has_rivals else left
        amount = min(want, share) if need <= left else 0
        lease.granted += amount
        is_short = amount < max(need, min(want, 1))
        left -= amount
        return {
            "slice": lease.id,
            "budget": ask["budget"],
            "unit": ask["unit"],
            "granted": lease.granted,
            "released": lease.released,
            "expires_at": (number + 1) * PERIOD_S,
            "available": left,
            "scarce": has_rivals and (is_short or left * 4 < self.held(account)),
        }

    def enter(self, source: str, records: list[tuple[int, dict[str, int]]]) -> None:
        """Records by number, each with its amounts by slice."""
        for number, amounts in records:
            if number <= self.entered[source]:
                continue
            assert number == self.entered[source] + 1
            self.entered[source] = number
            for id, amount in amounts.items():
                lease = self.leases[int(id) - 1]
                if lease.is_open:
                    assert lease.held >= amount, "used beyond the slice"
                    lease.settled += amount
                self.spent[lease.account] += amount
        self._close_earlier(source)
