"""`apply`: make what manifests say true, after showing what would change."""

from __future__ import annotations

import json
import sys
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from atoll.sdk.client import Client
    from atoll.sdk.manifest import Manifest
    from atoll.sdk.wire import Change, FieldChange

MARKS = {"create": "+", "update": "~", "unchanged": "="}
STYLES = {"create": "green", "update": "yellow", "unchanged": "dim"}
HEADINGS = ["", "RESOURCE", "FIELD", "VALUE"]
VALUE_CHARACTERS_MAX = 100
CONTEXT_CHARACTERS = 20

File = Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="Manifest file; - is standard input.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll apply -f pipeline.yaml", "atoll apply -f - --yes < all.yaml", "atoll apply -f a.yaml --dry-run"]
    command(app, "apply", panel=panel, examples=examples)(apply)


def apply(
    session: Session,
    file: File,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
) -> None:
    """Create or change the resources a manifest describes.

    The plan is shown first: what is created, and field by field what changes. On a terminal you are asked;
    elsewhere --yes must be given. All manifests of a project are applied together or not at all.
    """
    apply_manifests(session.client, read(file), is_agreed=yes, is_dry_run=dry_run)


def read(file: str) -> list[Manifest]:
    """The manifests of a file, or of standard input for "-"."""
    from atoll.sdk.manifest import parse_manifests, read_manifests

    return parse_manifests(sys.stdin.buffer.read(), "standard input") if file == "-" else read_manifests(file)


def apply_manifests(
    client: Client, manifests: list[Manifest], *, is_agreed: bool, is_dry_run: bool = False
) -> list[Change]:
    """Show the plan, ask unless agreed, apply; exits when the answer is no."""
    from atoll.cli.render import line

    plan = client.apply(manifests, dry_run=True)
    print_plan(plan, manifests)
    _say_fits(client, plan, manifests)
    if is_dry_run:
        return plan
    if all(change.action == "unchanged" for change in plan):
        line("nothing to change")
        return plan
    if not is_agreed:
        _ask()
    done = client.apply(manifests)
    line(summary(done, "created", "changed"))
    return done


def _say_fits(client: Client, plan: list[Change], manifests: list[Manifest]) -> None:
    """A line for each deployment that would change: where it fits, or why not."""
    from atoll.cli.plan import say_fit

    for change, manifest in zip(plan, manifests, strict=True):
        if change.kind == "Deployment" and change.action != "unchanged":
            say_fit(client, change.name, manifest.spec, change.project)


def _ask() -> None:
    from atoll.cli.render import is_confirmed
    from atoll.core.errors import Invalid

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Invalid("nobody is there to agree to this plan", hint="--yes applies it, --dry-run only shows it")
    if not is_confirmed("Apply this plan?"):
        raise typer.Exit(1)


def summary(changes: list[Change], created: str = "to create", updated: str = "to change") -> str:
    """How many of each: "1 to create, 2 to change, 3 unchanged"."""
    words = {"create": created, "update": updated, "unchanged": "unchanged"}
    counts = [(sum(c.action == action for c in changes), word) for action, word in words.items()]
    return ", ".join(f"{n} {word}" for n, word in counts if n)


def print_plan(changes: list[Change], manifests: list[Manifest]) -> None:
    """The plan as a table with a line for every field that changes."""
    from atoll.cli.render import aligned, console, is_terminal, line

    rows = [row for change, manifest in zip(changes, manifests, strict=True) for row in plan_rows(change, manifest)]
    texts = aligned([HEADINGS, *rows])
    if is_terminal():
        out = console()
        for text, style in zip(texts, ["bold", *(_style(row) for row in rows)], strict=True):
            out.print(_styled(text, style), soft_wrap=True)
    else:
        for text in texts:
            line(text)
    line(f"plan: {summary(changes)}")


def plan_rows(change: Change, manifest: Manifest) -> list[list[str]]:
    """The cells of one change: its first line names the resource, then one line a field.

    Of something new only what its manifest says is told; the rest are defaults.
    """
    name = f"{change.kind} {change.project}/{change.name}"
    fields = [cells for f in change.fields for cells in _field_cells(change.action, f, manifest)]
    first, *rest = fields or [["", ""]]
    return [[MARKS[change.action], name, *first], *(["", "", *cells] for cells in rest)]


def _field_cells(action: str, changed: FieldChange, manifest: Manifest) -> list[list[str]]:
    if action == "create":
        is_told = changed.path.removeprefix("spec.") in manifest.spec
        return [[changed.path, value_text(changed.after)]] if is_told else []
    return [
        [path, f"{value_text(before, after)} -> {value_text(after, before)}"]
        for path, before, after in differences(changed.path, changed.before, changed.after)
    ]


def differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """The smallest parts in which two values differ, each as (path, before, after)."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*after, *(key for key in before if key not in after)]
        for key in keys:
            yield from differences(f"{path}.{key}", before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        for i, (old, new) in enumerate(zip_longest(before, after)):
            yield from differences(f"{path}.{i}", old, new)
    elif before != after:
        yield path, before, after


def value_text(value: Any, other: Any = None) -> str:
    """A value as JSON on one line; a long one is cut, from shortly before where it differs from `other`."""
    text, against = _json(value), _json(other)
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    same = next((i for i, (a, b) in enumerate(zip(text, against, strict=False)) if a != b), 0)
    start = max(0, same - CONTEXT_CHARACTERS)
    end = start + VALUE_CHARACTERS_MAX
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _json(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _style(row: list[str]) -> str:
    actions = {mark: action for action, mark in MARKS.items()}
    return STYLES[actions[row[0]]] if row[0] else ""


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
