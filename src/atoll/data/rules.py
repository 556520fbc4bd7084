"""Rules: named conditions over the notes of a document, written as small expressions.

`characters < 200 or symbol_ratio > 0.4` is parsed here and checked against the columns below; nothing else of
Python is understood, so a rule can neither call nor reach anything. Besides the statistics there are `language` (a
code, compared with `==` and `!=` only: `language != "zh"`), `language_score`, `pii_KIND` (how often personal data of a
kind was found), and what the recipe defines: `quality_NAME` (a model's score) and `words_NAME` (hits of a list of
words). A comparison that every document satisfies, or none, is a mistake and refused. Evaluation is the engine's
(`engine/quality.py`); this module needs no numpy and knows no documents.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Set
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

from atoll.core.errors import Invalid
from atoll.data.ranges import Range, is_empty, negated, outcome, plain_comparisons, range_of

COUNTS = {
    "characters": "number of Unicode characters",
    "bytes": "size of the text as UTF-8",
    "words": "number of words; a character of a script without spaces (Han, kana, Thai) counts as one word, "
    "Chinese as `chinese_words` says",
    "lines": "number of lines that are not blank",
    "newlines": "number of line feeds",
    "paragraphs": "number of paragraphs, which end at two or more line feeds in a row",
    "stop_words": "number of frequent function words (the, of, and, 的, 是 …)",
    "pieces": "number of words and punctuation marks, cut as spaCy's English rules do, or Chinese as `chinese_words` "
    "says (what datatrove calls words)",
    "plain_words": "number of pieces that are not made of punctuation alone",
    "common_words": "how many of the, be, to, of, and, that, have, with the text holds (case counts)",
    "finished_lines": "lines that end in . ! ? or a quotation mark, not in three dots, and have three words or more",
    "finished_sentences": "sentences in the finished lines that name neither JavaScript nor a policy",
    "lorem_ipsum_lines": "finished lines with the words lorem ipsum",
    "javascript_lines": "finished lines with the word JavaScript",
    "policy_lines": "finished lines that speak of terms of use, privacy or cookies",
    "curly_lines": "finished lines with an opening curly bracket, those with the word JavaScript left out",
}
RATES = {
    "mean_word_length": "characters per word",
    "mean_line_length": "characters per line that is not blank",
    "mean_plain_word_length": "characters per plain word",
    "hash_ratio": "signs # per piece",
    "ellipsis_ratio": "ellipses (three dots, or … as one character) per piece",
    "newline_ratio": "line feeds per piece",
    "top_2_gram_ratio": "characters of the most frequent 2-gram of pieces, at all its places, per character",
    "top_3_gram_ratio": "characters of the most frequent 3-gram of pieces, at all its places, per character",
    "top_4_gram_ratio": "characters of the most frequent 4-gram of pieces, at all its places, per character",
}
SHARES = {
    "alpha_ratio": "letters among the characters that are not white space",
    "digit_ratio": "digits among the characters that are not white space",
    "symbol_ratio": "characters that are neither letters nor digits, among those that are not white space",
    "stop_word_ratio": "function words among all words",
    "latin_share": "Latin letters among all letters",
    "cjk_share": "Han, kana and Hangul letters among all letters",
    "alphabetic_word_ratio": "pieces with a letter among all pieces",
    "short_line_ratio": "lines of at most 30 characters among the lines that are not blank",
    "ended_line_ratio": "lines that end in a mark that ends a sentence, among the lines that are not blank",
    "bullet_line_ratio": "lines that begin with a hyphen or a bullet, among all lines",
    "ellipsis_line_ratio": "lines that end in an ellipsis, among all lines",
    "duplicate_line_ratio": "lines that repeat an earlier line, among the lines that are not blank",
    "duplicate_line_character_ratio": "characters of repeated lines among all characters",
    "duplicate_line_text_ratio": "characters of repeated lines among all characters but line feeds",
    "duplicate_paragraph_ratio": "paragraphs that repeat an earlier one, among all paragraphs",
    "duplicate_paragraph_character_ratio": "characters of repeated paragraphs among all characters",
    **{
        f"duplicate_{length}_gram_ratio": f"characters of repeated {length}-grams of pieces among all characters"
        for length in range(5, 11)
    },
}
COLUMNS = COUNTS | RATES | SHARES
"""The statistics every document has: name and meaning. All are numbers, none below 0; SHARES run from 0 to 1."""

REPETITION_COLUMNS = frozenset(name for name in COLUMNS if "_gram_" in name)
"""Those that cost most and are only computed where a rule names one."""

LANGUAGE = "language"
"""The one column that is text: a code such as en, zh-hans; `zh` stands for both scripts of it."""

_LANGUAGES = (
    "af am an ar arz as ast av az azb ba bar bcl be bg bih bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv egl el en eo es et eu fa fi fr frr fy ga gd gl gn gom gsw gu gv he hi hif hr hsb ht hu hy ia id "
    "ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn "
    "mr mrj ms mt mwl my myv mzn nap nci nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue "
    "sa sah sc scn sco sd si sk sl so sq sr su sv sw syr ta te tg th tk tl tr tt tyv ug uk und ur uz vec vep vi vls "
    "vo wa war wuu xal xmf yi yo yue zh zh-hans zh-hant"
)
LANGUAGES = frozenset(_LANGUAGES.split())
"""Every code a text can get."""

EXPRESSION_CHARACTERS_MAX = 1_000

_CODE = re.compile(r"[a-z]{2,3}(-han[st])?")
PrivacyKind = Literal[
    "email",
    "ip",
    "phone",
    "identity_card",
    "bank_card",
    "credit_code",
    "passport",
    "plate",
    "secret",
    "name",
    "address",
]
_PERSONAL = frozenset(f"pii_{kind}" for kind in get_args(PrivacyKind))
_DEFINED = re.compile(r"(quality|words)_[a-z][a-z0-9_]*")
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_COMPARISONS = tuple(_SIGNS)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_GRAMMAR = "comparisons (< <= > >= == !=) of columns and numbers, + - * /, joined by and, or, not"


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked condition: `tree` holds only comparisons, and/or/not, arithmetic, numbers and known columns."""

    text: str
    tree: ast.expr = field(repr=False, compare=False)

    @property
    def columns(self) -> frozenset[str]:
        """The columns it speaks of."""
        return _columns_of(self.tree)


