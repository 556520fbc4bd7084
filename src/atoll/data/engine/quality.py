"""Quality: rules applied to the statistics table, all documents at once.

The first rule that holds is a document's reason. Texts are not looked at; a changed rule needs the table alone.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.rules import Expression, Rule

KEPT = -1

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


def first_reasons(rules: Sequence[Rule], table: pa.Table) -> NDArray[np.int64]:
    """For each row the index of the first rule that drops it, or KEPT."""
    reasons = np.full(table.num_rows, KEPT)
    for index, rule in enumerate(rules):
        holds = evaluate(rule.drop, table)
        reasons[holds & (reasons == KEPT)] = index
    return reasons


def evaluate(expression: Expression, table: pa.Table) -> NDArray[np.bool_]:
    """Where the condition holds; a division by zero holds for no ordering."""
    names = {node.id for node in ast.walk(expression.tree) if isinstance(node, ast.Name)}
    columns = {name: table[name].to_numpy().astype(np.float64) for name in names}
    with np.errstate(all="ignore"):
        result = _value(expression.tree, columns)
    return np.broadcast_to(np.asarray(result, bool), table.num_rows)


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
            sides = [_value(side, columns) for side in (left, *others)]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            return reduce(np.logical_and, [_OPERATIONS[type(op)](one, other) for op, one, other in pairs])
    raise TypeError(f"{ast.dump(node)} cannot stand in a checked expression")
