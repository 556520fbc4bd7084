"""Whatever a document holds, its answers are exact spans of useful length, and asking never fails."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Questions
from atoll.data.engine.normalise.text import normalise
from atoll.data.engine.questions.derive import pairs_of
from atoll.data.engine.questions.structure import headings

PIECES = st.sampled_from(
    [
        "# Head",
        "Head\n====",
        "```",
        "A gang is a set of processes.",
        "Returns the value.",
        "It raises ValueError if so.",
        "json.loads(s, *, cls=None)",
        "``cls`` is a class.",
        "  cls: what it is",
        "一个平台是一种系统。",
        "人是一种动物",
        "word " * 30,
        "e.g. this",
        "\n",
        "\n\n",
        " ",
        "{0}",
        ".",
        "object.f(x)\n\n   Called when",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=30)), max_size=25).map("\n".join)
KINDS = st.sampled_from(["topic", "module", "class", "function", "markdown", "rst", "text"])


@st.composite
def limits(draw: st.DrawFn) -> Questions:
    least = draw(st.integers(1, 100))
    return Questions(True, draw(st.integers(1, 10)), least, draw(st.integers(max(least, 20), 700)))


@settings(max_examples=400, deadline=None)
@given(TEXTS, KINDS, limits())
def test_answers_are_exact_spans_within_the_limits(text: str, kind: str, asked: Questions) -> None:
    document = Document("an id", normalise(text, kind), "here", "json.loads", kind)
    pairs = pairs_of(document, asked)
    assert len(pairs) <= asked.per_document_max
    assert len({(pair.span_start, pair.span_end) for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert document.text[pair.span_start : pair.span_end] == pair.answer == pair.answer.strip()
        assert asked.answer_characters_min <= len(pair.answer) <= asked.answer_characters_max
        assert pair.question.strip()
    assert pairs_of(document, asked) == pairs


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_headings_cut_a_text_into_parts_in_order(text: str) -> None:
    place = 0
    for heading in headings(text):
        assert place <= heading.start < heading.body_start <= heading.body_stop <= len(text)
        place = heading.body_stop


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_normalised_text_stays_as_it_is(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
