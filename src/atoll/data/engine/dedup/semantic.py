"""Texts that mean the same: the cosine of their embeddings, every pair of them, block by block.

The search is exact and so quadratic: a hundred thousand texts take some minutes of a core, a million some hours. A
block of cosines is in memory at once. Embeddings are kept as 16-bit floats, which moves a cosine by less than .001.
A cluster is a connected component of the pairs at the threshold or above.
What an embedding sees of a text is the embedder's: the built-in one reads the first 512 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from atoll.core.errors import Invalid
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup.embedder import TEXTS_AT_ONCE, Embed, Vectors, asking, built_in
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.forest import Pairs, flatten, join, members_of, spanning
from atoll.data.engine.dedup.spec import Semantic
from atoll.data.engine.runtimes.stages import Inline, Stages

BLOCK = 2048
ASKED_AT_ONCE = 1024
"""Texts of one item of a stage that asks a deployment: what was answered is kept item by item."""

VECTORS, PAIRS = "vectors.npy", "pairs.npy"


@dataclass(frozen=True, slots=True)
class _Embedding:
    batch: Batch
    rows: Indices
    embed: Embed


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    count: int
    vectors: tuple[Path, ...]
    threshold: float


def clusters(corpus: Corpus, stages: Stages, semantic: Semantic, members: Mask, embed: Embed | None = None) -> Indices:
    """For every document the least member of its cluster; one that is no member is alone. int64 (documents,).

    Raises Invalid when the model is not built in and no `embed` is given, Unavailable when it is not installed, and as
    `Asking` when a deployment embeds.
    """
    result = np.arange(len(corpus))
    numbers = np.flatnonzero(members)
    if not len(numbers):
        return result
    rows = [np.flatnonzero(members[batch.first : batch.first + batch.rows]) for batch in corpus]
    if semantic.deployment and embed is None:
        vectors = _asked(corpus, stages, semantic, rows)
    else:
        function = embed or built_in(semantic.model)
        items = [_Embedding(batch, some, function) for batch, some in zip(corpus, rows, strict=True)]
        vectors = tuple(folder / VECTORS for folder in stages.map("dedup-vectors", _embed, items))
    blocks = range(-(-len(numbers) // BLOCK))
    wanted = [_Block(block, len(numbers), vectors, semantic.threshold) for block in blocks]
    parents = np.arange(len(numbers))
    for folder in stages.map("dedup-semantic", _compare, wanted, "block"):
        join(parents, members_of(np.load(folder / PAIRS)))
    flatten(parents)
    result[numbers] = numbers[parents]
    return result


def _asked(corpus: Corpus, stages: Stages, semantic: Semantic, rows: Sequence[Indices]) -> tuple[Path, ...]:
    """The embeddings of a deployment. This process asks, for it alone has the key; each item's answers are kept, so a
    run that goes on asks for nothing twice and compares what it compared before."""
    parts = [
        (batch, some[start : start + ASKED_AT_ONCE])
        for batch, some in zip(corpus, rows, strict=True)
        for start in range(0, len(some), ASKED_AT_ONCE)
    ]
    here = Stages(stages.folder, Inline(), stages.report)
    with closing(asking(semantic)) as embed:
        items = [_Embedding(batch, some, embed) for batch, some in parts]
        folders = here.map("dedup-vectors", _embed, items)
    vectors = tuple(folder / VECTORS for folder in folders)
    widths = {np.load(path, mmap_mode="r").shape[1] for path in vectors}
    if len(widths) > 1:
        words = f"{semantic.deployment} gave embeddings of {' and '.join(map(str, sorted(widths)))} numbers"
        raise Invalid(words, field="recipe.dedup.semantic", hint="it was changed meanwhile; run again")
    return vectors


def _embed(item: _Embedding, folder: Path) -> None:
    parts = [np.empty((0, 0), np.float16)]
    texts = item.batch.texts
    for start in range(0, len(item.rows), TEXTS_AT_ONCE):
        some = texts.take(pa.array(item.rows[start : start + TEXTS_AT_ONCE])).to_pylist()
        found = np.asarray(item.embed(some), np.float32)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        parts.append((found / np.maximum(length, 1e-12)).astype(np.float16))
    np.save(folder / VECTORS, np.concatenate(parts[1:] or parts))


def _compare(item: _Block, folder: Path) -> None:
    """Which texts of a block are near ones of it or of those after it: only as many pairs as connect them."""
    own = _vectors(item.vectors, item.number * BLOCK, BLOCK)
    parents = np.arange(item.count)
    kept: list[Pairs] = [np.empty(0, np.uint64)]
    for start in range(item.number * BLOCK, item.count, BLOCK):
        others = _vectors(item.vectors, start, BLOCK)
        one, other = np.nonzero(own @ others.T >= np.float32(item.threshold))
        one, other = one + item.number * BLOCK, other + start
        pairs = (one.astype(np.uint64) << np.uint64(32) | other.astype(np.uint64))[one < other]
        chosen = np.zeros(len(pairs), bool)
        spanning(parents, members_of(pairs), chosen)
        kept.append(pairs[chosen])
    np.save(folder / PAIRS, np.concatenate(kept))


def _vectors(paths: Sequence[Path], start: int, count: int) -> Vectors:
    """Vectors number `start` on, `count` at most, of all files together."""
    parts, first = [], 0
    for path in paths:
        vectors = np.load(path, mmap_mode="r")
        low, high = max(start - first, 0), min(start + count - first, len(vectors))
        if low < high:
            parts.append(vectors[low:high].astype(np.float32))
        first += len(vectors)
    return np.concatenate(parts)
