"""Fields, items and answers of labelling as words of a command line, and back. Pure but for reading files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.core.errors import Invalid

WITH_OPTIONS = ("class", "classes", "spans")
PLAIN = ("pair", "text")
TEXTS = ("prompt", "text", "a", "b")


def field_from(text: str) -> dict[str, Any]:
    """NAME:TYPE[=…] as a field of a task: tone:class=kind,rude, stars:rating=1..5, better:pair."""
    name, colon, rest = text.partition(":")
    kind, equals, options = rest.partition("=")
    if not name or not colon or kind not in (*WITH_OPTIONS, *PLAIN, "rating"):
        hint = "NAME:TYPE, where TYPE is class=A,B, classes=A,B, spans=A,B, pair, rating=MIN..MAX or text"
        raise Invalid(f"--field cannot be {text!r}", field="--field", hint=hint)
    field: dict[str, Any] = {"name": name, "type": kind}
    if kind in WITH_OPTIONS:
        return field | {"options": _listed(options)}
    if kind == "rating" and equals:
        low, dots, high = options.partition("..")
        if not dots or not _is_number(low) or not _is_number(high):
            raise Invalid(f"--field cannot be {text!r}", field="--field", hint=f"{name}:rating=1..5")
        return field | {"min": int(low), "max": int(high)}
    return field


def values_from(words: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """FIELD=VALUE words as values in the types of their fields; what they may be is the server's to judge."""
    kinds = {field["name"]: field["type"] for field in fields}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Invalid(f"{word!r} is not FIELD=VALUE", field="values", hint=f"fields: {', '.join(kinds)}")
        found[name] = _value(kinds.get(name, "text"), value, word)
    return found


def items_in(path: Path) -> Iterator[dict[str, Any]]:
    """The items of a file of JSON lines, read as a task's source is; Invalid names file and line of what is none."""
    from atoll.data.labelling.intake import items_of, lines_of

    with path.open("rb") as file:
        yield from items_of(lines_of(file, f"{path}:"), {})


def asked_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What labellers are asked about every item in hand: the instructions, and each field with what it may be."""
    yield from str(found["instructions"]).splitlines()
    for field in found["fields"]:
        words = f"{field['name']}={_choices(field)}"
        words += "" if field["required"] else "  (may be left out)"
        yield words + (f"  {field['description']}" if field["description"] else "")


def dispute_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """An item that waits for an adjudicator, with what everybody said or why they left it to others."""
    agreed = row["agreement"]
    yield f"[{row['id']}]" + ("" if agreed is None else f"  agreement {agreed:.2f}")
    yield from _text_lines(row["item"])
    for said in row["answers"]:
        values = json.dumps(said["values"], ensure_ascii=False)
        yield f"  {said['labeller']}: {values}" + (f"  # {said['comment']}" if said["comment"] else "")
    for skip in row["skips"]:
        yield f"  {skip['labeller']} skipped it" + (f": {skip['comment']}" if skip["comment"] else "")


def item_lines(item: Mapping[str, Any]) -> Iterator[str]:
    """An item in hand as lines for people."""
    yield f"[{item['item']}]"
    yield from _text_lines(item)
    if item.get("suggestion"):
        yield f"  {item['suggested_by']} suggests: {json.dumps(item['suggestion'], ensure_ascii=False)}"


def _text_lines(item: Mapping[str, Any]) -> Iterator[str]:
    for name in TEXTS:
        if item.get(name):
            yield from (f"  {name}: {line}" for line in str(item[name]).splitlines())
    if item.get("meta"):
        yield f"  meta: {json.dumps(item['meta'], ensure_ascii=False)}"


def _choices(field: Mapping[str, Any]) -> str:
    kind = field["type"]
    if kind == "spans":
        return '[{"start": 0, "stop": 4, "label": "' + "|".join(field["options"]) + '"}, ...]'
    if kind in WITH_OPTIONS:
        return ("," if kind == "classes" else "|").join(field["options"])
    if kind == "pair":
        return "a|b|tie" if field["ties"] else "a|b"
    return f"{field['min']}..{field['max']}" if kind == "rating" else "TEXT"


def agreement_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The table of an agreement: all people, every two of them, and the model."""
    rows = [_figures(figures, "people") for figures in found["fields"]]
    for pair in found["pairs"]:
        between = f"{pair['first']} and {pair['second']}"
        rows.append(
            [pair["field"], between, str(pair["pairs"]), _share(pair["percent"]), _share(pair["kappa"]), "-", "-"]
        )
    return rows + [_figures(figures, "model and people") for figures in found["model"]]


def _figures(figures: Mapping[str, Any], between: str) -> list[str]:
    shares = [_share(figures[name]) for name in ("percent", "kappa", "alpha", "f1_exact")]
    return [figures["field"], between, str(figures["pairs"]), *shares]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _value(kind: str, text: str, word: str) -> Any:
    if kind == "classes":
        return _listed(text)
    if kind == "rating" and _is_number(text):
        return int(text)
    if kind == "spans":
        try:
            return json.loads(text)
        except ValueError as error:
            hint = 'NAME=[{"start": 0, "stop": 4, "label": "person"}]'
            raise Invalid(f"{word!r} is not JSON: {error}", field="values", hint=hint) from error
    return text


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
