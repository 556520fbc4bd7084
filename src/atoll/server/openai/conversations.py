"""Routes of conversations and their items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from atoll.core.errors import NotFound
from atoll.server.access import CentreOf, Tenant
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.files import Deleted
from atoll.server.openai.history import Conversation, History
from atoll.server.openai.items import checked
from atoll.server.openai.pages import After, Limit, Metadata, Order, Page, cut, page
from atoll.server.openai.project import Id, Member, Viewer

router = APIRouter(prefix="/v1/conversations", tags=["conversations"], responses=RESPONSES)

ITEMS_AT_ONCE_MAX = 20

Items = Annotated[list[dict[str, Any]], Field(max_length=ITEMS_AT_ONCE_MAX)]


class NewConversation(BaseModel):
    """How it begins."""

    model_config = ConfigDict(extra="forbid")

    items: Items | None = None
    metadata: Metadata | None = None


class Notes(BaseModel):
    """What shall be noted of it."""

    model_config = ConfigDict(extra="forbid")

    metadata: Metadata | None


class NewItems(BaseModel):
    """What is added at its end."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[Items, Field(min_length=1)]


class ConversationObject(BaseModel):
    """One conversation."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


def history_of(centre: CentreOf, tenant: Tenant) -> History:
    """The history of the project a tenant is in."""
    return History(centre.database, centre.clock, tenant.project)


@router.post("")
def create(centre: CentreOf, tenant: Member, wanted: NewConversation) -> ConversationObject:
    """Begin a conversation."""
    items = checked(wanted.items or [])
    return _object(history_of(centre, tenant).create(items, wanted.metadata or {}))


@router.get("/{name}")
def read(centre: CentreOf, tenant: Viewer, name: Id) -> ConversationObject:
    """One conversation."""
    return _object(history_of(centre, tenant).conversation(name))


@router.post("/{name}")
def annotate(centre: CentreOf, tenant: Member, name: Id, wanted: Notes) -> ConversationObject:
    """Replace a conversation's metadata."""
    history = history_of(centre, tenant)
    history.annotate(name, wanted.metadata or {})
    return _object(history.conversation(name))


@router.delete("/{name}")
def delete(centre: CentreOf, tenant: Member, name: Id) -> Deleted:
    """Delete a conversation with its items."""
    history_of(centre, tenant).delete(name)
    return Deleted(id=name, object="conversation.deleted")


@router.post("/{name}/items")
def add_items(centre: CentreOf, tenant: Member, name: Id, wanted: NewItems) -> Page:
    """Add items at the end."""
    return page(history_of(centre, tenant).append(name, checked(wanted.items)), has_more=False)


@router.get("/{name}/items")
def list_items(
    centre: CentreOf, tenant: Viewer, name: Id, after: After = "", limit: Limit = 20, order: Order = "desc"
) -> Page:
    """A conversation's items."""
    history = history_of(centre, tenant)
    history.conversation(name)
    return items_page(history.items(name), after, limit, order)


@router.get("/{name}/items/{item}")
def read_item(centre: CentreOf, tenant: Viewer, name: Id, item: Id) -> dict[str, Any]:
    """One item."""
    for found in history_of(centre, tenant).items(name):
        if found["id"] == item:
            return found
    raise NotFound(f"No such item: {item[:100]!r}.", field="item_id")


@router.delete("/{name}/items/{item}")
def remove_item(centre: CentreOf, tenant: Member, name: Id, item: Id) -> ConversationObject:
    """Take an item out of a conversation."""
    history = history_of(centre, tenant)
    history.remove_item(name, item)
    return _object(history.conversation(name))


def items_page(items: list[dict[str, Any]], after: str, limit: int, order: str) -> Page:
    """A page of items that are given oldest first."""
    shown, has_more = cut(items if order == "asc" else items[::-1], lambda item: str(item["id"]), after, limit)
    return page(shown, has_more)


def _object(made: Conversation) -> ConversationObject:
    return ConversationObject(id=made.id, created_at=int(made.created_at), metadata=made.metadata)
