"""References between pipeline steps: ${steps.NAME.status.FIELD}, ${steps.NAME.spec.FIELD}, ${steps.NAME.name}."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from atoll.core.errors import Invalid
from atoll.core.resources import Resource

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_PATH = re.compile(r"steps\.([A-Za-z0-9_-]+)\.((?:status|spec)(?:\.[A-Za-z0-9_]+)+|name)")


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Every (step, path) a spec refers to; Invalid for a malformed one."""
    if isinstance(value, str):
        for text in _REFERENCE.findall(value):
            yield _parse(text)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def fill_in(value: Any, resources: Mapping[str, Resource]) -> Any:
    """`value` with references replaced by what they name.

    A string that is one reference alone takes the value's own type; within other text it becomes a string.
    """
    if isinstance(value, dict):
        return {k: fill_in(v, resources) for k, v in value.items()}
    if isinstance(value, list):
        return [fill_in(v, resources) for v in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _look_up(whole[1], resources)
    return _REFERENCE.sub(lambda m: str(_look_up(m[1], resources)), value)


def _parse(text: str) -> tuple[str, str]:
    match = _PATH.fullmatch(text)
    if not match:
        raise Invalid(f"${{{text}}} is not a reference", field="spec.steps", hint="${steps.NAME.status.FIELD}")
    return match[1], match[2]


def _look_up(text: str, resources: Mapping[str, Resource]) -> Any:
    step, path = _parse(text)
    if step not in resources:
        known = ", ".join(resources) or "none"
        raise Invalid(f"${{{text}}}: step {step!r} has not run", field="spec.steps", hint=f"steps before it: {known}")
    value: Any = resources[step].to_dict()
    for part in path.split("."):
        if not isinstance(value, dict) or value.get(part) in (None, ""):
            raise Invalid(f"${{{text}}}: {resources[step].key} has no {path}", field="spec.steps")
        value = value[part]
    return value
