import time
import unicodedata

import pytest

from atoll.data.engine.normalise.text import normalise, normalise_column
from atoll.data.engine.questions.conversation import Message, chat_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("a  \t\nb\u3000\u00a0\n", "a\nb"),
        ("\n\n  a\n\n\n\n\nb\n\n", "  a\n\nb"),
        ("e\u0301", "é"),
        ("a\u200bb\ufeffc\x07d\u00ade", "abcde"),
        ("a\ud800b", "ab"),
        ("\ttab\tstays", "\ttab\tstays"),
        ("\uff46ull width ﬁ", "\uff46ull width ﬁ"),
        ("", ""),
        (" \n\t\n", ""),
    ],
)
def test_one_spelling_for_equal_texts(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_markdown_loses_front_matter_and_comments_only() -> None:
    text = "---\ntitle: x\n---\n# A <!-- note\nmore --> b\n\n| a | b |\n|---|---|\n`<!--` open"
    assert normalise(text, "markdown") == "# A  b\n\n| a | b |\n|---|---|\n`<!--` open"


def test_rst_loses_roles_and_targets_only() -> None:
    text = (
        ".. _target: x\n.. index::\n   single: y\n\nSee :func:`loads` and :py:meth:`a.b`, ``code``.\n\n.. note:: stays"
    )
    assert normalise(text, "rst") == "See `loads` and `a.b`, ``code``.\n\n.. note:: stays"


def test_plain_text_keeps_what_would_be_markup_elsewhere() -> None:
    text = "<!-- a --> :func:`b`"
    assert normalise(text) == text


@pytest.mark.parametrize("evil", ["a" + " " * 300_000 + "b", "<!-- " * 100_000, "\n" * 300_000, ":a" * 200_000])
def test_time_stays_linear_in_hostile_text(evil: str) -> None:
    started = time.process_time()
    for kind in ("text", "markdown", "rst"):
        assert unicodedata.is_normalized("NFC", normalise(evil, kind))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\uff21\uff22\uff23\uff11\uff0c\u3000x", "ABC1, x"),
        ("\ufb01ne\u2026\u2462", "fine...3"),
        ("a\u2003\nb\u00a0", "a\nb"),
        ("中文\uff0c标点。", "中文,标点。"),
        ("\uff76\uff9e", "ガ"),
        ("\uff41\u0301", "á"),
    ],
)
def test_nfkc_folds_full_width_letters_and_ligatures(text: str, expected: str) -> None:
    assert normalise(text, form="nfkc") == expected


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="nfc or nfkc"):
        normalise("a", form="nfd")


def test_a_chat_is_normalised_message_by_message() -> None:
    said = [Message("user", "\nhi \r\n\n\n\nthere\n"), Message("assistant", "e\u0301\x07")]
    assert normalise(chat_text(said), "chat") == chat_text([Message("user", "hi\n\nthere"), Message("assistant", "é")])


def test_a_column_that_is_normal_is_not_written_anew() -> None:
    texts = ["plain\n\n  words", "中文\uff0c标点。", "été"]
    assert normalise_column(texts, ["text", "markdown", "rst"]).to_pylist() == texts


def test_a_column_of_every_kind_is_normalised_like_its_texts() -> None:
    dirty = ["---\na: b\n---\nx <!-- y -->", ":func:`x` ", "\x1euser\x1fhi \x1eassistant\x1f\nyes", "a\x1eb\x0c"]
    kinds = ["text", "markdown", "rst", "chat", "code"]
    texts = [text for text in dirty for _ in kinds]
    columns = [kind for _ in dirty for kind in kinds]
    wanted = [normalise(text, kind) for text, kind in zip(texts, columns, strict=True)]
    assert normalise_column(texts, columns).to_pylist() == wanted
