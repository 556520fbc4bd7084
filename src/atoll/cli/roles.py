"""`up`, `server`, `agent`, `gateway`: the processes of the platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.settings import Settings

Listen = Annotated[str | None, typer.Option("--listen", metavar="HOST:PORT", help="Address to listen on.")]

KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with the centre's system key; else ATOLL_SYSTEM_KEY, else this home's own."),
]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    command(app, "up", panel=panel, examples=["atoll up", "atoll up --home /srv/atoll --listen 0.0.0.0:8400"])(up)
    command(app, "server", panel=panel, examples=["atoll server --listen 127.0.0.1:8401"])(server)
    command(
        app,
        "agent",
        panel=panel,
        examples=["atoll agent --join http://centre:8400 --key-file system.key", "atoll agent --join URL --node gpu-7"],
    )(agent)
    command(app, "gateway", panel=panel, examples=["atoll gateway --server http://127.0.0.1:8401"])(gateway)


def up(
    session: Session,
    listen: Listen = None,
    node: Annotated[str | None, typer.Option("--node", help="Name of this machine in the fleet.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="Database; SQLite in the home unless given.")
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option("--blobs", metavar="URL", help="Folder or s3://… of the blobs; in the home unless given."),
    ] = None,
    gateway_workers: Annotated[
        int | None, typer.Option("--gateway-workers", metavar="N", help="Gateway processes behind the one door.")
    ] = None,
) -> None:
    """Run the whole platform on this machine: server, gateway and one agent, until Ctrl-C.

    The first start makes an administrator's key and writes it to the credentials file in the home, where every
    other command finds it. Nothing listens beyond this machine unless --listen says so.
    """
    from atoll.core.settings import load
    from atoll.server.supervise import up as supervise

    given = {"home": session.home_given, "listen": listen, "node": node, "database": database, "blobs": blobs}
    settings = load(given | {"gateway_workers": gateway_workers})
    code = supervise(settings, lambda is_first_start: _greet(settings, is_first_start), _part)
    raise typer.Exit(code)


def _greet(settings: Settings, is_first_start: bool) -> None:
    from atoll.cli.render import line, note
    from atoll.sdk.credentials import credentials_path, read_contexts

    path = credentials_path(settings.home)
    line(f"Atoll is up at http://{settings.listen}")
    line(f"home: {settings.home}   logs: {settings.home / 'logs'}")
    saved = read_contexts(settings.home).get("default")
    if is_first_start and saved is not None:
        line(f"admin key (first start, also in {path}): {saved.key}")
    note("Ctrl-C stops it")
    sys.stdout.flush()


def _part() -> None:
    from atoll.cli.render import note

    note("stopping what runs; Ctrl-C again does not wait for it")
    sys.stdout.flush()


def server(session: Session, listen: Listen = None) -> None:
    """Run only the server: the management API and the controllers. `atoll up` does this and more."""
    _become("atoll.server.main", {"--home": session.home_given, "--listen": listen})


def agent(
    session: Session,
    join: Annotated[str, typer.Option("--join", metavar="URL", help="Address of the centre.")],
    node: Annotated[
        str | None, typer.Option("--node", help="Name of this machine; its host name unless given.")
    ] = None,
    key_file: KeyFile = None,
    site: Annotated[str | None, typer.Option("--site", help="Site this machine belongs to.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Label of this node.")
    ] = None,
) -> None:
    """Run only the agent: join this machine to a centre and run tasks for it.

    Opens one outbound connection and listens nowhere. Tasks outlive the agent: one that is started again
    finds them running. The key is the centre's own, run/system.key in its home: bring a copy.
    """
    labels = [part for pair in label or [] for part in ("--label", pair)]
    key_file = key_file or _own_key(session.home)
    options = {"--home": session.home, "--join": join, "--node": node, "--key-file": key_file, "--site": site}
    _become("atoll.compute.agent.main", options, labels)


def gateway(
    session: Session,
    server_url: Annotated[str, typer.Option("--server", metavar="URL", help="Address of the server.")],
    listen: Listen = None,
    key_file: KeyFile = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, max=64, help="Processes that share the address.")
    ] = None,
) -> None:
    """Run only the gateway: the one door for models, which also passes the management API on to the server.

    It goes on serving while the server is down. The key is the server's own, run/system.key in its home.
    """
    key_file = key_file or _own_key(session.home)
    options = {"--home": session.home, "--server": server_url, "--listen": listen, "--key-file": key_file}
    options["--workers"] = workers
    _become("atoll.serving.gateway.main", options)


def _own_key(home: Path) -> Path | None:
    """The system key of this home, when the server lives here and no other key is given."""
    path = home / "run" / "system.key"
    return path if path.exists() and not os.environ.get("ATOLL_SYSTEM_KEY") else None


def _become(module: str, options: dict[str, object], more: list[str] | None = None) -> None:
    """Turn this process into a role: signals, exit code and memory are then the role's own."""
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words, *(more or [])])  # noqa: S606
