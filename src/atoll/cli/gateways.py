"""`gateways`: what the ledger knows of gateways, and giving one up that will not come back."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli.session import Session, command


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="List gateways, and forget those that will not come back.", no_args_is_help=True)
    command(group, "list", examples=["atoll gateways list"])(list_gateways)
    command(group, "forget", examples=["atoll gateways forget 6f1c…"])(forget)
    app.add_typer(group, name="gateways", rich_help_panel=panel)


def list_gateways(
    session: Session, output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table"
) -> None:
    """List every gateway process's journal: how far it is entered, and how many slices of budgets it holds."""
    from atoll.cli.output import checked
    from atoll.cli.render import age, print_json, print_table

    checked(output, ("table", "json"))
    found = session.client.money.gateways()
    if output == "json":
        print_json({"gateways": found})
    else:
        rows = [[g["source"], str(g["entered"]), str(g["slices"]), age(g["seen_at"])] for g in found]
        print_table(["SOURCE", "RECORDS", "SLICES", "SEEN"], rows)


def forget(
    session: Session, source: Annotated[str, typer.Argument(help="The gateway's source, see list.", metavar="SOURCE")]
) -> None:
    """Make available again what a gateway held of budgets. Administrators only.

    Only for a gateway that is gone with its disk: records it still brings are charged beside what was made available.
    """
    from atoll.cli.render import line

    closed = session.client.money.forget_gateway(source)
    line(f"{source} is forgotten; it held {closed} slices")
