"""The flight recorder: what a gateway killed with kill -9 was working on, and how far each request had come.

Every request in flight has an entry in a memory-mapped file: a head, written when an engine is first asked, and the
last event that was passed on. The pages belong to the kernel, so they outlive the process however it ends. A head or
an event is first copied to the one of two areas that is not in use and then switched to by one aligned 8-byte store,
so a kill at any instruction leaves the one before or the new one, never a mixture; that store also carries a crc32,
which finds out what a power cut tore (an entry with a torn head is gone, with a torn event has none).

An entry and the usage record of its request are one step: `settle_as(number)` says under which number the record is
about to be written, `close` that it is. At recovery the journal's last number tells whether that happened, so a
request is on record once, wherever the process died. The file is allocated in full: a disk that fills up later cannot
take a page away. Knows nothing of what heads and events say. One process at a time (the journal's lock sees to it).

Layout: a page with the geometry; three words a slot (state, head, event); then the areas, two a head, two an event.
State: 0 free, 1 in flight, n + 1 about to be usage record n. Head and event words: crc32 << 32 | length << 21 |
side << 20 | notes (how often it was written, modulo 2**20); 0 is none.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 1024
EVENT_BYTES_MAX = 1024
FILES_MAX = 8
NOTES_MAX = (1 << 20) - 1
_MAGIC = b"atollrec"
_GEOMETRY = struct.Struct("<8sIII")  # magic, slots, head bytes, event bytes
_PAGE_BYTES = 4096
_WORDS_PER_SLOT = 3
_FREE, _OPEN = 0, 1


class Entry:
    """One request in flight."""

    __slots__ = ("_areas", "_event_bytes", "_file", "_head_bytes", "_notes", "_pages", "_slot", "_words")

    def __init__(self, file: _File, slot: int) -> None:
        self._file = file
        self._pages = file.pages
        self._words = file.words
        self._head_bytes = file.head_bytes
        self._event_bytes = file.event_bytes
        self._slot = slot * _WORDS_PER_SLOT
        self._areas = file.areas_at + slot * 2 * (file.head_bytes + file.event_bytes)
        self._notes = 0

    def note(self, event: bytes) -> None:
        """Remember the event as the last one that was passed on; of a long one its end."""
        size = len(event)
        if size > self._event_bytes:
            event, size = event[-self._event_bytes :], self._event_bytes
        self._notes = notes = (self._notes + 1) & NOTES_MAX
        at = self._areas + 2 * self._head_bytes
        if notes & 1:
            at += self._event_bytes
        self._pages[at : at + size] = event
        self._words[self._slot + 2] = crc32(event) << 32 | size << 21 | (notes & 1) << 20 | notes

    def amend(self, head: bytes) -> None:
        """Replace the head, all or nothing. At most HEAD_BYTES_MAX."""
        size = len(head)
        assert size <= self._head_bytes, f"a recorder head of {size} bytes"
        side = 1 - (self._words[self._slot + 1] >> 20 & 1)
        at = self._areas + side * self._head_bytes
        self._pages[at : at + size] = head
        self._words[self._slot + 1] = crc32(head) << 32 | size << 21 | side << 20

    def settle_as(self, number: int) -> None:
        """The usage record with this number is about to be written for it."""
        self._words[self._slot] = _OPEN + number

    def close(self) -> None:
        """Forget it; the usage record is in the journal, or none is due. Not to be used after."""
        self._words[self._slot] = _FREE
        self._file.free.append(self._slot // _WORDS_PER_SLOT)

    def _begin(self, head: bytes) -> None:
        words, slot = self._words, self._slot
        size = len(head)
        self._pages[self._areas : self._areas + size] = head
        words[slot + 1] = crc32(head) << 32 | size << 21
        words[slot + 2] = 0
        words[slot] = _OPEN

    def _read(self, word: int, at: int, area_bytes: int) -> bytes | None:
        """The bytes a word points to; None when there are none or they are torn."""
        size = word >> 21 & 0x7FF
        start = at + (word >> 20 & 1) * area_bytes
        data = self._pages[start : start + size]
        return data if word and crc32(data) == word >> 32 else None

    def _lost(self) -> Lost | None:
        head_word, event_word = self._words[self._slot + 1], self._words[self._slot + 2]
        head = self._read(head_word, self._areas, self._head_bytes)
        if head is None:
            return None
        event = self._read(event_word, self._areas + 2 * self._head_bytes, self._event_bytes)
        return Lost(head, event or b"", event_word & NOTES_MAX, self)


class Lost(NamedTuple):
    """A request a killed gateway left: close `entry`, best through `Journal.append(record, entry)`."""

    head: bytes
    event: bytes  # empty when none was passed on
    notes: int  # events noted, modulo 2**20
    entry: Entry


class Recorder:
    """Open with the folder's journal; `recover` first, then `open` an entry for each request."""

    def __init__(self, path: Path, slots: int = 4096) -> None:
        self._path = path
        self._slots = slots
        self.missed = 0  # requests that found no room and are not recorded
        self._files = [_File(path, slots)]
        while self._path_of(len(self._files)).exists() and len(self._files) < FILES_MAX:
            self._files.append(_File(self._path_of(len(self._files)), slots))

    @property
    def in_flight(self) -> int:
        """Entries in use."""
        return sum(file.slots - len(file.free) for file in self._files)

    def recover(self, written: int) -> list[Lost]:
        """The requests an earlier process left without a usage record; `written` is the journal's last number."""
        return [lost for file in self._files for lost in file.recover(written)]

    def open(self, head: bytes) -> Entry | None:
        """An entry for a request about to be sent to an engine; None when there is no room (see `missed`).

        `head` says all that its usage record needs beyond the count; at most HEAD_BYTES_MAX.
        """
        assert len(head) <= HEAD_BYTES_MAX, f"a recorder head of {len(head)} bytes"
        file = self._files[0]
        if not file.free:
            roomy = self._roomy()
            if roomy is None:
                self.missed += 1
                return None
            file = roomy
        entry = Entry(file, file.free.pop())
        entry._begin(head)
        return entry

    def close(self) -> None:
        """Unmap; no entry may be used after."""
        for file in self._files:
            file.close()

    def _roomy(self) -> _File | None:
        """A file with a free slot, a new one if need be."""
        for file in self._files:
            if file.free:
                return file
        if len(self._files) >= FILES_MAX:
            return None
        try:
            self._files.append(_File(self._path_of(len(self._files)), self._slots))
        except OSError as error:
            log.error("the flight recorder cannot grow: %s", error)
            return None
        return self._files[-1]

    def _path_of(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class _File:
    """One mapped file and its free slots. The geometry in the file holds, so that an upgrade can read an old one."""

    def __init__(self, path: Path, slots: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.slots, self.head_bytes, self.event_bytes = _geometry(descriptor, path, slots)
            self.areas_at = _PAGE_BYTES + self.slots * _WORDS_PER_SLOT * 8
            self.pages = mmap.mmap(descriptor, _size_bytes(self.slots, self.head_bytes, self.event_bytes))
        finally:
            os.close(descriptor)
        self._view = memoryview(self.pages)
        self.words = self._view[_PAGE_BYTES : self.areas_at].cast("Q")
        states = self.words[::_WORDS_PER_SLOT].tolist()
        self.free = [slot for slot in range(self.slots - 1, -1, -1) if states[slot] == _FREE]
        self._left = [(slot, state) for slot, state in enumerate(states) if state != _FREE]

    def recover(self, written: int) -> list[Lost]:
        found, left = [], self._left
        self._left = []
        for slot, state in left:
            entry = Entry(self, slot)
            lost = entry._lost() if state - _OPEN > written or state == _OPEN else None
            if lost is None:
                entry.close()  # its record is in the journal, or a power cut took its head
            else:
                found.append(lost)
        return found

    def close(self) -> None:
        self.words.release()
        self._view.release()
        self.pages.close()


def _size_bytes(slots: int, head_bytes: int, event_bytes: int) -> int:
    return _PAGE_BYTES + slots * (_WORDS_PER_SLOT * 8 + 2 * (head_bytes + event_bytes))


def _geometry(descriptor: int, path: Path, slots: int) -> tuple[int, int, int]:
    """Slots, head bytes and event bytes of the file; a new or unreadable one is laid out afresh."""
    found = os.pread(descriptor, _GEOMETRY.size, 0)
    if len(found) == _GEOMETRY.size:
        magic, slots_found, head_bytes, event_bytes = _GEOMETRY.unpack(found)
        whole = os.fstat(descriptor).st_size == _size_bytes(slots_found, head_bytes, event_bytes)
        if magic == _MAGIC and whole:
            return slots_found, head_bytes, event_bytes
        log.error("%s is no flight recorder; what it held is given up", path)
    os.ftruncate(descriptor, 0)
    os.posix_fallocate(descriptor, 0, _size_bytes(slots, HEAD_BYTES_MAX, EVENT_BYTES_MAX))
    os.pwrite(descriptor, _GEOMETRY.pack(_MAGIC, slots, HEAD_BYTES_MAX, EVENT_BYTES_MAX), 0)
    return slots, HEAD_BYTES_MAX, EVENT_BYTES_MAX
