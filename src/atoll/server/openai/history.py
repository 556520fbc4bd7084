"""Conversations and stored responses, append-only, each belonging to one project.

Every statement names the project. Items of a conversation are numbered in the order they were added. A response
knows the one before it, or the place in its conversation; a chain is read back from there.
Responses are forgotten after a time; conversations stay until they are deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import BigInteger, Column, Connection, Float, Index, String, Table, Text, delete, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateError

from atoll.core.clock import Clock
from atoll.core.database import Database
from atoll.core.errors import Conflict, NotFound, TooLarge
from atoll.core.tables import metadata
from atoll.server.openai.items import ITEMS_BYTES_MAX, named

conversations = Table(
    "conversations",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("created_at", Float(53), nullable=False),
    Column("metadata", Text, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
)
conversation_items = Table(
    "conversation_items",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("conversation", String(128), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(128), nullable=False),
    Column("item", Text, nullable=False),
    Index("conversation_item", "project", "conversation", "id"),
)
responses = Table(
    "responses",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("key_id", String(128), nullable=False),
    Column("previous", String(128)),
    Column("conversation", String(128)),
    Column("last_seq", BigInteger, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("response", Text, nullable=False),
    Index("response_age", "created_at"),
)

CHAIN_MAX = 512
"""Responses in a chain that are read back at most."""

ITEMS_MAX = 10_000
"""Items of one conversation."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items."""

    id: str
    created_at: float
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored response: what was said, and the whole answer as its client got it."""

    id: str
    previous: str | None
    conversation: str | None
    last_seq: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    response: dict[str, Any]


class History:
    """The conversations and responses of one project."""

    def __init__(self, database: Database, clock: Clock, project: str) -> None:
        self._database = database
        self._clock = clock
        self._project = project

    # conversations

    def create(self, items: Sequence[dict[str, Any]], notes: dict[str, str]) -> Conversation:
        """A new conversation that begins with `items`."""
        name = f"conv_{secrets.token_hex(16)}"
        made = Conversation(name, self._clock.now(), notes)
        row = {"project": self._project, "id": name, "created_at": made.created_at, "last_seq": 0}
        with self._database.writing() as connection:
            connection.execute(insert(conversations), row | {"metadata": orjson.dumps(notes).decode()})
            self._append(connection, name, items)
        return made

    def conversation(self, name: str) -> Conversation:
        """The conversation called `name`; NotFound when the project has none."""
        query = select(conversations).where(*self._of(conversations), conversations.c.id == name)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise _absent("conversation", name)
        return Conversation(row.id, row.created_at, orjson.loads(row.metadata))

    def annotate(self, name: str, notes: dict[str, str]) -> None:
        """Replace a conversation's metadata."""
        change = update(conversations).where(*self._of(conversations), conversations.c.id == name)
        with self._database.writing() as connection:
            if not connection.execute(change.values(metadata=orjson.dumps(notes).decode())).rowcount:
                raise _absent("conversation", name)

    def delete(self, name: str) -> None:
        """Delete a conversation with its items."""
        items = conversation_items.c
        with self._database.writing() as connection:
            gone = delete(conversations).where(*self._of(conversations), conversations.c.id == name)
            if not connection.execute(gone).rowcount:
                raise _absent("conversation", name)
            connection.execute(
                delete(conversation_items).where(*self._of(conversation_items), items.conversation == name)
            )

    def append(self, name: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add items at the end of a conversation; returns them as they are kept."""
        with self._database.writing() as connection:
            return self._append(connection, name, items)[1]

    def items(self, name: str, last_seq: int | None = None) -> list[dict[str, Any]]:
        """A conversation's items in order (up to number `last_seq`); empty when there is none."""
        column = conversation_items.c
        query = select(column.item).where(*self._of(conversation_items), column.conversation == name)
        if last_seq is not None:
            query = query.where(column.seq <= last_seq)
        with self._database.reading() as connection:
            return [orjson.loads(row.item) for row in connection.execute(query.order_by(column.seq))]

    def remove_item(self, name: str, item: str) -> None:
        """Take one item out of a conversation."""
        column = conversation_items.c
        gone = delete(conversation_items).where(
            *self._of(conversation_items), column.conversation == name, column.id == item
        )
        with self._database.writing() as connection:
            if not connection.execute(gone).rowcount:
                raise _absent("item", item)

    def _append(
        self, connection: Connection, name: str, items: Sequence[dict[str, Any]], scope: str = ""
    ) -> tuple[int, list[dict[str, Any]]]:
        """(number of the last item, the items as kept)."""
        own = (*self._of(conversations), conversations.c.id == name)
        take = update(conversations).where(*own).values(last_seq=conversations.c.last_seq + len(items))
        last_seq = connection.execute(take.returning(conversations.c.last_seq)).scalar()
        if last_seq is None:
            raise _absent("conversation", name)
        if last_seq > ITEMS_MAX:
            raise TooLarge(f"conversation {name} would have {last_seq} items, the limit is {ITEMS_MAX}")
        first = int(last_seq) - len(items) + 1
        kept = named(items, scope or f"{self._project}/{name}/{first}")
        rows = [
            {
                "project": self._project,
                "conversation": name,
                "seq": first + number,
                "id": item["id"],
                "item": orjson.dumps(item).decode(),
            }
            for number, item in enumerate(kept)
        ]
        if rows:
            connection.execute(insert(conversation_items), rows)
        return int(last_seq), kept

    # responses

    def store(self, made: Stored, key_id: str) -> None:
        """Keep a response and, if it is of a conversation, add what was said to that; once, however often asked.

        NotFound when the conversation is not there, TooLarge when the response is too long to keep.
        """
        scope = f"{self._project}/{made.id}"
        said = {"input": named(made.input, f"{scope}/input"), "output": named(made.output, f"{scope}/output")}
        texts = {name: orjson.dumps(value).decode() for name, value in (said | {"response": made.response}).items()}
        size_bytes = sum(len(text) for text in texts.values())
        if size_bytes > 2 * ITEMS_BYTES_MAX:
            raise TooLarge(f"response {made.id} has {size_bytes} bytes, the limit is {2 * ITEMS_BYTES_MAX}")
        row: dict[str, Any] = {"project": self._project, "id": made.id, "key_id": key_id, "previous": made.previous}
        row |= texts | {"conversation": made.conversation, "last_seq": 0, "created_at": self._clock.now()}
        try:
            with self._database.writing() as connection:
                connection.execute(insert(responses), row)
                if made.conversation:
                    last_seq, _ = self._append(connection, made.conversation, [*said["input"], *said["output"]], scope)
                    place = update(responses).where(*self._of(responses), responses.c.id == made.id)
                    connection.execute(place.values(last_seq=last_seq))
        except DuplicateError:
            return

    def response(self, name: str) -> Stored:
        """The response called `name`; NotFound when the project has none, or no longer."""
        query = select(responses).where(*self._of(responses), responses.c.id == name)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise _absent("response", name)
        texts = (orjson.loads(text) for text in (row.input, row.output, row.response))
        return Stored(row.id, row.previous, row.conversation, int(row.last_seq), *texts)

    def forget_response(self, name: str) -> None:
        """Delete a response; those that follow it can no longer be gone on from."""
        gone = delete(responses).where(*self._of(responses), responses.c.id == name)
        with self._database.writing() as connection:
            if not connection.execute(gone).rowcount:
                raise _absent("response", name)

    def chain(self, name: str) -> list[dict[str, Any]]:
        """All items up to and with response `name`, oldest first.

        NotFound when a response of the chain is gone, Conflict when it is longer than CHAIN_MAX.
        """
        parts: list[list[dict[str, Any]]] = []
        wanted: str | None = name
        while wanted:
            if len(parts) == CHAIN_MAX:
                raise Conflict(f"the chain of response {name} has more than {CHAIN_MAX} responses", hint="begin anew")
            found = self.response(wanted)
            if found.conversation and (before := self.items(found.conversation, found.last_seq)):
                parts.append(before)
                break
            parts.append([*found.input, *found.output])
            wanted = found.previous
        return [item for part in reversed(parts) for item in part]

    def _of(self, table: Table) -> tuple[Any, ...]:
        return (table.c.project == self._project,)


def forget_responses(database: Database, before: float) -> int:
    """Drop responses of all projects made before Unix time `before`; returns how many."""
    with database.writing() as connection:
        return connection.execute(delete(responses).where(responses.c.created_at < before)).rowcount


def forget_projects(database: Database, living: Sequence[str]) -> int:
    """Drop what belonged to projects that are no more, so that one made anew under a name begins empty."""
    dropped = 0
    with database.writing() as connection:
        for table in (responses, conversation_items, conversations):
            dropped += connection.execute(delete(table).where(table.c.project.not_in(living))).rowcount
    return dropped


def _absent(what: str, name: str) -> NotFound:
    return NotFound(f"No such {what}: {name[:100]!r}.", field="id", code=f"{what}_not_found")
