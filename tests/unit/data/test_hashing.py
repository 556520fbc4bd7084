import numpy as np

from atoll.data.engine.hashing import FACTOR, MASK, hash_runs, hash_text, hash_words, mix, powers, seeded


def test_the_hashes_never_change() -> None:
    """Datasets made by earlier versions follow from these numbers."""
    assert [int(word) for word in hash_words(["a", "the"])] == [17508005127702757215, 17357140401427252685]
    assert [int(word) for word in seeded(2, 1)] == [10451216379200822465, 13757245211066428519]
    assert hash_text("json.loads", 7) == 6940005498788306509


def test_a_run_hashes_as_the_sum_of_its_terms() -> None:
    points = [104, 101, 121]
    total = sum((point + 1) * pow(FACTOR, place, 2**64) for place, point in enumerate(points)) & MASK
    expected = mix(np.array([total], np.uint64))
    assert hash_runs(np.array(points, np.uint32), np.array([0])) == expected


def test_runs_are_hashed_apart() -> None:
    joined = hash_runs(np.array([1, 2, 3, 1, 2], np.uint32), np.array([0, 3]))
    assert joined[0] == hash_runs(np.array([1, 2, 3], np.uint32), np.array([0]))[0]
    assert joined[1] == hash_runs(np.array([1, 2], np.uint32), np.array([0]))[0]
    assert len(hash_runs(np.empty(0, np.uint32), np.empty(0, np.int64))) == 0


def test_powers_wrap_around() -> None:
    assert [int(power) for power in powers(3)] == [1, FACTOR, FACTOR * FACTOR & MASK]
    assert len(powers(0)) == 0


def test_a_text_with_a_lone_surrogate_still_hashes() -> None:
    assert hash_text("\ud800") != hash_text("")
