"""`data synthesise`: let a deployed model write questions and answers about a dataset's documents."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource

_EXAMPLES = [
    "atoll data synthesise handbook --model assistant --dataset handbook-qa",
    "atoll data synthesise handbook.v3 --model writer --judge judge --kind question_answer --kind instruction",
    "atoll data synthesise handbook --model assistant --documents 200 --tokens 500000 --keep-out exams",
]


def add_to(app: typer.Typer) -> None:
    """Declare the command."""
    command(app, "synthesise", examples=_EXAMPLES)(synthesise)


def synthesise(
    session: Session,
    source: Annotated[str, typer.Argument(help="Dataset or version to ask about.", metavar="DATASET")],
    model: Annotated[str, typer.Option("--model", help="Deployment, route or provider's model that writes.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Dataset that receives the pairs; SOURCE-qa unless given.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="question_answer (default) or instruction; repeatable, in turns.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="Model that is asked for a second opinion.")] = None,
    documents: Annotated[int | None, typer.Option("--documents", help="Documents asked about at most.", min=1)] = None,
    per_document: Annotated[int | None, typer.Option("--per-document", help="Pairs of each document.", min=1)] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Tokens to be used at most.", min=1)] = None,
    keep_out: Annotated[
        list[str] | None, typer.Option("--keep-out", help="Evaluation set whose texts may not occur; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of what is asked about.", min=0)] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; a fresh one unless given.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
) -> None:
    """Write questions, answers and instructions about documents by a deployed model, as a new dataset version.

    Every answer must quote the document, and is kept only when the quotation is found there and holds what the answer
    says. What is not kept is counted with its reason. The result can be trained on as it is.
    """
    from atoll.cli.render import line
    from atoll.core.errors import Conflict

    receiver = dataset or f"{source.partition('@')[0].partition('.v')[0]}-qa"
    told: dict[str, Any] = {
        "kinds": kind,
        "judge": judge,
        "documents_max": documents,
        "per_document": per_document,
        "tokens_max": tokens,
        "decontaminate": keep_out,
        "seed": seed,
    }
    spec = {"dataset": receiver, "source": source, "model": model}
    spec |= {field: value for field, value in told.items() if value is not None}
    if name and session.client.find("SynthesisRun", name) is not None:
        hint = f"atoll describe synthesisrun {name} shows it; give another name, or none"
        raise Conflict(f"synthesis {name!r} is there already", hint=hint)
    name = name or f"{receiver}-{secrets.token_hex(3)}"
    run = session.client.put("SynthesisRun", name, spec, version=0)
    line(f"SynthesisRun {run.name} writes to dataset {receiver}")
    if wait:
        _follow(session, run)


def _follow(session: Session, run: Resource) -> None:
    from atoll.cli.follow import board, show_resource
    from atoll.cli.render import line
    from atoll.core.errors import AtollError

    with board() as shown:
        ends = {"succeeded", "failed"}
        last = session.client.wait_for("SynthesisRun", run.name, ends, on_change=show_resource(shown))
    if last.phase == "failed":
        hint = f"atoll describe synthesisrun {last.name}"
        raise AtollError(f"synthesis {last.name} failed: {last.status.get('reason')}", hint=hint)
    for text in summary(last.status):
        line(text)


def summary(status: dict[str, Any]) -> list[str]:
    """What a run came to, in lines: the version with its rows, then why other answers were left out."""
    counts = status["counts"]
    rows = counts["qa_train"] + counts["qa_heldout"]
    kept = f"{rows} of {counts['asked']} pairs kept, {counts['qa_heldout']} of them held out; {counts['tokens']} tokens"
    lines = [f"DatasetVersion {status['dataset_version']}: {kept}"]
    if status.get("reason"):
        lines.append(f"ended early: {status['reason']}")
    return lines + [f"{step['dropped']:7d} {step['rule']}" for step in status["funnel"]]
