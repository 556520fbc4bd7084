"""`pipeline`: run a pipeline and watch it go from step to step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.apply import File, Yes
from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.cli.follow import Board
    from atoll.core.resources import Resource
    from atoll.sdk.client import Client
    from atoll.sdk.manifest import Manifest

ENDED = frozenset({"succeeded", "failed"})


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Run pipelines and show how they stand.", no_args_is_help=True)
    command(
        group, "run", examples=["atoll pipeline run -f docs.yaml --yes", "atoll pipeline run -f docs.yaml --no-wait"]
    )(run)
    command(group, "show", examples=["atoll pipeline show docs", "atoll pipeline show docs -o json"])(show)
    app.add_typer(group, name="pipeline", rich_help_panel=panel)


def run(
    session: Session,
    file: File,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
) -> None:
    """Apply a manifest that holds one Pipeline, then follow it: a line and a bar for each step.

    Ends with a line for each stage; the exit code is 1, with the reason, when a step failed. Run again, it
    follows the pipeline that is there; failed steps are then tried anew.
    """
    from atoll.cli.apply import apply_manifests, read

    manifests = read(file)
    pipeline = the_pipeline(manifests, file)
    existing = session.client.find("Pipeline", pipeline.name, project=pipeline.project)
    wanted = [with_run(m, existing) if m is pipeline else m for m in manifests]
    apply_manifests(session.client, wanted, is_agreed=yes)
    if wait:
        last = follow(session.client, pipeline.name, pipeline.project)
        print_stages(session.client, last)
        fail_if_failed(last)


def show(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of the pipeline.", metavar="NAME")],
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "table",
) -> None:
    """Show how a pipeline stands: a line for each step with its resource, phase, time and result."""
    from atoll.cli.get import wire_form
    from atoll.cli.output import checked, print_data
    from atoll.cli.render import line

    checked(output, ("table", "json", "yaml"))
    pipeline = session.client.get("Pipeline", name)
    if output != "table":
        print_data(wire_form(pipeline), output)
        return
    reason = pipeline.status.get("reason")
    line(f"Pipeline {pipeline.name} is {pipeline.phase}{f': {reason}' if reason else ''}")
    print_stages(session.client, pipeline)


def the_pipeline(manifests: list[Manifest], file: str) -> Manifest:
    """The one Pipeline among the manifests."""
    from atoll.core.errors import Invalid

    found = [m for m in manifests if m.kind.lower() in ("pipeline", "pipelines")]
    if len(found) != 1:
        kinds = ", ".join(f"{m.where('kind')} {m.kind}" for m in manifests)
        raise Invalid(f"{file} holds {len(found)} pipelines, not one", field="kind", hint=f"it holds {kinds}")
    return found[0]


def with_run(pipeline: Manifest, existing: Resource | None) -> Manifest:
    """The manifest with the run number it does not name itself: the present one, or the next after a failure."""
    if existing is None or "run" in pipeline.spec:
        return pipeline
    number = int(existing.spec.get("run", 0)) + (existing.phase == "failed")
    return replace(pipeline, spec={**pipeline.spec, "run": number})


def follow(client: Client, name: str, project: str | None = None) -> Resource:
    """The pipeline once it ended; shows every step on the way."""
    from atoll.cli.follow import board
    from atoll.sdk.client import is_current

    with board() as shown:
        for pipeline in client.follow("Pipeline", name, project=project):
            if is_current(pipeline):
                _show_steps(client, pipeline, shown)
                if pipeline.phase in ENDED:
                    return pipeline
    raise AssertionError("following never ends by itself")


def _show_steps(client: Client, pipeline: Resource, shown: Board) -> None:
    for step in pipeline.status.get("steps", []):
        resource = _step_resource(client, pipeline, step) if step["phase"] == "running" else None
        progress = resource.status.get("progress") if resource is not None else None
        reason = step.get("reason") or (resource.status.get("reason", "") if resource is not None else "")
        shown.show(step["name"], step["phase"], reason, progress)


def _step_resource(client: Client, pipeline: Resource, step: dict[str, Any]) -> Resource | None:
    from atoll.core.errors import Unavailable

    try:
        return client.find(step["kind"], step["resource"], project=pipeline.project) if step.get("resource") else None
    except Unavailable:
        return None


def print_stages(client: Client, pipeline: Resource) -> None:
    """A line for each step: what it made, how long it took, what came of it."""
    from atoll.cli.render import print_table

    steps = pipeline.status.get("steps", [])
    rows = [stage_row(step, _step_resource(client, pipeline, step)) for step in steps]
    print_table(["STEP", "RESOURCE", "PHASE", "TIME", "RESULT"], rows)


def stage_row(step: dict[str, Any], resource: Resource | None) -> list[str]:
    """The cells of one step."""
    from atoll.cli.render import MISSING, cell, duration

    took = MISSING
    if resource is not None and resource.phase in (*ENDED, "ready"):
        took = duration(resource.updated_at - resource.created_at)
    result = step.get("reason") or (outcome(resource) if resource is not None else "")
    name = f"{step['kind']} {step['resource']}" if step.get("resource") else step["kind"]
    return [step["name"], name, step["phase"], took, cell("result", result)]


def outcome(resource: Resource) -> str:
    """What came of a step's resource, in a few words."""
    tell = _OUTCOMES.get(resource.kind)
    return tell(resource.status) if tell else str(resource.status.get("reason", ""))


