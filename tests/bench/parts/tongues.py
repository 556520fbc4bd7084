"""Texts whose language is known: translated message catalogues and manual pages of this machine."""

from __future__ import annotations

import gzip
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path

LOCALES, MANUALS = Path("/usr/share/locale"), Path("/usr/share/man")
SIZES = (1, 6, 40)
"""How many messages make a short, a middling and a long text."""
PER_LANGUAGE = 120
_MESSAGE_MIN = 40
_SAME = {"nb": "no", "sh": "sr", "iw": "he", "in": "id"}
_MACRO = re.compile(r"^[.'].*$|\\f.|\\[-&()*\[].?", re.M)


def labelled(known: set[str], seed: int = 1) -> list[tuple[str, str]]:
    """(text, ISO 639 code) of every language in `known` that this machine has texts of, short to long."""
    choice = random.Random(seed)
    found: list[tuple[str, str]] = []
    for code, messages in sorted(_messages().items()):
        if code in known and len(messages) >= 3 * SIZES[-1]:
            choice.shuffle(messages)
            found += [(text, code) for text in _joined(messages)]
    for code, text in _manuals():
        if code in known:
            found.append((text, code))
    choice.shuffle(found)
    return found


def same(code: str) -> str:
    """One code for a language that has several, Chinese without its script."""
    base = code.partition("-")[0]
    return _SAME.get(base, base)


def _joined(messages: list[str]) -> Iterator[str]:
    for size in SIZES:
        for number in range(min(PER_LANGUAGE // len(SIZES), len(messages) // size)):
            yield "\n".join(messages[number * size : (number + 1) * size])


def _messages() -> dict[str, list[str]]:
    """Translated messages by language; those equal to the English ones, and catalogues not in UTF-8, are left out."""
    found: dict[str, set[str]] = {}
    for path in sorted(LOCALES.glob("*/LC_MESSAGES/*.mo")):
        code = same(re.split(r"[_@.]", path.parts[-3])[0])
        for original, text in _catalogue(path.read_bytes()):
            if original and text != original and len(text.encode()) >= _MESSAGE_MIN:
                found.setdefault(code, set()).add(text)
    return {code: sorted(texts) for code, texts in found.items()}


def _catalogue(data: bytes) -> Iterator[tuple[str, str]]:
    """Original and translation of every message of a compiled catalogue (GNU gettext's MO format)."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, originals, translations = struct.unpack_from(order + "3I", data, 8)
    if b"utf-8" not in data.lower():
        return
    for number in range(count):
        pair = []
        for table in (originals, translations):
            length, place = struct.unpack_from(order + "2I", data, table + 8 * number)
            pair.append(data[place : place + length].decode("utf-8", "ignore").partition("\0")[0])
        yield pair[0].rpartition("\4")[2], pair[1]


def _manuals() -> Iterator[tuple[str, str]]:
    for folder in sorted(MANUALS.glob("[a-z][a-z]*")):
        code = same(re.split(r"[_@.]", folder.name)[0])
        if len(code) > 3:
            continue
        for path in sorted(folder.glob("man*/*.gz"))[:PER_LANGUAGE]:
            text = _MACRO.sub(" ", gzip.decompress(path.read_bytes()).decode("utf-8", "ignore"))
            if len(text) > 800:
                yield code, text
