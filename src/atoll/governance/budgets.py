"""Budgets as a tree: which ones a request is charged to, which period it is, who may change them. All pure.

A request of project P with key K is charged to the budgets of K, then to those of P, then to those of P's parent, and
so on up. Periods are days and months of UTC. Knows nothing of balances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from atoll.core.errors import Forbidden, Invalid
from atoll.core.resources import Resource
from atoll.governance.accounts import ACCELERATOR_MS, MONEY, TOKENS, Place
from atoll.governance.keys import Identity
from atoll.governance.prices import MS_PER_HOUR, micros_of

if TYPE_CHECKING:
    from atoll.core.store import Scope

FIELDS = {TOKENS: "tokens", MONEY: "money", ACCELERATOR_MS: "accelerator_hours"}
"""The field of a budget's spec and status that speaks of each unit."""

_PER_FIELD = {TOKENS: 1.0, MONEY: 1e6, ACCELERATOR_MS: float(MS_PER_HOUR)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One unit of a budget in its present period: `amount` is the allowance, `expires_at` the period's end."""

    place: Place
    amount: int
    expires_at: float | None
    project: str
    name: str
    currency: str


def limits_of(uid: str, project: str, name: str, spec: Mapping[str, Any], now: float) -> list[Limit]:
    """What a budget limits at Unix time `now`; a unit that its spec leaves empty is not limited."""
    label, expires_at = period_at(spec["period"], now)
    amounts = {unit: amount_of(unit, spec[field]) for unit, field in FIELDS.items() if spec.get(field) is not None}
    return [
        Limit(Place(uid, label, unit), amount, expires_at, project, name, spec["currency"] if unit == MONEY else "")
        for unit, amount in amounts.items()
    ]


def units_of(spec: Mapping[str, Any]) -> list[str]:
    """The units a budget limits."""
    return [unit for unit, field in FIELDS.items() if spec.get(field) is not None]


def amount_of(unit: str, value: float) -> int:
    """A figure of a spec as a whole amount of the unit."""
    if unit == MONEY:
        return micros_of(value)
    return round(value * MS_PER_HOUR) if unit == ACCELERATOR_MS else int(value)


def figure_of(unit: str, amount: int) -> float:
    """An amount of the unit as people read it: tokens, money, hours."""
    return amount / _PER_FIELD[unit]


def period_at(period: str, now: float) -> tuple[str, float | None]:
    """Label and end (Unix time) of the period `now` is in: total, 2026-11-23, 2026-11."""
    if period == "total":
        return "total", None
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day.strftime("%Y-%m-%d"), (day + timedelta(days=1)).timestamp()
    following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return day.strftime("%Y-%m"), following.timestamp()


def month_bounds(month: str) -> tuple[float, float]:
    """Begin and end (Unix times, UTC) of a month such as 2026-11; Invalid when it is none."""
    try:
        begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise Invalid(f"month cannot be {month!r}", field="month", hint="a month such as 2026-11") from error
    return begin.timestamp(), (begin + timedelta(days=32)).replace(day=1).timestamp()


class BudgetTree:
    """All budgets and projects at one moment, asked for many ways up."""

    def __init__(self, budgets: Iterable[Resource], projects: Iterable[Resource]) -> None:
        self._parents = {project.name: str(project.spec.get("parent") or "") for project in projects}
        self._of: dict[tuple[str, str], list[str]] = {}
        for budget in sorted((b for b in budgets if not b.is_deleting), key=lambda b: b.name):
            self._of.setdefault((budget.project, budget.spec["key"]), []).append(budget.uid)

    def path(self, project: str, key_id: str = "") -> list[str]:
        """Uids of the budgets a request is charged to: the key's, then the project's, then those further up."""
        line = self.line(project)
        keyed = [uid for name in line for uid in self._of.get((name, key_id), ())] if key_id else []
        return keyed + [uid for name in line for uid in self._of.get((name, ""), ())]

    def line(self, project: str) -> list[str]:
        """The project and all above it; a circle of parents is cut where it would begin again."""
        found: dict[str, None] = {}
        while project and project not in found:
            found[project] = None
            project = self._parents.get(project, "")
        return list(found)


def path_of(scope: Scope, project: str, key_id: str = "") -> list[str]:
    """One way up, read from the store; for many, make a BudgetTree."""
    return BudgetTree(scope.find_all("Budget"), scope.find_all("Project")).path(project, key_id)


def check_budget(identity: Identity, role: str, spec: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Whether `identity`, whose role in the project is `role`, may write (or, with `spec` as it is, delete) a budget.

    The budget of a whole project is the administrators': nobody raises their own limit. Owners set the budgets of
    their project's keys. Forbidden otherwise; Invalid for another currency, which would change what amounts mean.
    """
    changed = [each for each in (spec, before) if each is not None]
    if not identity.is_admin and any(not each.get("key") for each in changed):
        raise Forbidden(
            "only administrators set the budget of a project", hint="owners may set budgets of single keys: spec.key"
        )
    if not identity.is_admin and role != "owner":
        raise Forbidden(f"budgets are set by owners of the project, key {identity.key_id} is {role}")
    if before is not None and before["currency"] != spec["currency"]:
        raise Invalid(
            f"the currency of a budget cannot change from {before['currency']} to {spec['currency']}",
            field="spec.currency",
            hint="make another budget",
        )
