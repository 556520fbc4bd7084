"""Ranges: which values an expression over columns can have, to tell a condition that never or always holds.

Interval arithmetic over trees of numbers, names and + - * /: a range may be wider than the truth, never narrower. A
division whose divisor may be 0 can have any value.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise, product
from math import inf, isnan

Range = tuple[float, float]
ANY: Range = (-inf, inf)

_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}


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


def plain_comparisons(node: ast.expr) -> Iterator[tuple[str, ast.cmpop, float | str]]:
    """The comparisons a condition asks for all at once, of a name with a number or a text: name, sign, value."""
    if not isinstance(node, ast.Compare):
        return
    sides = [node.left, *node.comparators]
    for op, (left, right) in zip(node.ops, pairwise(sides), strict=True):
        if isinstance(left, ast.Name) and (value := _value(right)) is not None:
            yield left.id, op, value
        elif isinstance(right, ast.Name) and (value := _value(left)) is not None:
            yield right.id, _MIRRORED.get(type(op), type(op))(), value


def negated(op: ast.cmpop) -> ast.cmpop:
    """The comparison that holds where `op` does not."""
    return _NEGATED[type(op)]()


def is_empty(comparisons: Iterable[tuple[ast.cmpop, float]], limits: Range) -> bool:
    """Whether no number in `limits` satisfies all comparisons with a number."""
    low, high, edges = *limits, set[float]()
    for op, value in comparisons:
        if isinstance(op, ast.Gt | ast.GtE | ast.Eq):
            low = max(low, value)
        if isinstance(op, ast.Lt | ast.LtE | ast.Eq):
            high = min(high, value)
        if isinstance(op, ast.Gt | ast.Lt):
            edges.add(value)
    return low > high or (low == high and low in edges)


def _value(node: ast.expr) -> float | str | None:
    """The number or text a tree without names stands for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    low, high = range_of(node, lambda _: ANY)
    return low if low == high else None


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
