"""The look at bytes finds what the patterns say is untidy, compiled or not."""

import re

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.normalise import untidy as looking
from atoll.data.engine.normalise.untidy import SPECIAL, UNTIDY, untidy

_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\u2060\ufeff\ufffe\uffff]")
_UNTIDY = re.compile(r"\r|[ \t\u00a0\u3000]\n|\n\n\n|\A\n|[ \t\u00a0\u3000\n]\Z")
_CHAT = re.compile("(?:\x1e[^\x1e\x1f]*\x1f[^\x1e\x1f]*)*")
_CHAT_EDGE = re.compile("[ \t\u00a0\u3000\n]\x1e|\x1f\n")

AWKWARD = st.sampled_from(
    [
        *" \t\n\r\f\x00\x07\x1e\x1f\x7f\x80\x85\x9f\u00a0\u00ad\u00e9\u200a\u200b\u2028\u2029\u2060\u2061",
        *"\u3000\u3001\ufeff\ufffd\ufffe\uffff中a",
    ]
)
TEXTS = st.lists(AWKWARD | st.characters(exclude_categories=["Cs"]), max_size=10).map("".join)


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
    assert untidy(texts, is_chat).tolist() == wanted


@given(TEXTS)
@settings(deadline=None)
def test_python_finds_the_same(text: str) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    for look in (looking._of_text, looking._of_chat):
        assert look(data, 0, len(data)) == look.py_func(data, 0, len(data))  # type: ignore[attr-defined]
