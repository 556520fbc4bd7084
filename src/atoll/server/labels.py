"""Routes of labelling: items in, items handed out, answers taken, disputes decided, labels out.

A labeller is the key's user, or the key itself where it belongs to nobody. Who may label and who may decide is said
by the task; what a member of the project may not do at all is refused before.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from atoll.core.errors import Conflict, Forbidden, Invalid
from atoll.core.resources import Resource, check_name
from atoll.core.store import Create
from atoll.data.labelling import tallies
from atoll.data.labelling.assignment import STATES
from atoll.data.labelling.entries import ITEMS_AT_ONCE, Handed
from atoll.data.labelling.export import export_row, pseudonym
from atoll.data.labelling.resources import LABEL_RUN, terms_of
from atoll.data.labelling.rows import Row
from atoll.data.labelling.schema import Item, ItemKey, Prelabel
from atoll.data.labelling.store import HELD_MAX, Labels
from atoll.data.labelling.table import preference
from atoll.governance.access import is_at_least, who
from atoll.server.access import CentreOf, Manager, Reader, Tenant, Writer, creator_of
from atoll.server.api import Body
from atoll.server.centre import Centre

router = APIRouter(prefix="/api/v1/projects/{project}/labels/{task}")

PAGE_MAX = 500
SEQ_MAX = 2**62

After = Annotated[int, Field(ge=0, le=SEQ_MAX)]
Limit = Annotated[int, Field(ge=1, le=PAGE_MAX)]
Comment = Annotated[str, Field(max_length=4000)]


class NewItems(Body):
    """Items to add."""

    items: list[Item] = Field(min_length=1, max_length=ITEMS_AT_ONCE)


class Removed(Body):
    """Items to take out."""

    items: list[ItemKey] = Field(min_length=1, max_length=ITEMS_AT_ONCE)


class Ask(Body):
    """How many items a labeller wants in hand."""

    count: int = Field(1, ge=1, le=HELD_MAX)


class Skipped(Body):
    """An item to leave to others."""

    item: ItemKey = Field(description="The item's key.")
    comment: Comment = ""


class Answer(Skipped):
    """What a labeller says of an item."""

    values: dict[str, Any] = Field(description="Values by field.")
    seconds: float = Field(0.0, ge=0, le=86_400, allow_inf_nan=False, description="How long it took.")


class Decision(Skipped):
    """What an adjudicator decides about an item."""

    values: dict[str, Any] = Field(description="Values by field.")


class Said(Body):
    """What a model says of one item."""

    item: ItemKey
    values: dict[str, Any]


class Prelabels(Body):
    """What a model says of some items."""

    model: str = Field(min_length=1, max_length=128)
    version: str = Field("", max_length=128)
    labels: list[Said] = Field(min_length=1, max_length=ITEMS_AT_ONCE)


class NewPrelabelling(Body):
    """Items to be pre-labelled by a deployed model."""

    model: str = Field(min_length=1, max_length=128)
    parallel: int = Field(4, ge=1, le=64)
    again: bool = Field(False, description="Ask about decided items too.")


class NewExport(Body):
    """Labels to become a dataset version."""

    dataset: str = Field(min_length=1, max_length=128)
    decided_only: bool = Field(True, description="Leave out items that are not decided.")


@router.post("/items")
def add_items(centre: CentreOf, tenant: Writer, task: str, wanted: NewItems) -> dict[str, Any]:
    """Add items; one whose key is known already stays as it is, so sending them again changes nothing."""
    found = _task(tenant, task)
    return asdict(_labels(centre, tenant).append(found.uid, terms_of(found.spec), wanted.items))


@router.post("/remove")
def remove_items(centre: CentreOf, tenant: Manager, task: str, wanted: Removed) -> dict[str, Any]:
    """Take items out for good, with everything that was said of them, as when a person wants their texts erased."""
    found = _task(tenant, task)
    return {"removed": _labels(centre, tenant).remove(found.uid, terms_of(found.spec), wanted.items)}


@router.post("/next")
def next_items(centre: CentreOf, tenant: Writer, task: str, wanted: Ask) -> dict[str, Any]:
    """Lease items to the labeller: what they hold already, then new ones; none of them twice."""
    found = _task(tenant, task)
    labeller = _labeller(tenant, found)
    labels, terms = _labels(centre, tenant), terms_of(found.spec)
    handed = labels.next(found.uid, terms, labeller, wanted.count, float(found.spec["lease_s"]))
    about = {"fields": found.spec["fields"], "instructions": found.spec["instructions"]}
    return {"items": [_handed(item) for item in handed], **about}


@router.post("/answers")
def answer(centre: CentreOf, tenant: Writer, task: str, wanted: Answer) -> dict[str, Any]:
    """Take an answer, or the revision of the labeller's own."""
    found = _task(tenant, task)
    said = (wanted.item, wanted.values, wanted.comment, wanted.seconds)
    labels = _labels(centre, tenant)
    return _standing(labels.answer(found.uid, terms_of(found.spec), _labeller(tenant, found), *said))


