# ruff: noqa: RUF001 - texts in many scripts
"""Chinese script is told and converted, and what has no other form stays."""

from __future__ import annotations

import pytest
from opencc import OpenCC

from atoll.data.engine.language.chinese import convert, script

SIMPLIFIED, TRADITIONAL = "头发发展的软件说明书，皇后在后面", "頭髮發展的軟件說明書，皇后在後面"


def test_conversion_both_ways() -> None:
    assert convert(SIMPLIFIED, "traditional") == TRADITIONAL
    assert convert(TRADITIONAL, "simplified") == SIMPLIFIED
    assert convert(TRADITIONAL, "keep") == TRADITIONAL


def test_converted_text_does_not_change_again() -> None:
    assert convert(convert(TRADITIONAL, "simplified"), "simplified") == SIMPLIFIED


@pytest.mark.parametrize("text", ["", "plain ASCII", "中文", "ひらがな", "é\u0301\n\x00tail", "😀"])
def test_what_has_no_other_form_stays(text: str) -> None:
    assert convert(text, "simplified") == convert(text, "traditional") == text


@pytest.mark.parametrize("phrase", ["深沈", "意志消沈", "英哩", "回覆", "毛坏", "滑藉"])
def test_phrases_whose_characters_change_only_there(phrase: str) -> None:
    assert convert(phrase, "simplified") == OpenCC("t2s").convert(phrase) != phrase


@pytest.mark.parametrize("phrase", ["叨念", "唁吊", "哺喂", "徼幸", "胡同里", "表面"])
def test_phrases_are_given_to_the_dictionary(phrase: str) -> None:
    assert convert(phrase, "traditional") == OpenCC("s2t").convert(phrase)


def test_script_by_the_characters_that_tell() -> None:
    assert script(SIMPLIFIED) == "hans"
    assert script(TRADITIONAL) == "hant"
    assert script("中文大小") == script("") == script("English") == ""
    assert script("们們") == ""
