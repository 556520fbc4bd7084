"""A small ledger for the gateway's tests: grants slices of tiny budgets, and knows exactly what is held and spent."""

from __future__ import annotations

import threading
from typing import Any


class _Slice:
    def __init__(self, number: int, source: str, incarnation: str, budget: str, unit: str) -> None:
        self.number = number
        self.source, self.incarnation, self.budget, self.unit = source, incarnation, budget, unit
        self.granted = self.released = self.spent = 0
        self.is_closed = False


class Ledger:
    """Per budget and unit: available + held + spent is what was funded, always; `overspent` is what went beyond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.funded: dict[tuple[str, str], int] = {}
        self.available: dict[tuple[str, str], int] = {}
        self.spent: dict[tuple[str, str], int] = {}
        self.overspent = 0
        self.asks = 0
        self._slices: dict[str, _Slice] = {}
        self._of: dict[tuple[str, str, str, str], _Slice] = {}
        self._records: dict[str, set[int]] = {}
        self._closing: dict[str, int] = {}
        self._goes_on = threading.Event()
        self._goes_on.set()

    def fund(self, budget: str, amounts: dict[str, int]) -> None:
        for unit, amount in amounts.items():
            self.funded[budget, unit] = self.available[budget, unit] = amount
            self.spent[budget, unit] = 0

    def pause(self) -> None:
        """Let asks wait until `go_on`."""
        self._goes_on.clear()

    def go_on(self) -> None:
        self._goes_on.set()

    @property
    def held(self) -> int:
        """What gateways hold of all budgets, not yet spent or given back."""
        return sum(s.granted - s.released - s.spent for s in self._slices.values() if not s.is_closed)

    def lease(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The answer to a gateway's ask, as the contract has it."""
        self._goes_on.wait(60)
        with self._lock:
            self.asks += 1
            source, incarnation = ask["source"], ask["incarnation"]
            if any(s.source == source and s.incarnation != incarnation for s in self._slices.values()):
                self._closing.setdefault(source, ask["begins_after"])
                self._closing[source] = max(self._closing[source], ask["begins_after"])
            self._close_old(source, incarnation)
            return {"slices": [self._grant(source, incarnation, line) for line in ask["slices"]]}

    def _grant(self, source: str, incarnation: str, line: dict[str, Any]) -> dict[str, Any]:
        place = (line["budget"], line["unit"])
        held = self._of.get((source, incarnation, *place))
        if held is None:
            held = self._of[source, incarnation, *place] = _Slice(len(self._slices) + 1, source, incarnation, *place)
            self._slices[str(held.number)] = held
        freed = line["released"] - held.released
        held.released += freed
        self.available[place] += freed
        unseen = held.granted - line["granted_seen"]
        wanted, needed = max(0, line["want"] - unseen), max(0, line["need"] - unseen)
        granted = min(wanted, self.available[place]) if needed <= self.available[place] else 0
        has_rivals = any(s.source != source and (s.budget, s.unit) == place for s in self._slices.values())
        self.available[place] -= granted
        held.granted += granted
        return {
            "slice": held.number,
            "budget": place[0],
            "unit": place[1],
            "granted": held.granted,
            "released": held.released,
            "expires_at": None,
            "available": self.available[place],
            "scarce": has_rivals and granted < max(needed, min(wanted, 1)),
        }

    def settle(self, source: str, record: dict[str, Any]) -> None:
        """Enter what a usage record charges."""
        with self._lock:
            self._records.setdefault(source, set()).add(record["seq"])
            for name, amount in record.get("slices", {}).items():
                held = self._slices[name]
                place = (held.budget, held.unit)
                self.spent[place] += amount
                if held.is_closed:
                    self.overspent += max(0, amount - self.available[place])
                    self.available[place] -= amount
                    continue
                held.spent += amount
                self.overspent += max(0, held.spent - (held.granted - held.released))

    def _close_old(self, source: str, incarnation: str) -> None:
        """Take back what former lives of a gateway left, once all their records are here."""
        begins_after = self._closing.get(source)
        if begins_after is None or not set(range(1, begins_after + 1)) <= self._records.get(source, set()):
            return
        for held in self._slices.values():
            if held.source == source and held.incarnation != incarnation and not held.is_closed:
                held.is_closed = True
                self.available[held.budget, held.unit] += held.granted - held.released - held.spent
