"""What gateways last said of their load, and what it adds up to for each target.

One row for each gateway and target, and one for the gateway itself. A gateway not heard for SILENT_S does not count.
Times are the server's, so that gateways' clocks do not matter. The average is exponential with a time constant of
AVERAGE_S; it is kept per gateway and adds up because the filter is linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.core.database import Database
from atoll.core.tables import metadata
from atoll.serving.autoscale import Load

SILENT_S = 15.0
AVERAGE_S = 20.0
FORGOTTEN_S = 7 * 86_400.0
GATEWAY = ""
"""Target name of the row that stands for the gateway itself."""

gateway_loads = Table(
    "gateway_loads",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("at", Float(53), nullable=False),
    Column("outstanding", Integer, nullable=False),
    Column("queued", Integer, nullable=False),
    Column("average", Float(53), nullable=False),
    Column("started_total", BigInteger, nullable=False),
    Column("tokens_total", BigInteger, nullable=False),
    Column("ttft_p95_s", Float(53)),
    Column("active_at", Float(53)),
    Index("gateway_load_of", "target"),
)
_AVERAGE_LEAST = 0.01
_NOTHING: dict[str, Any] = {
    "outstanding": 0,
    "queued": 0,
    "average": 0.0,
    "started_total": 0,
    "tokens_total": 0,
    "ttft_p95_s": None,
    "active_at": None,
}


class Demand:
    """The load reports of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, source: str, host: str, targets: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
        """Enter what gateway `source` says; returns the targets at which requests wait that did not before."""
        with self._database.reading() as connection:
            found = connection.execute(select(gateway_loads).where(gateway_loads.c.source == source)).mappings()
            known = {row["target"]: dict(row) for row in found}
        before = {target: known.get(target, _NOTHING | {"at": now}) for target in targets}
        rows = [_row(source, host, target, told, before[target], now) for target, told in targets.items()]
        rows.append({**_NOTHING, "source": source, "target": GATEWAY, "host": host, "at": now})
        rows += [
            _silenced(row, host, now) for target, row in known.items() if target not in targets and _is_loaded(row)
        ]
        self._enter(rows, is_new=GATEWAY not in known, now=now)
        return [t for t, told in targets.items() if told.get("queued", 0) and not _was_waiting(before[t], now)]

    def of(self, target: str, now: float, ready: int = 0) -> Load:
        """The load of one target, all gateways together; `ready` is passed on."""
        with self._database.reading() as connection:
            rows = connection.execute(select(gateway_loads).where(gateway_loads.c.target == target)).all()
        heard = [row for row in rows if now - row.at <= SILENT_S]
        active_at = [row.active_at for row in rows if row.active_at is not None]
        waits = [row.ttft_p95_s for row in heard if row.ttft_p95_s is not None]
        return Load(
            outstanding=sum(row.outstanding for row in heard),
            queued=sum(row.queued for row in heard),
            average=sum(_decayed(row.average, row.outstanding + row.queued, now - row.at) for row in heard),
            ttft_p95_s=max(waits, default=None),
            idle_s=max(0.0, now - max(active_at)) if active_at else None,
            ready=ready,
        )

    def hosts(self, now: float) -> int:
        """Machines with a gateway that was heard."""
        query = select(gateway_loads.c.host).where(
            gateway_loads.c.target == GATEWAY, gateway_loads.c.at >= now - SILENT_S
        )
        with self._database.reading() as connection:
            return len(set(connection.execute(query).scalars()))

    def _enter(self, rows: Sequence[dict[str, Any]], *, is_new: bool, now: float) -> None:
        dialect = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(gateway_loads)
        changed = {c.name: statement.excluded[c.name] for c in gateway_loads.c if not c.primary_key}
        with self._database.writing() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["source", "target"], set_=changed), rows)
            if is_new:
                connection.execute(delete(gateway_loads).where(gateway_loads.c.at < now - FORGOTTEN_S))


def _row(
    source: str, host: str, target: str, told: Mapping[str, Any], before: Mapping[str, Any], now: float
) -> dict[str, Any]:
    outstanding, queued = int(told.get("outstanding", 0)), int(told.get("queued", 0))
    started = int(told.get("started_total", 0))
    is_active = outstanding or queued or started != before["started_total"]
    was_busy = before["outstanding"] + before["queued"]
    elapsed_s = now - before["at"]
    return {
        "source": source,
        "target": target,
        "host": host,
        "at": now,
        "outstanding": outstanding,
        "queued": queued,
        "average": _decayed(before["average"], was_busy if elapsed_s <= SILENT_S else 0, elapsed_s),
        "started_total": started,
        "tokens_total": int(told.get("tokens_total", 0)),
        "ttft_p95_s": told.get("ttft_p95_s"),
        "active_at": now if is_active else before["active_at"],
    }


def _silenced(before: dict[str, Any], host: str, now: float) -> dict[str, Any]:
    """A target the gateway does not speak of any more has nothing in flight there."""
    told = {"started_total": before["started_total"], "tokens_total": before["tokens_total"]}
    return _row(before["source"], host, before["target"], told, before, now)


def _is_loaded(row: Mapping[str, Any]) -> bool:
    return bool(row["outstanding"] or row["queued"] or row["average"] > _AVERAGE_LEAST)


def _was_waiting(before: Mapping[str, Any], now: float) -> bool:
    return bool(before["queued"]) and now - before["at"] <= SILENT_S


def _decayed(average: float, busy: int, elapsed_s: float) -> float:
    """The average after `busy` requests were there for `elapsed_s`."""
    return busy + (average - busy) * exp(-max(0.0, elapsed_s) / AVERAGE_S)
