"""Costs are whole, exact and the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.governance.prices import accelerator_cost_micros, cost_micros, derive_cost, micros_of, read_tariff

PRICE = {"input_per_million": 0.15, "output_per_million": 0.6, "currency": "EUR"}


def test_a_cost_is_in_whole_micros_with_halves_up() -> None:
    assert cost_micros(None, 10, 0, 5) == 0
    assert cost_micros({}, 10, 0, 5) == 0
    assert cost_micros(PRICE, 1_000_000, 0, 0) == 150_000
    assert cost_micros({"input_per_million": 0.05, "output_per_million": 0.2}, 10, 0, 5) == 2
    assert cost_micros({"input_per_million": 0.5, "output_per_million": 0}, 3, 0, 0) == 2
    assert cost_micros({"input_per_million": 0.5}, 1, 0, 9) == 1


def test_cached_tokens_cost_their_own_price_where_there_is_one() -> None:
    cheaper = PRICE | {"cached_input_per_million": 0.015}
    assert cost_micros(cheaper, 1_000_000, 400_000, 0) == 90_000 + 6_000
    assert cost_micros(PRICE | {"cached_input_per_million": None}, 1_000_000, 400_000, 0) == 150_000
    assert cost_micros(PRICE | {"cached_input_per_million": 0.0}, 1_000_000, 1_000_000, 0) == 0
    assert cost_micros(cheaper, 10, 1_000_000, 0) == cost_micros(cheaper, 10, 10, 0)


tokens = st.integers(0, 1 << 40)
prices = st.integers(0, 10**12).map(lambda nanos: nanos / 10**9)


@given(prices, prices, st.none() | prices, tokens, tokens, tokens)
def test_a_cost_is_what_decimal_arithmetic_says(
    input_price: float, output_price: float, cached_price: float | None, prompt: int, cached: int, completion: int
) -> None:
    price = {
        "input_per_million": input_price,
        "output_per_million": output_price,
        "cached_input_per_million": cached_price,
    }
    found = min(prompt, cached)
    exact = (prompt - found) * _decimal(input_price) + completion * _decimal(output_price)
    exact += found * _decimal(input_price if cached_price is None else cached_price)
    assert cost_micros(price, prompt, cached, completion) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    most = max(cost_micros(price, prompt, prompt, completion), cost_micros(price, prompt, 0, completion))
    assert read_tariff(price).most_micros(prompt, completion) == most


def _decimal(price: float) -> Decimal:
    return Decimal(repr(price)).quantize(Decimal("1e-9"))


def test_accelerator_time_and_money_are_whole_too() -> None:
    assert micros_of(12.34) == 12_340_000
    assert accelerator_cost_micros(3_600_000, 2.5) == 2_500_000
    assert accelerator_cost_micros(1, 1.8) == 1


def test_the_derived_cost_of_a_model_is_its_accelerators_time_over_its_tokens() -> None:
    made = derive_cost(
        accelerator_ms=7_200_000, per_accelerator_hour=2.0, request_ms=3_600_000, slot_ms=14_400_000, tokens=8_000_000
    )
    assert (made.accelerator_hours, made.cost_micros, made.utilisation) == (2.0, 4_000_000, 0.25)
    assert (made.per_million, made.per_million_at_full) == (pytest.approx(0.5), pytest.approx(0.125))
    idle = derive_cost(accelerator_ms=1, per_accelerator_hour=2.0, request_ms=5, slot_ms=0, tokens=0)
    assert (idle.utilisation, idle.per_million, idle.per_million_at_full) == (0.0, None, None)


def test_a_gateway_can_price_without_loading_anything_heavy() -> None:
    heavy = "{'pydantic', 'sqlalchemy', 'fastapi', 'decimal', 'fractions'} & set(sys.modules)"
    code = f"import sys, atoll.governance.prices; print({heavy} or 'light')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "light"
