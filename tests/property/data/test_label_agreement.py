"""Agreement holds what a measure of agreement must; counts kept on the way are those of the end."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from atoll.data.labelling import tallies
from atoll.data.labelling.agreement import (
    cohen_kappa,
    coincidences_of,
    interval,
    krippendorff_alpha,
    nominal,
    ordinal,
)
from atoll.data.labelling.schema import AnyField
from atoll.data.labelling.values import Values

FIELDS = TypeAdapter(list[AnyField]).validate_python(
    [
        {"name": "tone", "type": "class", "options": ["a", "b", "c"]},
        {"name": "topics", "type": "classes", "options": ["x", "y", "z"], "required": False},
        {"name": "stars", "type": "rating", "min": 1, "max": 5},
        {"name": "marks", "type": "spans", "options": ["p", "q"]},
    ]
)
units = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=2, max_size=4), min_size=1, max_size=30)
span = st.tuples(st.integers(0, 5), st.integers(1, 4), st.sampled_from("pq"))
answer: st.SearchStrategy[Values] = st.fixed_dictionaries(
    {
        "tone": st.sampled_from("abc"),
        "stars": st.integers(1, 5),
        "marks": st.lists(span, max_size=3, unique=True).map(
            lambda found: [{"start": a, "stop": a + n, "label": name} for a, n, name in sorted(set(found))]
        ),
    },
    optional={"topics": st.lists(st.sampled_from("xyz"), unique=True).map(sorted)},
)
items = st.lists(st.dictionaries(st.integers(1, 4), answer, max_size=4), min_size=1, max_size=8)


@settings(deadline=None)
@given(units)
def test_those_who_always_agree_agree_wholly(found: list[list[int | None]]) -> None:
    same = [[value for value in unit if value is not None][:1] * 3 for unit in found]
    for distance in (nominal, ordinal, interval):
        alpha = krippendorff_alpha(coincidences_of(same), distance)
        assert alpha is None or alpha == pytest.approx(1.0)
    pairs = Counter((unit[0], unit[1]) for unit in same if unit)
    assert not pairs or cohen_kappa(pairs) == pytest.approx(1.0)


@settings(deadline=None)
@given(units, st.permutations(range(5)), st.randoms(use_true_random=False))
def test_alpha_asks_neither_what_values_are_called_nor_who_said_them(
    found: list[list[int | None]], names: list[int], rng: random.Random
) -> None:
    renamed = [[None if value is None else names[value] for value in unit] for unit in found]
    for unit in renamed:
        rng.shuffle(unit)
    before = krippendorff_alpha(coincidences_of(found), nominal)
    after = krippendorff_alpha(coincidences_of(renamed), nominal)
    assert before == (None if after is None else pytest.approx(after))


@settings(deadline=None)
@given(units, st.integers(1, 9), st.integers(-9, 9))
def test_alpha_of_intervals_asks_neither_unit_nor_zero(found: list[list[int | None]], factor: int, shift: int) -> None:
    moved = [[None if value is None else factor * value + shift for value in unit] for unit in found]
    before = krippendorff_alpha(coincidences_of(found), interval)
    after = krippendorff_alpha(coincidences_of(moved), interval)
    assert before == (None if after is None else pytest.approx(after))


@pytest.mark.parametrize("seed", range(5))
def test_those_who_answer_at_random_agree_about_as_chance_would(seed: int) -> None:
    rng = random.Random(seed)
    said = [(rng.choice("aab"), rng.choice("abb")) for _ in range(20_000)]
    assert abs(cohen_kappa(Counter(said)) or 0.0) < 0.03
    three = [[rng.randrange(4) for _ in range(3)] for _ in range(8_000)]
    for distance in (nominal, ordinal, interval):
        assert abs(krippendorff_alpha(coincidences_of(three), distance) or 0.0) < 0.03


def told(found: list[dict[int, Values]]) -> Counter[tallies.Cell]:
    total: Counter[tallies.Cell] = Counter()
    for answers in found:
        total.update(tallies.tally(FIELDS, answers, None))
    return total


@settings(deadline=None, max_examples=60)
@given(items, st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4), answer), max_size=20))
def test_counts_kept_answer_by_answer_are_those_of_the_end(
    found: list[dict[int, Values]], changes: list[tuple[int, int, Values]]
) -> None:
    kept = told(found)
    for place, labeller, values in changes:
        answers = found[place % len(found)]
        kept.subtract(tallies.tally(FIELDS, answers, None))
        answers[labeller] = values
        kept.update(tallies.tally(FIELDS, answers, None))
    assert +kept == told(found)


@settings(deadline=None, max_examples=60)
@given(items)
def test_alpha_from_the_counts_is_alpha_from_the_answers(found: list[dict[int, Values]]) -> None:
    figures = {agreement.field: agreement for agreement in tallies.people(FIELDS, told(found))}
    for name, distance in (("tone", nominal), ("stars", ordinal)):
        given_values: list[list[Any]] = [[values.get(name) for values in answers.values()] for answers in found]
        wanted = krippendorff_alpha(coincidences_of(given_values), distance)
        assert figures[name].alpha == (None if wanted is None else pytest.approx(wanted))


@settings(deadline=None, max_examples=60)
@given(answer, st.integers(2, 4))
def test_one_answer_given_by_all_agrees_wholly_in_every_field(values: Values, count: int) -> None:
    for figures in tallies.people(FIELDS, told([dict.fromkeys(range(1, count + 1), values)])):
        shown = (figures.percent, figures.kappa, figures.alpha, figures.f1_exact, figures.f1_characters)
        assert {round(value, 9) for value in shown if value is not None} <= {1.0}