@lru_cache(maxsize=1024)
def _columns_of(tree: ast.expr) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


@dataclass(frozen=True, slots=True)
class Rule:
    """Documents for which `drop` holds are dropped, with `name` as the reason."""

    name: str
    drop: Expression


def parse_expression(
    text: str, path: str = "drop", extra: Set[str] | None = None, refuse_constant: bool = True
) -> Expression:
    """The condition written in `text`; raises Invalid naming `path`, the fault and what would be valid.

    extra: the columns `quality_NAME` and `words_NAME` that a recipe defines; None takes any such name.
    refuse_constant: refuse comparisons that hold for every document or for none, because of a column's range or
    because they name no column, and a division by 0.
    """
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        message = f"the expression has {len(text)} characters, the limit is {EXPRESSION_CHARACTERS_MAX}"
        raise Invalid(message, field=path, hint="split it into several rules")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise Invalid(f"{text!r} is not an expression: {reason}", field=path, hint=f"write {_GRAMMAR}") from error
    checker = _Checker(text.strip(), path, extra, refuse_constant)
    checker.condition(tree)
    return Expression(text.strip(), tree)


def check_language(code: str, path: str) -> None:
    """Invalid when it is a code that no text ever gets."""
    if code in LANGUAGES:
        return
    hint = "codes of ISO 639, of two letters where there are such (en, de, ja); Chinese of every kind is zh"
    raise Invalid(f"no text is told to be in the language {code!r}", field=path, hint=hint)


def column_range(name: str) -> Range:
    """The least and the greatest value a column of numbers can have."""
    is_share = name in SHARES or name == "language_score" or name.startswith("quality_")
    return (0.0, 1.0) if is_share else (0.0, math.inf)


