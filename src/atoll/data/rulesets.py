"""Rule sets: published rules for web text, with their published thresholds, as expressions over the statistics.

gopher_quality, gopher_repetition: Rae et al. 2021 (arXiv 2112.11446), A.1.1 and table A1. c4: Raffel et al. 2020 (JMLR
21, 140), 2.2, whose lines are judged, not cut out. fineweb: Penedo et al. 2024 (arXiv 2406.17557), 3.6. Where the
papers leave open what a word or a sentence is, the statistics follow datatrove. The gopher_quality and c4 rules are
about English: they want English stop words, words of Chinese are shorter than three characters, and its sentences end
in other marks.
"""

from __future__ import annotations

_SHORT_WORDS = "plain_words > 0 and mean_plain_word_length < 3"
_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

RULE_SETS: dict[str, list[tuple[str, str]]] = {
    "gopher_quality": [
        ("gopher_few_words", "plain_words < 50"),
        ("gopher_many_words", "plain_words > 100000"),
        ("gopher_short_words", f"{_SHORT_WORDS} and cjk_share < 0.5"),
        ("gopher_long_words", "mean_plain_word_length > 10"),
        ("gopher_symbols", "hash_ratio > 0.1 or ellipsis_ratio > 0.1"),
        ("gopher_bullets", "bullet_line_ratio > 0.9"),
        ("gopher_ellipsis_lines", "ellipsis_line_ratio > 0.3"),
        ("gopher_few_alphabetic_words", "alphabetic_word_ratio < 0.8"),
        ("gopher_few_stop_words", "common_words < 2"),
    ],
    "gopher_repetition": [
        ("gopher_repeated_paragraphs", "duplicate_paragraph_ratio > 0.3"),
        ("gopher_repeated_paragraph_characters", "duplicate_paragraph_character_ratio > 0.2"),
        ("gopher_repeated_lines", "duplicate_line_ratio > 0.3"),
        ("gopher_repeated_line_characters", "duplicate_line_character_ratio > 0.2"),
        *((f"gopher_top_{n}_gram", f"top_{n}_gram_ratio > {most}") for n, most in _TOP.items()),
        *((f"gopher_repeated_{n}_grams", f"duplicate_{n}_gram_ratio > {most}") for n, most in _DUPLICATE.items()),
    ],
    "c4": [
        ("c4_lorem_ipsum", "lorem_ipsum_lines > 0"),
        ("c4_curly_bracket", "curly_lines > 0"),
        ("c4_few_sentences", "finished_sentences < 5"),
    ],
    "fineweb": [
        ("fineweb_unfinished_lines", "ended_line_ratio < 0.12"),
        ("fineweb_short_lines", "short_line_ratio > 0.67"),
        ("fineweb_repeated_lines", "duplicate_line_text_ratio > 0.01"),
        ("fineweb_lists", "newline_ratio > 0.3"),
    ],
}
"""Name of a set -> its rules in order: name and the condition under which a document is dropped."""

_OF_WORDS = {"gopher_short_words": _SHORT_WORDS}
"""Rules that except Chinese only while each of its characters counts as a word."""


def rule_set(name: str, chinese_words: str = "characters") -> list[tuple[str, str]]:
    """The rules of a set; with words of `jieba` as they were published, without an exception for Chinese."""
    of_words = _OF_WORDS if chinese_words == "jieba" else {}
    return [(rule, of_words.get(rule, drop)) for rule, drop in RULE_SETS[name]]
