# ruff: noqa: RUF001 - texts in many scripts
"""Languages are told by script where it decides, else by the model in the wheel."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.language.identify import identify, keeps

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


def test_each_language_by_a_sentence() -> None:
    codes, scores = identify(pa.array(list(SENTENCES.values())))
    assert codes.to_pylist() == list(SENTENCES)
    assert scores.dtype == np.float32
    assert scores.min() > 0.5
    assert scores.max() <= 1


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
