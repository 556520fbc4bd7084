"""The learning rate is a function of the step alone."""

import pytest

from atoll.training.engine.schedule import learning_rate
from atoll.training.recipes import Recipe

RECIPE = Recipe(learning_rate=1.0, warmup_share=0.1, final_rate_share=0.1)


def test_the_rate_rises_to_its_peak_and_then_falls_to_its_last_share() -> None:
    rates = [learning_rate(step, 100, RECIPE) for step in range(100)]
    peak = rates.index(max(rates))
    assert peak == 10
    assert rates[peak] == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_no_step_has_a_rate_of_zero() -> None:
    assert learning_rate(0, 100, RECIPE) > 0


def test_a_run_of_one_step_uses_the_peak() -> None:
    assert learning_rate(0, 1, RECIPE.model_copy(update={"warmup_share": 0.0})) == 1.0
