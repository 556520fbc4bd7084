"""`keys`: API keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
    examples = [
        "atoll keys create --description 'web shop'",
        "KEY=$(atoll keys create --expires-in 30d --model smollm2)",
    ]
    command(group, "create", examples=examples)(create)
    command(group, "list", examples=["atoll keys list", "atoll keys list -o json"])(list_keys)
    command(group, "revoke", examples=["atoll keys revoke key-1a2b3c"])(revoke)
    app.add_typer(group, name="keys", rich_help_panel=panel)


def create(
    session: Session,
    description: Annotated[str, typer.Option("--description", "-d", help="What the key is for.")] = "",
    role: Annotated[str, typer.Option("--role", help="member, viewer or admin.")] = "member",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="Refused after: 12h, 30d.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this deployment; repeatable.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Make an API key for the project.

    The key is printed once, alone on standard output; the platform keeps only a hash of it.
    """
    from atoll.cli.output import checked
    from atoll.cli.render import note, print_json
    from atoll.cli.times import seconds_from

    wants_json = checked(output, ("text", "json")) == "json"
    expires_in_s = seconds_from(expires_in, "--expires-in") if expires_in else None
    made = session.client.create_key(description, role=role, expires_in_s=expires_in_s, models=model)
    if wants_json:
        print_json({"id": made.id, "key": made.key})
        return
    note(f"{made.id} of project {session.project}; keep the key, it is not shown again")
    sys.stdout.write(f"{made.key}\n")


def list_keys(
    session: Session,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "table",
) -> None:
    """List the API keys of the project; the keys themselves are not kept and cannot be shown."""
    from atoll.cli.get import wire_form
    from atoll.cli.output import checked, print_data
    from atoll.cli.render import print_table

    checked(output, ("table", "json", "yaml"))
    keys = session.client.find_all("ApiKey").items
    if output != "table":
        print_data({"items": [wire_form(k) for k in keys]}, output)
    else:
        headings = ["ID", "ROLE", "STATE", "EXPIRES", "MODELS", "AGE", "DESCRIPTION"]
        print_table(headings, [_row(k) for k in keys])


def _row(key: Resource, now: float | None = None) -> list[str]:
    import time

    from atoll.cli.render import age, cell, moment

    now = time.time() if now is None else now
    spec = key.spec
    expires_at = spec.get("expires_at")
    state = "revoked" if spec.get("revoked") else "expired" if expires_at and expires_at <= now else "valid"
    return [
        key.name,
        spec["role"],
        state,
        moment(expires_at) if expires_at else "never",
        cell("models", spec.get("models")) if spec.get("models") else "all",
        age(key.created_at, now),
        cell("description", spec.get("description")),
    ]


def revoke(session: Session, key_id: Annotated[str, typer.Argument(help="Id of the key.", metavar="ID")]) -> None:
    """Revoke an API key: it is refused from now on; its usage stays on record."""
    from atoll.cli.render import line

    session.client.revoke_key(key_id)
    line(f"{key_id} is revoked")
