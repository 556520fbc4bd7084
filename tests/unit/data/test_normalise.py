import time
import unicodedata

import pytest

from atoll.data.engine.normalise import normalise


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