@dataclass(frozen=True, slots=True)
class _Checker:
    text: str
    path: str
    extra: Set[str] | None
    refuse_constant: bool

    def condition(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(op=op, values=values):
                for value in values:
                    self.condition(value)
                self._together(node, values, isinstance(op, ast.Or))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand)
            case ast.Compare(ops=ops) if all(isinstance(op, _COMPARISONS) for op in ops):
                self._comparison(node)
            case _:
                raise self._refused(node)

    def _comparison(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Name) and side.id == LANGUAGE for side in sides):
            self._language(node, sides)
            return
        for side in sides:
            self._number(side)
        for op, (left, right) in zip(node.ops, pairwise(sides), strict=True):
            if self.refuse_constant:
                self._depends(op, left, right)
        self._together(node, [node], is_or=False)

    def _together(self, node: ast.expr, conditions: list[ast.expr], is_or: bool) -> None:
        """Refuse comparisons of one column that exclude each other, and such of which one always holds."""
        if not self.refuse_constant:
            return
        asked: dict[str, list[tuple[ast.cmpop, float | str]]] = {}
        for condition in conditions:
            found = list(plain_comparisons(condition))
            for name, op, value in found if len(found) == 1 or not is_or else ():
                asked.setdefault(name, []).append((negated(op) if is_or else op, value))
        for name, comparisons in asked.items():
            if not _exclude(name, comparisons):
                continue
            held, why = ("every", "one of them always holds") if is_or else ("no", "they exclude each other")
            message = f"{self._part(node)!r} holds for {held} document"
            raise Invalid(message, field=self.path, hint=f"of its comparisons of {name}, {why}")

    def _language(self, node: ast.Compare, sides: list[ast.expr]) -> None:
        codes = [side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
        if len(sides) != 2 or len(codes) != 1 or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            message = f"{self._part(node)!r}: language is text and compares by == and != with one code"
            raise Invalid(message, field=self.path, hint='for example language == "en" or language == "zh"')
        if not _CODE.fullmatch(codes[0]):
            hint = "two or three small letters such as en, zh, yue; zh-hans and zh-hant tell the scripts apart"
            raise Invalid(f"{codes[0]!r} is not a code of a language", field=self.path, hint=hint)
        if self.refuse_constant:
            check_language(codes[0], self.path)

    def _number(self, node: ast.expr) -> None:
        match node:
            case ast.Name(id=name):
                self._column(name)
            case ast.Constant(value=bool()):
                raise self._refused(node)
            case ast.Constant(value=int() | float() as value):
                self._finite(value)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
                self._number(left)
                self._number(right)
                self._divisor(node)
            case _:
                raise self._refused(node)

    def _divisor(self, node: ast.BinOp) -> None:
        is_zero = isinstance(node.op, ast.Div) and range_of(node.right, column_range) == (0.0, 0.0)
        if is_zero and self.refuse_constant:
            message = f"{self._part(node)!r} divides by 0"
            raise Invalid(message, field=self.path, hint="divide by a column or by a number that is not 0")

    def _column(self, name: str) -> None:
        is_defined = name in self.extra if self.extra is not None else bool(_DEFINED.fullmatch(name))
        if name in COLUMNS or name == "language_score" or name in _PERSONAL or is_defined:
            return
        raise Invalid(f"there is no column {name!r}", field=self.path, hint=self._way_out(name))

    def _way_out(self, name: str) -> str:
        """What a column that is not there may have been meant to be."""
        known = [*COLUMNS, LANGUAGE, "language_score", *sorted(_PERSONAL), *sorted(self.extra or ())]
        nearest = difflib.get_close_matches(name, known, n=3)
        guess = f"did you mean {_or(nearest)}? " if nearest else ""
        if _DEFINED.fullmatch(name):
            part = "quality" if name.startswith("quality_") else "words"
            return f"{guess}else define {name.removeprefix(f'{part}_')!r} under `{part}` of the recipe"
        return f"{guess}all columns: atoll data columns"

    def _finite(self, value: float) -> None:
        try:
            is_finite = math.isfinite(float(value))
        except OverflowError:
            is_finite = False
        if not is_finite:
            message = f"{self.text!r} holds a number too large to compare with"
            raise Invalid(message, field=self.path, hint="use a smaller number")

    def _depends(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> None:
        names = sorted({node.id for side in (left, right) for node in ast.walk(side) if isinstance(node, ast.Name)})
        holds = outcome(op, range_of(left, column_range), range_of(right, column_range))
        if holds is None:
            return
        ranges = "; ".join(f"{name} runs from {_shown(column_range(name))}" for name in names)
        part = f"{self._part(left)} {_SIGNS[type(op)]} {self._part(right)}"
        where = "" if part == self.text else f" in {self.text!r}"
        message = f"{part!r}{where} holds for {'every document' if holds else 'no document'}"
        raise Invalid(message, field=self.path, hint=ranges or "it names no column; all columns: atoll data columns")

    def _part(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or type(node).__name__

    def _refused(self, node: ast.expr) -> Invalid:
        message = f"{self._part(node)!r} is not allowed in the rule {self.text!r}"
        return Invalid(message, field=self.path, hint=f"a condition is made of {_GRAMMAR}")


def _exclude(name: str, comparisons: list[tuple[ast.cmpop, float | str]]) -> bool:
    """Whether no document satisfies all comparisons of a column."""
    if name != LANGUAGE:
        return is_empty([(op, float(value)) for op, value in comparisons], column_range(name))
    codes = sorted({str(value) for op, value in comparisons if isinstance(op, ast.Eq)}, key=len)
    return any(not longer.startswith(f"{shorter}-") for shorter, longer in pairwise(codes))


def _or(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _shown(limits: Range) -> str:
    low, high = limits
    return f"{low:g} to {high:g}" if high < math.inf else f"{low:g} upwards"
