"""What datatrove decides of every document, rule by rule. Run by the Python of datatrove's own environment.

`python datatrove_rules.py DOCUMENTS LANGUAGE`: DOCUMENTS is a JSON-lines file with a `text` each, LANGUAGE eng or cmn.
Prints one JSON object {rule: [numbers of the documents it drops]}; every rule stands alone, the others of its filter
being off, and a filter with its defaults is there under the name of the rule set.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

QUALITY = {
    "gopher_few_words": ("min_doc_words", 50),
    "gopher_many_words": ("max_doc_words", 100_000),
    "gopher_short_words": ("min_avg_word_length", 3),
    "gopher_long_words": ("max_avg_word_length", 10),
    "gopher_symbols": ("max_symbol_word_ratio", 0.1),
    "gopher_bullets": ("max_bullet_lines_ratio", 0.9),
    "gopher_ellipsis_lines": ("max_ellipsis_lines_ratio", 0.3),
    "gopher_few_alphabetic_words": ("max_non_alpha_words_ratio", 0.8),
    "gopher_few_stop_words": ("min_stop_words", 2),
}
REPETITION: dict[str, tuple[str, Any]] = {
    "gopher_repeated_lines": ("dup_line_frac", 0.3),
    "gopher_repeated_paragraphs": ("dup_para_frac", 0.3),
    "gopher_repeated_line_characters": ("dup_line_char_frac", 0.2),
    "gopher_repeated_paragraph_characters": ("dup_para_char_frac", 0.2),
    **{f"gopher_top_{n}_gram": ("top_n_grams", ((n, most),)) for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{
        f"gopher_repeated_{n}_grams": ("dup_n_grams", ((n, most),))
        for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    },
}
FINEWEB = {
    "fineweb_unfinished_lines": ("line_punct_thr", 0.12),
    "fineweb_short_lines": ("short_line_thr", 0.67),
    "fineweb_repeated_lines": ("char_duplicates_ratio", 0.01),
    "fineweb_lists": ("new_line_ratio", 0.3),
}
FINEWEB_OFF = {"line_punct_thr": 0, "short_line_thr": 1, "char_duplicates_ratio": 1, "new_line_ratio": math.inf}
C4_OFF: dict[str, Any] = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
C4 = {
    "c4_lorem_ipsum": ("filter_lorem_ipsum", True),
    "c4_curly_bracket": ("filter_curly_bracket", True),
    "c4_few_sentences": ("min_num_sentences", 5),
}


def filters(language: str) -> Iterator[tuple[str, Any]]:
    """Every rule by itself, and each filter whole."""
    off = {argument: None for argument, _ in QUALITY.values()}
    for rule, (argument, value) in QUALITY.items():
        yield rule, GopherQualityFilter(**(off | {argument: value}), language=language)
    off = {argument: () if argument.endswith("grams") else None for argument, _ in REPETITION.values()}
    for rule, (argument, value) in REPETITION.items():
        yield rule, GopherRepetitionFilter(**(off | {argument: value}), language=language)
    for rule, (argument, value) in FINEWEB.items():
        yield rule, FineWebQualityFilter(**(FINEWEB_OFF | {argument: value}), language=language)
    for rule, (argument, value) in C4.items():
        yield rule, C4QualityFilter(**(C4_OFF | {argument: value}), language=language)
    yield "gopher_quality", GopherQualityFilter(language=language)
    yield "gopher_repetition", GopherRepetitionFilter(language=language)
    yield "fineweb", FineWebQualityFilter(language=language)
    yield "c4", C4QualityFilter(language=language)


def is_dropped(one: Any, text: str) -> bool:
    """What the filter says; a text it divides by zero over counts as dropped."""
    try:
        answer = one.filter(Document(text=text, id=""))
    except ZeroDivisionError:
        return True
    return (answer[0] if isinstance(answer, tuple) else answer) is False


def main() -> None:
    warnings.simplefilter("ignore")
    path, language = sys.argv[1:]
    every = list(filters(language))
    dropped: dict[str, list[int]] = {rule: [] for rule, _ in every}
    with open(path) as file:
        for number, line in enumerate(file):
            text = json.loads(line)["text"]
            for rule, one in every:
                if is_dropped(one, text):
                    dropped[rule].append(number)
    sys.stdout.write(json.dumps(dropped) + "\n")


if __name__ == "__main__":
    main()
