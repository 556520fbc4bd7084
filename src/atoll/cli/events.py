"""`events`: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.wire import Event

HEADINGS = ("AGE", "RESOURCE", "REASON", "BY", "MESSAGE")


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll events", "atoll events deployment smollm2", "atoll events trainingruns --limit 20"]
    command(app, "events", panel=panel, examples=examples)(events)


def events(
    session: Session,
    kind: Annotated[str | None, typer.Argument(help="Only this kind.", metavar="KIND")] = None,
    name: Annotated[str | None, typer.Argument(help="Only this resource and all it owns.", metavar="NAME")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest.", min=1, max=1000)] = 100,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show what happened, oldest first: in the whole project, to a kind, or to one resource and all it owns."""
    import dataclasses

    from atoll.cli.output import checked
    from atoll.cli.render import note, print_json, print_table

    wants_json = checked(output, ("table", "json")) == "json"
    found = session.client.events(kind or "", name or "", limit=limit)
    if wants_json:
        print_json({"events": [dataclasses.asdict(e) for e in found]})
    elif found:
        print_table(HEADINGS, [event_row(e) for e in found])
    else:
        note("no events")


def event_row(event: Event, now: float | None = None) -> list[str]:
    """The cells of one event under HEADINGS."""
    from atoll.cli.render import age, cell

    return [
        age(event.at, now),
        f"{event.kind} {event.name}",
        cell("reason", event.reason),
        cell("actor", event.actor),
        cell("message", event.message),
    ]
