"""Question rows: derived from documents, or taken from chats, and each asked only once in a whole dataset.

Writing leaves candidates with two keys each, one of the question and one of the answer. Over all candidates a pair
stays when it is the first with its question and the first with its answer, so nothing asked in training is asked of
the held-out side. Rows of chats are answers of an assistant; equal chats are duplicates already, so all of them stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import Document, write_array
from atoll.data.engine.curate.judge import Mask
from atoll.data.engine.curate.plan import Questions
from atoll.data.engine.curate.tables import Tables
from atoll.data.engine.hashing import hash_text
from atoll.data.engine.questions.conversation import Message, messages_of
from atoll.data.engine.questions.derive import pairs_of
from atoll.data.manifest import CHAT_COLUMNS, QUESTION_COLUMNS, arrow_schema

CANDIDATES, KEYS = "candidates.arrow", "keys.npy"
SPLITS = ("qa_train", "qa_heldout")

Row = dict[str, Any]
Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of documents; `has_chats`: whether any document is a chat, which adds a column of messages."""

    questions: Questions
    has_chats: bool

    @property
    def is_wanted(self) -> bool:
        return self.questions.enabled or self.has_chats

    @property
    def columns(self) -> dict[str, str]:
        """The columns of question rows."""
        return CHAT_COLUMNS if self.has_chats else QUESTION_COLUMNS


class Pairs:
    """The candidates of an item, in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._keys: list[tuple[int, int]] = []

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
        if error is None and self._keys:
            write_array(self._folder / KEYS, np.array(self._keys, np.uint64))

    def add(self, documents: pa.RecordBatch, side: NDArray[np.int8], kept: Mask, asking: Asking) -> None:
        """Add what the kept documents of a batch give."""
        if not asking.is_wanted:
            return
        found: list[Row] = []
        for number in np.flatnonzero(kept).tolist():
            document = Document(*(column[number].as_py() for column in documents.columns))
            for row, keys in rows_of(document, asking):
                found.append({**row, "side": int(side[number])})
                self._keys.append(keys)
        if found:
            self._write(found, asking)

    def _write(self, rows: list[Row], asking: Asking) -> None:
        schema = arrow_schema(asking.columns).append(pa.field("side", pa.int8()))
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._folder / CANDIDATES), schema)
        self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))


@dataclass(frozen=True, slots=True)
class Item:
    """Candidates of an item of writing, and which of them stay: `asked[start:stop]` of the array in the file."""

    folder: Path
    asked: Path
    start: int
    stop: int
    columns: tuple[str, ...]

    def label(self) -> str:
        """For messages."""
        return f"the questions of {self.folder.name}"


def items_of(folders: Sequence[Path], asked: Path, asking: Asking) -> list[Item]:
    """Decide over the candidates of all folders; the outcome goes to the file `asked`. None when nothing was asked."""
    keys = [np.load(folder / KEYS) for folder in folders if (folder / KEYS).exists()]
    if not keys:
        return []
    write_array(asked, first_asked(np.concatenate(keys)))
    stops = np.cumsum([len(part) for part in keys]).tolist()
    starts = [0, *stops]
    found = [folder for folder in folders if (folder / KEYS).exists()]
    columns = tuple(asking.columns)
    return [Item(*item, columns) for item in zip(found, [asked] * len(found), starts, stops, strict=False)]


def first_asked(keys: Keys) -> Mask:
    """Which candidates are the first with their question and the first with their answer; keys uint64 (n, 2)."""
    stays = np.ones(len(keys), bool)
    for column in keys.T:
        first = np.zeros(len(keys), bool)
        first[np.unique(column, return_index=True)[1]] = True
        stays &= first
    return stays


def ask(item: Item, folder: Path) -> None:
    """A stage: the question rows of an item that stay, each on its side."""
    stays = np.load(item.asked, mmap_mode="r")[item.start : item.stop]
    place = 0
    with Tables(folder) as tables, pa.memory_map(str(item.folder / CANDIDATES)) as file:
        for batch in pa.ipc.open_stream(file):
            mask = stays[place : place + batch.num_rows]
            place += batch.num_rows
            side = batch.column("side").to_numpy(zero_copy_only=False)
            for number, name in enumerate(SPLITS):
                rows = batch.filter(pa.array(mask & (side == number)))
                tables.add(name, rows.select(list(item.columns)))
        told = tables.rows
    (folder / "rows.json").write_bytes(orjson.dumps(told))


def asked_in(folder: Path) -> dict[str, int]:
    """Rows by split of an item that was asked."""
    told: dict[str, int] = orjson.loads((folder / "rows.json").read_bytes())
    return told


def rows_of(document: Document, asking: Asking) -> Iterator[tuple[Row, tuple[int, int]]]:
    """The question rows of a document with their keys."""
    if document.kind == "chat":
        yield from chat_rows(document)
        return
    more = {"messages": ""} if asking.has_chats else {}
    for pair in pairs_of(document, asking.questions) if asking.questions.enabled else ():
        where = {"document": document.id, "span_start": pair.span_start, "span_end": pair.span_end}
        row = {"id": pair.id, "question": pair.question, "answer": pair.answer, **where, **more}
        yield row, (hash_text(pair.question.casefold(), 1), hash_text(" ".join(pair.answer.casefold().split()), 2))


def chat_rows(document: Document) -> Iterator[tuple[Row, tuple[int, int]]]:
    """Every answer of the assistant to a user: what was said before it, and the answer, a span of the text shown."""
    messages = messages_of(document.text)
    place = 0
    for number, message in enumerate(messages):
        start = place + len(prefix_of(message))
        stop = start + len(message.content)
        place = stop + len(BETWEEN)
        question = next((m.content for m in reversed(messages[:number]) if m.role == "user"), None)
        if message.role != "assistant" or question is None or not message.content:
            continue
        before = [{"role": m.role, "content": m.content} for m in messages[:number]]
        name = f"{document.id}#a{number}"
        row = {"id": name, "question": question, "answer": message.content, "document": document.id}
        where = {"span_start": start, "span_end": stop, "messages": orjson.dumps(before).decode()}
        yield row | where, (hash_text(name, 3), hash_text(name, 4))


BETWEEN = "\n\n"


def prefix_of(message: Message) -> str:
    """What stands before a message where a chat is shown as text."""
    return f"{message.role}: "


def readable(documents: pa.RecordBatch) -> pa.RecordBatch:
    """The documents with chats as text people can read: `role: content`, a blank line between messages."""
    chats = np.flatnonzero(pc.equal(documents.column("kind"), "chat").fill_null(False).to_numpy(zero_copy_only=False))
    if not len(chats):
        return documents
    place = documents.schema.get_field_index("text")
    texts = documents.column(place).to_pylist()
    for row in chats.tolist():
        texts[row] = BETWEEN.join(prefix_of(message) + message.content for message in messages_of(texts[row]))
    return documents.set_column(place, "text", pa.array(texts, pa.string()))
