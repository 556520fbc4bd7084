"""`deploy`: serve a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource
    from atoll.sdk.client import Client


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll deploy smollm2", "atoll deploy smollm2@production --name assistant --replicas 2 --context 4096"]
    command(app, "deploy", panel=panel, examples=examples)(deploy)


def deploy(
    session: Session,
    model: Annotated[str, typer.Argument(help="Model, MODEL@latest, MODEL@production or a version.", metavar="MODEL")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to serve it under; the model's unless given.")
    ] = None,
    replicas: Annotated[int | None, typer.Option("--replicas", help="How many copies.", min=0)] = None,
    context: Annotated[int | None, typer.Option("--context", help="Context of each slot, tokens.", min=1)] = None,
    slots: Annotated[int | None, typer.Option("--slots", help="Requests one copy serves at a time.", min=1)] = None,
    cpu: Annotated[float | None, typer.Option("--cpu", help="Processor cores each copy is counted with.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it serves.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait.", min=0)] = 600.0,
) -> None:
    """Serve a model behind the OpenAI-compatible API.

    A deployment of that name that exists is changed: what is not given stays as it is.
    """
    from atoll.cli.render import line

    name = name or default_name(model)
    options = {"replicas": replicas, "context": context, "slots": slots, "cpu": cpu}
    wanted = {"model": model} | {k: v for k, v in options.items() if v is not None}
    deployment = put_deployment(session.client, name, wanted)
    if wait:
        deployment = _wait(session.client, deployment, timeout)
    line(f"Deployment {name} is {deployment.phase}")


def default_name(model: str) -> str:
    """The model's name without alias and version number."""
    return re.sub(r"\.v\d+$", "", model.partition("@")[0])


def put_deployment(client: Client, name: str, wanted: dict[str, Any]) -> Resource:
    """Create the deployment, or change only the fields `wanted` names."""
    existing = client.find("Deployment", name)
    if existing is None:
        return client.put("Deployment", name, wanted, version=0)
    spec = existing.spec | wanted
    if spec == existing.spec:
        return existing
    return client.put("Deployment", name, spec, labels=existing.labels, version=existing.version)


def _wait(client: Client, deployment: Resource, timeout_s: float) -> Resource:
    from atoll.cli.follow import board, show_resource
    from atoll.core.errors import AtollError

    with board() as shown:
        last = client.wait_for(
            "Deployment", deployment.name, {"ready", "failed"}, timeout_s=timeout_s, on_change=show_resource(shown)
        )
    if last.phase == "failed":
        hint = f"atoll describe deployment {last.name}"
        raise AtollError(f"deployment {last.name} failed: {last.status.get('reason')}", hint=hint)
    return last
