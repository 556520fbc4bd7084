"""`deploy`: serve a model."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.plan import Accelerators, Context, Cpu, Engine, Model, Replicas, Slots, Task, given, say_fit
from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource
    from atoll.sdk.client import Client

SERVED = frozenset({"ready", "asleep"})

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it serves.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait.", min=0)]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = [
        "atoll deploy smollm2",
        "atoll deploy smollm2@production --name assistant --replicas 2 --context 4096",
        "atoll deploy smollm2.v2 --name assistant --canary 0.1",
    ]
    command(app, "deploy", panel=panel, examples=examples)(deploy)


def deploy(
    session: Session,
    model: Model,
    name: Annotated[
        str | None, typer.Option("--name", help="Name to serve it under; the model's unless given.")
    ] = None,
    replicas: Replicas = None,
    context: Context = None,
    slots: Slots = None,
    cpu: Cpu = None,
    accelerators: Accelerators = None,
    engine: Engine = None,
    task: Task = None,
    canary: Annotated[
        float | None,
        typer.Option("--canary", metavar="PART", help="Serve it beside the present model, to this part.", min=0, max=1),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = 600.0,
) -> None:
    """Serve a model behind the OpenAI-compatible API.

    A deployment of that name that exists is changed: what is not given stays as it is. With --canary the model it
    serves stays, and this one gets a part of the requests; `atoll promote` or `atoll rollback` ends that.
    """
    from atoll.cli.render import line

    name = name or default_name(model)
    options = given(replicas=replicas, context=context, slots=slots, cpu=cpu, accelerators=accelerators)
    options |= given(engine=engine, task=task)
    what = {"model": model} if canary is None else {"canary": {"model": model, "weight": canary}}
    existing = session.client.find("Deployment", name)
    say_fit(session.client, name, (existing.spec if existing else {}) | {"model": model} | options)
    deployment = put_deployment(session.client, name, what | options)
    if wait:
        deployment = wait_until_served(session.client, deployment, timeout)
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


def wait_until_served(client: Client, deployment: Resource, timeout_s: float) -> Resource:
    """The deployment once its present spec is served; AtollError when that fails, TimedOut when it takes too long."""
    from atoll.cli.follow import board, show_resource
    from atoll.core.errors import AtollError
    from atoll.sdk.client import is_current
    from atoll.sdk.errors import TimedOut

    deadline = time.monotonic() + timeout_s
    hint = f"atoll describe deployment {deployment.name}"
    with board() as shown:
        show = show_resource(shown)
        for last in client.follow("Deployment", deployment.name):
            show(last)
            if is_current(last) and is_served(last):
                return last
            if is_current(last) and has_failed(last):
                raise AtollError(f"deployment {last.name} failed: {last.status.get('reason')}", hint=hint)
            if time.monotonic() >= deadline:
                waited = f"deployment {last.name} is still {last.phase} after {timeout_s:g} s"
                raise TimedOut(waited, hint=str(last.status.get("reason") or hint))
    raise AssertionError("following never ends by itself")


def is_served(deployment: Resource) -> bool:
    """Whether requests are answered as the spec says, by the canary too."""
    canary = deployment.spec.get("canary")
    is_beside = not canary or deployment.phase == "asleep" or deployment.status.get("canary_ready", 0) > 0
    is_same = bool(canary) and deployment.status.get("canary_version") == deployment.status.get("version")
    return deployment.phase in SERVED and (is_beside or is_same)


def has_failed(deployment: Resource) -> bool:
    """Whether the present spec is not served and will not be by waiting."""
    is_canary = deployment.phase == "degraded" and str(deployment.status.get("reason")).startswith("canary")
    return deployment.phase == "failed" or deployment.status.get("rollout") == "failed" or is_canary
