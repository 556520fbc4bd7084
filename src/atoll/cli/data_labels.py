"""`data label`: what people say about items."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.labels import Labels

Task = Annotated[str, typer.Argument(help="Name of the labelling task.", metavar="TASK")]
ItemKey = Annotated[str, typer.Argument(help="Key of the item.", metavar="ITEM")]
Values = Annotated[
    list[str], typer.Argument(help="FIELD=VALUE; lists by commas, spans as JSON.", metavar="FIELD=VALUE…")
]
Comment = Annotated[str, typer.Option("--comment", "-c", help="What to note with it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")]

_CREATE = [
    "atoll data label create tone --field tone:class=kind,rude --source chats --labels-per-item 2",
    "atoll data label create people --field names:spans=person,place --instructions 'Mark every name.'",
    "atoll data label create answers --field better:pair --field stars:rating=1..5",
]


def add_to(app: typer.Typer) -> None:
    """Declare the commands in the `data` group."""
    from atoll.cli import data_quality

    group = typer.Typer(help="Have people label items, see how far they agree, and take the labels out.")
    command(group, "create", examples=_CREATE)(create)
    command(group, "add", examples=["atoll data label add tone items.jsonl"])(add)
    command(group, "next", examples=["atoll data label next tone", "atoll data label next tone --count 5 --json"])(
        next_items
    )
    command(group, "answer", examples=["atoll data label answer tone chat-17 tone=kind -c 'irony?'"])(answer)
    command(group, "skip", examples=["atoll data label skip tone chat-17 -c 'cannot read it'"])(skip)
    command(group, "status", examples=["atoll data label status tone"])(status)
    command(group, "agreement", examples=["atoll data label agreement tone"])(agreement)
    command(group, "disputes", examples=["atoll data label disputes tone"])(disputes)
    command(group, "adjudicate", examples=["atoll data label adjudicate tone chat-17 tone=rude"])(adjudicate)
    command(group, "prelabel", examples=["atoll data label prelabel tone --model smollm2"])(prelabel)
    examples = ["atoll data label export tone --dataset tones", "atoll data label export answers --preferences"]
    command(group, "export", examples=examples)(export)
    app.add_typer(group, name="label", no_args_is_help=True)
    data_quality.add_to(app)


def create(
    session: Session,
    task: Task,
    fields: Annotated[
        list[str], typer.Option("--field", "-f", metavar="NAME:TYPE[=…]", help="What is asked; repeatable.")
    ],
    source: Annotated[str, typer.Option("--source", help="Dataset the items come from.")] = "",
    split: Annotated[str, typer.Option("--split", help="Its split.")] = "train",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take so many items.")] = None,
    labels_per_item: Annotated[int, typer.Option("--labels-per-item", "-n", min=1, help="People an item.")] = 1,
    labeller: Annotated[list[str] | None, typer.Option("--labeller", help="User or key id; without: members.")] = None,
    adjudicator: Annotated[list[str] | None, typer.Option("--adjudicator", help="User or key id.")] = None,
    instructions: Annotated[str, typer.Option("--instructions", help="What labellers are told.")] = "",
) -> None:
    """Make a labelling task. TYPE is class=A,B, classes=A,B, spans=A,B, pair, rating=MIN..MAX or text."""
    from atoll.cli.label_fields import field_from
    from atoll.cli.render import line
    from atoll.core.errors import Conflict

    spec: dict[str, Any] = {"fields": [field_from(text) for text in fields], "labels_per_item": labels_per_item}
    spec |= {"instructions": instructions, "labellers": labeller or [], "adjudicators": adjudicator or []}
    if source:
        spec["source"] = {"dataset": source, "split": split, "limit": limit}
    if session.client.find("LabelTask", task) is not None:
        hint = f"atoll get labeltask {task} -o yaml shows it; atoll apply changes it"
        raise Conflict(f"labelling task {task!r} is there already", hint=hint)
    session.client.put("LabelTask", task, spec, version=0)
    line(f"labelling task {task} is made; next: atoll data label {'status' if source else 'add'} {task}")


def add(
    session: Session, task: Task, path: Annotated[Path, typer.Argument(help="JSON lines.", metavar="FILE")]
) -> None:
    """Add items from JSON lines: key (or id), text, or prompt, a and b; what else there is comes along.

    Adding them again changes nothing: a key that is known stays with what it is.
    """
    from atoll.cli.label_fields import items_in
    from atoll.cli.render import line

    found = _labels(session).append(task, items_in(path))
    line(f"{found['added']} items added, {found['known']} known already")


def next_items(
    session: Session,
    task: Task,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="Items to have in hand.")] = 1,
    json: Json = False,
) -> None:
    """Take the next items in hand and print them; they come back when they are not answered in time."""
    from atoll.cli.label_fields import asked_lines, item_lines
    from atoll.cli.render import line, note, print_json

    found = _labels(session).next(task, count)
    if json:
        print_json(found)
        return
    for item in found["items"]:
        for text in item_lines(item):
            line(text)
    if not found["items"]:
        note(f"nothing of {task} is left for you")
        return
    for text in asked_lines(found):
        note(text)


def answer(session: Session, task: Task, item: ItemKey, values: Values, comment: Comment = "") -> None:
    """Answer an item, or revise your answer."""
    _print_standing(_labels(session).answer(task, item, _values(session, task, values), comment=comment))


def skip(session: Session, task: Task, item: ItemKey, comment: Comment = "") -> None:
    """Leave an item to others; it does not come again."""
    _print_standing(_labels(session).skip(task, item, comment=comment))


def status(session: Session, task: Task, json: Json = False) -> None:
    """Show where the items stand and what each labeller did."""
    from atoll.cli.render import duration, line, print_json, print_table

    found = _labels(session).status(task)
    if json:
        print_json(found)
        return
    counts = ", ".join(f"{n} {name}" for name, n in found["counts"].items() if n)
    line(f"{task} is {found['phase']}: {found.get('reason') or counts}")
    rows = [
        [p["labeller"], p["name"], str(p["answers"]), str(p["skips"]), str(p["decisions"]), duration(p["seconds"])]
        for p in found["labellers"]
    ]
    print_table(["LABELLER", "NAME", "ANSWERS", "SKIPS", "DECISIONS", "TIME"], rows)


def agreement(session: Session, task: Task, json: Json = False) -> None:
    """Show how far labellers agree with each other and with the model that pre-labelled.

    PERCENT of pairs are equal; KAPPA is Cohen's, ALPHA Krippendorff's (ordinal for ratings, by Jaccard for lists);
    F1 is of spans.
    """
    from atoll.cli.label_fields import agreement_rows
    from atoll.cli.render import print_json, print_table

    found = _labels(session).agreement(task)
    if json:
        print_json(found)
        return
    print_table(["FIELD", "BETWEEN", "PAIRS", "PERCENT", "KAPPA", "ALPHA", "F1"], agreement_rows(found))


def disputes(session: Session, task: Task, json: Json = False) -> None:
    """List the items that wait for an adjudicator, with what everybody said."""
    from atoll.cli.label_fields import dispute_lines
    from atoll.cli.render import line, note, print_json

    found = _labels(session).disputes(task)
    if json:
        print_json(list(found))
        return
    is_any = False
    for row in found:
        is_any = True
        for text in dispute_lines(row):
            line(text)
    if not is_any:
        note(f"nothing of {task} is disputed")


def adjudicate(session: Session, task: Task, item: ItemKey, values: Values, comment: Comment = "") -> None:
    """Decide an item for good; for owners and the task's adjudicators."""
    _print_standing(_labels(session).adjudicate(task, item, _values(session, task, values), comment=comment))


