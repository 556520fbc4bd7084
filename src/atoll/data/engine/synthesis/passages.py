"""Passages: what part of a document a request is about, and on which sentence of it.

A document is cut into passages at paragraphs, else at sentences, each short enough to be read at once. Which passages
and sentences are asked about follows from a hash of the document's id and the seed. What a sentence means is not known
here, only that it has letters enough to be one.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.data.engine.hashing import hash_text
from atoll.data.engine.questions.structure import paragraph_stop, sentence_stops, skip_space
from atoll.data.engine.synthesis.content import is_cjk
from atoll.data.engine.synthesis.wanted import Wanted

PASSAGE_BYTES_MIN = 80
SENTENCE_CHARACTERS = (12, 400)
LETTERS_SHARE_MIN = 0.6

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to write: about `sentence`, within `passage` (places in the document's text), of `kind`."""

    id: str
    kind: str
    document: str
    passage: str
    start: int
    sentence: str

    def __str__(self) -> str:
        return self.id


def targets_of(document: str, text: str, wanted: Wanted) -> list[Target]:
    """What is asked about a document: at most `per_document` sentences, spread over its passages."""
    queues = [_ranked(_sentences(text, *span), document, wanted.seed) for span in passages(text, wanted)]
    found = [(span, queue) for span, queue in zip(passages(text, wanted), queues, strict=True) if queue]
    found.sort(key=lambda item: _place(document, item[0], wanted.seed))
    turn = hash_text(document, wanted.seed)
    made: list[Target] = []
    while found and len(made) < wanted.per_document:
        span, queue = found.pop(0)
        kind = wanted.kinds[(turn + len(made)) % len(wanted.kinds)]
        name = f"{document}#s{len(made) + 1}"
        made.append(Target(name, kind, document, text[slice(*span)], span[0], text[slice(*queue.pop(0))]))
        if queue:
            found.append((span, queue))
    return made


def passages(text: str, wanted: Wanted) -> list[Span]:
    """The passages of a text in order, without white space around them.

    Each is at most `passage_characters` long, half as much in Chinese, whose characters say more.
    """
    most = wanted.passage_characters // 2 if is_cjk(text) else wanted.passage_characters
    spans: list[Span] = []
    start = skip_space(text, 0, len(text))
    while start < len(text):
        stop = _passage_stop(text, start, most)
        if len(text[start:stop].encode()) >= PASSAGE_BYTES_MIN:
            spans.append((start, stop))
        start = skip_space(text, max(stop, start + 1), len(text))
    return spans


def _passage_stop(text: str, start: int, most: int) -> int:
    """The end of the last paragraph that fits; else of the last sentence; else as much as fits."""
    limit = min(len(text), start + most)
    stop = end = paragraph_stop(text, start, len(text))
    while end <= limit:
        stop = end
        following = skip_space(text, end, len(text))
        if following == len(text):
            return stop
        end = paragraph_stop(text, following, len(text))
    if stop <= limit:
        return stop
    sentences = list(sentence_stops(text, start, limit))
    return sentences[-1] if sentences else start + len(text[start:limit].rstrip())


def _sentences(text: str, start: int, stop: int) -> list[Span]:
    """The sentences of a passage that are worth asking about."""
    spans: list[Span] = []
    for end in (*sentence_stops(text, start, stop), stop):
        start = skip_space(text, start, end)
        if SENTENCE_CHARACTERS[0] <= end - start <= SENTENCE_CHARACTERS[1] and _is_prose(text[start:end]):
            spans.append((start, end))
        start = end
    return spans


def _is_prose(sentence: str) -> bool:
    solid = [character for character in sentence if not character.isspace()]
    return sum(map(str.isalpha, solid)) >= LETTERS_SHARE_MIN * len(solid)


def _ranked(spans: list[Span], document: str, seed: int) -> list[Span]:
    return sorted(spans, key=lambda span: _place(document, span, seed))


def _place(document: str, span: Span, seed: int) -> tuple[int, Span]:
    return hash_text(f"{document}\0{span[0]}\0{span[1]}", seed), span
