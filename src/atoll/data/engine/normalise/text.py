"""Normalisation: one spelling for equal texts, and markup that says nothing to a reader removed.

Unicode NFC (or NFKC), one kind of line end, no control or invisible formatting characters, no spaces at line ends, at
most one blank line in a row. Indentation, tables and code stay as they are: cleaning is conservative, and what it
leaves out is never words. A text that is normal already costs a look at its bytes and no copy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from unicodedata import is_normalized, normalize

import numpy as np
import pyarrow as pa

from atoll.data.engine.normalise.untidy import LOOSE, SPECIAL, UNTIDY, untidy
from atoll.data.engine.questions.conversation import Message, chat_text, messages_of

Form = Literal["NFC", "NFKC"]

_LINE_ENDS = re.compile(r"[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_LINE_TAILS = " \t\u00a0\u3000"
_FULL_WIDTH_FIRST, _FULL_WIDTH_LAST = 0xFF01, 0xFF5E

_RST_ROLE = re.compile(r":[a-z][a-z0-9:+-]{0,30}:(`[^`\n]+`)")
_RST_TARGET = re.compile(r"^\.\. (?:_[^\n]*:[^\n]*|highlight::[^\n]*|index::[^\n]*(?:\n[ \t]+[^\n]*)*)\n?", re.M)
_FRONT_MATTER = re.compile(r"\A---\n.{0,4000}?\n---\n", re.S)
_RST = frozenset(("rst", "module", "class", "function"))
_MARKED = _RST | {"markdown"}


def normalise(text: str, kind: str = "text", form: str = "nfc") -> str:
    """The normalised text of a document of `kind`; plain text that is normalised again does not change.

    form: `nfc` or `nfkc`. A chat is normalised message by message.
    """
    return _normal(text, kind, _form(form), has_special=True)


def normalise_column(texts: Sequence[str], kinds: Sequence[str], form: str = "nfc") -> pa.StringArray:
    """What `normalise` gives for every text, each of its kind."""
    wanted, is_changed = _form(form), False
    encoded = [text.encode() for text in texts]
    column = _column(encoded)
    faults = untidy(column, np.fromiter((kind == "chat" for kind in kinds), np.bool_, len(texts)))
    if wanted != "NFC":
        faults |= LOOSE
    has_kind = np.fromiter((kind in _MARKED for kind in kinds), np.bool_, len(texts))
    for row in np.flatnonzero((faults > 0) | has_kind).tolist():
        text, kind, fault = texts[row], kinds[row], int(faults[row])
        if fault & UNTIDY or _has_markup(text, kind) or not (fault & LOOSE == 0 or is_normalized(wanted, text)):
            encoded[row] = _normal(text, kind, wanted, has_special=fault & SPECIAL != 0).encode()
            is_changed = True
    return _column(encoded) if is_changed else column


def _column(encoded: list[bytes]) -> pa.StringArray:
    """The texts as an array, in half the time of `pa.array`."""
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(encoded)), out=offsets[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _has_markup(text: str, kind: str) -> bool:
    """Whether there may be markup to remove."""
    if kind == "markdown":
        return "<!--" in text or text.startswith("---\n")
    return kind in _RST and (":`" in text or ".. " in text)


def _normal(text: str, kind: str, form: Form, *, has_special: bool) -> str:
    if kind == "chat" and text.startswith("\x1e"):
        said = messages_of(text)
        return chat_text(Message(role, _normal(content, "text", form, has_special=True)) for role, content in said)
    if form == "NFKC":
        text = _compatible(text)  # first, for it makes spaces of other characters
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if has_special:
        text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if kind == "markdown":
        text = _without_comments(_FRONT_MATTER.sub("", text))
    elif kind in _RST:
        text = _RST_ROLE.sub(r"\1", _RST_TARGET.sub("", text))
    text = "\n".join([line.rstrip(_LINE_TAILS) for line in text.split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return normalize(form, text.strip("\n"))


def _compatible(text: str) -> str:
    """NFKC. What Chinese is full of, full-width marks and dots, is folded first, for the general way is slow."""
    if is_normalized("NFKC", text):
        return text
    units = np.frombuffer(text.replace("\u2026", "...").encode("utf-16-le", "surrogatepass"), np.uint16).copy()
    is_full_width = (units >= _FULL_WIDTH_FIRST) & (units <= _FULL_WIDTH_LAST)
    np.subtract(units, _FULL_WIDTH_FIRST - ord("!"), out=units, where=is_full_width)
    units[units == ord("\u3000")] = ord(" ")
    folded = units.tobytes().decode("utf-16-le", "surrogatepass")
    return "\n".join([normalize("NFKC", line) for line in folded.split("\n")])  # most lines are normal now


def _form(form: str) -> Form:
    if form not in ("nfc", "nfkc"):
        raise ValueError(f"{form!r} is no Unicode normal form: nfc or nfkc")
    return "NFKC" if form == "nfkc" else "NFC"


def _without_comments(text: str) -> str:
    """Without HTML comments; one that is never closed stays. (A search, since a pattern would take quadratic time.)"""
    kept, place = [], 0
    while (start := text.find("<!--", place)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[place:start])
        place = end + len("-->")
    return "".join([*kept, text[place:]])