def _curation(status: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {n}" for name, n in status.get("counts", {}).items())
    return f"{status.get('dataset_version', '')}: {counts}" if counts else str(status.get("reason", ""))


def _training(status: dict[str, Any]) -> str:
    result = status.get("result", {})
    loss = result.get("loss", {})
    parts = [str(status.get("model_version", ""))]
    if "heldout_before" in loss:
        parts.append(f"held-out loss {loss['heldout_before']:.3f} -> {loss['heldout_after']:.3f}")
    if result.get("steps"):
        parts.append(f"{result['steps']} steps")
    if result.get("restarts"):
        parts.append(f"{result['restarts']} restarts, {result.get('lost_s', 0.0):.1f} s lost")
    return ", ".join(part for part in parts if part)


def _evaluation(status: dict[str, Any]) -> str:
    if status.get("passed") is None:
        return str(status.get("reason", ""))
    return f"{status.get('version', '')}: {status.get('drop', 0.0):.1%} lower loss, gate passed: {status['passed']}"


def _model_version(status: dict[str, Any]) -> str:
    from atoll.cli.render import count

    parameters = f"{count(status['parameters'])} parameters" if status.get("parameters") else ""
    licence = f"licence {status['licence']}" if status.get("licence") else ""
    return ", ".join(part for part in (status.get("format", ""), parameters, licence) if part)


def _deployment(status: dict[str, Any]) -> str:
    return f"{status.get('version', '')}, {status.get('ready', 0)} ready"


_OUTCOMES: dict[str, Callable[[dict[str, Any]], str]] = {
    "CurationRun": _curation,
    "TrainingRun": _training,
    "Evaluation": _evaluation,
    "ModelVersion": _model_version,
    "Deployment": _deployment,
}


def fail_if_failed(pipeline: Resource) -> None:
    """Raise with the first failed step and its reason."""
    from atoll.core.errors import AtollError

    if pipeline.phase != "failed":
        return
    steps = pipeline.status.get("steps", [])
    step = next((s for s in steps if s["phase"] == "failed"), None)
    if step is None:
        raise AtollError(f"pipeline {pipeline.name} failed: {pipeline.status.get('reason')}")
    hint = f"atoll describe {step['kind'].lower()} {step['resource']}" if step.get("resource") else ""
    raise AtollError(f"pipeline {pipeline.name} failed at step {step['name']}: {step['reason']}", hint=hint)
