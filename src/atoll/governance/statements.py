"""Statements: what a project used in a month, what it cost, what its budgets have; as JSON, CSV or a page to print.

Months are of UTC. Sums are of the ledger's own rows, so a statement made again after late records came says more. The
cost of accelerators is derived (prices.derive_cost), beside what requests were charged; the two are never added.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from atoll.core.database import Database
from atoll.governance.balances import Balance, balances_in
from atoll.governance.budgets import FIELDS, figure_of, month_bounds
from atoll.governance.ledger import Ledger, Line
from atoll.governance.meters import Meters
from atoll.governance.prices import DerivedCost, derive_cost
from atoll.governance.vouchers import Payments, TopUp

CSV_COLUMNS = (
    "day",
    "key",
    "model",
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost",
    "currency",
)


@dataclass(frozen=True, slots=True)
class Sum:
    """Lines added up under one heading and in one currency."""

    name: str
    currency: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_micros: int

    def to_dict(self) -> dict[str, Any]:
        counts = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")
        figures = {name: getattr(self, name) for name in counts}
        return {"name": self.name, **figures, "cost": self.cost_micros / 1e6, "currency": self.currency}


@dataclass(frozen=True, slots=True)
class Rate:
    """Price of an accelerator-hour."""

    per_accelerator_hour: float
    currency: str


@dataclass(frozen=True, slots=True)
class Served:
    """Accelerator time of a workload in the month, and what it came to."""

    workload: str
    deployment: str
    model: str
    currency: str
    derived: DerivedCost

    def to_dict(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "deployment": self.deployment,
            "model": self.model,
            "accelerator_hours": self.derived.accelerator_hours,
            "utilisation": self.derived.utilisation,
            "tokens": self.derived.tokens,
            "cost": self.derived.cost_micros / 1e6,
            "per_million": self.derived.per_million,
            "per_million_at_full": self.derived.per_million_at_full,
            "currency": self.currency,
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """Everything about one project and month; `lines` are by day, key and model."""

    project: str
    month: str
    made_at: float
    lines: tuple[Line, ...]
    balances: tuple[Balance, ...]
    top_ups: tuple[TopUp, ...]
    served: tuple[Served, ...]

    def by(self, group: str) -> list[Sum]:
        """Sums per key, model or day, and currency."""
        return add_up(self.lines, lambda line: str(getattr(line, group)))

    @property
    def totals(self) -> list[Sum]:
        """One sum per currency."""
        return add_up(self.lines, lambda _: self.project)

    def to_dict(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "month": self.month,
            "made_at": self.made_at,
            "totals": [each.to_dict() for each in self.totals],
            "by_key": [each.to_dict() for each in self.by("key")],
            "by_model": [each.to_dict() for each in self.by("model")],
            "by_day": [each.to_dict() for each in self.by("day")],
            "budgets": [balance.to_dict() for balance in self.balances],
            "top_ups": [top_up.to_dict() for top_up in self.top_ups],
            "accelerators": [each.to_dict() for each in self.served],
        }

    def to_csv(self) -> str:
        """One row per day, key and model; a header first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for line in self.lines:
            row = line.to_dict() | {"cost": f"{line.cost_micros // 1_000_000}.{line.cost_micros % 1_000_000:06d}"}
            writer.writerow([row[name] for name in CSV_COLUMNS])
        return text.getvalue()

    def to_html(self) -> str:
        """A page that prints on paper; everything in it is escaped, nothing is loaded from elsewhere."""
        return _template().render(statement=self)


class Statements:
    """Makes statements from one database."""

    def __init__(self, database: Database, ledger: Ledger, payments: Payments, meters: Meters) -> None:
        self._database = database
        self._ledger = ledger
        self._payments = payments
        self._meters = meters

    def make(
        self,
        project: str,
        month: str,
        *,
        now: float,
        rates: Mapping[str, Rate] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> Statement:
        """The statement of a month such as 2026-11. `rates` are by model, model version or deployment uid."""
        since, until = month_bounds(month)
        days = tuple(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in (since, until))
        lines = self._ledger.statement(project, since=since, until=until, by=("day", "key", "model"))
        with self._database.reading() as connection:
            balances = balances_in(connection, project, days[0], days[1], month)
        top_ups = self._payments.top_ups(project, since, until)
        served = self._served(project, since, until, rates or {}, names or {})
        return Statement(project, month, now, tuple(lines), tuple(balances), tuple(top_ups), tuple(served))

    def _served(
        self, project: str, since: float, until: float, rates: Mapping[str, Rate], names: Mapping[str, str]
    ) -> list[Served]:
        used = self._meters.used(project, since, until)
        if not used:
            return []
        tokens: dict[str, tuple[int, int]] = {}
        for line in self._ledger.statement(project, since=since, until=until, by=("deployment",)):
            before = tokens.get(line.deployment, (0, 0))
            counted = line.prompt_tokens + line.completion_tokens
            tokens[line.deployment] = (before[0] + counted, before[1] + line.duration_ms)
        return [_served(row, tokens, rates, names) for row in _by_deployment(used)]


def add_up(lines: Iterable[Line], name_of: Callable[[Line], str]) -> list[Sum]:
    """Sums by name and currency, by name."""
    sums: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        into = sums.setdefault((name_of(line), line.currency), [0] * 5)
        amounts = (line.requests, line.prompt_tokens, line.completion_tokens, line.cached_tokens, line.cost_micros)
        for i, amount in enumerate(amounts):
            into[i] += amount
    return [Sum(name, currency, *amounts) for (name, currency), amounts in sorted(sums.items())]


def _by_deployment(used: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replicas of a deployment as one row, so that its tokens are counted once; other workloads as they are."""
    rows: dict[str, dict[str, Any]] = {}
    for each in used:
        row = rows.setdefault(
            each["deployment"] or f"workload/{each['workload']}", {**each, "accelerator_ms": 0, "slot_ms": 0}
        )
        row["accelerator_ms"] += each["accelerator_ms"]
        row["slot_ms"] += each["slot_ms"]
    return list(rows.values())


def _served(
    row: Mapping[str, Any],
    tokens: Mapping[str, tuple[int, int]],
    rates: Mapping[str, Rate],
    names: Mapping[str, str],
) -> Served:
    deployment, model = row["deployment"], row["model"]
    found = [rates[name] for name in (deployment, model, model.rpartition(".v")[0]) if name and name in rates]
    rate = found[0] if found else Rate(0.0, "")
    counted, request_ms = tokens.get(deployment, (0, 0)) if deployment else (0, 0)
    derived = derive_cost(
        accelerator_ms=row["accelerator_ms"],
        per_accelerator_hour=rate.per_accelerator_hour,
        request_ms=request_ms,
        slot_ms=row["slot_ms"],
        tokens=counted,
    )
    workload = "" if deployment else row["workload"]
    return Served(workload, names.get(deployment, deployment), model, rate.currency, derived)


@cache
def _template() -> Template:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"money": _money, "count": _count, "day": _day, "figure": _figure}
    return environment.get_template("statement.html")


def _money(micros: int, currency: str) -> str:
    return f"{micros / 1e6:,.4f} {currency}".strip() if currency else "-"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _figure(amount: int, unit: str) -> str:
    """An amount of a unit with the unit: 12.5 money, 1,000 tokens."""
    value = figure_of(unit, amount)
    shown = f"{value:,.0f}" if unit == "tokens" else f"{value:,.2f}"
    return shown if unit == "money" else f"{shown} {FIELDS[unit].replace('_', '-')}"
