"""The tables of the package jieba, read where it is installed: its dictionary and its hidden Markov model.

They are read as text, so nothing of the package runs. What is built of them is kept under the digest of the files in a
folder, mapped and shared by all processes that use it. A dictionary of one's own is not known here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import math
import os
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from atoll.core.errors import Unavailable
from atoll.data.engine.arrays import I64, U64
from atoll.data.engine.scan import utf8_of
from atoll.data.engine.segment import trie

F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]

FIRST_HAN, LAST_HAN = 0x4E00, 0x9FD5
"""The characters that words of more than Latin letters are made of."""
ASCII = 128
SLOTS = ASCII + LAST_HAN + 1 - FIRST_HAN
"""A character is known by its slot: ASCII by its code, then the Han characters in order."""

STATES = "BMES"
"""Of a character in a word: it begins it, stands within, ends it, or is all of it."""
NEVER = -3.14e100
"""The logarithm of a probability that is not in the tables."""
BEFORE = {"B": "ES", "M": "BM", "E": "BM", "S": "ES"}
"""The two states a state may follow, in the order of the alphabet."""

_LAYOUT = b"1"
_FILES = ("dict.txt", "finalseg/prob_start.py", "finalseg/prob_trans.py", "finalseg/prob_emit.py")
_CODES = -(-SLOTS // 4) * 4  # whole words of 64 bits
_HINT = "pip install 'atoll[chinese]', or cut Chinese into characters: chinese_words: characters"


class Model(NamedTuple):
    """What kernels cut by. cells: the trie of the words (see `trie`). weights: log probability of a word by the number
    in its cell; weights[0] is that of a character no word begins with. codes: the trie's code of each slot, 0: none.
    emissions: float64 (Han characters, STATES). moves: float64 (STATES, 2) from the two states BEFORE each. begins:
    float64 (STATES), of the first character.
    """

    cells: U64
    weights: F64
    codes: U16
    emissions: F64
    moves: F64
    begins: F64


@lru_cache(maxsize=2)
def model(cache: str = "") -> Model:
    """The tables of the installed package, from the folder `cache` where one is named; Unavailable where there is no
    such package, or its files are not what they are known to be.
    """
    contents = [_content(name) for name in _FILES]
    if not cache:
        return _unpacked(_packed(*contents))
    digest = hashlib.blake2b(_LAYOUT, digest_size=16)
    for content in contents:
        digest.update(content)
    path = Path(cache) / f"jieba-{digest.hexdigest()}.npy"
    if not path.exists():
        _store(path, _packed(*contents))
    return _unpacked(np.load(path, mmap_mode="r"))


def _content(name: str) -> bytes:
    found = importlib.util.find_spec("jieba")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("the package jieba, whose dictionary cuts Chinese into words, is not here", hint=_HINT)
    path = Path(found.submodule_search_locations[0]) / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"the package jieba has no {name}: {error.strerror}", hint=_HINT) from error


def _packed(dictionary: bytes, start: bytes, moves: bytes, emissions: bytes) -> U64:
    """All tables as one array of words, after the sizes of the first of them."""
    cells, weights, codes = _words(dictionary)
    tables = weights, codes, _emissions(_value(emissions)), _moves(_value(moves)), _begins(_value(start))
    sizes = np.array([len(cells), len(weights)], np.uint64)
    return np.concatenate([sizes, cells, *(table.reshape(-1).view(np.uint64) for table in tables)])


def _unpacked(packed: U64) -> Model:
    packed = np.asarray(packed)
    packed.setflags(write=False)  # always: kernels are compiled for one type of array
    cells, weights = (int(size) for size in packed[:2])
    han, states = SLOTS - ASCII, len(STATES)
    sizes = cells, weights, _CODES // 4, han * states, 2 * states, states
    parts = np.split(packed[2:], np.cumsum(sizes)[:-1])
    of_words, of_han, of_moves, of_starts = (parts[number].view(np.float64) for number in (1, 3, 4, 5))
    codes = parts[2].view(np.uint16)
    return Model(parts[0], of_words, codes, of_han.reshape(han, states), of_moves.reshape(states, 2), of_starts)


def _words(dictionary: bytes) -> tuple[U64, F64, U16]:
    """Cells, weights and codes of a dictionary: a word, its frequency and its part of speech a line."""
    table = _table(dictionary)
    counts = table.column("count").to_numpy()
    known = np.unique(counts[counts > 0])
    numbers = np.where(counts > 0, np.searchsorted(known, counts) + 1, 0)
    total = math.log(int(counts.sum()))
    weights = np.array([0.0 - total, *(math.log(count) - total for count in known.tolist())])
    slots, lengths = _slots(table.column("word").combine_chunks())
    codes = _codes(slots)
    is_met = np.minimum.reduceat(slots, np.cumsum(lengths) - lengths) >= 0
    letters = codes[slots[np.repeat(is_met, lengths)]]
    return trie.build(letters, lengths[is_met], numbers[is_met]), weights, codes


def _table(dictionary: bytes) -> pa.Table:
    names, types = ["word", "count", "kind"], {"word": pa.string(), "count": pa.int64(), "kind": pa.string()}
    try:
        return csv.read_csv(
            pa.BufferReader(dictionary),
            csv.ReadOptions(use_threads=False, column_names=names),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise Unavailable(f"the dictionary of the package jieba is not as expected: {error}", hint=_HINT) from error


def _slots(words: pa.StringArray) -> tuple[I64, I64]:
    """The slots of the characters of all words, -1 where a character has none; and the length of each word."""
    data, starts = utf8_of(words)
    is_first = (data & 0xC0) != 0x80
    counts = np.cumsum(np.append(0, is_first))[starts]
    points = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), np.uint32).astype(np.int64)
    is_han = (points >= FIRST_HAN) & (points <= LAST_HAN)
    return np.where(is_han, points - FIRST_HAN + ASCII, np.where(points < ASCII, points, -1)), np.diff(counts)


def _codes(slots: I64) -> U16:
    """The code of each slot: the more frequent a character, the smaller, from 1 on; 0 of what no word has."""
    counts = np.bincount(slots[slots >= 0], minlength=SLOTS)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    codes = np.zeros(_CODES, np.uint16)
    codes[order] = np.arange(1, len(order) + 1)
    return codes


def _value(source: bytes) -> Any:
    """What a file of the package calls P: a dictionary of numbers, written out."""
    try:
        statement = ast.parse(source).body[-1]
        return ast.literal_eval(getattr(statement, "value", statement))
    except (SyntaxError, ValueError, IndexError) as error:
        raise Unavailable(f"a table of the package jieba is not as expected: {error}", hint=_HINT) from error


def _emissions(value: dict[str, dict[str, float]]) -> F64:
    table = np.full((SLOTS - ASCII, len(STATES)), NEVER)
    for number, state in enumerate(STATES):
        for letter, probability in value[state].items():
            if FIRST_HAN <= ord(letter) <= LAST_HAN:
                table[ord(letter) - FIRST_HAN, number] = probability
    return table


def _moves(value: dict[str, dict[str, float]]) -> F64:
    return np.array([[value[before].get(state, NEVER) for before in BEFORE[state]] for state in STATES])


def _begins(value: dict[str, float]) -> F64:
    return np.array([value[state] for state in STATES])


def _store(path: Path, content: U64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".jieba-", delete=False) as file:
        np.save(file, content)
    os.replace(file.name, path)
