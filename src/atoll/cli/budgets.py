"""`budgets`: hard limits of projects and keys, what they have left, and what is added to them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from atoll.cli.session import Session, command

Name = Annotated[str, typer.Argument(help="Name of the budget.", metavar="NAME")]
Output = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(
        help="Set, list and top up budgets: hard limits that are never overspent.", no_args_is_help=True
    )
    examples = [
        "atoll budgets set all --money 200 --period month",
        "atoll budgets set prepaid --money 0",
        "atoll budgets set intern --tokens 100000 --period day --for-key key-1a2b3c",
    ]
    command(group, "set", examples=examples)(set_budget)
    command(group, "list", examples=["atoll budgets list", "atoll budgets list -o json"])(list_budgets)
    examples = ["atoll budgets top-up prepaid 50 --id invoice-117", "atoll budgets top-up intern 5000 --unit tokens"]
    command(group, "top-up", examples=examples)(top_up)
    command(group, "redeem", examples=["atoll budgets redeem prepaid atoll-voucher-ABCD…"])(redeem)
    command(group, "history", examples=["atoll budgets history --since 30d"])(history)
    app.add_typer(group, name="budgets", rich_help_panel=panel)


def set_budget(
    session: Session,
    name: Name,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Prompt and generated tokens.")] = None,
    money: Annotated[float | None, typer.Option("--money", help="Money; 0 lives from top-ups and vouchers.")] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="ISO 4217 code of the money.")] = None,
    hours: Annotated[float | None, typer.Option("--accelerator-hours", help="Accelerator-hours of workloads.")] = None,
    period: Annotated[str | None, typer.Option("--period", help="total, day or month (UTC).")] = None,
    for_key: Annotated[str | None, typer.Option("--for-key", metavar="ID", help="Only for this API key.")] = None,
) -> None:
    """Make a budget or change the given fields of one; the rest stays.

    A request is charged to every budget on its way up: its key's, its project's, the parent project's. What is held or
    spent already is not taken back when a budget is lowered.
    """
    from atoll.cli.render import line
    from atoll.core.errors import Invalid

    given = {
        "tokens": tokens,
        "money": money,
        "currency": currency,
        "accelerator_hours": hours,
        "period": period,
        "key": for_key,
    }
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise Invalid("nothing to set", field="tokens", hint="--tokens, --money, --accelerator-hours, --period")
    before = session.client.find("Budget", name)
    made = session.client.put("Budget", name, {**(before.spec if before else {}), **changes})
    limits = [
        f"{made.spec[unit]:g} {unit}"
        for unit in ("tokens", "money", "accelerator_hours")
        if made.spec[unit] is not None
    ]
    line(f"budget {name} of {session.project}: {', '.join(limits) or 'no limit'}, period {made.spec['period']}")


def list_budgets(session: Session, output: Output = "table") -> None:
    """List the budgets of the project with what they have, hold and spent, to the moment.

    Held is what gateways have leased and not used yet, and what is reserved for running workloads.
    """
    from atoll.cli.output import checked
    from atoll.cli.render import print_json, print_table

    checked(output, ("table", "json"))
    balances = session.client.money.balances()
    if output == "json":
        print_json({"balances": balances})
        return
    headings = ["BUDGET", "KEY", "PERIOD", "UNIT", "ALLOWED", "SPENT", "HELD", "AVAILABLE", "OVERSPENT"]
    print_table(headings, [_row(balance) for balance in balances])


def top_up(
    session: Session,
    name: Name,
    amount: Annotated[float, typer.Argument(help="How much to add.", metavar="AMOUNT")],
    unit: Annotated[str, typer.Option("--unit", help="money, tokens or accelerator_hours.")] = "money",
    id: Annotated[str | None, typer.Option("--id", help="Your own id; the same id again adds nothing.")] = None,
    note: Annotated[str, typer.Option("--note", help="For the statement.")] = "",
) -> None:
    """Add to what a budget has in its present period. Administrators only."""
    from atoll.cli.render import line

    line(_added(session.client.money.top_up(name, unit, amount, id=id, note=note)))


def redeem(
    session: Session, name: Name, code: Annotated[str, typer.Argument(help="The voucher's code.", metavar="CODE")]
) -> None:
    """Put a voucher into a budget; each code counts once."""
    from atoll.cli.render import line

    line(_added(session.client.money.redeem(name, code)))


def history(
    session: Session,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="From: 7d, 2026-05-01.")] = None,
    output: Output = "table",
) -> None:
    """List what was added to the project's budgets: top-ups and vouchers, oldest first."""
    from atoll.cli.output import checked
    from atoll.cli.render import moment, print_json, print_table
    from atoll.cli.times import moment_from

    checked(output, ("table", "json"))
    found = session.client.money.top_ups(since=moment_from(since, "--since") if since else None)
    if output == "json":
        print_json({"top_ups": found})
        return
    rows = [
        [moment(t["at"]), t["budget"], t["period"], _amount(t), t["kind"], t["id"], t["by"], t["note"]] for t in found
    ]
    print_table(["AT", "BUDGET", "PERIOD", "AMOUNT", "KIND", "ID", "BY", "NOTE"], rows)


def _row(balance: dict[str, Any]) -> list[str]:
    figures = [f"{balance[name]:.6g}" for name in ("allowed", "spent", "held", "available", "overspent")]
    unit = balance["currency"] or balance["unit"]
    return [balance["budget"], balance["key"] or "-", balance["period"], unit, *figures]


def _amount(top_up: dict[str, Any]) -> str:
    return f"{top_up['amount']:.6g} {top_up['currency'] or top_up['unit']}"


def _added(top_up: dict[str, Any]) -> str:
    return f"added {_amount(top_up)} to budget {top_up['budget']}, period {top_up['period']} ({top_up['id']})"
