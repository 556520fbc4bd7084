"""Normalisation: one spelling for equal texts, and markup that says nothing to a reader removed.

Unicode NFC, one kind of line end, no control or invisible formatting characters, no spaces at line ends, at most one
blank line in a row. Indentation, tables and code stay as they are: cleaning is conservative, and what it leaves out is
never words.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n{3,}")
_LINE_TAILS = " \t\u00a0\u3000"

_RST_ROLE = re.compile(r":[a-z][a-z0-9:+-]{0,30}:(`[^`\n]+`)")
_RST_TARGET = re.compile(r"^\.\. (?:_[^\n]*:[^\n]*|highlight::[^\n]*|index::[^\n]*(?:\n[ \t]+[^\n]*)*)\n?", re.M)
_FRONT_MATTER = re.compile(r"\A---\n.{0,4000}?\n---\n", re.S)


def normalise(text: str, kind: str = "text") -> str:
    """The normalised text of a document of `kind`; plain text that is normalised again does not change."""
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if kind == "markdown":
        text = _without_comments(_FRONT_MATTER.sub("", text))
    elif kind in ("rst", "module", "class", "function"):
        text = _RST_ROLE.sub(r"\1", _RST_TARGET.sub("", text))
    text = "\n".join(line.rstrip(_LINE_TAILS) for line in text.split("\n"))
    return unicodedata.normalize("NFC", _BLANK_LINES.sub("\n\n", text).strip("\n"))


def _without_comments(text: str) -> str:
    """Without HTML comments; one that is never closed stays. (A search, since a pattern would take quadratic time.)"""
    kept, place = [], 0
    while (start := text.find("<!--", place)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[place:start])
        place = end + len("-->")
    return "".join([*kept, text[place:]])
