"""How far labellers agree: percent, Cohen's kappa, Krippendorff's alpha, F1 of spans. Pure, over counts.

What is counted grows with the number of values and labellers, not of items. Chance is what the labellers' own
frequencies would give; that they copied each other is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import TypeVar

V = TypeVar("V", bound=Hashable)
Pairs = Mapping[tuple[V, V], float]
"""How often (value of one, value of the other) was seen."""

Distance = Callable[[V, V, Mapping[V, float]], float]
"""δ² of two values, given how often each value was seen."""


def percent(pairs: Pairs[V]) -> float | None:
    """Share of pairs that are equal; None without any."""
    total = sum(pairs.values())
    return sum(n for (a, b), n in pairs.items() if a == b) / total if total else None


def cohen_kappa(pairs: Pairs[V]) -> float | None:
    """Cohen's kappa of two labellers: (p_o - p_e) / (1 - p_e).

    p_o is the share of equal pairs, p_e the sum over values of the product of both labellers' shares of it.
    J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960).
    1 when both always say the same one thing; None without pairs.
    """
    total = sum(pairs.values())
    if not total:
        return None
    first: Counter[V] = Counter()
    second: Counter[V] = Counter()
    for (a, b), number in pairs.items():
        first[a] += number  # type: ignore[assignment]
        second[b] += number  # type: ignore[assignment]
    observed = sum(n for (a, b), n in pairs.items() if a == b) / total
    expected = sum(first[value] * second[value] for value in first) / total**2
    return 1.0 if expected >= 1.0 else (observed - expected) / (1.0 - expected)


def krippendorff_alpha(coincidences: Pairs[V], distance: Distance[V]) -> float | None:
    """Krippendorff's alpha: 1 - D_o / D_e over a symmetric matrix of coincidences (see `coincidences_of`).

    D_o = Σ o_ck δ²_ck, D_e = Σ n_c n_k δ²_ck / (n - 1), n_c the sum of row c, n of all.
    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011).
    1 when only one value was ever said; None without two values to pair.
    """
    totals: Counter[V] = Counter()
    for (a, _), number in coincidences.items():
        totals[a] += number  # type: ignore[assignment]
    total = sum(totals.values())
    if total <= 1:
        return None
    observed = sum(number * distance(a, b, totals) for (a, b), number in coincidences.items() if a != b)
    expected = sum(totals[a] * totals[b] * distance(a, b, totals) for a, b in permutations(totals, 2)) / (total - 1)
    return 1.0 - observed / expected if expected else 1.0


def coincidences_of(units: Iterable[Sequence[V | None]]) -> dict[tuple[V, V], float]:
    """The matrix of coincidences of units, each the values it was given (None: missing).

    A unit with m values adds 1 / (m - 1) for every ordered pair of them; one with a single value adds nothing.
    """
    found: dict[tuple[V, V], float] = {}
    for unit in units:
        values = [value for value in unit if value is not None]
        for pair in permutations(values, 2):
            found[pair] = found.get(pair, 0.0) + 1.0 / (len(values) - 1)
    return found


def nominal(first: Hashable, second: Hashable, totals: Mapping[Hashable, float]) -> float:
    """0 for equal values, else 1."""
    return float(first != second)


def interval(first: float, second: float, totals: Mapping[float, float]) -> float:
    """The squared difference."""
    return float(first - second) ** 2


def ordinal(first: float, second: float, totals: Mapping[float, float]) -> float:
    """The squared number of values said between the two: (Σ_{g=c..k} n_g - (n_c + n_k) / 2)², Krippendorff (2011)."""
    low, high = min(first, second), max(first, second)
    between = sum(number for value, number in totals.items() if low <= value <= high)
    return (between - (totals[first] + totals[second]) / 2) ** 2


def jaccard(first: frozenset[V], second: frozenset[V], totals: Mapping[frozenset[V], float]) -> float:
    """1 - |both| / |either| of two sets, 0 for two empty ones.

    P. Jaccard (1912); as a distance of Krippendorff's alpha for sets: R. Passonneau, LREC (2004).
    """
    union = first | second
    return 1.0 - len(first & second) / len(union) if union else 0.0


def f1(matches: float, first: float, second: float) -> float | None:
    """2 * matches / (first + second): F1 of what one labeller marked, taking the other for the truth; symmetric.

    G. Hripcsak and A. Rothschild, "Agreement, the F-measure, and reliability in information retrieval", JAMIA 12
    (2005): what kappa tends to where the things nobody marked are without number. None when nothing was marked.
    """
    return 2 * matches / (first + second) if first + second else None
