"""The ledger of usage: append-only, durable, each record counted once.

A record is named by the gateway that saw it and its number there; sending it twice changes nothing.
Costs are whole micro-units of the currency, computed once at entry from the price in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, and_, func, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.core.database import Database
from atoll.core.errors import Invalid
from atoll.core.tables import metadata

usage = Table(
    "usage",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("project", String(128), nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("deployment", String(40), nullable=False),
    Column("replica", String(128), nullable=False),
    Column("endpoint", String(32), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("duration_s", Float(53), nullable=False),
    Index("usage_of", "project", "at"),
)

_GROUPS = {"key": usage.c.key_id, "model": usage.c.model}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a statement."""

    key: str
    model: str
    currency: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_micros: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "model": self.model,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "cost": self.cost_micros / 1e6,
            "currency": self.currency,
        }


class Ledger:
    """Usage of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, source: str, records: Sequence[dict[str, Any]]) -> int:
        """Enter records of gateway `source`; those entered before are passed over. Returns the highest number seen.

        Durable when it returns. Invalid names the first field that is missing or of the wrong type.
        """
        rows = [_row(source, record) for record in records]
        if not rows:
            return 0
        dialect = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(usage).on_conflict_do_nothing(index_elements=["source", "seq"])
        with self._database.writing(durable=True) as connection:
            connection.execute(statement, rows)
        return max(int(row["seq"]) for row in rows)

    def statement(
        self, project: str, *, since: float = 0.0, until: float = float("inf"), by: Sequence[str] = ("key", "model")
    ) -> list[Line]:
        """Sums per key and model in [since, until) Unix time; a group not in `by` is summed over."""
        for name in by:
            if name not in _GROUPS:
                raise Invalid(f"cannot group usage by {name!r}", field="by", hint=f"valid: {', '.join(_GROUPS)}")
        groups = [_GROUPS[name] for name in by]
        sums = [func.sum(usage.c[name]) for name in _TOKENS]
        where = [usage.c.project == project, usage.c.at >= since]
        if until != float("inf"):
            where.append(usage.c.at < until)
        query = select(*groups, usage.c.currency, func.count(), *sums, func.sum(usage.c.cost_micros)).where(
            and_(*where)
        )
        query = query.group_by(*groups, usage.c.currency).order_by(*groups, usage.c.currency)
        with self._database.reading() as connection:
            return [_line(by, tuple(row)) for row in connection.execute(query)]


def cost_micros(prompt_tokens: int, completion_tokens: int, price: dict[str, Any] | None) -> int:
    """Cost in micro-units: tokens times price per million is exactly micro-units; halves round up."""
    if not price:
        return 0
    micros = prompt_tokens * price["input_per_million"] + completion_tokens * price["output_per_million"]
    return int(micros + 0.5)


def _row(source: str, record: dict[str, Any]) -> dict[str, Any]:
    price = _price(record)
    row: dict[str, Any] = {"source": source, "currency": price["currency"] if price else ""}
    for name, kind in _FIELDS.items():
        value = record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value < COUNT_END):
            raise Invalid(f"usage record field {name!r} cannot be {value!r}", field=f"records.{name}")
        row[name] = _stored(name, value)
    row["at"] = row.pop("ts")
    row["cost_micros"] = cost_micros(row["prompt_tokens"], row["completion_tokens"], price)
    return row


def _price(record: dict[str, Any]) -> dict[str, Any] | None:
    price = record.get("price")
    if not price:
        return None
    try:
        return {name: kind(price[name]) for name, kind in _PRICE.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"usage record field 'price' cannot be {price!r}", field="records.price") from error


def _stored(name: str, value: Any) -> Any:
    """Text as every database takes it: a record is never refused for the length of a client's request id."""
    return value.replace("\0", "")[: _LENGTHS[name]] if isinstance(value, str) else value


COUNT_END = 1 << 53
_LENGTHS = {column.name: column.type.length for column in usage.c if isinstance(column.type, String)}
_PRICE: dict[str, Any] = {"input_per_million": float, "output_per_million": float, "currency": str}
_FIELDS: dict[str, Any] = {
    "seq": int,
    "ts": (int, float),
    "request_id": str,
    "project": str,
    "key_id": str,
    "model": str,
    "deployment": str,
    "replica": str,
    "endpoint": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cached_tokens": int,
    "status": str,
    "http_status": int,
    "duration_s": (int, float),
}


def _line(by: Sequence[str], row: tuple[Any, ...]) -> Line:
    groups = dict(zip(by, row, strict=False))
    currency, requests, prompt, completion, cached, micros = row[len(by) :]
    return Line(
        groups.get("key", ""),
        groups.get("model", ""),
        currency,
        int(requests),
        int(prompt or 0),
        int(completion or 0),
        int(cached or 0),
        int(micros or 0),
    )
