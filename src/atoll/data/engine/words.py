"""Sensitive words: a list of any length found in one pass over UTF-8.

A text is read as units: runs of word characters of scripts with spaces, and every other character by itself. An entry
is a sequence of units, so Latin words are found only as whole words and Chinese ones anywhere. Case and full-width
forms are folded, white space is one space. Of a chat (RECORD role UNIT content, as `corpus` has it) the roles are not
looked at, and no entry reaches from one message into another. The set of all beginnings of entries is kept as 64-bit
hashes of at most 24 bytes each, 5 to 10 MB for 100,000 entries; that another text passes for an entry has a chance
below 1e-4 in 1e9 units.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.characters import CJK, LIMIT, SPACE, WORD, characters
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.scan import utf8_of

U64 = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
U32 = NDArray[np.uint32]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_END = np.uint64(1)
_CLEAR = np.uint64(0xFFFFFFFFFFFFFFFE)
_BITS = 1 << 22
_BITMAP = _BITS // 64
_RUN = np.uint32(1 << 31)
_BLANK = np.uint32(1 << 30)
_LIMIT = np.uint32(LIMIT)
_NOTHING, _IN_RUN, _SINGLE = 0, 1, 2
_RECORD, _UNIT = 0x1E, 0x1F
_ROLE_BYTES_MAX = 32
_LAYOUT = b"2"


@cache
def _folded() -> U32:
    """Lower case of every code point below LIMIT, full-width forms made plain; _RUN where words go on, or _BLANK."""
    tables = characters()
    folded = tables.lower.copy()
    folded[0xFF01:0xFF5F] = tables.lower[0x21:0x7F]
    kinds = tables.kinds.copy()
    kinds[0xFF01:0xFF5F] = kinds[0x21:0x7F]
    folded[(kinds & SPACE) > 0] = np.uint32(32) | _BLANK
    folded[((kinds & WORD) > 0) & ((kinds & CJK) == 0)] |= _RUN
    folded[[_RECORD, _UNIT]] = _RECORD, _UNIT  # between messages: no entry holds them
    folded.setflags(write=False)
    return folded


@inner
def _mix(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inner
def _letter(data: Bytes, place: int, folded: U32) -> tuple[np.uint32, int]:
    """The folded character at `place`, and where the next one starts."""
    first = np.uint32(data[place])
    if first < 0x80:
        return folded[first], place + 1
    point = np.uint32(data[place + 1] & 0x3F)
    if first < 0xE0:
        return folded[np.uint32((first & 0x1F) << 6 | point)], place + 2
    point = np.uint32(point << 6 | np.uint32(data[place + 2] & 0x3F))
    if first < 0xF0:
        return folded[np.uint32((first & 0x0F) << 12 | point)], place + 3
    point = np.uint32((first & 0x07) << 18 | point << 6 | np.uint32(data[place + 3] & 0x3F))
    return (folded[point] if point < _LIMIT else point), place + 4


@inner
def _begun(state: np.uint64, letter: np.uint32) -> np.uint64:
    """The state after the first character of a unit; to be mixed when the unit ends."""
    return np.uint64((state + np.uint64(letter)) * _FACTOR)


@inner
def _continued(state: np.uint64, letter: np.uint32) -> np.uint64:
    return np.uint64((state ^ (state >> np.uint64(29))) * _FACTOR + np.uint64(letter))


@inner
def _step(data: Bytes, place: int, end: int, folded: U32, state: np.uint64) -> tuple[np.uint64, int]:
    """The state after the unit at `place`, and where that unit ends."""
    letter, after = _letter(data, place, folded)
    state = _begun(state, letter)
    if letter & _RUN:
        return _run(data, after, end, folded, state)
    if letter & _BLANK:
        while after < end:
            letter, following = _letter(data, after, folded)
            if not letter & _BLANK:
                break
            after = following
    return _mix(state), after


@inner
def _run(data: Bytes, place: int, end: int, folded: U32, state: np.uint64) -> tuple[np.uint64, int]:
    """The rest of a run of word characters."""
    while place < end:
        letter, after = _letter(data, place, folded)
        if not letter & _RUN:
            break
        state = _continued(state, letter)
        place = after
    return _mix(state), place


@inner
def _insert(table: U64, state: np.uint64, ends: bool) -> bool:
    """Add a beginning of an entry; whether it was not there. The lowest bit says that an entry ends here."""
    mask = np.uint64(len(table) - 1)
    key = np.uint64((state & _CLEAR) | np.uint64(2))
    place = np.uint64((state >> np.uint64(20)) & mask)
    while table[place] != 0:
        if np.uint64(table[place] & _CLEAR) == key:
            if ends:
                table[place] |= _END
            return False
        place = np.uint64((place + np.uint64(1)) & mask)
    table[place] = np.uint64(key | _END) if ends else key
    return True


@inner
def _passes(bitmap: U64, state: np.uint64) -> bool:
    """Whether `state` may be a beginning; most that are none are told here."""
    bit = np.uint64(state >> np.uint64(42))
    return bool(np.uint64(bitmap[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))


@inner
def _mark(bitmap: U64, state: np.uint64) -> None:
    bit = np.uint64(state >> np.uint64(42))
    bitmap[bit >> np.uint64(6)] |= np.uint64(np.uint64(1) << (bit & np.uint64(63)))


@bare
def _build(data: Bytes, starts: NDArray[np.int64], folded: U32, table: U64, bitmap: U64) -> int:
    """Enter every entry into `table` and `bitmap`; how many beginnings there are.

    A first character whose entry is not told by its second character (there is none, or it begins a run) is marked as
    alone, by the flipped bits of its state.
    """
    count = 0
    for word in range(len(starts) - 1):
        place, end, begin = starts[word], starts[word + 1], starts[word]
        state = np.uint64(0)
        while place < end:
            first = place == begin
            state, place = _step(data, place, end, folded, state)
            count += _insert(table, state, place == end)
            _mark(bitmap, state)
            if first and (place == end or _letter(data, place, folded)[0] & (_RUN | _BLANK)):
                _mark(bitmap, ~state)
    return count


@inner
def _look(table: U64, state: np.uint64) -> int:
    """0: no beginning of an entry, 1: a beginning, 2: an entry."""
    mask = np.uint64(len(table) - 1)
    key = np.uint64((state & _CLEAR) | np.uint64(2))
    place = np.uint64((state >> np.uint64(20)) & mask)
    while table[place] != 0:
        if np.uint64(table[place] & _CLEAR) == key:
            return 2 if table[place] & _END else 1
        place = np.uint64((place + np.uint64(1)) & mask)
    return 0


@inner
def _longest(data: Bytes, place: int, end: int, folded: U32, table: U64, bitmap: U64) -> int:
    """Where the longest entry that starts at `place` ends; 0: none starts here."""
    state, found = np.uint64(0), 0
    while place < end:
        state, place = _step(data, place, end, folded, state)
        kind = _look(table, state) if _passes(bitmap, state) else 0
        if kind == 0:
            break
        if kind == 2:
            found = place
    return found


@inner
def _is_worth_a_look(mode: int, state: np.uint64, alone: bool, letter: np.uint32, bitmap: U64) -> bool:
    """Whether an entry may start at the unit before `letter`: a run that ends here, or a character by itself."""
    if mode == _IN_RUN:
        return _passes(bitmap, _mix(state))
    if mode == _SINGLE:
        return alone or (not letter & (_RUN | _BLANK) and _passes(bitmap, _mix(_begun(state, letter))))
    return False


@inner
def _role_stop(data: Bytes, place: int, end: int) -> int:
    """Where the role of a message that begins at `place` ends; `place` where none does."""
    for stop in range(place, min(end, place + _ROLE_BYTES_MAX)):
        if data[stop] == _UNIT:
            return stop
    return place


@bare
def _scan(
    data: Bytes,
    starts: NDArray[np.int64],
    folded: U32,
    table: U64,
    bitmap: U64,
    counts: NDArray[np.int32],
    spans: NDArray[np.int64],
) -> int:
    """Count the entries of each text, leftmost and longest first; the first of them into `spans`. How many in all."""
    count = 0
    for text in range(len(starts) - 1):
        place, end, begin = starts[text], starts[text + 1], starts[text]
        mode, state, alone = _NOTHING, np.uint64(0), False
        while place <= end:
            letter, after = _letter(data, place, folded) if place < end else (_BLANK, end + 1)
            if mode == _IN_RUN and letter & _RUN:
                state, place = _continued(state, letter), after
                continue
            if _is_worth_a_look(mode, state, alone, letter, bitmap):
                stop = _longest(data, begin, end, folded, table, bitmap)
                if stop:
                    counts[text] += 1
                    count = _keep_span(spans, count, begin, stop)
                    mode, place = _NOTHING, stop
                    continue
            begin, place = place, after
            if letter == _RECORD:
                mode, place = _NOTHING, _role_stop(data, after, end)
            elif letter & _RUN:
                mode, state = _IN_RUN, _begun(np.uint64(0), letter)
            elif letter & _BLANK:
                mode = _NOTHING
            else:
                mode, state = _SINGLE, _mix(_begun(np.uint64(0), letter))
                alone = _passes(bitmap, ~state)
    return count


@inner
def _keep_span(spans: NDArray[np.int64], count: int, start: int, stop: int) -> int:
    if count < len(spans):
        spans[count, 0] = start
        spans[count, 1] = stop
    return count + 1


class WordFinder:
    """Finds the entries of a list in texts; those that overlap count once, leftmost first, then longest.

    words: entries; blank ones are left out, white space at their ends too. cache: a folder where the built table is
    kept under the digest of the list, mapped and shared by all processes that use it.
    """

    def __init__(self, words: Iterable[str], cache: Path | None = None) -> None:
        entries = sorted({" ".join(word.split()) for word in words} - {""})
        self._table, self._bitmap = _tables(entries, cache)

    @property
    def memory_bytes(self) -> int:
        """Size of the tables."""
        return self._table.nbytes + self._bitmap.nbytes

    def count(self, texts: pa.StringArray) -> NDArray[np.int32]:
        """How many entries each text holds."""
        data, starts = utf8_of(texts)
        counts = np.zeros(len(texts), np.int32)
        _scan(data, starts, _folded(), self._table, self._bitmap, counts, np.empty((0, 2), np.int64))
        return counts

    def find_bytes(self, data: bytes) -> list[tuple[int, int]]:
        """Start and stop of every entry, in bytes of one text's UTF-8."""
        content, starts = np.frombuffer(data, np.uint8), np.array([0, len(data)], np.int64)
        room = 64
        while True:
            spans = np.empty((room, 2), np.int64)
            counts = np.zeros(1, np.int32)
            found = _scan(content, starts, _folded(), self._table, self._bitmap, counts, spans)
            if found <= room:
                return [(start, stop) for start, stop in spans[:found].tolist()]
            room = found

    def find(self, text: str) -> list[tuple[int, int]]:
        """Start and stop of every entry, in characters."""
        data = text.encode("utf-8", "surrogatepass")
        found, byte, character = [], 0, 0
        for start, stop in self.find_bytes(data):
            first = character + len(data[byte:start].decode("utf-8", "surrogatepass"))
            last = first + len(data[start:stop].decode("utf-8", "surrogatepass"))
            found.append((first, last))
            byte, character = stop, last
        return found

    def mask(self, text: str, mark: str = "***") -> str:
        """`text` with every entry replaced by `mark`."""
        parts, place = [], 0
        for start, stop in self.find(text):
            parts += [text[place:start], mark]
            place = stop
        return "".join([*parts, text[place:]])


