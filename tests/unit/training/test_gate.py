"""The gate decides on numbers alone and says which."""

import math
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.training.gate import decide, loss_drop


def _metrics(base: float, tuned: float) -> dict[str, Any]:
    return {"base": {"loss": base}, "tuned": {"loss": tuned}}


def test_a_drop_of_just_enough_passes() -> None:
    assert decide(_metrics(2.0, 1.5), {"metric": "heldout_loss", "min_drop": 0.25}).passed


def test_a_drop_of_too_little_does_not_pass_and_says_by_how_much() -> None:
    decision = decide(_metrics(2.0, 1.96), {"min_drop": 0.05})
    assert not decision.passed
    assert decision.reason == "held-out loss fell from 2.0000 to 1.9600, by 2.00%; it must fall by at least 5.00%"


def test_a_loss_that_rose_is_called_so() -> None:
    decision = decide(_metrics(2.0, 2.2), {"min_drop": 0.05})
    assert not decision.passed
    assert "rose from 2.0000 to 2.2000, by 10.00%" in decision.reason


def test_a_gate_may_allow_a_rise() -> None:
    assert decide(_metrics(2.0, 2.1), {"min_drop": -0.1}).passed


@pytest.mark.parametrize("tuned", [math.nan, math.inf])
def test_a_loss_that_is_no_number_never_passes(tuned: float) -> None:
    assert not decide(_metrics(2.0, tuned), {"min_drop": -10}).passed


def test_a_perfect_base_cannot_be_improved_on() -> None:
    assert math.isnan(loss_drop(_metrics(0.0, 0.0)))


@pytest.mark.parametrize(
    ("gate", "field"),
    [
        ({"metric": "beauty", "min_drop": 0.1}, "gate.metric"),
        ({"min_drop": "much"}, "gate.min_drop"),
        ({}, "gate.min_drop"),
        ({"min_drop": True}, "gate.min_drop"),
        ({"min_drop": math.nan}, "gate.min_drop"),
    ],
)
def test_a_gate_that_asks_for_something_else_is_refused(gate: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        decide(_metrics(2.0, 1.0), gate)
    assert refusal.value.field == field
