"""Measures of agreement against worked examples that were published with them."""

from __future__ import annotations

import pytest

from atoll.data.labelling.agreement import (
    cohen_kappa,
    coincidences_of,
    f1,
    interval,
    jaccard,
    krippendorff_alpha,
    nominal,
    ordinal,
    percent,
)

_ = None
FOUR = (  # K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, 12 units
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)


def units_of(*observers: object) -> list[tuple[object, ...]]:
    return list(zip(*observers, strict=True))  # type: ignore[call-overload]


def test_alpha_of_two_observers_and_binary_data_is_krippendorffs_example_a() -> None:
    coincidences = coincidences_of(units_of((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)))
    assert coincidences == {(0, 0): 10, (0, 1): 4, (1, 0): 4, (1, 1): 2}
    assert krippendorff_alpha(coincidences, nominal) == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_two_observers_and_nominal_data_is_krippendorffs_example_b() -> None:
    coincidences = coincidences_of(units_of("aabbdcccedda", "babbbcccedd" + "d"))
    assert krippendorff_alpha(coincidences, nominal) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize(("distance", "alpha"), [(nominal, 0.743), (ordinal, 0.815), (interval, 0.849)])
def test_alpha_with_missing_data_is_krippendorffs_example_c(distance: object, alpha: float) -> None:
    coincidences = coincidences_of(units_of(*FOUR))
    assert krippendorff_alpha(coincidences, distance) == pytest.approx(alpha, abs=5e-4)  # type: ignore[arg-type]


def test_kappa_is_that_of_cohens_1960_table() -> None:
    """Cohen (1960), table 1: shares of 200 diagnoses by two judges; κ = .492 there (p_o .70, p_e .41)."""
    shares = ((0.44, 0.07, 0.09), (0.05, 0.20, 0.05), (0.01, 0.03, 0.06))
    pairs = {(a, b): round(200 * share) for a, row in enumerate(shares) for b, share in enumerate(row)}
    assert percent(pairs) == pytest.approx(0.70)
    assert cohen_kappa(pairs) == pytest.approx(0.492, abs=5e-4)


def test_kappa_of_fifty_grants_read_by_two_is_0_4() -> None:
    pairs = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_kappa_below_chance_is_negative() -> None:
    assert cohen_kappa({("a", "b"): 5, ("b", "a"): 5}) == -1.0


def test_nothing_compared_is_no_agreement() -> None:
    assert cohen_kappa({}) is None
    assert percent({}) is None
    assert krippendorff_alpha({}, nominal) is None
    assert krippendorff_alpha(coincidences_of([(1, None), (2,)]), nominal) is None
    assert f1(0, 0, 0) is None


def test_one_value_said_by_all_is_whole_agreement() -> None:
    assert cohen_kappa({("a", "a"): 7}) == 1.0
    assert krippendorff_alpha(coincidences_of([("a", "a")] * 4), nominal) == 1.0


def test_f1_of_spans_counts_both_sides() -> None:
    assert f1(3, 4, 5) == pytest.approx(6 / 9)


def test_sets_are_as_far_apart_as_they_share_little() -> None:
    assert jaccard(frozenset("ab"), frozenset("bc"), {}) == pytest.approx(2 / 3)
    assert jaccard(frozenset(), frozenset(), {}) == 0.0
