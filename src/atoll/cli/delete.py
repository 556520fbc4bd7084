"""`delete`: ask for a resource's end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource
    from atoll.sdk.client import Client


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll delete deployment smollm2", "atoll delete pipeline docs --wait --timeout 60"]
    command(app, "delete", panel=panel, examples=examples)(delete)


def delete(
    session: Session,
    kind: Annotated[str, typer.Argument(help="Kind, e.g. deployment.", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Name.", metavar="NAME")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is gone.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait.", min=0)] = 300.0,
) -> None:
    """Delete a resource and everything it owns; a project with all that is in it, a user with their keys.

    It is gone once all its tasks have ended; without --wait the command returns while they do.
    """
    from atoll.cli.render import line

    client = session.client
    info = client.kind(kind)
    left = client.delete(info.name, name)
    if left is not None and wait:
        _wait_until_gone(client, left, timeout)
        left = None
    line(f"{info.name} {name} is {'gone' if left is None else 'being deleted'}")


def _wait_until_gone(client: Client, resource: Resource, timeout_s: float) -> None:
    """Until no resource has this one's uid; TimedOut says what is left."""
    from atoll.core.errors import NotFound
    from atoll.sdk.errors import TimedOut

    deadline = time.monotonic() + timeout_s
    try:
        for current in client.follow(resource.kind, resource.name, project=resource.project):
            if current.uid != resource.uid:
                return
            if time.monotonic() >= deadline:
                left = [f"{r.kind} {r.name} is {r.phase}" for r in client.tree(current.kind, current.name).walk()]
                raise TimedOut(
                    f"{current.kind} {current.name} is not gone after {timeout_s:g} s", hint="; ".join(left[1:5])
                )
    except NotFound:
        return
