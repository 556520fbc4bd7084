"""The words of `-o`: what a command can print, and a refusal that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LIST_FORMATS = ("table", "wide", "json", "yaml")


def checked(output: str, formats: Sequence[str]) -> str:
    """`output` if it is one of `formats`, else Invalid."""
    from atoll.core.errors import Invalid

    if output not in formats:
        raise Invalid(f"-o cannot be {output!r}", field="output", hint=f"one of {', '.join(formats)}", value=output)
    return output


def labels_from(text: str | None) -> dict[str, str]:
    """`a=b,c=d` as a mapping."""
    return pairs_from([part for part in (text or "").split(",") if part], "-l")


def pairs_from(words: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE words as a mapping; Invalid names the option."""
    from atoll.core.errors import Invalid

    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not name or not equals:
            given = f"{name}{equals}{value}"
            raise Invalid(f"{option} cannot be {given!r}", field=option, hint="NAME=VALUE", value=given)
    return {name: value for name, _, value in pairs}


def print_data(value: Mapping[str, Any] | Sequence[Any], output: str) -> None:
    """A value as JSON or YAML."""
    from atoll.cli.render import print_json, print_yaml

    (print_json if output == "json" else print_yaml)(value)
