# ruff: noqa: RUF001 - full-width forms are what is tested
"""Sensitive words: whole words in scripts with spaces, anywhere in Chinese, longest first."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.words import WordFinder, read_words


def found(words: list[str], text: str) -> list[str]:
    return [text[start:stop] for start, stop in WordFinder(words).find(text)]


def test_latin_words_are_found_as_whole_words_only() -> None:
    assert found(["bad", "worse luck"], "Bad badly embad bad_ bad-bad 坏bad坏 worse\n  LUCK") == [
        *("Bad", "bad", "bad", "bad", "worse\n  LUCK")
    ]


def test_chinese_words_are_found_anywhere() -> None:
    assert found(["赌博", "代开发票"], "网上赌博网站，代开发票了") == ["赌博", "代开发票"]


def test_the_leftmost_then_the_longest_wins() -> None:
    assert found(["中国", "中国人民", "国人民银行", "人民"], "中国人民银行") == ["中国人民"]
    assert found(["a b", "b c d", "b c"], "a b c d, b c d") == ["a b", "b c d"]


def test_an_entry_of_one_character_and_entries_that_mix_scripts() -> None:
    assert found(["坏", "卡拉OK", "A片", "爱 你"], "坏人唱卡拉ok和A片，卡拉okay，爱  你") == [
        "坏",
        "卡拉ok",
        "A片",
        "爱  你",
    ]


def test_case_and_full_width_forms_are_folded() -> None:
    assert found(["ｂａｄ", "ÉCOLE", "№9"], "ＢＡＤ école №９") == ["ＢＡＤ", "école", "№９"]


def test_scripts_without_capitals_and_rare_characters() -> None:
    assert found(["плохо", "나쁜", "ไม่ดี", "😀😀", "𠮷野家"], "ПЛОХО나쁜말ไม่ดี 😀😀😀 𠮷野家") == [
        *("ПЛОХО", "나쁜", "ไม่ดี", "😀😀", "𠮷野家")
    ]


def test_roles_of_a_chat_are_no_words_and_no_entry_reaches_into_the_next_message() -> None:
    chat = "\x1euser\x1ftop secret\x1eassistant\x1fThe user asked the assistant"
    assert found(["user", "assistant", "secret assistant", "secret the", "top secret the"], chat) == [
        "user",
        "assistant",
    ]
    assert WordFinder(["user"]).mask(chat) == chat.replace("The user", "The ***")
    assert found(["user"], "\x1euser of a text that is no chat") == ["user"]


def test_count_of_every_text() -> None:
    texts = pa.array(["skip", "坏坏 bad", "", "no", "bad"])
    assert WordFinder(["bad", "坏"]).count(texts.slice(1)).tolist() == [3, 0, 0, 1]


def test_mask_keeps_the_rest_and_is_idempotent() -> None:
    finder = WordFinder(["bad", "坏"])
    once = finder.mask("a坏b bad, bads\n")
    assert once == "a***b ***, bads\n"
    assert finder.mask(once) == once
    assert finder.mask("x坏", "[WORD]") == "x[WORD]"


def test_blank_entries_and_empty_lists_find_nothing() -> None:
    assert found([], "anything") == []
    assert found(["", "  ", "\n"], "any thing\n") == []


def test_the_built_table_is_kept_and_used_again(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(1000)]
    first = WordFinder(words, tmp_path)
    (kept,) = tmp_path.iterdir()
    changed = kept.stat().st_mtime_ns
    second = WordFinder(reversed(words), tmp_path)
    assert kept.stat().st_mtime_ns == changed
    assert first.find("word7 word1000 word999") == second.find("word7 word1000 word999") == [(0, 5), (15, 22)]
    WordFinder([*words, "other"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert first.memory_bytes < 2 << 20


def test_words_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff坏\r\nbad\n".encode())
    assert read_words(path) == ["坏", "bad"]
    path.write_bytes("坏".encode("gb18030"))
    with pytest.raises(Invalid, match="cannot read the words"):
        read_words(path)
