"""`vouchers`: codes that put money, tokens or accelerator-hours into a budget, each once."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from atoll.cli.session import Session, command


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Make, list and cancel vouchers.", no_args_is_help=True)
    examples = ["atoll vouchers create 25 --count 10 > codes.txt", "atoll vouchers create 50000 --unit tokens"]
    command(group, "create", examples=examples)(create)
    command(group, "list", examples=["atoll vouchers list"])(list_vouchers)
    command(group, "cancel", examples=["atoll vouchers cancel voucher-1a2b3c4d5e"])(cancel)
    app.add_typer(group, name="vouchers", rich_help_panel=panel)


def create(
    session: Session,
    amount: Annotated[float, typer.Argument(help="What each is worth.", metavar="AMOUNT")],
    unit: Annotated[str, typer.Option("--unit", help="money, tokens or accelerator_hours.")] = "money",
    currency: Annotated[str, typer.Option("--currency", help="ISO 4217 code of the money.")] = "EUR",
    count: Annotated[int, typer.Option("--count", help="How many.", min=1, max=1000)] = 1,
    description: Annotated[str, typer.Option("--description", "-d", help="What they are for.")] = "",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="Worthless after: 90d.")
    ] = None,
) -> None:
    """Make vouchers. Administrators only.

    The codes are printed once, one a line on standard output; the platform keeps only hashes of them.
    """
    from atoll.cli.render import note
    from atoll.cli.times import seconds_from

    made = session.client.money.make_vouchers(
        unit,
        amount,
        currency=currency,
        count=count,
        description=description,
        expires_in_s=seconds_from(expires_in, "--expires-in") if expires_in else None,
    )
    note(f"{len(made)} vouchers; keep the codes, they are not shown again")
    sys.stdout.write("".join(f"{voucher['code']}\n" for voucher in made))


def list_vouchers(
    session: Session, output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table"
) -> None:
    """List all vouchers, newest first, and where each was redeemed; the codes are not kept and cannot be shown."""
    from atoll.cli.output import checked
    from atoll.cli.render import print_json, print_table

    checked(output, ("table", "json"))
    found = session.client.money.vouchers()
    if output == "json":
        print_json({"vouchers": found})
    else:
        print_table(["ID", "WORTH", "MADE", "EXPIRES", "REDEEMED", "BY", "DESCRIPTION"], [_row(v) for v in found])


def cancel(session: Session, number: Annotated[str, typer.Argument(help="Id of the voucher.", metavar="ID")]) -> None:
    """Make a voucher that was not redeemed worthless. Administrators only."""
    from atoll.cli.render import line

    session.client.money.cancel_voucher(number)
    line(f"{number} is cancelled")


def _row(voucher: dict[str, Any]) -> list[str]:
    from atoll.cli.render import moment

    def when(name: str) -> str:
        return moment(voucher[name]) if voucher[name] else "-"

    place = f"{voucher['project']}/{voucher['budget']}" if voucher["redeemed_at"] else "-"
    worth = f"{voucher['amount']:.6g} {voucher['currency'] or voucher['unit']}"
    return [
        voucher["id"],
        worth,
        when("made_at"),
        when("expires_at"),
        place,
        voucher["redeemed_by"] or "-",
        voucher["description"],
    ]
