import time

import pytest

from atoll.data.engine.questions.structure import headings, paragraph_stop, sentence_start, sentence_stops, skip_space


def _words(text: str) -> list[str]:
    return [heading.words for heading in headings(text)]


def test_headings_of_markdown_and_of_underlined_lines() -> None:
    text = "# One\n\na\n\n## Two `x` [link](http://h) ##\nb\n\nThree\n=====\n\nc\n\n   Not\n   ===\n"
    assert _words(text) == ["One", "Two x link", "Three"]


def test_what_stands_under_a_heading_ends_at_the_next() -> None:
    text = "# One\nfirst\n# Two\nsecond"
    assert [text[heading.body_start : heading.body_stop].strip() for heading in headings(text)] == ["first", "second"]


@pytest.mark.parametrize(
    "text",
    [
        "```\n# comment\n```",
        "~~~\nname\n====\n~~~",
        "# " + "long " * 40,
        "# ...",
        "a sentence that is much longer than the line below it\n---",
        "#no space",
        "",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert _words(text) == []


def test_a_heading_after_fenced_code_is_one() -> None:
    assert _words("```\n# no\n```\n\n# Yes\n") == ["Yes"]


def test_a_paragraph_ends_at_a_blank_line_without_its_spaces() -> None:
    text = "one\ntwo  \n \nthree"
    assert text[: paragraph_stop(text, 0, len(text))] == "one\ntwo"
    assert paragraph_stop(text, 0, 2) == 2


def test_sentences_end_at_their_marks_and_not_at_abbreviations() -> None:
    text = 'Use e.g. 3.5 or "x." Then stop! 好的。下一句'
    assert [text[:stop][-4:] for stop in sentence_stops(text, 0, len(text))] == [' "x."'[1:], "top!", " 好的。"]


def test_the_start_of_a_sentence_is_within_its_paragraph() -> None:
    text = "Before.\n\nFirst one.  Second raises X here."
    place = text.index("X")
    assert text[sentence_start(text, place) :].startswith("Second")
    assert sentence_start("no paragraph before", 5) == 0


def test_space_is_skipped_up_to_the_stop() -> None:
    assert skip_space(" \n a", 0, 4) == 3
    assert skip_space("   ", 0, 3) == 3


@pytest.mark.parametrize(
    "evil", ["# a" + " " * 100_000 + "b", "```\n" * 50_000, "~~~\n```\n" * 20_000, "=\n" * 100_000]
)
def test_time_stays_linear_in_hostile_text(evil: str) -> None:
    started = time.process_time()
    headings(evil)
    assert time.process_time() - started < 5
