import pytest

from atoll.data.engine.split import cluster_names, heldout_names

NAMES = [f"doc{number}" for number in range(1000)]


def test_a_cluster_is_named_by_its_smallest_id() -> None:
    assert cluster_names([0, 1, 0, 1], ["d", "b", "a", "c"]) == ["a", "b", "a", "b"]


def test_about_the_fraction_is_held_out() -> None:
    assert 60 < len(heldout_names(NAMES, 0.1, 1)) < 140


def test_a_cluster_stays_on_its_side_when_others_come() -> None:
    few = heldout_names(NAMES[:500], 0.1, 1)
    assert few == heldout_names(NAMES, 0.1, 1) & frozenset(NAMES[:500])


def test_another_seed_holds_out_others() -> None:
    assert heldout_names(NAMES, 0.1, 1) != heldout_names(NAMES, 0.1, 2)


@pytest.mark.parametrize(("count", "fraction", "heldout"), [(0, 0.1, 0), (1, 0.5, 0), (2, 0.001, 1), (9, 0.0, 0)])
def test_small_datasets_keep_both_sides_where_they_can(count: int, fraction: float, heldout: int) -> None:
    assert len(heldout_names(NAMES[:count], fraction, 3)) == heldout


def test_training_is_never_left_without_documents() -> None:
    for seed in range(50):
        assert 1 <= len(heldout_names(NAMES[:2], 0.5, seed)) == 1
