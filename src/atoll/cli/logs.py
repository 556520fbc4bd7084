"""`logs`: what the tasks of a resource wrote."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atoll.sdk.client import Client

KINDS_WITH_TASKS = (
    "Deployment",
    "TrainingRun",
    "CurationRun",
    "Evaluation",
    "ModelVersion",
    "Pipeline",
    "Workload",
    "Replica",
    "Task",
)
LINE_BYTES_EXPECTED = 1024
TAIL_BYTES_MAX = 4 << 20


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = ["atoll logs smollm2 -f", "atoll logs trainingrun docs-train --tail 50"]
    command(app, "logs", panel=panel, examples=examples)(logs)


def logs(
    session: Session,
    words: Annotated[list[str], typer.Argument(help="A name, or a kind and a name.", metavar="[KIND] NAME")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends or Ctrl-C.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="LINES", help="Begin so many lines before the end.", min=1)
    ] = 200,
) -> None:
    """Print the log of a resource's newest task; any kind that runs tasks has one.

    With only a name, the kind is found: deployments first, then runs, then workloads and tasks.
    """
    from atoll.core.errors import Invalid

    if len(words) > 2:
        raise Invalid("too many words", field="NAME", hint="atoll logs NAME, or atoll logs KIND NAME")
    kind, name = words if len(words) == 2 else (_kind_of(session.client, words[0]), words[0])
    tail_bytes = min(max(tail * LINE_BYTES_EXPECTED, 64 << 10), TAIL_BYTES_MAX)
    pieces = session.client.logs(kind, name, follow=follow, tail_bytes=tail_bytes)
    for text in _begun_late(pieces, tail) if follow else last_lines(pieces, tail):
        sys.stdout.write(text)
        sys.stdout.flush()


def _kind_of(client: Client, name: str) -> str:
    from atoll.cli.render import note
    from atoll.core.errors import NotFound

    for kind in KINDS_WITH_TASKS:
        if client.find(kind, name) is not None:
            note(f"log of {kind} {name}")
            return kind
    kinds = ", ".join(k.lower() for k in KINDS_WITH_TASKS)
    raise NotFound(f"nothing called {name!r} runs tasks in project {client.project!r}", hint=f"looked in: {kinds}")


def last_lines(pieces: Iterable[str], count: int) -> Iterator[str]:
    """The last `count` lines of a text that comes in pieces."""
    lines: deque[str] = deque(maxlen=count)
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        lines.extend(f"{text}\n" for text in whole)
    if rest:
        lines.append(rest)
    yield from lines


def _begun_late(pieces: Iterator[str], count: int) -> Iterator[str]:
    """All pieces, the first cut to its last `count` lines; it is the whole tail unless the network cut it."""
    yield from last_lines([next(pieces, "")], count)
    yield from pieces
