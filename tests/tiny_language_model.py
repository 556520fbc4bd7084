"""A language model of a few words with random weights, as a file of fastText's version 12."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HIERARCHICAL, SOFTMAX = 1, 3


@dataclass(frozen=True)
class TinyModel:
    """What the file says of itself. `part` numbers of a row share a code; `kept` of the buckets have a row, -1: all."""

    words: Sequence[str]
    labels: Sequence[str] = ("one", "two", "three", "four", "five", "six", "seven")
    loss: int = HIERARCHICAL
    dimensions: int = 5
    part: int = 2
    has_norms: bool = True
    buckets: int = 500
    kept: int = 300
    shortest: int = 2
    longest: int = 4
    version: int = 12
    word_ngrams: int = 1
    seed: int = 1

    def data(self) -> bytes:
        """The bytes of the file."""
        choice = np.random.default_rng(self.seed)
        rows = len(self.words) + (self.buckets if self.kept < 0 else self.kept)
        parts = -(-self.dimensions // self.part)
        last = self.dimensions % self.part or self.part
        quantiser = struct.pack("<iiii", self.dimensions, parts, self.part, last)
        centroids = choice.normal(size=256 * self.dimensions).astype("<f4").tobytes()
        codes = choice.integers(0, 256, rows * parts, np.uint8).tobytes()
        output = choice.normal(size=len(self.labels) * self.dimensions).astype("<f4").tobytes()
        pieces = [
            self._arguments(),
            self._dictionary(),
            struct.pack("<??qqi", True, self.has_norms, rows, self.dimensions, len(codes)) + codes,
            quantiser + centroids,
            self._norms(choice, rows) if self.has_norms else b"",
            struct.pack("<?qq", False, len(self.labels), self.dimensions) + output,
        ]
        return b"".join(pieces)

    def _arguments(self) -> bytes:
        numbers = (5, 5, 1, 5, self.word_ngrams, self.loss, 3, self.buckets, self.shortest, self.longest, 100)
        return struct.pack("<ii12id", 793712314, self.version, self.dimensions, *numbers, 1e-4)

    def _dictionary(self) -> bytes:
        words, labels = ["</s>", *self.words[1:]], [f"__label__{name}" for name in self.labels]
        data = struct.pack("<iiiqq", len(words) + len(labels), len(words), len(labels), 10**6, self.kept)
        for number, entry in enumerate([*words, *labels]):
            is_label = number >= len(words)
            count = 1000 // ((number - len(words)) // 2 + 1) if is_label else 10**6 - number
            data += entry.encode() + b"\0" + struct.pack("<qb", count, is_label)
        if self.kept > 0:
            pairs = list(enumerate(random.Random(self.seed).sample(range(self.buckets), self.kept)))
            data += b"".join(struct.pack("<ii", bucket, row) for row, bucket in pairs)
        return data

    def _norms(self, choice: np.random.Generator, rows: int) -> bytes:
        codes = choice.integers(0, 256, rows, np.uint8).tobytes()
        return codes + struct.pack("<iiii", 1, 1, 1, 1) + choice.uniform(0.5, 2, 256).astype("<f4").tobytes()
