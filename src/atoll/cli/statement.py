"""`statement`: what a project used in a month and what it cost."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from atoll.cli.session import Session, command

FORMATS = ("table", "json", "csv", "html")


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = [
        "atoll statement",
        "atoll statement --month 2026-11 -o csv > november.csv",
        "atoll statement --month 2026-11 -o html > november.html",
    ]
    command(app, "statement", panel=panel, examples=examples)(statement)


def statement(
    session: Session,
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="The month (UTC); empty: this one.")] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="table, json, csv or html (a page to print).")
    ] = "table",
) -> None:
    """Show the project's statement of a month: usage and cost, budgets, top-ups, accelerators.

    csv has one row per day, key and model; html is one page without scripts, made to be printed.
    """
    from atoll.cli.output import checked
    from atoll.cli.render import print_json

    checked(output, FORMATS)
    if output in ("csv", "html"):
        sys.stdout.write(session.client.money.statement_text(month, output))
        return
    said = session.client.money.statement(month)
    if output == "json":
        print_json(said)
    else:
        print_statement(said)


def print_statement(said: dict[str, Any]) -> None:
    """A statement as tables."""
    from atoll.cli.render import line, print_table

    line(f"Project {said['project']}, {said['month']}")
    for title, group in (("MODEL", "by_model"), ("KEY", "by_key")):
        rows = [_sum_row(each) for each in said[group]]
        line()
        print_table([title, "REQUESTS", "PROMPT", "COMPLETION", "CACHED", "COST"], rows)
    totals = [_money(each["cost"], each["currency"]) for each in said["totals"] if each["currency"]]
    line(f"\nTotal: {', '.join(totals) or 'no cost'}")
    if said["budgets"]:
        line()
        print_table(["BUDGET", "PERIOD", "UNIT", "ALLOWED", "SPENT", "HELD", "AVAILABLE"], map_rows(said["budgets"]))
    if said["accelerators"]:
        line()
        headings = ["DEPLOYMENT OR WORKLOAD", "ACCELERATOR-HOURS", "UTILISATION", "COST", "PER MILLION TOKENS"]
        print_table(headings, [_served_row(each) for each in said["accelerators"]])


def map_rows(balances: list[dict[str, Any]]) -> list[list[str]]:
    """Balances as rows of a table."""
    figures = ("allowed", "spent", "held", "available")
    return [
        [b["budget"], b["period"], b["currency"] or b["unit"], *(f"{b[name]:.6g}" for name in figures)]
        for b in balances
    ]


def _sum_row(each: dict[str, Any]) -> list[str]:
    counts = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")
    return [each["name"] or "-", *(str(each[name]) for name in counts), _money(each["cost"], each["currency"])]


def _served_row(each: dict[str, Any]) -> list[str]:
    per_million = "-" if each["per_million"] is None else _money(each["per_million"], each["currency"])
    hours, share = f"{each['accelerator_hours']:.2f}", f"{each['utilisation']:.0%}"
    return [each["deployment"] or each["workload"], hours, share, _money(each["cost"], each["currency"]), per_million]


def _money(amount: float, currency: str) -> str:
    return f"{amount:.6g} {currency}" if currency else "-"
