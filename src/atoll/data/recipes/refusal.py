"""Refusals: what is wrong with a recipe or a source, in words of the recipe rather than of the library that checks it.

One fault is told at a time, that of a name before that of a value: a field written wrongly is missing elsewhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from atoll.core.errors import Invalid

PATTERNS = {
    r"^[a-z][a-z0-9_]{0,62}$": "small letters, digits and _, beginning with a letter, such as few_words",
    r"^[a-z][a-z0-9_]{0,40}$": "small letters, digits and _, beginning with a letter",
    r"^[a-z]{2,3}(-han[st])?$": "a code of two or three letters such as en, zh, yue; zh-hans and zh-hant are scripts",
}
"""What a pattern of the schema asks for, in words; a test holds that every pattern is here."""

WANTED = {
    "missing": "must be given",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
SHOWN = 80
_PLACE = re.compile(r"\[\d+\]")


def refusal(kind: type[BaseModel], error: ValidationError, path: str) -> Invalid:
    """The first fault `error` tells of a `kind` at `path`, with the way out."""
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    names = [part for part in fault["loc"] if part != "[key]"]
    where = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names)
    if fault["type"] == "extra_forbidden":
        return _unknown_field(_part_at(kind, fault["loc"][:-1]), str(fault["loc"][-1]), where)
    if fault["type"] == "expression":
        return Invalid(f"{where}: {fault['ctx']['fault']}", field=where, hint=fault["ctx"]["hint"])
    if fault["type"] == "value_error":
        return Invalid(f"{where}: {fault['msg'].removeprefix('Value error, ')}", field=where)
    given = "" if isinstance(fault["input"], Mapping | BaseModel) else f", not {fault['input']!r:.{SHOWN}}"
    if fault["type"] == "missing":
        given = ""
    return Invalid(f"{where} {_wanted(fault)}{given}", field=where, hint=_hint(kind, fault, where))


def _wanted(fault: ErrorDetails) -> str:
    """What a value must be."""
    told = fault.get("ctx", {})
    if fault["type"] in LIMITS:
        name, words = LIMITS[fault["type"]]
        return f"must be {words} {told[name]:g}"
    if fault["type"] == "literal_error":
        return f"must be one of {', '.join(_choices(fault))}"
    if fault["type"] == "string_pattern_mismatch" and told["pattern"] in PATTERNS:
        return f"must be {PATTERNS[told['pattern']]}"
    return WANTED.get(fault["type"]) or f"is wrong: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _hint(kind: type[BaseModel], fault: ErrorDetails, where: str) -> str:
    if fault["type"] == "literal_error":
        choices = _choices(fault)
        nearest = sorted(difflib.get_close_matches(str(fault["input"]), choices, n=2), key=choices.index)
        if nearest:
            return f"did you mean {' or '.join(nearest)}?"
    if fault["type"] in ("model_type", "model_attributes_type"):
        return f"fields here: {', '.join(_part_at(kind, fault['loc']).model_fields)}"
    return f"see: atoll explain curationrun.spec.{_PLACE.sub('', where)}"


def _choices(fault: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", fault["ctx"]["expected"])


def _unknown_field(part: type[BaseModel], name: str, where: str) -> Invalid:
    names = list(part.model_fields)
    nearest = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return Invalid(f"there is no field {where!r}", field=where, hint=f"{guess}fields here: {', '.join(names)}")


def _part_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The part of a recipe that stands at `location`."""
    found = kind
    for name in (part for part in location if isinstance(part, str)):
        field = found.model_fields.get(name)
        inner = _parts_of(field.annotation) if field else []
        if not inner:
            break
        found = inner[0]
    return found


def _parts_of(annotation: Any) -> list[type[BaseModel]]:
    """The parts an annotation (a part, a list of them, one or null) speaks of."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [part for argument in get_args(annotation) for part in _parts_of(argument)]