def prelabel(
    session: Session,
    task: Task,
    model: Annotated[str, typer.Option("--model", "-m", help="Deployed model to ask.")],
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=64, help="Requests in flight at most.")] = 4,
    again: Annotated[bool, typer.Option("--again", help="Ask about decided items too.")] = False,
    wait: Wait = True,
) -> None:
    """Have a deployed model suggest labels; labellers see them, and agreement tells how good they are."""
    _follow(session, _labels(session).prelabel(task, model, parallel=parallel, again=again), wait)


def export(
    session: Session,
    task: Task,
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset that receives the labels.")] = "",
    preferences: Annotated[bool, typer.Option("--preferences", help="Print prompt, chosen and rejected.")] = False,
    undecided: Annotated[bool, typer.Option("--all", help="Undecided items too.")] = False,
    wait: Wait = True,
) -> None:
    """Print the labels as JSON lines, or make a dataset version of them."""
    from atoll.cli.render import note

    labels = _labels(session)
    if dataset:
        _follow(session, labels.export(task, dataset, decided_only=not undecided), wait)
        return
    is_any = False
    form = "preferences" if preferences else "items"
    for text in labels.lines(task, form=form, decided_only=not undecided):
        is_any = True
        sys.stdout.write(f"{text}\n")
    if not is_any:
        note(f"no item of {task} is decided" + ("" if undecided or preferences else "; --all prints the others too"))


def _labels(session: Session) -> Labels:
    from atoll.sdk.labels import Labels

    return Labels(session.client.connection, session.project)


def _values(session: Session, task: str, words: list[str]) -> dict[str, Any]:
    """FIELD=VALUE words in the types of the task's fields."""
    from atoll.cli.label_fields import values_from

    return values_from(words, session.client.get("LabelTask", task).spec["fields"])


def _print_standing(found: dict[str, Any]) -> None:
    from atoll.cli.render import line

    agreed = found["agreement"]
    line(f"{found['item']} is {found['state']}" + ("" if agreed is None else f", agreement {agreed:.2f}"))


def _follow(session: Session, run: dict[str, Any], wait: bool) -> None:
    """Follow a run to its end and say what came of it."""
    from atoll.cli.follow import board, show_resource
    from atoll.cli.render import cell, line

    if not wait:
        line(f"labelrun/{run['name']}")
        return
    with board() as shown:
        phases = ("succeeded", "failed")
        done = session.client.wait_for("LabelRun", run["name"], phases, on_change=show_resource(shown))
    if done.phase == "failed":
        from atoll.core.errors import Invalid

        raise Invalid(f"run {done.name} failed: {done.status['reason']}", field="run")
    said = cell("counts", done.status["counts"])
    line(f"{done.status.get('dataset_version') or done.name}: {said}")
    if errors := done.status.get("errors"):
        line(f"the first that failed: {errors[0]['item']}: {errors[0]['message']}")
