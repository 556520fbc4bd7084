"""Finding: candidates verified one by one, overlaps resolved, in characters or in bytes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.privacy import anchors as a
from atoll.data.engine.privacy import contacts, numbers, people, places
from atoll.data.engine.privacy.candidates import scanned
from atoll.data.engine.privacy.kinds import FIRST, KINDS, MARKS, Span
from atoll.data.engine.privacy.reach import REACH, touched
from atoll.data.engine.words import WordFinder

Verify = Callable[[str, int, int], Iterable[Span]]

_VERIFY: dict[int, tuple[Verify, frozenset[str]]] = {
    a.NUMBER: (
        numbers.numbers,
        frozenset({"identity_card", "bank_card", "phone", "ip", "credit_code", "passport"}),
    ),
    a.AT: (contacts.emails, frozenset({"email", "secret"})),
    a.ASSIGN: (contacts.assigned, frozenset({"secret"})),
    a.LABEL: (people.labelled, frozenset({"name"})),
    a.BLOCK: (contacts.blocks, frozenset({"secret"})),
    a.TOKEN: (contacts.tokens, frozenset({"secret"})),
    a.PLATE: (numbers.plates, frozenset({"plate"})),
    a.ZONE: (numbers.zones, frozenset({"passport"})),
    a.STREET: (places.streets, frozenset({"address"})),
    a.ROAD: (places.roads, frozenset({"address"})),
    a.PERSON: (people.persons, frozenset({"name"})),
    a.TITLE: (people.titled, frozenset({"name"})),
    a.PASSPORT: (numbers.passports, frozenset({"passport"})),
    a.CODE: (numbers.codes, frozenset({"credit_code"})),
    a.ADDRESS6: (numbers.addresses6, frozenset({"ip"})),
}
_RANK = {kind: rank for rank, kind in enumerate(("", *FIRST))}


_FOLDING = {chr(point): chr(point - 0xFEE0) for point in range(0xFF01, 0xFF5F)}
_FOLDING |= {"\u3000": " ", "\u00a0": " ", "\u2010": "-", "\u2011": "-"}
_WIDE = re.compile(f"[{re.escape(''.join(_FOLDING))}]")


def _folded(text: str) -> str:
    """Full-width ASCII and odd spaces and hyphens as plain ones, character by character."""
    return _WIDE.sub(lambda found: _FOLDING[found[0]], text)


@dataclass(frozen=True)
class Finder:
    """Finds personal data of `kinds`, and besides `names`, in texts. Cheap to build, safe to share between threads."""

    kinds: Sequence[str] = KINDS
    names: Sequence[str] = ()
    _words: WordFinder | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.names and "name" in self.kinds:
            object.__setattr__(self, "_words", WordFinder(self.names))

    def find(self, text: str) -> list[Span]:
        """Findings in characters of `text`: sorted, disjoint."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self.find_bytes(data)
        if len(data) == len(text) or not spans:
            return spans
        return _in_characters(data, spans)

    def find_bytes(self, data: bytes) -> list[Span]:
        """Findings in bytes of the UTF-8 `data` of one text."""
        places = np.array([0, len(data)], np.int64)
        return next((spans for _, spans in self.found(np.frombuffer(data, np.uint8), places)), [])

    def found(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], changed: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """The number of each text that holds any, and its findings, in bytes of the text.

        data, starts: text i lies from byte `starts[i]` to `starts[i + 1]`; data cannot be written to.
        changed: where the texts have changed since they were looked at, as `touched` takes it; what a change can have
        made is found, and of the rest some or none.
        """
        rows = scanned(data, starts).rows
        if changed is not None and self._words is None:
            rows = touched(rows, starts, changed)
        edges = np.searchsorted(rows[:, 1], np.arange(len(starts)))
        texts = range(len(starts) - 1) if self._words else np.flatnonzero(np.diff(edges)).tolist()
        content = data.data
        for text in texts:
            begin, end = int(starts[text]), int(starts[text + 1])
            if spans := self._verified(content, begin, end, rows[edges[text] : edges[text + 1]].tolist()):
                yield text, [Span(start - begin, stop - begin, kind) for start, stop, kind in spans]

    def _verified(self, data: memoryview, begin: int, end: int, rows: list[list[int]]) -> list[Span]:
        """What of the candidates `rows` of one text, bytes `begin` to `end` of `data`, is personal data."""
        found = [span for row in rows for span in self._verify(data, begin, end, row)]
        if self._words is not None:
            text = bytes(data[begin:end])
            found += [Span(begin + start, begin + stop, "name") for start, stop in self._words.find_bytes(text)]
        return [span for span in disjoint(found) if not _is_own_mark(data, begin, span)] if found else []

    def _verify(self, data: memoryview, begin: int, end: int, row: list[int]) -> Iterator[Span]:
        kind, _, start, stop = row
        verify, yields = _VERIFY[kind]
        if yields.isdisjoint(self.kinds):
            return
        before, behind = REACH[kind]
        low = _boundary(data, max(begin, start - before), begin)
        high = _boundary(data, min(end, stop + behind), end)
        raw = bytes(data[low:high])
        window = raw.decode("utf-8", "surrogatepass")
        plain = len(window) == len(raw)
        if plain:
            first, last = start - low, stop - low
        else:
            first = len(raw[: start - low].decode("utf-8", "surrogatepass"))
            last = first + len(raw[start - low : stop - low].decode("utf-8", "surrogatepass"))
        for span in verify(window if plain else _folded(window), first, last):
            if span.kind and span.kind not in self.kinds:
                continue
            if plain:
                yield Span(low + span.start, low + span.stop, span.kind)
            else:
                at = low + _width(window[: span.start])
                yield Span(at, at + _width(window[span.start : span.stop]), span.kind)


