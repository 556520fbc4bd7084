"""The structure of a text: headings, paragraphs and sentences, each as a span of the text in characters.

Headings are those of Markdown (`# …`) and those underlined with a row of one character (reST, Markdown, pydoc).
Sentences are found by their marks; an abbreviation the list does not know ends a sentence too early.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

HEADING_CHARACTERS_MAX = 100

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
_HEADING = re.compile(
    # the bounds keep the time linear in a line of many spaces
    r"^#{1,6} +(?P<marked>[^\n]{1,200}?)(?: +#+)?$|"
    r"^(?P<lined>[^\s#>|][^\n]{0,200})\n(?P<line>([=\-~^\"'*+#.:_])\4{2,})$",
    re.M,
)
_LINK = re.compile(r"\[([^]\n]*)\]\([^)\n]*\)")
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n|\Z")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?(?=\s|\Z)|[。\uff01\uff1f][”』」]?")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|approx|resp|Dr|Mr|Ms|[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its words without markup, where its line starts, where what is under it starts and stops."""

    words: str
    start: int
    body_start: int
    body_stop: int


def headings(text: str) -> list[Heading]:
    """The headings of a text in order, none from inside fenced code."""
    found = [match for match in _outside_fences(text) if _is_heading(match)]
    stops = [*(match.start() for match in found), len(text)][1:]
    return [
        Heading(_words(match["marked"] or match["lined"]), match.start(), match.end(), stop)
        for match, stop in zip(found, stops, strict=True)
    ]


def paragraph_stop(text: str, start: int, stop: int) -> int:
    """Where the paragraph that begins at `start` ends, at most `stop`, without white space at its end."""
    found = _PARAGRAPH_END.search(text, start, stop)
    end = found.start() if found else stop
    return start + len(text[start:end].rstrip())


def sentence_stops(text: str, start: int, stop: int) -> Iterator[int]:
    """Where the sentences of text[start:stop] end."""
    for match in _SENTENCE_END.finditer(text, start, stop):
        if not _ABBREVIATION.search(text, max(start, match.start() - 8), match.end()):
            yield match.end()


def sentence_start(text: str, place: int) -> int:
    """Where the sentence that holds `place` starts, within its paragraph."""
    before = text.rfind("\n\n", 0, place)
    begin = 0 if before < 0 else before + 2
    starts = [stop for stop in sentence_stops(text, begin, place) if stop <= place]
    return skip_space(text, starts[-1] if starts else begin, place)


def skip_space(text: str, start: int, stop: int) -> int:
    """The first place from `start` on that is not white space, at most `stop`."""
    while start < stop and text[start].isspace():
        start += 1
    return start


def _outside_fences(text: str) -> Iterator[re.Match[str]]:
    fences = [match.span() for match in _FENCED.finditer(text)]
    starts = [start for start, _ in fences]
    for match in _HEADING.finditer(text):
        place = bisect_right(starts, match.start()) - 1
        if place < 0 or match.start() >= fences[place][1]:
            yield match


def _is_heading(match: re.Match[str]) -> bool:
    words = match["marked"] or match["lined"]
    if len(words) > HEADING_CHARACTERS_MAX or not any(character.isalnum() for character in words):
        return False
    return match["line"] is None or len(match["line"]) >= len(words) // 2


def _words(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text).replace("`", "").replace("**", "").split())
