"""Rules: named conditions over the statistics of a document, written as small expressions.

`characters < 200 or symbol_ratio > 0.4` is parsed here and checked against the columns below; nothing else of
Python is understood, so a rule can neither call nor reach anything. Evaluation is the engine's (`engine/quality.py`);
this module needs no numpy and knows no documents.
"""

from __future__ import annotations

import ast
import difflib
import math
from dataclasses import dataclass, field

from atoll.core.errors import Invalid

COLUMNS = {
    "characters": "number of Unicode characters",
    "bytes": "size of the text as UTF-8",
    "words": "number of words; a character of a script without spaces (Han, kana, Thai) counts as one word",
    "lines": "number of lines that are not blank",
    "mean_word_length": "characters per word",
    "mean_line_length": "characters per line that is not blank",
    "alpha_ratio": "letters among the characters that are not white space",
    "digit_ratio": "digits among the characters that are not white space",
    "symbol_ratio": "characters that are neither letters nor digits, among those that are not white space",
    "duplicate_line_ratio": "lines that repeat an earlier line, among the lines that are not blank",
    "stop_words": "number of frequent function words (the, of, and, 的, 是 …)",
    "stop_word_ratio": "function words among all words",
    "latin_share": "Latin letters among all letters",
    "cjk_share": "Han, kana and Hangul letters among all letters",
}
"""The statistics every document has: name and meaning. All are numbers; ratios and shares run from 0 to 1."""

EXPRESSION_CHARACTERS_MAX = 1_000

_CONDITIONS = (ast.Compare, ast.BoolOp)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_GRAMMAR = "comparisons (< <= > >= == !=) of columns and numbers, + - * /, joined by and, or, not"


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked condition: `tree` holds only comparisons, and/or/not, arithmetic, numbers and known columns."""

    text: str
    tree: ast.expr = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """Documents for which `drop` holds are dropped, with `name` as the reason."""

    name: str
    drop: Expression


def parse_expression(text: str, path: str = "drop") -> Expression:
    """The condition written in `text`; raises Invalid naming `path`, the fault and what would be valid."""
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        message = f"the expression has {len(text)} characters, the limit is {EXPRESSION_CHARACTERS_MAX}"
        raise Invalid(message, field=path, hint="split it into several rules")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise Invalid(f"{text!r} is not an expression: {reason}", field=path, hint=f"write {_GRAMMAR}") from error
    _check_condition(tree, text, path)
    return Expression(text.strip(), tree)


def _check_condition(node: ast.expr, text: str, path: str) -> None:
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _check_condition(value, text, path)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check_condition(operand, text, path)
        case ast.Compare(left=left, ops=ops, comparators=others):
            if not all(isinstance(op, _COMPARISONS) for op in ops):
                raise _refused(node, text, path)
            for side in (left, *others):
                _check_number(side, text, path)
        case _:
            raise _refused(node, text, path)


def _check_number(node: ast.expr, text: str, path: str) -> None:
    match node:
        case ast.Name(id=name):
            if name not in COLUMNS:
                raise _unknown_column(name, path)
        case ast.Constant(value=bool()):
            raise _refused(node, text, path)
        case ast.Constant(value=int() | float() as value):
            _check_finite(value, text, path)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check_number(operand, text, path)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            _check_number(left, text, path)
            _check_number(right, text, path)
        case _:
            raise _refused(node, text, path)


def _check_finite(value: float, text: str, path: str) -> None:
    try:
        is_finite = math.isfinite(float(value))
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise Invalid(f"{text!r} holds a number too large to compare with", field=path, hint="use a smaller number")


def _unknown_column(name: str, path: str) -> Invalid:
    nearest = difflib.get_close_matches(name, COLUMNS, n=1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return Invalid(f"there is no column {name!r}", field=path, hint=f"{guess}columns: {', '.join(COLUMNS)}")


def _refused(node: ast.expr, text: str, path: str) -> Invalid:
    part = ast.get_source_segment(text.strip(), node) or type(node).__name__
    wanted = "a condition is" if not isinstance(node, _CONDITIONS) else "a rule may hold"
    return Invalid(f"{part!r} is not allowed in the rule {text!r}", field=path, hint=f"{wanted} made of {_GRAMMAR}")
