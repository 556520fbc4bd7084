import pytest

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Questions
from atoll.data.engine.questions.derive import answer_span, pairs_of

LIMITS = Questions(True, 8, 40, 600)

FUNCTION = """json.loads(s, *, cls=None, object_hook=None)

Deserialize ``s`` (a ``str`` or ``bytes`` instance) to a Python object.

``object_hook`` is an optional function that will be called with the
result of any object literal decode.

Returns the object that the document describes. It is a fresh one.

If the document is not valid, it raises ValueError. Nothing is read twice.
"""


def _pairs(text: str, kind: str, title: str = "json.loads", limits: Questions = LIMITS) -> dict[str, str]:
    found = pairs_of(Document(title, text, title, title, kind), limits)
    for pair in found:
        assert text[pair.span_start : pair.span_end] == pair.answer
        assert limits.answer_characters_min <= len(pair.answer) <= limits.answer_characters_max
    return {pair.answer: pair.question for pair in found}


def test_a_function_is_asked_what_it_does_takes_returns_and_raises() -> None:
    found = _pairs(FUNCTION, "function")
    assert len(found) == 5
    assert "json.loads" in found["Deserialize ``s`` (a ``str`` or ``bytes`` instance) to a Python object."]
    assert "json.loads" in found["json.loads(s, *, cls=None, object_hook=None)"]
    assert "return" in found["Returns the object that the document describes."]
    assert "ValueError" in found["If the document is not valid, it raises ValueError."]
    parameter = (
        "``object_hook`` is an optional function that will be called with the\nresult of any object literal decode."
    )
    assert "object_hook" in found[parameter]


def test_the_wording_varies_with_the_document_and_never_by_run() -> None:
    asked = [next(iter(_pairs(FUNCTION, "function", f"name{number}").values())) for number in range(20)]
    assert len({question.replace(f"name{number}", "") for number, question in enumerate(asked)}) > 2
    assert asked == [next(iter(_pairs(FUNCTION, "function", f"name{number}").values())) for number in range(20)]


@pytest.mark.parametrize("title", ["json._loads", "_json.loads", "a._B.c"])
def test_private_names_are_not_asked_about(title: str) -> None:
    assert _pairs(FUNCTION, "function", title) == {}


def test_special_methods_are_asked_about() -> None:
    assert _pairs(FUNCTION, "function", "object.__init__")


def test_modules_and_classes_are_asked_what_they_are_for() -> None:
    text = "module shelf\n\nManage shelves of pickled objects that persist between runs."
    assert "shelf" in next(iter(_pairs(text, "module", "shelf").values()))
    text = "class shelf.Shelf\n\nBase class for shelf implementations of any kind whatsoever."
    assert "shelf.Shelf" in next(iter(_pairs(text, "class", "shelf.Shelf").values()))


def test_topics_are_asked_by_heading_and_entry() -> None:
    text = (
        "The assert statement\n********************\n\n"
        "Assert statements insert debugging assertions into a program.\n\n"
        "object.__len__(self)\n\n   Called to implement the built-in function len and its truth.\n"
    )
    found = _pairs(text, "topic", "assert")
    assert "the assert statement" in found["Assert statements insert debugging assertions into a program."]
    assert "object.__len__" in found["Called to implement the built-in function len and its truth."]


def test_files_are_asked_by_title_heading_and_definition() -> None:
    text = (
        "# Guide\n\nThis guide leads through the first hour with the product.\n\n## Limits\n\n"
        "At most ten users may connect at the same time to one machine.\n\n"
        "A gang is a set of processes that start together or not at all.\n"
    )
    found = _pairs(text, "markdown", "Guide")
    assert "Guide" in found["This guide leads through the first hour with the product."]
    assert "Limits" in found["At most ten users may connect at the same time to one machine."]
    assert "gang" in found["A gang is a set of processes that start together or not at all."]


def test_chinese_documents_are_asked_in_chinese() -> None:
    body = "人工智能平台是一种把数据变成模型再把模型变成服务的系统、它由一个中心和许多站点组成、可以独立运行。"
    found = _pairs(f"# 概述\n\n{body}\n", "markdown", "手册")
    assert "手册" in found[body] and "概述" in found[body]
    definition = next(iter(_pairs(f"{body}\n\n{body[::-1]}", "text", "手册").values()))
    assert definition.endswith(("\uff1f", "。"))


def test_a_definition_by_a_pronoun_is_none() -> None:
    text = "# G\n\n```\nx\n```\n\nThis is a sentence that defines nothing but goes on for long."
    assert _pairs(text, "markdown", "G") == {}


def test_no_more_pairs_than_wanted() -> None:
    assert len(_pairs(FUNCTION, "function", limits=Questions(True, 2, 40, 600))) == 2


def test_a_long_answer_ends_with_a_sentence() -> None:
    text = "First sentence is here. " * 60
    span = answer_span(text, 0, len(text), "paragraph", LIMITS)
    assert span and text[span[1] - 1] == "."
    assert 500 < span[1] - span[0] <= 600


def test_a_short_paragraph_is_joined_by_the_next() -> None:
    text = "Short.\n\nThe next paragraph says what there is to say.  \n"
    span = answer_span(text, 0, len(text), "paragraph", LIMITS)
    assert span and text[slice(*span)] == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", "   \n\n ", "too short", "word " * 300, ">>> print('a')\n'a and more and more and more'", "1 2 3 4 5 6 " * 9],
)
def test_what_makes_no_answer_gives_none(text: str) -> None:
    assert answer_span(text, 0, len(text), "paragraph", LIMITS) is None


def test_braces_in_titles_are_only_characters() -> None:
    text = "Some {text} that is long enough to be an answer to a question."
    assert "{0}" in next(iter(_pairs(text, "text", "{0} {x}").values()))
