import numpy as np
import pytest

from atoll.data.engine.annotate.blocks import block
from atoll.data.engine.annotate.pieces import cut, known_words
from atoll.data.engine.characters import characters


def _pieces(text: str) -> list[str]:
    room = block()
    points = np.array([ord(character) for character in text], np.uint32)
    held = cut(points, characters().kinds[points], len(points), known_words(), room.bounds)
    return [text[room.bounds[0, i] : room.bounds[1, i]] for i in range(held)]


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
