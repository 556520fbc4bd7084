"""Routes of stored responses: for clients, and for gateways that store them and go on from them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from atoll.core.errors import Invalid
from atoll.server.access import CentreOf, Operator
from atoll.server.api import Body
from atoll.server.openai.conversations import history_of, items_page
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.files import Deleted
from atoll.server.openai.history import History, Stored
from atoll.server.openai.items import chat_messages, checked
from atoll.server.openai.pages import After, Limit, Order, Page
from atoll.server.openai.project import Id, Member, Viewer

router = APIRouter(prefix="/v1/responses", tags=["responses"], responses=RESPONSES)
gateway_router = APIRouter(prefix="/api/v1/gateway", tags=["gateway"])

StoredId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class ToStore(Body):
    """A response a gateway finished."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    key_id: Annotated[str, Field(max_length=128)]
    id: StoredId
    previous_response_id: StoredId | None = None
    conversation: StoredId | None = None
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    response: dict[str, Any]


class Messages(Body):
    """What was said so far, as chat messages."""

    items: list[dict[str, Any]]


@router.get("/{name}")
def read(
    centre: CentreOf,
    tenant: Viewer,
    name: Id,
    stream: Annotated[bool, Query(description="Not for stored responses.")] = False,
) -> dict[str, Any]:
    """A stored response as its client got it."""
    if stream:
        raise Invalid("stored responses are not streamed", field="stream", hint="ask without stream")
    return history_of(centre, tenant).response(name).response


@router.delete("/{name}")
def delete(centre: CentreOf, tenant: Member, name: Id) -> Deleted:
    """Delete a stored response."""
    history_of(centre, tenant).forget_response(name)
    return Deleted(id=name, object="response")


@router.get("/{name}/input_items")
def input_items(
    centre: CentreOf, tenant: Viewer, name: Id, after: After = "", limit: Limit = 20, order: Order = "desc"
) -> Page:
    """What a response answered."""
    return items_page(history_of(centre, tenant).response(name).input, after, limit, order)


@gateway_router.get("/responses/{project}/{name}")
def chain(centre: CentreOf, _: Operator, project: str, name: Id) -> Messages:
    """All that was said up to and with a response, as chat messages in order."""
    return Messages(items=chat_messages(_history(centre, project).chain(name)))


@gateway_router.get("/conversations/{project}/{name}")
def conversation(centre: CentreOf, _: Operator, project: str, name: Id) -> Messages:
    """All that was said in a conversation, as chat messages in order."""
    history = _history(centre, project)
    history.conversation(name)
    return Messages(items=chat_messages(history.items(name)))


@gateway_router.post("/responses")
def store(centre: CentreOf, _: Operator, wanted: ToStore) -> dict[str, Any]:
    """Keep a response; storing it again changes nothing."""
    made = Stored(
        wanted.id,
        wanted.previous_response_id,
        wanted.conversation,
        0,
        checked(wanted.input, "input"),
        checked(wanted.output, "output"),
        wanted.response,
    )
    _history(centre, wanted.project).store(made, wanted.key_id)
    return {}


def _history(centre: CentreOf, project: str) -> History:
    return History(centre.database, centre.clock, project)
