"""`status`: the platform at a glance."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from atoll.cli.session import Session, command


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    command(app, "status", panel=panel, examples=["atoll status", "atoll status -o json"])(status)


def status(
    session: Session,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show the platform at a glance: where it runs, its nodes, and how many things of each kind are in which phase."""
    from atoll.cli.output import checked
    from atoll.cli.render import print_json

    wants_json = checked(output, ("table", "json")) == "json"
    answer = session.client.status()
    if wants_json:
        print_json(answer)
        return
    _print_facts(session, answer)
    _print_nodes(answer.get("nodes", []))
    _print_counts(answer["counts"])


def _print_facts(session: Session, answer: dict[str, Any]) -> None:
    from atoll.cli.render import aligned, duration, line

    facts = [
        ("address", session.client.connection.address),
        ("version", answer["version"]),
        ("up for", duration(answer["uptime_s"])),
        *((name, str(answer[name])) for name in ("home", "database") if name in answer),
    ]
    for text in aligned(facts):
        line(text)


def _print_nodes(nodes: list[dict[str, Any]]) -> None:
    from atoll.cli.render import cell, dig, line, print_table

    if not nodes:
        return
    paths = {
        "NODE": "name",
        "PHASE": "status.phase",
        "SITE": "spec.site",
        "CPU": "spec.inventory.cpu",
        "MEMORY": "spec.inventory.memory_bytes",
        "REASON": "status.reason",
    }
    line()
    print_table(list(paths), [[cell(path, dig(node, path)) for path in paths.values()] for node in nodes])


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    from atoll.cli.render import line, print_table

    rows = [
        [kind, str(sum(phases.values())), ", ".join(f"{n} {phase}" for phase, n in sorted(phases.items()))]
        for kind, phases in sorted(counts.items())
    ]
    if rows:
        line()
        print_table(["KIND", "COUNT", "PHASES"], rows)
