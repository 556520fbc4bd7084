"""`describe`: one resource with all that belongs to it, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource
    from atoll.sdk.wire import Event, Tree

EVENTS_SHOWN = 12
LOG_LINES_SHOWN = 20
_SHOWN_ELSEWHERE = frozenset({"phase", "reason", "observed_generation", "log_tail"})


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll describe deployment smollm2", "atoll describe trainingrun docs-train"]
    command(app, "describe", panel=panel, examples=examples)(describe)


def describe(
    session: Session,
    kind: Annotated[str, typer.Argument(help="Kind, e.g. deployment.", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Name.", metavar="NAME")],
) -> None:
    """Show one resource on one page: what is wanted, what is, what it owns, what happened last.

    Where something below it failed, the last lines of that log follow.
    """
    client = session.client
    tree = client.tree(kind, name)
    events = client.events(kind, name, limit=EVENTS_SHOWN)
    _print_head(tree.resource)
    _print_fields("Spec", tree.resource.spec)
    status = {k: v for k, v in tree.resource.status.items() if k not in _SHOWN_ELSEWHERE}
    _print_fields("Status", readable(status))
    _print_children(tree)
    _print_events(events)
    _print_failures(tree)


def _print_head(resource: Resource) -> None:
    from atoll.cli.render import age, aligned, cell, line

    facts = [
        ("phase", "stopping" if resource.is_deleting else resource.phase),
        ("reason", cell("reason", resource.status.get("reason"))),
        ("labels", cell("labels", resource.labels)),
        ("age", age(resource.created_at)),
        ("generation", _generation(resource)),
        ("uid", resource.uid),
    ]
    line(f"{resource.kind} {resource.project}/{resource.name}")
    for text in aligned([[f"  {name}", value] for name, value in facts]):
        line(text)


def _generation(resource: Resource) -> str:
    observed = resource.status.get("observed_generation", 0)
    return str(resource.generation) if observed == resource.generation else f"{resource.generation}, seen {observed}"


def readable(value: Any, name: str = "") -> Any:
    """A status with moments (`_at`) as dates; moments that never came are left out."""
    from atoll.cli.render import moment

    if isinstance(value, dict):
        return {k: readable(v, k) for k, v in value.items() if not (k.endswith("_at") and not v)}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return moment(value) if name.endswith("_at") and isinstance(value, (int, float)) else value


def _print_fields(title: str, fields: dict[str, Any]) -> None:
    from atoll.cli.render import line
    from atoll.core.yaml_lines import dump_yaml

    told = {k: v for k, v in fields.items() if v not in (None, "", [], {})}
    if not told:
        return
    line(f"\n{title}")
    for text in dump_yaml(told).splitlines():
        line(f"  {text}")


def _print_children(tree: Tree) -> None:
    from atoll.cli.render import line, print_table

    if not tree.children:
        return
    line("\nOwns")
    print_table(["  RESOURCE", "PHASE", "AGE", "REASON"], [row for c in tree.children for row in tree_rows(c, 1)])


def tree_rows(tree: Tree, depth: int) -> list[list[str]]:
    """One row a resource, indented by depth."""
    from atoll.cli.render import age, cell

    resource = tree.resource
    reason = cell("reason", resource.status.get("reason"))
    own = ["  " * depth + f"{resource.kind} {resource.name}", resource.phase, age(resource.created_at), reason]
    return [own, *(row for child in tree.children for row in tree_rows(child, depth + 1))]


def _print_events(events: list[Event]) -> None:
    from atoll.cli.events import HEADINGS, event_row
    from atoll.cli.render import line, print_table

    if events:
        line("\nEvents")
        print_table([f"  {HEADINGS[0]}", *HEADINGS[1:]], [_indented(event_row(e)) for e in events])


def _indented(row: list[str]) -> list[str]:
    return [f"  {row[0]}", *row[1:]]


def _print_failures(tree: Tree) -> None:
    from atoll.cli.render import line

    for resource, lines in failures(tree):
        line(f"\nLast log lines of {resource.kind} {resource.name}")
        for text in lines[-LOG_LINES_SHOWN:]:
            line(f"  {text}")


def failures(tree: Tree) -> list[tuple[Resource, list[str]]]:
    """Resources with the log of a failure; the same lines are told once, of the deepest that has them."""
    found: dict[tuple[str, ...], Resource] = {}
    for resource in tree.walk():
        if lines := resource.status.get("log_tail"):
            found[tuple(lines)] = resource
    return [(resource, list(lines)) for lines, resource in found.items()]
