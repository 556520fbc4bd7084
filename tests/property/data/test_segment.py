# ruff: noqa: RUF001 - full-width marks of Chinese
"""Chinese is cut as jieba itself cuts it, and the kernels give the same bits compiled and as Python."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine import kernel
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.segment import cuts as compiled
from atoll.data.engine.segment import jieba
from atoll.data.engine.segment.jieba import Model

Cut = Callable[[str], list[str]]

HAN = st.characters(min_codepoint=jieba.FIRST_HAN, max_codepoint=jieba.LAST_HAN)
COMMON = st.sampled_from("的一是不了在人有我他这中大来上国研究生命起源京都清华杭于后而已之乎者也")
OTHERS = st.sampled_from("azAZ09+#&._%-@/ \n\r\t,()!—…。，、；：「」\u3000éか한𠮷鿖㐀\x85")
PARTS = st.sampled_from(
    [
        *("北京大学", "研究生命起源", "日本京都大学", "卡拉OK", "AT&T", "C++", "T恤", "3.14%", "v1.2.3", "10%%"),
        *("\r\n", "乒乓球拍卖完了", "结婚的和尚未结婚的", "永和服装饰品有限公司", "的的的的", "龘龘龘", "工信处女干事"),
    ]
)
TEXTS = st.lists(st.one_of(HAN, COMMON, COMMON, OTHERS, PARTS), max_size=60).map("".join)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the tables, built once."""
    folder = str(tmp_path_factory.mktemp("tables"))
    jieba.model(folder)
    return folder


@pytest.fixture(scope="module")
def model(tables: str) -> Model:
    return jieba.model(tables)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """`jieba.lcut` of the package, without the words that are white space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("jieba")
    package.setLogLevel(logging.ERROR)
    package.dt.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    return lambda text: [word for word in package.lcut(text) if word.strip()]


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    """`cuts` and `annotate` and all they stand on, imported once more without numba."""
    names = [name for name in sys.modules if name.startswith("atoll.data.engine.") or name.split(".")[0] == "numba"]
    saved = {name: sys.modules.pop(name) for name in names}
    sys.modules["numba"] = None  # type: ignore[assignment]
    try:
        module = importlib.import_module("atoll.data.engine.segment.cuts")
        module.table = importlib.import_module("atoll.data.engine.annotate.table")  # type: ignore[attr-defined]
        assert not sys.modules["atoll.data.engine.kernel"].IS_COMPILED
        module.trie = sys.modules["atoll.data.engine.segment.trie"]  # type: ignore[attr-defined]
    finally:
        for name in [name for name in sys.modules if name.startswith("atoll.data.engine.")]:
            del sys.modules[name]
        del sys.modules["numba"]
        sys.modules.update(saved)
    yield module


def _words(text: str, found: compiled.Cuts) -> list[str]:
    data = text.encode()
    places = np.flatnonzero(np.unpackbits(found.starts, bitorder="little")).tolist()
    return [data[start:stop].decode().strip() for start, stop in zip(places, [*places[1:], len(data)], strict=True)]


def _all(found: compiled.Cuts) -> list[object]:
    return [(array.dtype, array.tolist()) for array in found]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
def test_words_are_those_of_jieba(text: str, model: Model, original: Cut) -> None:
    found = compiled.cuts(pa.array([text], pa.string()), model)
    if found.is_cut[0]:
        assert _words(text, found) == original(text)
        assert found.counts[0, 0] == sum(any(map(_is_letter, word)) for word in original(text))
    else:
        assert not found.starts.any()


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_compiled_and_plain_cuts_are_equal(plain: ModuleType, model: Model, texts: list[str]) -> None:
    assert kernel.IS_COMPILED
    batch = pa.array(texts, pa.string())
    assert _all(compiled.cuts(batch, model)) == _all(plain.cuts(batch, model))


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5), first=st.integers(0, 5))
def test_a_batch_says_of_each_text_what_it_says_of_it_alone(model: Model, texts: list[str], first: int) -> None:
    batch = pa.array(texts, pa.string()).slice(first)
    together = compiled.cuts(batch, model)
    bits, place = np.unpackbits(together.starts, bitorder="little"), 0
    for index, text in enumerate(texts[first:]):
        alone = compiled.cuts(pa.array([text], pa.string()), model)
        size = len(text.encode())
        assert bits[place : place + size].tolist() == np.unpackbits(alone.starts, bitorder="little")[:size].tolist()
        assert alone.counts.tolist() == [together.counts[index].tolist()]
        place += size


WANTED = Wanted(permutations=2, lines=True, chinese_words="jieba")


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_compiled_and_plain_annotations_of_words_are_equal(plain: ModuleType, tables: str, texts: list[str]) -> None:
    batch = pa.array(texts, pa.string())
    found, other = annotate(batch, WANTED, tables), plain.table.annotate(batch, WANTED, tables)
    assert found.notes.equals(other.notes)
    assert found.lines.tolist() == other.lines.tolist()


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_pieces_are_the_words_of_jieba(text: str, tables: str, model: Model, original: Cut) -> None:
    row = annotate(pa.array([text], pa.string()), WANTED, tables).notes.to_pylist()[0]
    if compiled.cuts(pa.array([text], pa.string()), model).is_cut[0]:
        words = original(text)
        assert row["pieces"] == len(words)
        assert row["alphabetic_word_ratio"] == sum(any(map(str.isalpha, word)) for word in words) / len(words)


ENTRIES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(entries=ENTRIES)
def test_compiled_and_plain_tries_are_equal_and_know_every_word(plain: ModuleType, entries: list[list[int]]) -> None:
    from atoll.data.engine.segment import trie

    codes, lengths = np.concatenate(entries), np.array([len(entry) for entry in entries])
    cells = trie.build(codes, lengths, np.arange(1, len(entries) + 1))
    assert cells.tolist() == plain.trie.build(codes, lengths, np.arange(1, len(entries) + 1)).tolist()
    for entry in entries:
        node = 0
        for code in entry:
            node = trie.child_of(cells, node, np.uint16(code))
            assert node > 0
        assert entries[trie.weight_of(cells[node]) - 1] == entry
