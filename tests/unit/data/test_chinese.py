# ruff: noqa: RUF001 - texts in many scripts
"""Chinese is converted to the other script, and what has no other form stays."""

from __future__ import annotations

import pytest
from opencc import OpenCC

from atoll.data.engine.language.chinese import convert
from atoll.data.engine.language.telling import telling

HANS, HANT = "头发发展的软件说明书，皇后在后面", "頭髮發展的軟件說明書，皇后在後面"


def test_conversion_both_ways() -> None:
    assert convert(HANS, "traditional") == HANT
    assert convert(HANT, "simplified") == HANS
    assert convert(HANT, "keep") == HANT


def test_converted_text_does_not_change_again() -> None:
    assert convert(convert(HANT, "simplified"), "simplified") == HANS


@pytest.mark.parametrize("text", ["", "plain ASCII", "中文", "ひらがな", "é\u0301\n\x00tail", "😀"])
def test_what_has_no_other_form_stays(text: str) -> None:
    assert convert(text, "simplified") == convert(text, "traditional") == text


@pytest.mark.parametrize("phrase", ["深沈", "意志消沈", "英哩", "回覆", "毛坏", "滑藉"])
def test_phrases_whose_characters_change_only_there(phrase: str) -> None:
    assert convert(phrase, "simplified") == OpenCC("t2s").convert(phrase) != phrase


@pytest.mark.parametrize("phrase", ["叨念", "唁吊", "哺喂", "徼幸", "胡同里", "表面"])
def test_phrases_are_given_to_the_dictionary(phrase: str) -> None:
    assert convert(phrase, "traditional") == OpenCC("s2t").convert(phrase)


def test_characters_that_tell_are_of_one_script_alone() -> None:
    simplified, traditional = telling()
    assert not set(simplified) & set(traditional)
    assert set("国发级这说") <= set(simplified) and set("國發級這說") <= set(traditional)
    assert not set("的后里台中文") & {*simplified, *traditional}  # written in both, if not for the same word
    to_traditional = OpenCC("s2t").convert("\n".join(simplified)).split("\n")
    assert sum(one != other for one, other in zip(simplified, to_traditional, strict=True)) > 0.9 * len(simplified)
    to_simplified = OpenCC("t2s").convert("\n".join(simplified)).split("\n")
    assert sum(one != other for one, other in zip(simplified, to_simplified, strict=True)) < 0.01 * len(simplified)
