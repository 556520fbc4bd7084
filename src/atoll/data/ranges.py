"""Ranges: which values an expression over columns can have, to tell a condition that never or always holds.

Interval arithmetic over trees of numbers, names and + - * /: a range may be wider than the truth, never narrower. A
division whose divisor may be 0 can have any value.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import product
from math import inf, isnan

Range = tuple[float, float]
ANY: Range = (-inf, inf)


def range_of(node: ast.expr, ranges: Callable[[str], Range]) -> Range:
    """The least and the greatest value of a checked expression; `ranges` gives those of a column."""
    match node:
        case ast.Name(id=name):
            return ranges(name)
        case ast.Constant(value=int() | float() as value):
            return float(value), float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            low, high = range_of(operand, ranges)
            return -high, -low
        case ast.UnaryOp(operand=operand):
            return range_of(operand, ranges)
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(op, range_of(left, ranges), range_of(right, ranges))
    return ANY


def outcome(op: ast.cmpop, left: Range, right: Range) -> bool | None:
    """What a comparison of any values in two ranges is: True, False, or None where it depends on the values."""
    match op:
        case ast.Lt():
            return _less(left, right)
        case ast.GtE():
            return _not(_less(left, right))
        case ast.Gt():
            return _less(right, left)
        case ast.LtE():
            return _not(_less(right, left))
    if left[1] < right[0] or right[1] < left[0]:
        return isinstance(op, ast.NotEq)
    return None


def _less(left: Range, right: Range) -> bool | None:
    if left[1] < right[0]:
        return True
    return False if left[0] >= right[1] else None


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _combined(op: ast.operator, left: Range, right: Range) -> Range:
    match op:
        case ast.Add():
            found = [left[0] + right[0], left[1] + right[1]]
        case ast.Sub():
            found = [left[0] - right[1], left[1] - right[0]]
        case ast.Mult():
            found = [one * other for one, other in product(left, right)]
        case _ if right[0] > 0 or right[1] < 0:
            found = [one / other for one, other in product(left, right)]
        case _:
            return ANY
    return ANY if any(map(isnan, found)) else (min(found), max(found))
