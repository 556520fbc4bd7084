import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.hashing import hash_words
from atoll.data.engine.minhash import RECALL_MIN, band_keys, rows_of_band, shingles, signatures
from atoll.data.engine.scan import scan


def _signatures(*texts: str, permutations: int = 112):
    return signatures(scan(pa.array(texts)), permutations)


def test_shingles_are_five_tokens_wide() -> None:
    words = [f"w{number}" for number in range(9)]
    found = shingles(hash_words(words))
    assert len(found) == 5
    assert found[2] == shingles(hash_words(words[2:7]))[0]


def test_a_short_text_is_one_shingle_and_none_has_none() -> None:
    assert len(shingles(hash_words(["a", "b"]))) == 1
    assert len(shingles(hash_words([])[:0])) == 0
    assert shingles(hash_words(["a", "b"]))[0] != shingles(hash_words(["b", "a"]))[0]


def test_signatures_never_change() -> None:
    assert _signatures("the quick brown fox jumps over", permutations=3).tolist() == [
        [1126650816, 1098479458, 1756505729]
    ]


def test_signatures_agree_about_as_often_as_the_jaccard_index_says() -> None:
    words = [f"word{number}" for number in range(2000)]
    one, other = _signatures(" ".join(words[:1500]), " ".join(words[500:]), permutations=512)
    assert np.mean(one == other) == pytest.approx(0.5, abs=0.08)


def test_a_text_without_tokens_has_a_signature_of_ones() -> None:
    assert (_signatures("", "!?") == 0xFFFFFFFF).all()


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("permutations", [16, 112, 256])
def test_bands_miss_less_than_one_pair_of_a_hundred_at_the_threshold(threshold: float, permutations: int) -> None:
    rows = rows_of_band(threshold, permutations)
    bands = permutations // rows
    assert rows >= 1
    if rows > 1:
        assert 1 - (1 - threshold**rows) ** bands >= RECALL_MIN


def test_equal_rows_of_a_band_are_equal_keys() -> None:
    found = _signatures("a b c d e f", "a b c d e f", "g h i j k l")
    keys = band_keys(found, 3, 5)
    assert keys[0] == keys[1] != keys[2]
