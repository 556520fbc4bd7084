"""`data erase`: remove documents from every version for good, with a certificate, and verify one later."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.client import Client

_EXAMPLES = [
    "atoll data erase --text ann@example.org --reason 'request 2026-114' --certificate ann.json",
    "atoll data erase --source 'https://example.org/*' --dataset pages",
    "atoll data erase --verify ann.json --text ann@example.org",
]


def add_to(app: typer.Typer) -> None:
    """Declare the command in the `data` group."""
    command(app, "erase", examples=_EXAMPLES, no_args_is_help=True)(erase)


def erase(
    session: Session,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text anywhere, such as an e-mail address.")
    ] = None,
    document: Annotated[list[str] | None, typer.Option("--document", help="Id of a document.")] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="A source or URL; * at its end: all such.")
    ] = None,
    file: Annotated[list[str] | None, typer.Option("--file", help="An upload, by id, with all made from it.")] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Only this dataset; repeatable.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the certificate; name nobody.")] = "",
    certificate: Annotated[Path | None, typer.Option("--certificate", help="Where the certificate goes.")] = None,
    verify: Annotated[Path | None, typer.Option("--verify", help="Verify this certificate; erase nothing.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove what is named from every version of the project's datasets and from its uploads, for good.

    Shards that hold a match are written anew, the old ones deleted at once; questions made from a removed document go
    with it. The certificate tells what was searched (hashed), what changed and which models had learned from it. With
    --verify a certificate is checked against itself and the platform; what is named then is asked for: is it covered?
    """
    from atoll.cli.render import is_confirmed
    from atoll.core.errors import Invalid

    if verify is not None:
        _verify(session.client, verify, [value for named in (text, document, source, file) for value in named or ()])
        return
    match = {"texts": text, "documents": document, "sources": source, "files": file}
    if not any(match.values()):
        raise Invalid("nothing is named to erase", field="match", hint="--text, --document, --source or --file")
    if not yes and not is_confirmed("This cannot be undone. Erase?"):
        raise typer.Abort
    wanted = {"match": {k: v or [] for k, v in match.items()}, "datasets": dataset or [], "reason": reason}
    _carry_out(session.client, wanted, certificate)


def _carry_out(client: Client, wanted: dict[str, Any], target: Path | None) -> None:
    from atoll.cli.follow import board, show_resource
    from atoll.cli.render import line
    from atoll.core.errors import AtollError, Invalid
    from atoll.core.files import replace_file
    from atoll.data.certificate import lines
    from atoll.sdk.datasets import canonical

    if target is not None and target.is_dir():
        raise Invalid(f"{target} is a folder", field="certificate", hint="name a file for the certificate")
    name = f"erasure-{secrets.token_hex(6)}"
    # the file is begun before anything is erased: what cannot be certified there is not erased
    with nullcontext() if target is None else replace_file(target) as file:
        client.put("Erasure", name, wanted, version=0)
        with board() as shown:
            last = client.wait_for("Erasure", name, {"succeeded", "failed"}, on_change=show_resource(shown))
        if last.phase == "failed":
            why = last.status.get("reason")
            raise AtollError(f"erasure {name} failed: {why}", hint=f"atoll describe erasure {name}")
        told = client.datasets.certificate(name)
        if file is not None:
            file.write(canonical(told) + b"\n")
    for text in lines(told):
        line(text)


def _verify(client: Client, path: Path, values: list[str]) -> None:
    from atoll.cli.render import line
    from atoll.core.errors import IntegrityError, Invalid
    from atoll.data.certificate import covers, opened

    try:
        told = opened(path.read_bytes())
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", field="verify", hint="give the JSON file") from error
    line(f"the certificate is unchanged: {told['digest']}")
    problems = client.datasets.verify(told)
    for problem in problems:
        line(f"PROBLEM: {problem}")
    if problems:
        raise IntegrityError(f"{len(problems)} claims of {path} do not hold", hint="see above")
    line(f"the platform agrees: {len(told['versions'])} versions are as it says, or gone")
    for value in values:
        line(f"{value!r} is {'covered' if covers(told, value) else 'NOT covered'}")
