"""The look at bytes finds what the patterns say is untidy, compiled or not."""

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.normalise import untidy as looking
from atoll.data.engine.normalise.untidy import LOOSE, SPECIAL, UNTIDY, untidy

_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\u2060\ufeff\ufffe\uffff]")
_UNTIDY = re.compile(r"\r|[ \t\u00a0\u3000]\n|\n\n\n|\A\n|[ \t\u00a0\u3000\n]\Z")
_CHAT = re.compile("(?:\x1e[^\x1e\x1f]*\x1f[^\x1e\x1f]*)*")
_CHAT_EDGE = re.compile("[ \t\u00a0\u3000\n]\x1e|\x1f\n")

ODD = [
    *" \t\n\r\f\x00\x07\x1e\x1f\x7f\x80\x85\x9f\u00a0\u00ad\u00e9\u200a\u200b\u2028\u2029\u2060\u2061",
    *"\u3000\u3001\ufeff\ufffd\ufffe\uffff中a",
]
AWKWARD = st.sampled_from(ODD)
LONG = st.tuples(st.sampled_from("ab中é\U0001f600"), st.integers(1, 200)).map(lambda drawn: drawn[0] * drawn[1])
"""Whole blocks without a fault."""
TEXTS = st.lists(AWKWARD | LONG | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)
MARKS = st.sampled_from(
    "e\u0301\u0323中\u3099か\uac00\u11a8\u1100\u1161\u2000\u212b\ufb1d\U0001d15e\u0915\u093cش\u0653"
)
EVERY = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def _wanted(text: str, is_chat: bool) -> int:
    if is_chat and (text == "" or text[0] == "\x1e"):
        is_untidy = not _CHAT.fullmatch(text) or bool(_CHAT_EDGE.search(text))
        plain = text.replace("\x1e", "a").replace("\x1f", "a")
    elif is_chat:
        return UNTIDY | SPECIAL
    else:
        is_untidy, plain = False, text
    is_special = bool(_SPECIAL.search(plain))
    is_untidy = is_untidy or is_special or bool(_UNTIDY.search(plain))
    return UNTIDY * is_untidy | SPECIAL * is_special


@given(st.lists(st.tuples(TEXTS, st.booleans()), max_size=10), st.integers(0, 3))
@settings(deadline=None, max_examples=300)
def test_what_is_untidy_is_found(rows: list[tuple[str, bool]], skipped: int) -> None:
    texts = pa.array([text for text, _ in rows], pa.string()).slice(skipped)
    is_chat = np.array([is_chat for _, is_chat in rows], bool)[skipped:]
    wanted = [_wanted(text, is_chat) for text, is_chat in rows[skipped:]]
    assert (untidy(texts, is_chat) & (UNTIDY | SPECIAL)).tolist() == wanted


def _faults(texts: list[str]) -> list[int]:
    found: list[int] = untidy(pa.array(texts, pa.string()), np.zeros(len(texts), bool)).tolist()
    return found


def test_a_fault_is_found_wherever_it_stands_in_a_long_text() -> None:
    """Blocks are looked at as one, so each character and each pair of odd ones is put amidst and across blocks."""
    odd = [*EVERY[:0x10000], *(one + other for one in ODD for other in ODD), "\n\n\n", "a\n\n\na", "\U0001d15e"]
    near = _faults([f"a{text}a" for text in odd])
    for before in (90, 126, 127, 128):
        assert _faults([f"{'a' * before}{text}{'a' * 130}" for text in odd]) == near


def _is_loose(texts: list[str]) -> list[bool]:
    return (untidy(pa.array(texts, pa.string()), np.zeros(len(texts), bool)) & LOOSE > 0).tolist()


def test_every_character_that_is_not_loose_is_composed_for_ever() -> None:
    """None combines, has another form, or is the second of a pair that has."""
    pairs = [unicodedata.decomposition(letter).split() for letter in EVERY]
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    seconds |= {chr(point) for point in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for letter, is_loose in zip(EVERY, _is_loose(EVERY), strict=True):
        is_fixed = not unicodedata.combining(letter) and unicodedata.is_normalized("NFC", letter)
        assert is_loose or (is_fixed and letter not in seconds), hex(ord(letter))


@pytest.mark.parametrize(
    "text", ["Türkçe “quoted” — 5 €", "中文「标点」。", "日本語のテキスト", "한국어", "Русский", "→ ∈ 😀\ufe0f"]
)
def test_what_is_common_is_not_loose(text: str) -> None:
    assert _is_loose([text]) == [False]


@given(st.lists(TEXTS | st.text(MARKS, max_size=9), max_size=6))
@settings(deadline=None, max_examples=300)
def test_a_text_is_loose_when_a_character_of_it_is(texts: list[str]) -> None:
    for text, is_loose in zip(texts, _is_loose(texts), strict=True):
        assert is_loose == any(_is_loose(list(set(text))))
        assert is_loose or unicodedata.is_normalized("NFC", text)


@given(TEXTS)
@settings(deadline=None)
def test_python_finds_the_same(text: str) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    for look in (looking._of_text, looking._of_chat):
        assert look(data, 0, len(data)) == look.py_func(data, 0, len(data))  # type: ignore[attr-defined]
