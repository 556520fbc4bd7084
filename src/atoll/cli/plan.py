"""`plan`: would it fit, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atoll.sdk.client import Client
    from atoll.sdk.wire import ServingPlan

HEADINGS = ["NODE", "FITS", "NOW", "FREE MEMORY", "FREE CPU", "FREE ACCELERATORS", "WHY NOT"]
PARTS = (
    ("weights", "weights_bytes"),
    ("adapters", "adapters_bytes"),
    ("context", "kv_bytes"),
    ("buffers", "compute_bytes"),
    ("kept prompts", "prompt_cache_bytes"),
)

Model = Annotated[str, typer.Argument(help="Model, MODEL@latest, MODEL@production or a version.", metavar="MODEL")]
Context = Annotated[int | None, typer.Option("--context", help="Context of each slot, tokens.", min=1)]
Slots = Annotated[int | None, typer.Option("--slots", help="Requests one copy serves at a time.", min=1)]
Replicas = Annotated[int | None, typer.Option("--replicas", help="How many copies.", min=0)]
Cpu = Annotated[float | None, typer.Option("--cpu", help="Processor cores each copy is counted with.")]
Accelerators = Annotated[int | None, typer.Option("--accelerators", help="Accelerators of each copy.", min=0)]
Engine = Annotated[str | None, typer.Option("--engine", help="Serving engine; auto chooses.")]
Task = Annotated[str | None, typer.Option("--task", help="generate, embed, rerank or predict.")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="See whether something would fit before it is started.", no_args_is_help=True)
    examples = ["atoll plan serving smollm2", "atoll plan serving smollm2 --context 8192 --slots 16 --replicas 2"]
    command(group, "serving", examples=examples)(serving)
    app.add_typer(group, name="plan", rich_help_panel=panel)


def serving(
    session: Session,
    model: Model,
    context: Context = None,
    slots: Slots = None,
    replicas: Replicas = None,
    cpu: Cpu = None,
    accelerators: Accelerators = None,
    engine: Engine = None,
    task: Task = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table, json or yaml.")] = "table",
) -> None:
    """Say what one copy of a model needs, on which nodes it fits, why not, and what would make it fit.

    Nothing is started or written. The exit code is 1 when it fits nowhere.
    """
    from dataclasses import asdict

    from atoll.cli.output import checked, print_data

    checked(output, ("table", "json", "yaml"))
    spec = given(context=context, slots=slots, replicas=replicas, cpu=cpu, accelerators=accelerators)
    plan = session.client.plan_serving({"model": model} | spec | given(engine=engine, task=task))
    if output == "table":
        print_plan(plan)
    else:
        print_data(asdict(plan), output)
    if plan.fits is False:
        raise typer.Exit(1)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def print_plan(plan: ServingPlan) -> None:
    """What it needs, the nodes, and the plan in one line."""
    from atoll.cli.render import line, print_table

    if plan.nodes:
        line(needs(plan))
        print_table(HEADINGS, node_rows(plan))
    line(plan.summary)


def needs(plan: ServingPlan) -> str:
    """What one copy needs, and what that is made of."""
    from atoll.cli.render import size

    needed = plan.needed
    parts = [f"{word} {size(needed[field])}" for word, field in PARTS if needed.get(field)]
    slot = f", {size(needed['kv_per_slot_bytes'])} of context a slot" if needed.get("kv_per_slot_bytes") else ""
    devices = f" on {needed['accelerators']} accelerators" if needed.get("accelerators") else ""
    return f"{plan.version} on {plan.engine} needs {size(needed['total_bytes'])}{devices}: {', '.join(parts)}{slot}"


def node_rows(plan: ServingPlan) -> list[list[str]]:
    """A row for each node, the best first."""
    from atoll.cli.render import size

    return [
        [
            node["node"],
            "yes" if node["fits"] else "no",
            str(node["replicas_now"]),
            size(max(0, node["free"]["memory_bytes"])),
            f"{max(0.0, node['free']['cpu']):g}",
            str(node["free"]["accelerators"]),
            node["reason"] or "-",
        ]
        for node in plan.nodes
    ]


def say_fit(client: Client, name: str, spec: Mapping[str, Any], project: str | None = None) -> None:
    """One line on standard error: where the deployment fits, or why that cannot be said."""
    from atoll.cli.render import note
    from atoll.core.errors import AtollError

    try:
        summary = client.plan_serving(spec, name, project=project).summary
    except AtollError as error:
        summary = f"cannot be said: {error.message}"
    note(f"fit of {name}: {summary}")
