"""`scale`: how many copies of a deployment."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from atoll.cli.session import Session, command


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll scale assistant 3", "atoll scale assistant --min 0 --max 4", "atoll scale assistant 0"]
    command(app, "scale", panel=panel, examples=examples)(scale)


def scale(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of the deployment.", metavar="NAME")],
    replicas: Annotated[int | None, typer.Argument(help="How many copies, always.", min=0, max=64)] = None,
    fewest: Annotated[
        int | None, typer.Option("--min", help="Fewest copies; 0 lets it sleep while nobody asks.", min=0)
    ] = None,
    most: Annotated[int | None, typer.Option("--max", help="Most copies.", min=1)] = None,
    idle: Annotated[float | None, typer.Option("--idle", metavar="SECONDS", help="Sleep after this long.")] = None,
) -> None:
    """Set how many copies serve a model: a number, or bounds between which the load decides.

    A number switches automatic scaling off.
    """
    from atoll.cli.render import line

    deployment = session.client.get("Deployment", name)
    wanted = scaled(deployment.spec, replicas, fewest, most, idle)
    session.client.put(
        "Deployment", name, deployment.spec | wanted, labels=deployment.labels, version=deployment.version
    )
    bounds = wanted.get("autoscale")
    line(f"Deployment {name}: " + (f"{bounds['min']} to {bounds['max']} copies" if bounds else f"{replicas} copies"))


def scaled(
    spec: dict[str, Any], replicas: int | None, fewest: int | None, most: int | None, idle_s: float | None
) -> dict[str, Any]:
    """The fields that change; Invalid unless either a number or bounds are given."""
    from atoll.core.errors import Invalid

    bounds = {"min": fewest, "max": most, "idle_s": idle_s}
    given = {field: value for field, value in bounds.items() if value is not None}
    if (replicas is None) == (not given):
        raise Invalid("scale to what?", hint="either a number of copies, or --min and --max")
    if replicas is not None:
        return {"replicas": replicas, "autoscale": None}
    present = spec.get("autoscale") or {"min": 0, "max": max(1, spec["replicas"])}
    return {"autoscale": present | given}
