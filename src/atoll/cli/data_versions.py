"""`data describe|diff|lineage|export|import|tag`: versions of datasets, on the platform and in folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command
from atoll.core.errors import Invalid, NotFound

if TYPE_CHECKING:
    from atoll.data.archive import Opened
    from atoll.sdk.datasets import Progress

WHICH = "A version (NAME.vN, NAME, NAME@BRANCH, NAME@TAG), or a folder or tar of an export."
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
READY_S = 60.0


def add_to(app: typer.Typer) -> None:
    """Declare the commands in the `data` group."""
    from atoll.cli import data_erase

    command(app, "describe", examples=["atoll data describe docs", "atoll data describe ./export --json"])(describe)
    command(app, "diff", examples=["atoll data diff docs.v1 docs.v2", "atoll data diff docs@stable ./export"])(diff)
    command(app, "lineage", examples=["atoll data lineage docs@main", "atoll data lineage deployment/chat"])(lineage)
    command(app, "export", examples=["atoll data export docs.v2 ./docs", "atoll data export docs docs.tar"])(export)
    command(app, "import", examples=["atoll data import ./docs --name docs"])(import_archive)
    command(app, "tag", examples=["atoll data tag docs stable docs.v2", "atoll data tag docs stable --remove"])(tag)
    data_erase.add_to(app)


def describe(
    session: Session, dataset: Annotated[str, typer.Argument(help=WHICH, metavar="VERSION|DIR")], json: Json = False
) -> None:
    """Show what a dataset holds: sizes, splits, languages, sources, what was dropped, personal data, licence."""
    from atoll.cli.data_pages import description_lines
    from atoll.cli.render import line, print_json
    from atoll.data.engine.versions.describe import describe as described

    with opened(session, dataset) as found:
        told = described(found)
    if json:
        print_json(told)
        return
    for text in description_lines(told):
        line(text)


def diff(
    session: Session,
    before: Annotated[str, typer.Argument(help=WHICH, metavar="A")],
    after: Annotated[str, typer.Argument(help=WHICH, metavar="B")],
    samples: Annotated[int, typer.Option("--samples", min=0, max=100, help="Rows shown of each difference.")] = 3,
    json: Json = False,
) -> None:
    """Show how B differs from A: facts, counts, schema, recipe, and rows added, removed and changed.

    Rows are compared by id and content; shards both have are not read. Exits 0 whether or not they differ.
    """
    from atoll.cli.data_pages import diff_lines
    from atoll.cli.render import line, print_json
    from atoll.data.engine.versions.diff import diff as differences

    with opened(session, before) as one, opened(session, after) as two:
        found = differences(one, two, samples)
    if json:
        print_json(found.to_dict())
        return
    for text in diff_lines(found):
        line(text)


def lineage(
    session: Session,
    what: Annotated[str, typer.Argument(help="A version, anything by NAME or KIND/NAME, or a folder.", metavar="X")],
    json: Json = False,
) -> None:
    """Show what something came from, up to its sources, and what came from it, down to deployments.

    Of a dataset in a folder or tar: its sources; what was made of it is known to a platform alone.
    """
    from atoll.cli.data_pages import lineage_lines
    from atoll.cli.render import line, print_json
    from atoll.data.layout import MANIFEST

    if what.endswith(".tar") or Path(what, MANIFEST).is_file():
        _print_origin(session, what, json)
        return
    kind, slash, name = what.partition("/")
    found = session.client.datasets.lineage(name if slash else what, session.client.kind(kind).name if slash else "any")
    if json:
        print_json(found)
        return
    for text in lineage_lines(found):
        line(text)


def _print_origin(session: Session, what: str, json: bool) -> None:
    """What the manifest of a dataset outside the platform says it came from."""
    from atoll.cli.data_pages import origin_lines
    from atoll.cli.render import line, print_json

    with opened(session, what) as found:
        told = {"name": found.name, "sources": found.manifest.sources, "parents": found.manifest.parents}
    if json:
        print_json(told)
        return
    for text in origin_lines(told):
        line(text)


def export(
    session: Session,
    version: Annotated[str, typer.Argument(help="A version: NAME.vN, NAME, NAME@BRANCH or NAME@TAG.")],
    target: Annotated[Path, typer.Argument(help="A folder, or a file ending in .tar.", metavar="DIR|FILE.tar")],
) -> None:
    """Write a version into a folder or tar: manifest.json and SPLIT/00000.parquet. A broken export goes on."""
    from atoll.cli.render import line

    with _progress("exported") as progress:
        name = session.client.datasets.export(version, target, progress)
    line(f"{name} is in {target}")


def import_archive(
    session: Session,
    source: Annotated[Path, typer.Argument(help="The folder or tar of an export.", metavar="DIR|FILE.tar")],
    name: Annotated[str, typer.Option("--name", help="Dataset that receives the version.")],
    branch: Annotated[str, typer.Option("--branch", help="Branch it continues.")] = "main",
    parent: Annotated[
        list[str] | None, typer.Option("--parent", help="A version it was made from; repeatable.")
    ] = None,
) -> None:
    """Make a version of an export, or of what `atoll data curate` left in a folder.

    Every file is checked against the manifest first; a damaged one is named and nothing is made. When the branch's
    newest version is the same, that is told and nothing is made either. A broken import goes on.
    """
    from atoll.cli.render import line
    from atoll.data.archive import open_archive

    with open_archive(source) as archive, _progress("sent") as progress:
        made = session.client.datasets.import_from(
            archive, name, branch=branch, parents=parent or (), progress=progress
        )
    for kind, wanted in (("DatasetVersion", made["version"]), ("Dataset", name)):  # so that the next command finds it
        session.client.wait_for(kind, wanted, ("ready", "failed"), timeout_s=READY_S)
    line(f"{made['version']} {'was made' if made['created'] else 'is the same, nothing was made'}")


def tag(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="The dataset.")],
    name: Annotated[str, typer.Argument(help="The tag.", metavar="TAG")],
    version: Annotated[str | None, typer.Argument(help="What it stands for: NAME.vN or NAME@BRANCH.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
) -> None:
    """Let DATASET@TAG stand for a version; tagged versions are kept by retention."""
    from atoll.cli.render import line

    if bool(version) == remove:
        words = f"give a version or --remove, not both: {version}" if version else "a tag needs a version, or --remove"
        raise Invalid(words, field="version", hint=f"atoll data tag {dataset} {name} …")
    changed = session.client.datasets.tag(dataset, name, version)
    stands = changed.spec["tags"].get(name)
    line(f"{dataset}@{name} stands for {stands}" if stands else f"{dataset}@{name} is gone")


@contextmanager
def opened(session: Session, text: str) -> Iterator[Opened]:
    """The dataset `text` names: a folder or tar of this machine, else a version of the platform."""
    from atoll.data.archive import is_archive, open_archive

    with ExitStack() as stack:
        if is_archive(text):
            yield stack.enter_context(open_archive(Path(text)))
        else:
            yield _version(session, text)


def _version(session: Session, text: str) -> Opened:
    """A version of the platform; where there is none but something of this name lies here, that is what is told."""
    from atoll.sdk.errors import Unreachable

    try:
        return session.client.datasets.open(text)
    except (NotFound, Unreachable) as error:
        if not Path(text).exists():
            raise
        hint = "a folder that `atoll data curate` or `atoll data export` made, or a version: NAME, NAME.vN, NAME@TAG"
        raise Invalid(f"{text} is no dataset: it holds no manifest.json", field="dataset", hint=hint) from error


@contextmanager
def _progress(verb: str) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    import sys

    from atoll.cli.render import console

    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns: tuple[Any, ...] = (verb, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(is_error=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
