"""What use costs: pure, the same whole number wherever it is computed.

Gateways reserve and settle with `cost_micros`, the ledger enters it, so both must agree to the last unit: prices become
whole nano-micros per token once (a price per million tokens is micro-units per token), and from there on everything is
integers. Nothing is imported that a gateway would not have. Knows no currencies: whoever adds up keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NANO = 1_000_000_000
MS_PER_HOUR = 3_600_000


def cost_micros(price: Mapping[str, Any] | None, prompt: int, cached: int, completion: int) -> int:
    """Cost of a request in micro-units of the price's currency, halves rounded up; 0 without a price.

    `cached` tokens are part of `prompt`; they cost `cached_input_per_million` where it is given, else as input.
    Prices are taken to nine decimals per million tokens.
    """
    return read_tariff(price).cost_micros(prompt, cached, completion) if price else 0


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price in whole nano-micros per token, for whoever computes many costs from it. `price` is what it was read of.

    A tariff costs what `cost_micros` says its price does, to the last unit.
    """

    price: Mapping[str, Any]
    currency: str
    input: int
    cached_input: int
    output: int

    def cost_micros(self, prompt: int, cached: int, completion: int) -> int:
        """See `cost_micros`."""
        found = cached if cached < prompt else prompt
        nanos = (prompt - found) * self.input + found * self.cached_input + completion * self.output
        return (nanos + NANO // 2) // NANO

    def most_micros(self, prompt: int, completion: int) -> int:
        """The cost if everything, or nothing, of the prompt was in the cache: whichever is more."""
        return self.cost_micros(prompt, prompt if self.cached_input > self.input else 0, completion)


def read_tariff(price: Mapping[str, Any]) -> Tariff:
    """A price as a tariff."""
    input_rate, cached_price = rate_nanos(price.get("input_per_million")), price.get("cached_input_per_million")
    return Tariff(
        price=price,
        currency=str(price.get("currency") or ""),
        input=input_rate,
        cached_input=input_rate if cached_price is None else rate_nanos(cached_price),
        output=rate_nanos(price.get("output_per_million")),
    )


def rate_nanos(per_million: float | None) -> int:
    """Nano-micros per token of a price per million tokens; the nearest whole one, None is free."""
    return round(per_million * NANO) if per_million else 0


def micros_of(amount: float) -> int:
    """An amount of money as micro-units, the nearest whole one."""
    return round(amount * 1_000_000)


def accelerator_cost_micros(accelerator_ms: int, per_accelerator_hour: float) -> int:
    """Cost of accelerator time in micro-units, halves rounded up."""
    return (accelerator_ms * micros_of(per_accelerator_hour) + MS_PER_HOUR // 2) // MS_PER_HOUR


@dataclass(frozen=True, slots=True)
class DerivedCost:
    """What serving a local model came to, whatever was asked for it.

    cost                = accelerator-hours held x price of an accelerator-hour
    utilisation         = time requests ran / (time replicas were up x slots of each), at most 1
    per_million         = cost / tokens x 10^6                 what a million tokens came to
    per_million_at_full = per_million x utilisation            what they would come to with every slot busy
    Per million is None when there were no tokens. Knows nothing of processors, memory, power or people.
    """

    accelerator_hours: float
    cost_micros: int
    utilisation: float
    tokens: int
    per_million: float | None
    per_million_at_full: float | None


def derive_cost(
    *, accelerator_ms: int, per_accelerator_hour: float, request_ms: int, slot_ms: int, tokens: int
) -> DerivedCost:
    """The derived cost of a model over some time; `slot_ms` is the time replicas were up times their slots."""
    micros = accelerator_cost_micros(accelerator_ms, per_accelerator_hour)
    utilisation = min(1.0, request_ms / slot_ms) if slot_ms > 0 else 0.0
    per_million = micros / tokens if tokens > 0 else None  # micro-units per token are units per million tokens
    at_full = None if per_million is None else per_million * utilisation
    return DerivedCost(accelerator_ms / MS_PER_HOUR, micros, utilisation, tokens, per_million, at_full)
