"""Question and answer pairs derived from documents: every answer is an exact span of its document.

What is asked follows the structure that is there: the summary and signature of a definition, what it returns and
raises, what a parameter means; the paragraph under a heading; a definition in a sentence. The wording varies by a hash
of the document's id. No model takes part, so a pair is as true as its document, and nothing is paraphrased.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Questions
from atoll.data.engine.hashing import hash_text
from atoll.data.engine.questions.structure import headings, paragraph_stop, sentence_start, sentence_stops, skip_space

LETTERS_SHARE_MIN = 0.6

_TOPIC_ENTRY = re.compile(r"^([A-Za-z_][\w.]*)\([^\n]*\)$(?=\n\n {2,}\S)", re.M)
_DEFINITION = re.compile(r"(?:(?:An?|The) )?([\w-]+(?: [\w-]+){0,3}) (?:is|are) (?:an?|the|used) ")
_DEFINITION_CJK = re.compile(r"([\u3400-\u9fff\w]{2,12}?)(?:是指|是一[个個种種款类類])")
_PRONOUN = re.compile(
    r"(?:it|this|that|these|those|there|here|they|we|you|he|she|what|which|who)\b|[这那此其它他她]", re.I
)
_RETURNS = re.compile(r"^[ \t]*(?:It |This )?(?:[Rr]eturns?|[Yy]ields?)\b", re.M)
_RAISES = re.compile(r"\b[Rr]aises?:? +(?:an? |the )?[`\"]*([A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit))\b")
_PARAMETER = re.compile(r"[(, ]\*{0,2}([A-Za-z_]\w*)(?=[,)=:])")
_EXPLAINED = re.compile(
    r"^[ \t]*(?:If )?(?:``|[`*\"])(\w+)(?:``|[`*\"])|"
    r"^[ \t]*(\w+)(?: ?:|:? *--| (?:is|are|specifies|should|must|may|can)\b|\n[ \t]+(?=\w))",
    re.M,
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")

_WORDINGS = {
    "function": ("What does {0} do?", "What is {0} for?", "Explain {0}.", "In Python, what does {0} do?"),
    "module": ("What is the module {0} for?", "What does the Python module {0} provide?", "Describe the module {0}."),
    "class": ("What is {0}?", "What is the class {0} for?", "Describe the class {0}."),
    "signature": ("What are the parameters of {0}?", "How is {0} called?", "What is the signature of {0}?"),
    "returns": ("What does {0} return?", "What is the return value of {0}?"),
    "raises": ("When does {0} raise {1}?", "In which case does {0} raise {1}?"),
    "parameter": ("What does the parameter {1} of {0} do?", "What is {1} in {0}?", "Explain the argument {1} of {0}."),
    "topic": ("What is said about {1} in Python?", "Explain {1} in Python.", "Tell me about {1} in Python."),
    "heading": ("What does {0} say about {1}?", "In {0}, what is said about {1}?", "Explain {1} as in {0}."),
    "file": ("What is {0} about?", "What does {0} say?", "How does {0} begin?"),
    "definition": ("What is {1}?", "How is {1} defined?", "Define {1}."),
}
_WORDINGS_CJK = {
    "heading": ("《{0}》中关于“{1}”的内容是什么", "请介绍《{0}》中的“{1}”。", "《{0}》里的“{1}”讲了什么"),
    "file": ("《{0}》讲了什么", "请介绍《{0}》。"),
    "definition": ("什么是{1}", "{1}是什么", "请解释{1}。"),
}
_QUESTION_MARK_CJK = "\uff1f"


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the span of the document's text, in characters, that answers it."""

    id: str
    question: str
    answer: str
    span_start: int
    span_end: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked: a sort of question about `subject` (and `detail`), answered from `start`, not beyond `stop`.

    `extent` is how much answers it: "paragraph" as much of it as fits, "sentence" as little as suffices, "all" or not.
    """

    sort: str
    subject: str
    detail: str
    start: int
    stop: int
    extent: str = "paragraph"


def pairs_of(document: Document, limits: Questions) -> list[Pair]:
    """The pairs of a document, the most telling first; no two share an answer."""
    pairs: list[Pair] = []
    used: set[tuple[int, int]] = set()
    for asked in _asked(document):
        if len(pairs) == limits.per_document_max:
            break
        span = answer_span(document.text, asked.start, asked.stop, asked.extent, limits)
        if span and span not in used:
            used.add(span)
            name = f"{document.id}#q{len(pairs) + 1}"
            pairs.append(Pair(name, _worded(asked, name), document.text[slice(*span)], *span))
    return pairs


def answer_span(text: str, start: int, stop: int, extent: str, limits: Questions) -> tuple[int, int] | None:
    """The span from `start` on that makes an answer of useful length, or None where there is none."""
    start = skip_space(text, start, stop)
    least, most = start + limits.answer_characters_min, min(stop, start + limits.answer_characters_max)
    if extent == "all":
        end = start + len(text[start:stop].rstrip())
    else:
        end = paragraph_stop(text, start, stop)
        while end < least and end < stop:  # a short paragraph and the next one
            end = paragraph_stop(text, skip_space(text, end, stop), stop)
        end = start + len(text[start:end].rstrip())
        if extent == "sentence" or end > most:
            end = _sentence_end(text, start, end, (least, most), is_short=extent == "sentence") or end
    return (start, end) if least <= end <= most and _is_prose(text[start:end]) else None


def _sentence_end(text: str, start: int, end: int, bounds: tuple[int, int], *, is_short: bool) -> int:
    """The first (else the last) end of a sentence between the bounds, or 0."""
    fitting = [stop for stop in sentence_stops(text, start, min(end, bounds[1] + 1)) if bounds[0] <= stop <= bounds[1]]
    return (fitting[0] if is_short else fitting[-1]) if fitting else 0


def _is_prose(answer: str) -> bool:
    solid = "".join(answer.split())
    is_verbatim = answer.startswith((">>>", "```", "|", "+-", "..", "$ "))
    return not is_verbatim and sum(map(str.isalpha, solid)) >= LETTERS_SHARE_MIN * len(solid)


def _worded(asked: _Asked, name: str) -> str:
    """One of the wordings of the question, always the same for the same pair."""
    is_cjk = bool(_CJK.search(asked.detail or asked.subject)) and asked.sort in _WORDINGS_CJK
    wordings = _WORDINGS_CJK[asked.sort] if is_cjk else _WORDINGS[asked.sort]
    question = wordings[hash_text(name) % len(wordings)].format(asked.subject, asked.detail)
    return question if question.endswith(("?", ".", "。")) else question + _QUESTION_MARK_CJK


def _asked(document: Document) -> Iterator[_Asked]:
    if document.kind == "topic":
        return _about_topic(document)
    if document.kind not in ("module", "class", "function"):
        return _about_file(document)
    is_private = any(re.match(r"_(?!_)", part) for part in document.title.split("."))
    return iter(()) if is_private else _about_definition(document)


def _about_definition(document: Document) -> Iterator[_Asked]:
    """Summary, signature, returns, raises and parameters of a documented name; its text starts with the signature."""
    text, name, stop = document.text, document.title, len(document.text)
    body = text.find("\n\n") + 2
    if body < 2:
        return
    yield _Asked(document.kind, name, "", body, stop)
    names = _PARAMETER.findall(text, 0, body)
    if names:
        yield _Asked("signature", name, "", 0, body, "all")
    summary_stop = paragraph_stop(text, body, stop)
    returns = _RETURNS.search(text, summary_stop)
    if returns and document.kind == "function":
        yield _Asked("returns", name, "", returns.start(), stop, "sentence")
    for raises in _RAISES.finditer(text, summary_stop):
        yield _Asked("raises", name, raises[1], sentence_start(text, raises.start()), stop, "sentence")
    yield from _about_parameters(document, names, summary_stop)


def _about_parameters(document: Document, names: list[str], start: int) -> Iterator[_Asked]:
    """Lines that begin by explaining a parameter; each answer ends where the next one begins."""
    found = [match for match in _EXPLAINED.finditer(document.text, start) if (match[1] or match[2]) in names]
    stops = [*(match.start() for match in found), len(document.text)][1:]
    for match, stop in zip(found, stops, strict=True):
        yield _Asked("parameter", document.title, match[1] or match[2], match.start(), stop)


def _about_topic(document: Document) -> Iterator[_Asked]:
    for heading in headings(document.text):
        words = re.sub(r"^(The|An?) ", lambda match: match[0].lower(), heading.words)
        yield _Asked("topic", document.title, words, heading.body_start, heading.body_stop)
    for entry in _TOPIC_ENTRY.finditer(document.text):
        yield _Asked("function", entry[1], "", entry.end(), len(document.text))


def _about_file(document: Document) -> Iterator[_Asked]:
    found = headings(document.text)
    if not found:
        yield _Asked("file", document.title, "", 0, len(document.text))
    for heading in found:
        is_title = heading.words == document.title
        sort, detail = ("file", "") if is_title else ("heading", heading.words)
        yield _Asked(sort, document.title, detail, heading.body_start, heading.body_stop)
    starts = list(_paragraph_starts(document.text))
    for pattern in (_DEFINITION, _DEFINITION_CJK):
        for match in (pattern.match(document.text, start) for start in starts):
            if match and not _PRONOUN.match(match[1]):
                yield _Asked("definition", document.title, match[1], match.start(), len(document.text))


def _paragraph_starts(text: str) -> Iterator[int]:
    """Where something stands at the start of the text or behind a blank line."""
    yield 0
    place = text.find("\n\n")
    while place >= 0:
        yield place + 2
        place = text.find("\n\n", place + 1)
