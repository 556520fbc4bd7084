import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.compose.split import TRAIN, hash_ids, name_clusters, sides
from atoll.data.engine.hashing import hash_words

NAMES = hash_ids(pa.array([f"doc{number}" for number in range(1000)]))


def test_an_id_has_the_hash_of_its_bytes_whatever_chunk_it_is_in() -> None:
    ids = ["a", "docs/b.md", "文档"]
    whole = hash_ids(pa.array(ids))
    assert whole[0] == hash_words(["a"])[0]
    assert whole.tolist() == hash_ids(pa.chunked_array([ids[:1], [], ids[1:]], pa.string())).tolist()
    assert hash_ids(pa.array([*"xyz", *ids]).slice(3)).tolist() == whole.tolist()
    assert len(hash_ids(pa.chunked_array([], pa.string()))) == 0


def test_a_cluster_is_named_by_the_least_hash_in_it() -> None:
    hashes = np.array([7, 9, 3, 8], np.uint64)
    assert name_clusters(np.array([5, 1, 5, 1]), hashes).tolist() == [3, 8, 3, 8]
    assert name_clusters(np.array([0, 1, 2, 3]), hashes).tolist() == hashes.tolist()
    assert len(name_clusters(np.zeros(0, np.int64), hashes[:0])) == 0


def test_about_the_fraction_is_held_out() -> None:
    assert 60 < np.count_nonzero(sides(NAMES, [0.1], 1)) < 140


def test_several_sides_are_held_out_each_by_its_fraction() -> None:
    counts = np.bincount(sides(NAMES, [0.1, 0.0, 0.3], 1), minlength=4)
    assert 60 < counts[1] < 140
    assert counts[2] == 0
    assert 240 < counts[3] < 360


def test_a_further_side_takes_from_training_alone() -> None:
    one, two = sides(NAMES, [0.1], 1), sides(NAMES, [0.1, 0.2], 1)
    assert ((one == 1) == (two == 1)).all()


def test_a_cluster_stays_on_its_side_when_others_come() -> None:
    assert sides(NAMES[:500], [0.1], 1).tolist() == sides(NAMES, [0.1], 1)[:500].tolist()


def test_another_seed_holds_out_others() -> None:
    assert sides(NAMES, [0.1], 1).tolist() != sides(NAMES, [0.1], 2).tolist()


@pytest.mark.parametrize(("count", "fraction", "heldout"), [(0, 0.1, 0), (1, 0.5, 0), (2, 0.001, 1), (9, 0.0, 0)])
def test_small_datasets_keep_both_sides_where_they_can(count: int, fraction: float, heldout: int) -> None:
    assert np.count_nonzero(sides(NAMES[:count], [fraction], 3)) == heldout


def test_every_side_gets_a_cluster_when_there_are_enough() -> None:
    for seed in range(50):
        assert set(sides(NAMES[:3], [0.45, 0.45], seed).tolist()) == {TRAIN, 1, 2}
        assert set(sides(NAMES[:2], [0.45, 0.45], seed).tolist()) > {TRAIN}


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [-0.1], [1.0]])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions: list[float]) -> None:
    with pytest.raises(Invalid, match="together less than 1"):
        sides(NAMES, fractions, 0)
