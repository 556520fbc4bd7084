"""Quality: conditions evaluated over a table of notes, all its documents at once.

Only the columns a condition names are read; texts are not looked at, so a changed rule needs the notes alone. Which
rule a document falls to first is judged elsewhere.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.data.rules import LANGUAGE, Expression

Mask = NDArray[np.bool_]

_OPERATIONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
}


def evaluate(expression: Expression, notes: pa.RecordBatch | pa.Table) -> Mask:
    """Where the condition holds; a division by zero holds for no ordering. KeyError names a column the notes lack."""
    if missing := sorted(expression.columns.difference(notes.schema.names)):
        raise KeyError(missing[0])
    columns = {name: notes.column(name) for name in sorted(expression.columns)}
    numbers = {name: _numbers(column) for name, column in columns.items() if name != LANGUAGE}
    with np.errstate(all="ignore"):
        result = _value(expression.tree, numbers | {LANGUAGE: columns.get(LANGUAGE)})
    return np.broadcast_to(np.asarray(result, bool), notes.num_rows)


def _numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    found = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return np.asarray(found, np.float64)


def _value(node: ast.expr, columns: dict[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return columns[name]
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, columns)
            return np.logical_not(value) if isinstance(op, ast.Not) else -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATIONS[type(op)](_value(left, columns), _value(right, columns))
        case ast.BoolOp(op=op, values=values):
            return reduce(_OPERATIONS[type(op)], [_value(value, columns) for value in values])
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            if code := _code(sides):
                is_equal = isinstance(ops[0], ast.Eq)
                return _is_language(columns[LANGUAGE], code) == is_equal
            pairs = zip(ops, pairwise([_value(side, columns) for side in sides]), strict=True)
            return reduce(np.logical_and, [_OPERATIONS[type(op)](one, other) for op, (one, other) in pairs])
    raise TypeError(f"{ast.dump(node)} cannot stand in a checked expression")


def _code(sides: list[ast.expr]) -> str:
    """The code a language is compared with; empty where numbers are compared."""
    codes = [side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
    return codes[0] if codes else ""


def _is_language(column: pa.Array | pa.ChunkedArray, code: str) -> Mask:
    """Where the code is this one, or one of its scripts."""
    is_same = pc.or_(pc.equal(column, code), pc.starts_with(column, f"{code}-"))
    found = is_same.to_numpy() if isinstance(is_same, pa.ChunkedArray) else is_same.to_numpy(zero_copy_only=False)
    return np.asarray(found, bool)
