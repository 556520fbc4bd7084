"""`secrets`: values that go in and never come out."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from atoll.cli.session import Session, command

Name = Annotated[str, typer.Argument(help="Name of the secret.", metavar="NAME")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Set, list and remove secrets; their values are never shown.", no_args_is_help=True)
    examples = [
        "atoll secrets set openai API_KEY=-   # asks, or reads standard input",
        "atoll secrets set openai API_KEY=@key.txt",
        "pass show openai | atoll secrets set openai API_KEY=-",
    ]
    command(group, "set", examples=examples)(set_secret)
    command(group, "list", examples=["atoll secrets list"])(list_secrets)
    command(group, "remove", examples=["atoll secrets remove openai", "atoll secrets remove openai OLD_KEY"])(remove)
    app.add_typer(group, name="secrets", rich_help_panel=panel)


def set_secret(
    session: Session,
    name: Name,
    values: Annotated[
        list[str], typer.Argument(help="KEY=VALUE; KEY=- reads standard input, KEY=@FILE a file.", metavar="KEY=VALUE…")
    ],
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it is for.")] = None,
) -> None:
    """Make a secret or set some of its values; those not named stay.

    A value on the command line is kept in the shell's history: KEY=- asks for it on a terminal, or reads standard
    input, and KEY=@FILE reads a file; one newline at the end is left out. A value that begins with @ itself is
    written @@. Use them as `secrets: {ENVIRONMENT: NAME/KEY}` of a workload's role, or as `secret: NAME/KEY` of a
    provider.
    """
    from atoll.cli.render import line

    made = session.client.set_secret(name, values_from(name, values), description=description)
    line(f"secret {name} of {session.project} holds {', '.join(made.spec['names'])}")


def values_from(name: str, words: list[str]) -> dict[str, str | None]:
    """KEY=VALUE words with the values read from where they are; Invalid never shows a value."""
    from atoll.core.errors import Invalid

    pairs = [word.partition("=") for word in words]
    if not all(key and equals for key, equals, _ in pairs):
        hint = f"KEY=VALUE, e.g. atoll secrets set {name} API_KEY=-"
        raise Invalid("a value without a name", field="values", hint=hint)
    if sum(value == "-" for *_, value in pairs) > 1:
        raise Invalid("standard input holds one value only", field="values", hint="use KEY=@FILE for the rest")
    return {key: _read(name, key, value) for key, _, value in pairs}


def _read(name: str, key: str, value: str) -> str:
    from getpass import getpass

    if value == "-":
        if sys.stdin.isatty():
            return getpass(f"{name}/{key}: ")
        return _without_newline(sys.stdin.read())
    if value.startswith("@@"):
        return value[1:]
    return _from_file(key, value[1:]) if value.startswith("@") else value


def _from_file(key: str, path: str) -> str:
    from pathlib import Path

    from atoll.core.errors import Invalid

    try:
        return _without_newline(Path(path).expanduser().read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Invalid(f"{key}: cannot read {path!r}: {why}", field=key, hint="KEY=@FILE reads a text file") from None


def _without_newline(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def list_secrets(
    session: Session, output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "table"
) -> None:
    """List the secrets of the project with the names of their values."""
    from atoll.cli.get import get

    get(session, "Secret", None, output)


def remove(
    session: Session,
    name: Name,
    values: Annotated[
        list[str] | None, typer.Argument(help="Only these values of it; all without.", metavar="[KEY…]")
    ] = None,
) -> None:
    """Remove a secret, or single values of it; tasks that run with them keep them until they start again."""
    from atoll.cli.render import line

    if values:
        left = session.client.set_secret(name, dict.fromkeys(values)).spec["names"]
        line(f"secret {name} of {session.project} holds {', '.join(left)}")
    else:
        session.client.remove_secret(name)
        line(f"secret {name} of {session.project} is removed")