@router.post("/skip")
def skip(centre: CentreOf, tenant: Writer, task: str, wanted: Skipped) -> dict[str, Any]:
    """Leave an item to others."""
    found = _task(tenant, task)
    labels, terms = _labels(centre, tenant), terms_of(found.spec)
    return _standing(labels.skip(found.uid, terms, _labeller(tenant, found), wanted.item, wanted.comment))


@router.get("/status")
def status(centre: CentreOf, tenant: Reader, task: str) -> dict[str, Any]:
    """Where the items stand, and what each labeller did; no item is counted for it."""
    found = tenant.scope.get("LabelTask", task)
    labels = _labels(centre, tenant)
    counts = labels.counts(found.uid)
    people = labels.people(found.uid) if counts["labellers"] else []
    named = [{"labeller": pseudonym(person.pop("number")), **person} for person in people]
    return {
        "task": task,
        "phase": found.phase,
        "reason": found.status.get("reason", ""),
        "counts": counts,
        "labellers": named,
    }


@router.get("/agreement")
def agreement(centre: CentreOf, tenant: Reader, task: str) -> dict[str, Any]:
    """How far labellers agree with each other, every two of them, and with the model that pre-labelled."""
    found = tenant.scope.get("LabelTask", task)
    labels, fields = _labels(centre, tenant), terms_of(found.spec).fields
    cells = labels.cells(found.uid) if labels.counts(found.uid)["items"] else {}
    pairs = tallies.by_pair(fields, cells)
    return {
        "fields": [asdict(figures) for figures in tallies.people(fields, cells)],
        "model": [asdict(figures) for figures in tallies.model(fields, cells) if figures.pairs],
        "pairs": [row | {name: pseudonym(row[name]) for name in ("first", "second")} for row in pairs],
    }


@router.get("/disputes")
def disputes(centre: CentreOf, tenant: Writer, task: str, after: After = 0, limit: Limit = 20) -> dict[str, Any]:
    """Items that wait for an adjudicator, with what everybody said."""
    found = _task(tenant, task)
    _check_adjudicator(tenant, found)
    return _page(_labels(centre, tenant), found, after, limit, disputed=True)


@router.post("/adjudicate")
def adjudicate(centre: CentreOf, tenant: Writer, task: str, wanted: Decision) -> dict[str, Any]:
    """Decide an item for good."""
    found = _task(tenant, task)
    judge = _check_adjudicator(tenant, found)
    said = (wanted.item, wanted.values, wanted.comment)
    return _standing(_labels(centre, tenant).adjudicate(found.uid, terms_of(found.spec), judge, *said))


@router.get("/rows")
def rows(centre: CentreOf, tenant: Reader, task: str, after: After = 0, limit: Limit = 100) -> dict[str, Any]:
    """A page of items with all that is known of them; `after` of the answer asks for the next one, null ends."""
    found = tenant.scope.get("LabelTask", task)
    return _page(_labels(centre, tenant), found, after, limit, disputed=False)


@router.post("/prelabels")
def write_prelabels(centre: CentreOf, tenant: Writer, task: str, wanted: Prelabels) -> dict[str, Any]:
    """Write what a model says of items; labellers see it as a suggestion. Writing it again changes nothing."""
    found = _task(tenant, task)
    about = {"model": wanted.model, "version": wanted.version}
    said = {label.item: Prelabel(values=label.values, **about) for label in wanted.labels}
    return _labels(centre, tenant).prelabel(found.uid, terms_of(found.spec), said)


@router.post("/prelabel")
def prelabel(tenant: Writer, task: str, wanted: NewPrelabelling) -> dict[str, Any]:
    """Have a deployed model pre-label the items, at the cost of the key that asks."""
    return _run(tenant, task, "prelabel", **wanted.model_dump())


@router.post("/export")
def export(tenant: Writer, task: str, wanted: NewExport) -> dict[str, Any]:
    """Make a dataset version of the labels."""
    check_name(wanted.dataset)
    return _run(tenant, task, "export", **wanted.model_dump())


