"""Compiled and as Python the kernels give the same bits, and a batch says of each text what it says of it alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine import kernel
from atoll.data.engine.annotate import pieces
from atoll.data.engine.annotate import table as compiled
from atoll.data.engine.annotate.blocks import block, fill
from atoll.data.engine.annotate.pieces import cut, known_words
from atoll.data.engine.annotate.table import Wanted
from atoll.data.engine.characters import characters

CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("aZé_ \n\t\r.0٣中のกन\u0301\u3000\x1c\U0001f600\U000e0041"),
    st.sampled_from(".,:;-–—…'\"’()[]{}#$%+/@~• \n"),  # noqa: RUF001
)
WORDS = st.sampled_from(
    [
        *("the", "and", "don't", "e.g.", "U.S.", "10%", "5km", "https://a.org/b-c", "x@y.org", "...", "[12]", "a.b"),
        *(
            "lorem ipsum",
            "JavaScript",
            "privacy policy.",
            "中文",
            "。",
            "\n",
            "\n\n",
            " ",
            "- ",
            "#",
            "word",
            "a b c d e",
        ),
    ]
)
TEXTS = st.lists(st.one_of(st.text(CHARACTERS, max_size=100), st.lists(WORDS, max_size=30).map(" ".join)), max_size=4)
WANTED = st.builds(
    Wanted,
    permutations=st.integers(1, 5),
    words=st.integers(1, 6),
    cjk_characters=st.integers(1, 6),
    lines=st.just(True),
)


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    """`annotate` and all it stands on, imported once more without numba."""
    names = [name for name in sys.modules if name.startswith("atoll.data.engine.") or name.split(".")[0] == "numba"]
    saved = {name: sys.modules.pop(name) for name in names}
    sys.modules["numba"] = None  # type: ignore[assignment]
    try:
        module = importlib.import_module("atoll.data.engine.annotate.table")
        assert not sys.modules["atoll.data.engine.kernel"].IS_COMPILED
    finally:
        for name in [name for name in sys.modules if name.startswith("atoll.data.engine.")]:
            del sys.modules[name]
        del sys.modules["numba"]
        sys.modules.update(saved)
    yield module


def _all(module: ModuleType, texts: list[str], wanted: Wanted) -> list[object]:
    batch = pa.array(texts, pa.string())
    found = module.annotate(batch, wanted)
    flat, starts = module.shingles(batch, wanted)
    arrays = (found.signatures, found.lines, found.line_starts, flat, starts)
    return [found.notes, *((array.dtype, array.tolist()) for array in arrays)]


def test_the_kernels_tested_are_compiled() -> None:
    assert kernel.IS_COMPILED


@settings(max_examples=20, deadline=None)
@given(texts=TEXTS, wanted=WANTED)
def test_compiled_and_plain_annotations_are_equal(plain: ModuleType, texts: list[str], wanted: Wanted) -> None:
    assert _all(compiled, texts, wanted) == _all(plain, texts, wanted)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, wanted=WANTED)
def test_a_batch_says_of_each_text_what_it_says_of_it_alone(texts: list[str], wanted: Wanted) -> None:
    together = compiled.annotate(pa.array(texts, pa.string()), wanted)
    flat, starts = compiled.shingles(pa.array(texts, pa.string()), wanted)
    for index, text in enumerate(texts):
        alone = compiled.annotate(pa.array([text]), wanted)
        assert alone.notes.equals(together.notes.slice(index, 1))
        assert alone.signatures.tolist() == [together.signatures[index].tolist()]
        assert (
            compiled.shingles_of(pa.array([text]), wanted).tolist() == flat[starts[index] : starts[index + 1]].tolist()
        )


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS, max_size=300))
def test_statistics_are_what_python_counts(text: str) -> None:
    row = compiled.annotate(pa.array([text]), Wanted()).notes.to_pylist()[0]
    assert row["characters"] == len(text)
    assert row["bytes"] == len(text.encode())
    assert row["newlines"] == text.count("\n")
    lines = [line for line in text.split("\n") if line.split()]
    assert row["lines"] == len(lines)
    assert row["duplicate_line_ratio"] == ((len(lines) - len(set(lines))) / len(lines) if lines else 0)
    letters = sum(character.isalpha() for character in text if ord(character) < 0x32400)
    solid = sum(not character.isspace() for character in text)
    assert row["alpha_ratio"] == (letters / solid if solid else 0)
    assert row["plain_words"] <= row["pieces"] <= solid


MARKS = st.sampled_from([*".,:;!?-–—…'\"’()[]{}<>=+*^~/$%#&_|\\", "", "."])  # noqa: RUF001
STEMS = st.lists(
    st.sampled_from(["a", "Ab", "word", "e.g", "n't", "5", "12", "km", "C", "É", "Dr", "ß", "²", "@", "U.S", "-"]),
    max_size=3,
).map("".join)
RUNS = st.tuples(MARKS, STEMS, MARKS).map("".join).filter(bool)


@settings(max_examples=2000, deadline=None)
@given(RUNS)
def test_a_run_with_one_mark_at_an_end_is_cut_as_if_it_were_looked_at_closely(run: str) -> None:
    room, data = block(characters()), np.frombuffer(run.encode(), np.uint8)
    length, gaps = fill(data, 0, len(data), characters(), room)
    assert (length, gaps) == (len(run), 0)
    closely = pieces._cut_closely(room, 0, length, known_words(), 0)
    expected = room.starts[:closely].tolist(), room.stops[:closely].tolist()
    held = cut(room, length, gaps, known_words())
    assert (room.starts[:held].tolist(), room.stops[:held].tolist()) == expected


SCRIPT = """
import sys
sys.modules["numba"] = None
import hashlib, pyarrow as pa
from atoll.data.engine.annotate.table import Wanted, annotate, shingles
from atoll.data.engine.kernel import IS_COMPILED
texts = pa.array(sys.stdin.read().split("|"))
found = annotate(texts, Wanted(words=4, cjk_characters=3, lines=True))
arrays = (found.signatures, found.lines, found.line_starts, *shingles(texts, Wanted()))
digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays))
for column in found.notes.columns:
    digest.update(column.to_numpy().tobytes())
print(IS_COMPILED, digest.hexdigest())
"""
SAMPLE = "The first text: it's https://example.org/a-b, isn't it?\n\nAgain and again and again.|中文的文本，的文本。|"  # noqa: RUF001


def test_without_numba_the_whole_annotation_gives_the_same_bytes() -> None:
    command = [sys.executable, "-W", "error", "-c"]
    runs = [
        subprocess.run([*command, script], input=SAMPLE, capture_output=True, text=True, check=True).stdout.split()
        for script in (SCRIPT, SCRIPT.replace('sys.modules["numba"] = None', ""))
    ]
    assert [run[0] for run in runs] == ["False", "True"]
    assert runs[0][1] == runs[1][1]
