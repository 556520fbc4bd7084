"""Annotate: all that one pass over a batch of texts notes of them, so that rules and duplicates never look at a text.

Every text is read twice while it is in the processor's cache (tokens for MinHash, lines for the statistics) and hashed
once. The room that takes is shared by all texts of a batch and does not grow with a text, but for the slots of a text
of very many lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import xxhash

from atoll.data.engine.annotate import minhash
from atoll.data.engine.annotate.minhash import Signatures
from atoll.data.engine.annotate.statistics import measure, statistics
from atoll.data.engine.arrays import I64, U64
from atoll.data.engine.scan import utf8_of
from atoll.data.engine.segment.cuts import cuts, uncut
from atoll.data.engine.segment.jieba import model

DIGEST = ("digest_low", "digest_high")
"""Columns of the notes (uint64): XXH3-128 of the text, equal for equal texts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to note. words, cjk_characters: tokens of a shingle (see `minhash`). Without `repetition` the notes lack
    `rules.REPETITION_COLUMNS`; without `lines` no line is hashed. chinese_words: what words and pieces of Chinese are,
    its `characters` or what `jieba` cuts.
    """

    permutations: int = 112
    words: int = 5
    cjk_characters: int = 5
    repetition: bool = True
    lines: bool = False
    chinese_words: str = "characters"


@dataclass(frozen=True, slots=True)
class Annotation:
    """notes: COLUMNS and DIGEST, one row a text. signatures: uint32 (texts, permutations). lines: hashes of the lines
    that are not blank over their characters that are not white space, those of text i from line_starts[i] to
    line_starts[i + 1]; empty where not wanted.
    """

    notes: pa.RecordBatch
    signatures: Signatures
    lines: U64
    line_starts: I64


def annotate(texts: pa.StringArray, wanted: Wanted, cache: str = "") -> Annotation:
    """What is `wanted` of each text, annotated as if it were alone. cache: a folder for tables of words."""
    room = minhash.shingler(wanted.words, wanted.cjk_characters)
    signatures, tokens = minhash.signatures(texts, wanted.permutations, room)
    words = cuts(texts, model(cache)) if wanted.chinese_words == "jieba" else uncut(texts)
    tokens = np.where(words.is_cut[:, None], words.counts, tokens)
    measured = measure(texts, words, wanted.repetition, wanted.lines)
    columns = statistics(np.diff(utf8_of(texts)[1]), tokens, measured, wanted.repetition)
    notes = pa.record_batch(columns | dict(zip(DIGEST, digests(texts), strict=True)))
    return Annotation(notes, signatures, measured.lines, measured.line_starts)


def digests(texts: pa.StringArray) -> tuple[pa.Array, pa.Array]:
    """Low and high word (uint64) of the XXH3-128 of each text."""
    data, starts = utf8_of(texts)
    view = data.data
    joined = b"".join([xxhash.xxh3_128_digest(view[start:stop]) for start, stop in pairwise(starts.tolist())])
    words = np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)
    return pa.array(words[:, 1].copy()), pa.array(words[:, 0].copy())


def shingles(texts: pa.StringArray, wanted: Wanted) -> tuple[U64, I64]:
    """The distinct shingles of each text, ascending; those of text i from starts[i] to starts[i + 1]."""
    return minhash.shingles(texts, wanted.words, wanted.cjk_characters)


def shingles_of(text: pa.StringArray, wanted: Wanted) -> U64:
    """The distinct shingles of one text (an array of one), ascending."""
    return shingles(text, wanted)[0]
