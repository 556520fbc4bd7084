"""What a text says, as a set: its content words, for comparing an answer with its evidence and questions with another.

Words are lower-cased, their commonest English endings cut off, and function words left out. Of Chinese, Japanese and
Korean it is pairs of neighbouring characters between function words. Word order, negation and synonyms are not seen.
"""

from __future__ import annotations

import re
import unicodedata

from atoll.data.engine.scan import STOP_WORDS

_STOP = frozenset(STOP_WORDS) | frozenset("也都就而且但被把将將对對从從向往之所吗嗎呢吧着著过過们們个個么麼")
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s")
STEM_MIN = 3
CJK_SHARE_MIN = 0.3


def folded(text: str) -> str:
    """`text` in one spelling: compatibility forms and case are equal."""
    return unicodedata.normalize("NFKC", text).casefold()


def content(text: str) -> frozenset[str]:
    """The content words of `text`."""
    found: set[str] = set()
    for run in _WORDS.findall(folded(text)):
        if _IS_CJK.match(run):
            found.update(_pairs(run))
        elif run not in _STOP:
            found.add(stem(run))
    return frozenset(found)


def numbers(text: str) -> frozenset[str]:
    """The numbers in `text`, in digits; marks between groups of digits are left out."""
    plain = re.sub(r"(?<=\d)[,\u00a0\u202f](?=\d{3})", "", folded(text))
    return frozenset(re.findall(r"[0-9]+(?:\.[0-9]+)*", plain))


def stem(word: str) -> str:
    """`word` without its ending, roughly."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= STEM_MIN:
            word = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            break
    return word.removesuffix("e") if len(word) > STEM_MIN else word


def is_cjk(text: str) -> bool:
    """Whether enough letters of `text` are Chinese, Japanese or Korean that it is asked about in Chinese."""
    return len(_IS_CJK.findall(text)) >= CJK_SHARE_MIN * max(1, sum(map(str.isalpha, text)))


def _pairs(run: str) -> set[str]:
    parts = "".join(" " if character in _STOP else character for character in run).split()
    return {part[i : i + 2] for part in parts for i in range(max(1, len(part) - 1))}
