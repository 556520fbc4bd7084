import numpy as np
import pytest

from atoll.data.engine.annotate.blocks import (
    BLOCK_CHARACTERS,
    CUTTING,
    LETTERS,
    MARKS,
    NUMERALS,
    PUNCTUATIONS,
    Block,
    block,
    fill,
    raw_hash,
    tallied,
    tally,
)
from atoll.data.engine.annotate.pieces import COMMON_WORDS, common_words, cut, known_words
from atoll.data.engine.characters import characters
from atoll.data.engine.hashing import hash_words, mix


def _filled(text: str) -> tuple[Block, int, int]:
    """A block with the text, how many of its characters can be used, and their gaps."""
    room, data = block(characters()), np.frombuffer(text.encode(), np.uint8)
    return room, *fill(data, 0, len(data), characters(), room)


def _pieces(text: str) -> list[str]:
    room, length, gaps = _filled(text)
    held = cut(room, length, gaps, known_words())
    return [text[room.starts[i] : room.stops[i]] for i in range(held)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello, world.", "Hello|,|world|."),
        ("(see [1])", "(|see|[|1|]|)"),
        ("don't they're I'll it's users'", "do|n't|they|'re|I|'ll|it|'s|users|'"),
        ("e-mail x86-64 utf-8 -x a--b", "e|-|mail|x86|-|64|utf-8|-x|a|--|b"),
        ("a/b 1/2 /usr/lib", "a|/|b|1/2|/usr|/|lib"),
        ("U.S. e.g. Mr. etc. a. A.", "U.S.|e.g.|Mr.|etc|.|a.|A."),
        ("3.14 10,000 a,b $5 10% 5km 2GB", "3.14|10,000|a|,|b|$|5|10|%|5|km|2|GB"),
        ("wait... and… so", "wait|...|and|…|so"),
        ("end.Start os.path", "end|.|Start|os.path"),
        ("https://example.org/a-b/c?d=1, x@y.org", "https://example.org/a-b/c?d=1|,|x@y.org"),
        ("func(x) a=b foo_bar", "func(x|)|a|=|b|foo_bar"),
        ("C++ :-) x+y 1+2", "C++|:-)|x+y|1|+|2"),
        ("中文，ab。", "中|文|，|ab|。"),  # noqa: RUF001
        ("“quoted” — text", "“|quoted|”|—|text"),
        ("\u3000 \n", ""),
        ("", ""),
    ],
)
def test_text_is_cut_into_words_and_marks(text: str, pieces: str) -> None:
    assert "|".join(_pieces(text)) == pieces


def test_a_block_tells_the_hash_and_the_kinds_of_any_stretch_from_its_ends() -> None:
    text = "Ab 12, “中文” x_y… don't"
    room, length, _ = _filled(text)
    assert length == len(text)
    for first in range(length):
        for last in range(first + 1, length + 1):
            raw = np.array([raw_hash(room, first, last)], np.uint64)
            assert mix(raw)[0] == hash_words([text[first:last]])[0]
    found = tally(room, 0, length)
    counts = [tallied(found, place) for place in (LETTERS, NUMERALS, MARKS, PUNCTUATIONS, CUTTING)]
    assert counts == [10, 2, 6, 6, 6]


@pytest.mark.parametrize(("text", "used"), [("a " * 3000, BLOCK_CHARACTERS), ("ab " * 900, 2046), ("a" * 3000, 2048)])
def test_a_block_ends_behind_its_last_gap_where_there_is_one(text: str, used: int) -> None:
    room, length, gaps = _filled(text)
    assert length == used
    assert room.places[length] == used
    assert [int(place) for place in room.gaps[:gaps]] == [i for i in range(used) if text[i] == " "]


def test_every_common_word_has_a_place_of_its_own() -> None:
    bits = common_words()[1]
    assert sorted(bits[bits > 0].tolist()) == [1 << number for number in range(len(COMMON_WORDS))]
