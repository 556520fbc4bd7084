"""`get`: one resource or all of a kind, once or as they change."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atoll.core.resources import Resource
    from atoll.sdk.client import Client
    from atoll.sdk.wire import KindInfo, Listing, WatchEvent

EXAMPLES = [
    "atoll get deployments",
    "atoll get deployment smollm2 -o yaml",
    "atoll get trainingruns -l team=web --watch",
    "atoll get nodes",
]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    command(app, "get", panel=panel, examples=EXAMPLES)(get)


def get(
    session: Session,
    kind: Annotated[str, typer.Argument(help="Kind, e.g. deployments.", metavar="KIND")],
    name: Annotated[str | None, typer.Argument(help="Name; all of the kind without one.", metavar="NAME")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table, wide, json or yaml.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes until Ctrl-C.")] = False,
    labels: Annotated[
        str | None, typer.Option("--labels", "-l", metavar="A=B,C=D", help="Only with these labels.")
    ] = None,
) -> None:
    """List the resources of a kind, or show one of them.

    What -o yaml prints can be edited and given to `atoll apply`. With --watch every change is shown as it
    happens, on a terminal in place, elsewhere as one more line (JSON: one object a line).
    """
    from atoll.cli.output import LIST_FORMATS, checked, labels_from

    checked(output, LIST_FORMATS)
    info = session.client.kind(kind)
    wanted = labels_from(labels)
    listing = _read(session.client, info, name, wanted, needs_head=watch)
    if watch:
        _watch(session.client, info, listing, name, wanted, output)
    elif output in ("json", "yaml"):
        _print_data(listing, name, output)
    else:
        _print_table(info, listing.items, output)


def _read(client: Client, info: KindInfo, name: str | None, labels: dict[str, str], *, needs_head: bool) -> Listing:
    """What to show; a watch also needs the change number it was read at."""
    from atoll.sdk.wire import Listing

    if name is None:
        return client.find_all(info.name, labels=labels)
    head = client.find_all(info.name, labels=labels).head if needs_head else 0
    return Listing([client.get(info.name, name)], head)


def _print_data(listing: Listing, name: str | None, output: str) -> None:
    from atoll.cli.output import print_data

    items = [wire_form(r) for r in listing.items]
    print_data(items[0] if name else {"items": items}, output)


def wire_form(resource: Resource) -> dict[str, Any]:
    """A resource as JSON carries it, what a manifest needs first."""
    data = resource.to_dict()
    first = ("kind", "project", "name", "labels", "spec", "status")
    return {k: data[k] for k in first} | {k: v for k, v in data.items() if k not in first}


def headings(info: KindInfo, is_wide: bool) -> list[str]:
    """The headings of a kind's table."""
    more = ["GENERATION", "REVISION", "LABELS", "UID"] if is_wide else []
    own = [heading for heading, _ in info.columns if heading != "REASON"]
    reason = ["REASON"] if any(heading == "REASON" for heading, _ in info.columns) else []
    return ["NAME", *own, "AGE", *more, *reason]


def row(info: KindInfo, resource: Resource, is_wide: bool, now: float | None = None) -> list[str]:
    """The cells of one resource under `headings`."""
    from atoll.cli.render import age, cell, dig

    data = resource.to_dict()
    cells = {heading: cell(path, dig(data, path), now) for heading, path in info.columns}
    if resource.is_deleting and "PHASE" in cells:
        cells["PHASE"] = "stopping"
    cells |= {
        "NAME": resource.name,
        "AGE": age(resource.created_at, now),
        "GENERATION": str(resource.generation),
        "REVISION": str(resource.version),
        "LABELS": cell("labels", resource.labels, now),
        "UID": resource.uid,
    }
    return [cells[heading] for heading in headings(info, is_wide)]


def _print_table(info: KindInfo, items: list[Resource], output: str) -> None:
    from atoll.cli.render import note, print_table

    is_wide = output == "wide"
    if not items:
        note(f"no {info.plural}")
        return
    print_table(headings(info, is_wide), [row(info, r, is_wide) for r in items])


def _watch(
    client: Client, info: KindInfo, listing: Listing, name: str | None, labels: dict[str, str], output: str
) -> None:
    from atoll.cli.render import is_terminal

    items = {r.name: r for r in listing.items}
    changes = (c for c in client.watch(info.name, seen=listing.head) if _concerns(c, items, name, labels))
    if output in ("json", "yaml"):
        _watch_as_data(items, changes, output)
    elif is_terminal():
        _watch_in_place(info, items, changes, output == "wide")
    else:
        _watch_as_lines(info, items, changes, output == "wide")


def _concerns(change: WatchEvent, items: dict[str, Resource], name: str | None, labels: dict[str, str]) -> bool:
    if name is not None and change.name != name:
        return False
    is_match = change.resource is not None and labels.items() <= change.resource.labels.items()
    return is_match or change.name in items


def _take(items: dict[str, Resource], change: WatchEvent) -> None:
    if change.resource is None:
        items.pop(change.name, None)
    else:
        items[change.name] = change.resource


def _watch_as_data(items: dict[str, Resource], changes: Iterator[WatchEvent], output: str) -> None:
    for resource in items.values():
        _print_change("put", wire_form(resource), output)
    for change in changes:
        body = wire_form(change.resource) if change.resource else {"name": change.name, "uid": change.uid}
        _print_change(change.type, body, output)


def _print_change(word: str, body: dict[str, Any], output: str) -> None:
    import json

    from atoll.core.yaml_lines import dump_yaml

    change = {"type": word, "resource": body}
    text = json.dumps(change, ensure_ascii=False) + "\n" if output == "json" else "---\n" + dump_yaml(change)
    sys.stdout.write(text)
    sys.stdout.flush()


def _watch_in_place(info: KindInfo, items: dict[str, Resource], changes: Iterator[WatchEvent], is_wide: bool) -> None:
    from rich.live import Live

    from atoll.cli.render import console, rich_table

    def table() -> Any:
        return rich_table(headings(info, is_wide), [row(info, r, is_wide) for _, r in sorted(items.items())])

    with Live(get_renderable=table, console=console(), refresh_per_second=2):
        for change in changes:
            _take(items, change)


def _watch_as_lines(info: KindInfo, items: dict[str, Resource], changes: Iterator[WatchEvent], is_wide: bool) -> None:
    from atoll.cli.render import MISSING, aligned, column_widths

    rows = [headings(info, is_wide), *(row(info, r, is_wide) for r in items.values())]
    widths = column_widths(rows)
    for text in aligned(rows):
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    for change in changes:
        _take(items, change)
        gone = [change.name, "gone", *[MISSING] * (len(widths) - 2)]
        cells = row(info, change.resource, is_wide) if change.resource else gone
        sys.stdout.write(f"{aligned([cells], widths)[0]}\n")
        sys.stdout.flush()
