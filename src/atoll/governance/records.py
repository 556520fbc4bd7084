"""Usage records as gateways send them, made into rows; a record that cannot be one becomes a refusal that says why.

Refused is only what would make the books wrong or the database fail. What describes a request (its note, its user, how
long it waited) is taken as it is, cut to length, or left empty.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from atoll.core.errors import Invalid
from atoll.core.tables import metadata
from atoll.governance.prices import cost_micros

COUNT_END = 1 << 53
SLICE_AMOUNT_END = 1 << 48
SLICES_MAX = 64
HTTP_STATUS_MAX = 999
NOTE_MAX = 500
RECORD_TEXT_MAX = 65_536
PRICE_END = 1e12
TIME_END = 32_503_680_000.0
"""Unix time of the year 3000."""

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
    Column("input_per_million", Float(53)),
    Column("cached_input_per_million", Float(53)),
    Column("output_per_million", Float(53)),
    Column("queue_s", Float(53)),
    Column("ttft_s", Float(53)),
    Column("priority", String(16)),
    Column("provider", Boolean),
    Column("end_user", String(128)),
    Column("note", Text),
    Column("slices", Text),
    Index("usage_of", "project", "at"),
    Index("usage_of_request", "request_id"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that can be entered: its row, and what it takes from which slice."""

    seq: int
    row: dict[str, Any]
    slices: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot; `seq` is its number, or what it must have been."""

    source: str
    seq: int
    digest: str
    reason: str
    text: str

    def row(self, at: float) -> dict[str, Any]:
        return {"source": self.source, "digest": self.digest, "at": at, "reason": self.reason, "record": self.text}


def read_records(
    source: str, records: Sequence[Any], entered: int, refuse: str = ""
) -> tuple[list[Entry], list[Refused]]:
    """Entries by number, each number once, and refusals; with `refuse`, a reason, all are.

    A record without a usable number follows the one before it, the first of a batch the last one entered.
    """
    entries: dict[int, Entry] = {}
    refused: list[Refused] = []
    last = entered
    for record in records:
        try:
            if refuse:
                raise Invalid(refuse)
            entry = read_record(source, record)
        except Invalid as error:
            last = _number(record, last + 1)
            refused.append(refusal(source, last, record, error.message))
        else:
            last = entry.seq
            entries.setdefault(entry.seq, entry)
    return list(entries.values()), refused


def read_record(source: str, record: Any) -> Entry:
    """The record as a row; Invalid names the first field that is missing or wrong."""
    if not isinstance(record, dict):
        raise Invalid(f"a usage record cannot be {type(record).__name__}", field="records")
    row: dict[str, Any] = {"source": source}
    for name in _COUNTS:
        row[name] = _count(name, record.get(name))
    if row["http_status"] > HTTP_STATUS_MAX:
        raise _wrong("http_status", row["http_status"])
    for name in _TEXTS:
        value = record.get(name)
        if not isinstance(value, str):
            raise _wrong(name, value)
        row[name] = _text(value, _LENGTHS[name])
    row["at"], row["duration_s"] = _time("ts", record.get("ts")), _time("duration_s", record.get("duration_s"))
    taken = _slices(record.get("slices"))
    _add_price(row, record)
    _add_description(row, record)
    row["slices"] = json.dumps(taken) if taken else ""
    return Entry(row["seq"], row, taken)


def refusal(source: str, seq: int, record: Any, reason: str) -> Refused:
    """Why a record was not entered as it is; the same record twice is one refusal."""
    text = json.dumps(record, default=repr)[:RECORD_TEXT_MAX].replace("\\u0000", "")
    digest = hashlib.sha256(f"{seq}\n{text}".encode()).hexdigest()
    return Refused(source, seq, digest, _text(reason, 1000), text)


def _add_price(row: dict[str, Any], record: Mapping[str, Any]) -> None:
    price = record.get("price")
    if not price:
        row |= dict.fromkeys(_PRICES) | {"currency": _optional_text(record, "currency", 8)}
        row["cost_micros"] = _count("cost_micros", record.get("cost_micros") or 0)
        return
    if not isinstance(price, dict) or not isinstance(price.get("currency"), str):
        raise _wrong("price", price)
    for name in _PRICES:
        value: Any = price.get(name)
        if value is None and name == "cached_input_per_million":
            row[name] = None
        elif _is_number(value) and 0 <= value < PRICE_END:
            row[name] = float(value)
        else:
            raise _wrong("price", price)
    cost = cost_micros(row, row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
    row["cost_micros"] = _count("price", cost)
    row["currency"] = _text(price["currency"], 8)


def _add_description(row: dict[str, Any], record: Mapping[str, Any]) -> None:
    for name in ("queue_s", "ttft_s"):
        value: Any = record.get(name)
        row[name] = float(value) if _is_number(value) else None
    row["priority"] = _optional_text(record, "priority", 16)
    row["provider"] = record.get("provider") is True
    row["end_user"] = _optional_text(record, "user", 128)
    row["note"] = _optional_text(record, "note", NOTE_MAX)


def _slices(value: Any) -> dict[int, int]:
    """Amounts by slice number."""
    if not value:
        return {}
    if not isinstance(value, dict) or len(value) > SLICES_MAX:
        raise _wrong("slices", value)
    taken = {}
    for number, amount in value.items():
        is_number = isinstance(number, str) and number.isascii() and number.isdecimal() and len(number) <= 15
        is_amount = isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount < SLICE_AMOUNT_END
        if not is_number or not is_amount:
            raise _wrong("slices", value)
        taken[int(number)] = amount
    return taken


def _number(record: Any, otherwise: int) -> int:
    value = record.get("seq") if isinstance(record, dict) else None
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNT_END
    return int(value) if is_number and value is not None else otherwise


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < COUNT_END:
        raise _wrong(name, value)
    return value


def _time(name: str, value: Any) -> float:
    if not _is_number(value) or not 0 <= value < TIME_END:
        raise _wrong(name, value)
    return float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < COUNT_END if isinstance(value, int) else math.isfinite(value)


def _optional_text(record: Mapping[str, Any], name: str, length: int) -> str:
    value = record.get(name)
    return _text(value, length) if isinstance(value, str) else ""


def _text(value: str, length: int) -> str:
    """Text as every database takes it: a record is never refused for the length of a client's request id."""
    if "\0" in value or not value.isascii():
        value = value.replace("\0", "").encode("utf-8", "replace").decode()
    return value[:length]


def _wrong(name: str, value: Any) -> Invalid:
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "…"
    return Invalid(f"usage record field {name!r} cannot be {shown}", field=f"records.{name}")


_PRICES = ("input_per_million", "cached_input_per_million", "output_per_million")
_COUNTS = ("seq", "prompt_tokens", "completion_tokens", "cached_tokens", "http_status")
_TEXTS = ("request_id", "project", "key_id", "model", "deployment", "replica", "endpoint", "status")
_LENGTHS: dict[str, int] = {c.name: int(c.type.length or 0) for c in usage.c if type(c.type) is String}
