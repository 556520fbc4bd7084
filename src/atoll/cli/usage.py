"""`usage`: a statement of tokens and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.wire import Usage, UsageRow

GROUPS = ("key", "model", "user", "deployment", "day")


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll usage", "atoll usage --since 7d --by day,model", "atoll usage --since 2026-05-01 -o json"]
    command(app, "usage", panel=panel, examples=examples)(usage)


def usage(
    session: Session,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="From: 7d, 2026-05-01.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to, not including.")] = None,
    by: Annotated[
        str, typer.Option("--by", help="Groups: key, model, user, deployment, day; with commas.")
    ] = "key,model",
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show what the project used: requests, tokens and cost by key and model, as the engines counted them."""
    import dataclasses

    from atoll.cli.output import checked
    from atoll.cli.render import print_json, print_table
    from atoll.cli.times import moment_from

    wants_json = checked(output, ("table", "json")) == "json"
    groups = [checked(group, GROUPS) for group in by.split(",") if group]
    statement = session.client.usage(
        since=moment_from(since, "--since") if since else None,
        until=moment_from(until, "--until") if until else None,
        by=groups,
    )
    if wants_json:
        print_json(dataclasses.asdict(statement))
    else:
        print_table(*table(statement, groups))


def table(statement: Usage, groups: list[str]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a statement; the last row is the total."""
    headings = [*(group.upper() for group in groups), "REQUESTS", "PROMPT", "COMPLETION", "CACHED", "COST"]
    rows = [[*(getattr(row, group) for group in groups), *_figures(row), _money(row)] for row in statement.rows]
    total = statement.total
    cost = ", ".join(f"{amount:.6g} {currency}" for currency, amount in total.cost.items()) or "-"
    figures = [str(n) for n in (total.requests, total.prompt_tokens, total.completion_tokens, total.cached_tokens)]
    blank = ["TOTAL", *[""] * (len(groups) - 1)] if groups else []
    return headings, [*rows, [*blank, *figures, cost]]


def _figures(row: UsageRow) -> list[str]:
    return [str(n) for n in (row.requests, row.prompt_tokens, row.completion_tokens, row.cached_tokens)]


def _money(row: UsageRow) -> str:
    return f"{row.cost:.6g} {row.currency}" if row.currency else "-"
