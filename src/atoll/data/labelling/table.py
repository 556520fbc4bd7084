"""Labels as tables: an exported item as a row of a dataset, and a decided pair as an example of preference. Pure.

An exported item is what `export.export_row` tells; fields are those of a task's spec, as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

Field = Mapping[str, Any]

LABEL_COLUMNS = {
    "id": "string",
    "text": "string",
    "prompt": "string",
    "a": "string",
    "b": "string",
    "meta": "string",
    "decided_by": "string",
    "agreement": "double",
    "answers": "string",
    "prelabel": "string",
    "prelabel_by": "string",
}
"""Columns of the split `labels` beside its fields; `meta`, `answers` and `prelabel` are JSON."""

PREFERENCE_COLUMNS = {"id": "string", "prompt": "string", "chosen": "string", "rejected": "string"}
"""Columns of the split `preferences`."""

_PLAIN = ("class", "pair", "text")


def columns_of(fields: Sequence[Field]) -> dict[str, str]:
    """Columns of the split `labels`: LABEL_COLUMNS, and label_NAME for every field.

    A number for ratings, JSON for classes and spans, else a text; null where the item is not decided.
    """
    own = {f"label_{field['name']}": "double" if field["type"] == "rating" else "string" for field in fields}
    return {**LABEL_COLUMNS, **own}


def table_row(fields: Sequence[Field], exported: Mapping[str, Any]) -> dict[str, Any]:
    """An exported item as a row with `columns_of(fields)`."""
    item, final = exported["item"], exported["final"] or {}
    row: dict[str, Any] = {"id": exported["id"], **{name: item.get(name, "") for name in ("text", "prompt", "a", "b")}}
    row |= {name: exported[name] for name in ("decided_by", "agreement", "prelabel_by")}
    row |= {"meta": _json(item.get("meta")), "answers": _json(exported["answers"])}
    row["prelabel"] = _json(exported["prelabel"])
    return row | {f"label_{field['name']}": _cell(field, final.get(field["name"])) for field in fields}


def preference(fields: Sequence[Field], exported: Mapping[str, Any]) -> dict[str, str] | None:
    """{"prompt", "chosen", "rejected"} of a decided pair, by the first field that compares; None for all others."""
    name = next((field["name"] for field in fields if field["type"] == "pair"), None)
    choice = (exported["final"] or {}).get(name)
    if choice not in ("a", "b"):
        return None
    item, rejected = exported["item"], "b" if choice == "a" else "a"
    return {"prompt": item.get("prompt", ""), "chosen": item[choice], "rejected": item[rejected]}


def _cell(field: Field, value: Any) -> Any:
    if value is None or field["type"] in _PLAIN:
        return value
    return float(value) if field["type"] == "rating" else _json(value)


def _json(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()