def _width(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _boundary(data: memoryview, place: int, limit: int) -> int:
    """The nearest place towards `limit` where a character starts."""
    step = 1 if limit > place else -1
    while place != limit and data[place] & 0xC0 == 0x80:
        place += step
    return place


def disjoint(found: Iterable[Span]) -> list[Span]:
    """Of overlapping findings the one whose kind comes first, then the longer; in order, blocked ones left out."""
    kept: list[Span] = []
    together: list[Span] = []
    reach = 0
    for span in sorted(found):
        if together and span.start >= reach:
            kept += _best(together)
            together = []
        together.append(span)
        reach = max(reach, span.stop)
    return kept + _best(together)


def _best(together: list[Span]) -> list[Span]:
    """The findings kept of a chain of overlapping ones."""
    if len(together) == 1:
        return together if together[0].kind else []
    starts: list[int] = []
    taken: list[Span] = []
    for span in sorted(together, key=lambda span: (_RANK[span.kind], span.start - span.stop, span.start)):
        place = bisect_left(starts, span.start)
        after_last = place == 0 or taken[place - 1].stop <= span.start
        if after_last and (place == len(taken) or span.stop <= starts[place]):
            starts.insert(place, span.start)
            taken.insert(place, span)
    return [span for span in taken if span.kind]


_MARK_HEADS = tuple(mark[:-1].encode() + b":" for mark in MARKS.values())


def _is_own_mark(data: memoryview, begin: int, span: Span) -> bool:
    """Whether the finding is the digest in a mark such as [PHONE:0123…]."""
    head = bytes(data[max(begin, span.start - 16) : span.start])
    return head.endswith(_MARK_HEADS)


def _in_characters(data: bytes, spans: list[Span]) -> list[Span]:
    """Spans of bytes as spans of characters, in one walk."""
    result, byte, character = [], 0, 0
    for span in spans:
        start = character + len(data[byte : span.start].decode("utf-8", "surrogatepass"))
        stop = start + len(data[span.start : span.stop].decode("utf-8", "surrogatepass"))
        result.append(Span(start, stop, span.kind))
        byte, character = span.stop, stop
    return result
