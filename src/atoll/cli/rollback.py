"""`rollback` and `promote`: back to the version before, or forward to the canary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.deploy import Timeout, Wait, wait_until_served
from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource

Name = Annotated[str, typer.Argument(help="Name of the deployment.", metavar="NAME")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    command(app, "rollback", panel=panel, examples=["atoll rollback assistant"])(rollback)
    command(app, "promote", panel=panel, examples=["atoll promote assistant"])(promote)


def rollback(session: Session, name: Name, wait: Wait = True, timeout: Timeout = 600.0) -> None:
    """Undo the last change of what a deployment serves: end its canary, or else go back to the revision before.

    Model, context, slots, adapters and engine are set back together. It is instant while the previous copies still
    run (rollout.keep_previous_s). Done twice, it leads back again.
    """
    from atoll.cli.render import line

    deployment = session.client.get("Deployment", name)
    fields = undone(deployment)
    deployment = session.client.put(
        "Deployment", name, deployment.spec | fields, labels=deployment.labels, version=deployment.version
    )
    if wait:
        deployment = wait_until_served(session.client, deployment, timeout)
    what = f"goes back to {fields['model']}" if "model" in fields else "has no canary any more"
    line(f"Deployment {name} {what}; it is {deployment.phase}")


def promote(session: Session, name: Name, wait: Wait = True, timeout: Timeout = 600.0) -> None:
    """Make a deployment's canary what it serves to everybody."""
    from atoll.cli.render import line

    deployment = session.client.get("Deployment", name)
    fields = promoted(deployment)
    deployment = session.client.put(
        "Deployment", name, deployment.spec | fields, labels=deployment.labels, version=deployment.version
    )
    if wait:
        deployment = wait_until_served(session.client, deployment, timeout)
    line(f"Deployment {name} serves {fields['model']}; it is {deployment.phase}")


def undone(deployment: Resource) -> dict[str, Any]:
    """The fields that undo the last change; Conflict when there is nothing to go back to."""
    from atoll.core.errors import Conflict

    if deployment.spec.get("canary"):
        return {"canary": None}
    revisions = deployment.status.get("revisions") or []
    if len(revisions) < 2:
        raise Conflict(
            f"deployment {deployment.name!r} has served nothing before {deployment.status.get('version') or 'this'}",
            hint="atoll deploy MODEL --name " + deployment.name,
        )
    fields: dict[str, Any] = revisions[1]["spec"]
    return fields


def promoted(deployment: Resource) -> dict[str, Any]:
    """The fields that make the canary the model; Conflict without one."""
    from atoll.core.errors import Conflict

    canary = deployment.spec.get("canary")
    if not canary:
        raise Conflict(
            f"deployment {deployment.name!r} has no canary",
            hint=f"atoll deploy MODEL --name {deployment.name} --canary 0.1",
        )
    return {"model": canary["model"], "canary": None}