@router.get("/export", response_model=None)
def export_lines(
    centre: CentreOf,
    tenant: Reader,
    task: str,
    form: Literal["items", "preferences"] = "items",
    decided_only: bool = False,
) -> StreamingResponse:
    """All items as JSON lines; or decided pairs as {"prompt", "chosen", "rejected"}."""
    found = tenant.scope.get("LabelTask", task)
    if form == "preferences" and not any(field["type"] == "pair" for field in found.spec["fields"]):
        raise Invalid(
            f"{task!r} asks for no pair, so it has no preferences",
            field="form",
            hint="ask for its items: form=items, or no --preferences",
        )
    lines = _lines(_labels(centre, tenant), found, form, decided_only)
    return StreamingResponse(lines, media_type="application/jsonl")


def _lines(labels: Labels, task: Resource, form: str, decided_only: bool) -> Iterator[bytes]:
    after = 0
    if not labels.counts(task.uid)["items"]:
        return
    while page := labels.page(task.uid, after, PAGE_MAX):
        for row, claims in page:
            told = export_row(row, claims)
            value = preference(task.spec["fields"], told) if form == "preferences" else told
            if value is not None and (told["final"] is not None or not decided_only):
                yield orjson.dumps(value) + b"\n"
        after = page[-1][0].seq


def _page(labels: Labels, task: Resource, after: int, limit: int, *, disputed: bool) -> dict[str, Any]:
    page = labels.page(task.uid, after, limit, disputed=disputed) if labels.counts(task.uid)["items"] else []
    return {
        "rows": [export_row(row, claims) for row, claims in page],
        "after": page[-1][0].seq if page else None,
    }


def _run(tenant: Tenant, task: str, action: str, **fields: Any) -> dict[str, Any]:
    found = _task(tenant, task)
    spec = LABEL_RUN.parse_spec({"task": task, "action": action, "creator": creator_of(tenant), **fields})
    name = f"{task[:90]}-{action}-{secrets.token_hex(4)}"
    tenant.scope.write([Create("LabelRun", tenant.project, name, spec, {"phase": "pending"}, owner=found.uid)])
    return tenant.scope.get("LabelRun", name).to_dict()


def _labels(centre: Centre, tenant: Tenant) -> Labels:
    return Labels(centre.database, centre.clock, tenant.project)


def _task(tenant: Tenant, name: str) -> Resource:
    """The task, when it may still change."""
    task = tenant.scope.get("LabelTask", name)
    if task.is_deleting:
        raise Conflict(f"labelling task {name!r} is being deleted", hint="wait until it is gone")
    return task


def _name(tenant: Tenant) -> str:
    identity = tenant.identity
    return f"user:{identity.user}" if identity.user else f"key:{identity.project}/{identity.key_id}"


def _is_among(tenant: Tenant, names: list[str]) -> bool:
    return tenant.identity.key_id in names or bool(tenant.identity.user and tenant.identity.user in names)


def _labeller(tenant: Tenant, task: Resource) -> str:
    """The labeller's name; Forbidden when the task is for others."""
    labellers = task.spec["labellers"]
    if labellers and not _is_among(tenant, labellers):
        raise Forbidden(
            f"{who(tenant.identity, tenant.project)} is no labeller of {task.name!r}",
            hint="spec.labellers of the task names them",
        )
    return _name(tenant)


def _check_adjudicator(tenant: Tenant, task: Resource) -> str:
    """The adjudicator's name; owners are, and whom the task names."""
    if not is_at_least(tenant.identity, "owner", tenant.project) and not _is_among(tenant, task.spec["adjudicators"]):
        raise Forbidden(
            f"{who(tenant.identity, tenant.project)} is no adjudicator of {task.name!r}",
            hint="owners are, and those in spec.adjudicators of the task",
        )
    return _name(tenant)


def _handed(handed: Handed) -> dict[str, Any]:
    """An item as a labeller gets it."""
    row = handed.row
    told = {"item": row.key, **orjson.loads(row.item), "priority": row.priority, "until": handed.until}
    suggestion = None if row.prelabel is None else orjson.loads(row.prelabel)
    return told | {"suggestion": suggestion, "suggested_by": row.prelabel_by or ""}


def _standing(row: Row) -> dict[str, Any]:
    """Where an item stands after what somebody did."""
    return {"item": row.key, "state": STATES[row.state], "agreement": row.agreement}