def read_words(path: Path) -> list[str]:
    """The entries of a file with one a line, in UTF-8; Invalid where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "a file in UTF-8 with one entry a line"
        raise Invalid(f"cannot read the words in {path}: {error}", field="words.path", hint=hint) from error


def _tables(entries: list[str], cache: Path | None) -> tuple[U64, U64]:
    """The table of beginnings and the bitmap that most units do not pass."""
    if cache is None:
        return _built(entries)
    digest = hashlib.blake2b(_LAYOUT + "\n".join(entries).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    path = cache / f"words-{digest}.npy"
    if not path.exists():
        _store(path, np.concatenate(_built(entries)))
    kept: U64 = np.load(path, mmap_mode="r")
    plain = np.asarray(kept)
    return plain[:-_BITMAP], plain[-_BITMAP:]


def _store(path: Path, content: U64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".words-", delete=False) as file:
        np.save(file, content)
    os.replace(file.name, path)


def _built(entries: list[str]) -> tuple[U64, U64]:
    data = [entry.encode("utf-8", "surrogatepass") for entry in entries]
    starts = np.cumsum([0, *map(len, data)]).astype(np.int64)
    content = np.frombuffer(b"".join(data), np.uint8)
    beginnings = sum(map(len, entries))
    scratch, bitmap = np.zeros(_slots(beginnings), np.uint64), np.zeros(_BITMAP, np.uint64)
    count = _build(content, starts, _folded(), scratch, bitmap)
    if _slots(count) == len(scratch):
        return scratch, bitmap
    table = np.zeros(_slots(count), np.uint64)
    _build(content, starts, _folded(), table, bitmap)
    return table, bitmap


def _slots(count: int) -> int:
    """Slots of a table at most two thirds full."""
    return 1 << max(4, int(count * 3 // 2).bit_length())
