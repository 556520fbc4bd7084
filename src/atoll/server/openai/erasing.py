"""Conversations and stored responses, as an erasure goes through them.

An item that holds a text leaves its conversation; metadata that holds one is emptied; a response that holds one is
forgotten, and what follows it can no longer be gone on from.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from sqlalchemy import and_, delete, or_, select, update

from atoll.core.database import Database
from atoll.data.records import ROWS_AT_ONCE, Page, first_of
from atoll.data.sought import Sought
from atoll.server.openai.history import conversation_items, conversations, responses


class ItemRecords:
    """The items of conversations. A mark is the conversation and the item's number."""

    name = "conversation items"

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, project: str, sought: Sought, after: str) -> Page:
        column = conversation_items.c
        conversation, _, seq = after.partition("/")
        later = and_(column.conversation == conversation, column.seq > int(seq or 0))
        query = (
            select(column.conversation, column.seq, column.item)
            .where(column.project == project, or_(column.conversation > conversation, later))
            .order_by(column.conversation, column.seq)
            .limit(ROWS_AT_ONCE)
        )
        with self._database.reading() as connection:
            rows = first_of(connection.execution_options(stream_results=True).execute(query), "item")
        doomed = [f"{row.conversation}/{row.seq}" for row in rows if sought.is_in(orjson.loads(row.item))]
        return Page(len(rows), doomed, f"{rows[-1].conversation}/{rows[-1].seq}" if rows else "")

    def remove(self, project: str, marks: Sequence[str]) -> None:
        column = conversation_items.c
        with self._database.writing() as connection:
            for mark in marks:
                conversation, _, seq = mark.partition("/")
                place = (column.conversation == conversation, column.seq == int(seq))
                connection.execute(delete(conversation_items).where(column.project == project, *place))


class ConversationRecords:
    """What is noted of conversations. A mark is the conversation."""

    name = "notes of conversations"

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, project: str, sought: Sought, after: str) -> Page:
        column = conversations.c
        query = select(column.id, column.metadata).where(column.project == project, column.id > after)
        with self._database.reading() as connection:
            rows = first_of(connection.execute(query.order_by(column.id).limit(ROWS_AT_ONCE)), "metadata")
        doomed = [row.id for row in rows if sought.is_in(orjson.loads(row.metadata))]
        return Page(len(rows), doomed, rows[-1].id if rows else "")

    def remove(self, project: str, marks: Sequence[str]) -> None:
        mine = (conversations.c.project == project, conversations.c.id.in_(list(marks)))
        with self._database.writing() as connection:
            connection.execute(update(conversations).where(*mine).values(metadata="{}"))


class ResponseRecords:
    """Stored responses with what they answered. A mark is the response."""

    name = "stored responses"

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, project: str, sought: Sought, after: str) -> Page:
        column = responses.c
        texts = ("input", "output", "response")
        query = select(column.id, *(column[name] for name in texts)).where(column.project == project, column.id > after)
        with self._database.reading() as connection:
            streamed = connection.execution_options(stream_results=True)
            rows = first_of(streamed.execute(query.order_by(column.id).limit(ROWS_AT_ONCE)), *texts)
        doomed = [row.id for row in rows if sought.is_in(*(orjson.loads(getattr(row, name)) for name in texts))]
        return Page(len(rows), doomed, rows[-1].id if rows else "")

    def remove(self, project: str, marks: Sequence[str]) -> None:
        mine = (responses.c.project == project, responses.c.id.in_(list(marks)))
        with self._database.writing() as connection:
            connection.execute(delete(responses).where(*mine))
