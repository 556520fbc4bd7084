"""No text, however made, does more than compare columns with numbers, and only what a row can change is taken."""

import ast

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.data.engine.quality.conditions import evaluate
from atoll.data.rules import COLUMNS, parse_expression

NODES = (
    ast.Compare,
    ast.BoolOp,
    ast.UnaryOp,
    ast.BinOp,
    ast.Name,
    ast.Constant,
    ast.cmpop,
    ast.boolop,
    ast.unaryop,
    ast.operator,
    ast.expr_context,
)
PARTS = st.sampled_from(
    [
        *list(COLUMNS)[:4],
        "1",
        "2.5",
        "<",
        ">=",
        "==",
        "and",
        "or",
        "not",
        "+",
        "-",
        "*",
        "/",
        "(",
        ")",
        "**",
        "if",
        "else",
        "lambda",
        ":",
        ".",
        "__class__",
        "[",
        "]",
        "'a'",
        "'en'",
        "language",
        "pii_email",
        "print",
        "in",
        "is",
        "await",
        "yield",
        "{",
        "}",
        ":=",
        ",",
        "f'{1}'",
    ]
)
NUMBERS = [*COLUMNS, "pii_email"]
TABLE = pa.table({name: [0.0, 0.5, 1.0] for name in NUMBERS} | {"language": ["en", "zh", "fr"]})

numbers = st.one_of(
    st.sampled_from(sorted(COLUMNS)), st.integers(0, 99).map(str), st.floats(0, 9, allow_subnormal=False).map(repr)
)
sums = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
    max_leaves=5,
)
comparisons = st.tuples(sums, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), sums).map(" ".join)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
    ),
    max_leaves=4,
)


@settings(max_examples=500)
@given(st.one_of(st.text(max_size=60), st.lists(PARTS, max_size=12).map(" ".join)))
def test_what_parses_holds_only_allowed_nodes_and_evaluates(text: str) -> None:
    try:
        expression = parse_expression(text)
    except Invalid as error:
        assert error.hint
        return
    assert all(isinstance(node, NODES) for node in ast.walk(expression.tree))
    assert {node.id for node in ast.walk(expression.tree) if isinstance(node, ast.Name)} <= {*NUMBERS, "language"}
    assert evaluate(expression, TABLE).tolist() in [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]


@settings(max_examples=300)
@given(conditions)
def test_evaluation_agrees_with_python_row_by_row(text: str) -> None:
    holds = evaluate(parse_expression(text, refuse_constant=False), TABLE).tolist()
    code = compile(text, "rule", "eval")
    for row, held in zip(TABLE.to_pylist(), holds, strict=True):
        try:
            assert bool(eval(code, {}, row)) == held
        except (ZeroDivisionError, OverflowError):
            continue


@settings(max_examples=300)
@given(comparisons)
def test_what_is_refused_as_constant_is_constant(text: str) -> None:
    """Shares run over their whole range here, so a comparison refused holds for all rows or for none."""
    try:
        parse_expression(text)
    except Invalid as error:
        if "divides by 0" in error.message:
            return
        holds = evaluate(parse_expression(text, refuse_constant=False), TABLE)
        assert holds.all() if "every document" in error.message else not holds.any()
