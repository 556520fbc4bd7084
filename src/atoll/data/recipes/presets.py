"""Presets: what a recipe of a kind of document starts from. What a recipe names replaces what its preset says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PROSE = [
    {"rule": "few_letters", "drop": "alpha_ratio < 0.4"},
    {"rule": "long_words", "drop": "mean_word_length > 20"},
    {"rule": "repeated_lines", "drop": "lines >= 10 and duplicate_line_ratio > 0.5"},
]
_WEB = {
    "min_characters": 0,
    "rules": [],
    "dedup": {"url": True, "lines": {"unit": "line"}},
    "privacy": {},
    "questions": {"enabled": False},
}

PRESETS: dict[str, dict[str, Any]] = {
    "documents": {"rules": _PROSE},
    "web-en": _WEB
    | {
        "rule_sets": ["gopher_repetition", "gopher_quality", "c4", "fineweb"],
        "language": {"keep": ["en"], "score_min": 0.65},
    },
    "web-zh": _WEB
    | {
        # of Gopher's limits on repetition those that mean the same when a word is one character
        "rules": [
            {"rule": "repeated_lines", "drop": "duplicate_line_ratio > 0.3"},
            {"rule": "repeated_line_characters", "drop": "duplicate_line_character_ratio > 0.2"},
            {"rule": "repeated_paragraphs", "drop": "duplicate_paragraph_ratio > 0.3"},
            {"rule": "repeated_paragraph_characters", "drop": "duplicate_paragraph_character_ratio > 0.2"},
            {"rule": "top_4_gram", "drop": "top_4_gram_ratio > 0.16"},
            {"rule": "repeated_10_grams", "drop": "duplicate_10_gram_ratio > 0.15"},
            {"rule": "few_han", "drop": "cjk_share < 0.5"},
            {"rule": "few_stop_words", "drop": "words >= 50 and stop_words < 2"},
            {"rule": "many_symbols", "drop": "symbol_ratio > 0.4"},
        ],
        "language": {"keep": ["zh"], "score_min": 0.65},
        "dedup": {"url": True, "lines": {"unit": "line"}, "near": {"threshold": 0.7, "cjk_characters": 3}},
    },
    "code": {
        "min_characters": 50,
        "rules": [
            {"rule": "long_lines", "drop": "mean_line_length > 200"},
            {"rule": "few_letters", "drop": "alpha_ratio < 0.25"},
        ],
        "dedup": {"near": {"threshold": 0.8}},
        "privacy": {"default": "keep", "actions": {"secret": "mask", "email": "mask", "ip": "keep"}},
        "questions": {"enabled": False},
    },
    "instructions": {
        "min_characters": 10,
        "rules": [],
        "dedup": {"near": {"threshold": 0.85}},
        "privacy": {},
        "questions": {"enabled": False},
    },
    "chat": {
        "min_characters": 10,
        "rules": [],
        "dedup": {"near": {"threshold": 0.85}},
        "privacy": {},
        "questions": {"enabled": False},
    },
}


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`recipe` over its preset: objects are merged, everything else is replaced. An unknown preset adds nothing."""
    name = recipe.get("preset", "documents")
    return merged(PRESETS.get(name, {}) if isinstance(name, str) else {}, recipe)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, object by object."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        result[name] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result
