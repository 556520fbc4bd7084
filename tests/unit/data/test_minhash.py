import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.annotate import minhash
from atoll.data.engine.annotate.minhash import NOTHING, RECALL_MIN, Signatures, band_keys, rows_of_band
from atoll.data.engine.hashing import hash_words, mix, powers


def _signatures(*texts: str, permutations: int = 112, words: int = 5, cjk: int = 5) -> Signatures:
    return minhash.signatures(pa.array(texts), permutations, minhash.shingler(words, cjk))[0]


def _shingles(text: str, words: int = 5, cjk: int = 5) -> list[int]:
    return minhash.shingles(pa.array([text]), words, cjk)[0].tolist()


def _hash(*tokens: str) -> int:
    hashes = hash_words(list(tokens))
    return int(mix(np.array([((hashes + np.uint64(1)) * powers(len(tokens))).sum()]))[0])


def test_shingles_are_five_tokens_wide_sorted_and_distinct() -> None:
    tokens = [f"w{number}" for number in range(9)]
    assert _shingles(" ".join(tokens)) == sorted(_hash(*tokens[i : i + 5]) for i in range(5))
    assert len(_shingles("same " * 50)) == 1


def test_a_short_text_is_one_shingle_and_none_has_none() -> None:
    assert _shingles("A, b!") == [_hash("a", "b")]
    assert _shingles("...") == _shingles("") == []


def test_a_shingle_is_as_wide_as_the_script_it_starts_in() -> None:
    """中文 ab 字: a single begins three tokens, a word two; what the text ends within is left out."""
    found = _shingles("中文 ab cd 字", words=2, cjk=3)
    expected = [_hash("中", "文", "ab"), _hash("文", "ab", "cd"), _hash("ab", "cd"), _hash("cd", "字")]
    assert found == sorted(expected)
    assert _shingles("a b 中", words=5, cjk=4) == [_hash("a", "b", "中")]


def test_equal_widths_are_plain_shingles_whatever_the_script() -> None:
    tokens = [*"中文", "ab", *"字母表", "cd", "ef", "的"]
    assert _shingles("".join(f"{token} " for token in tokens), 4, 4) == sorted(
        _hash(*tokens[i : i + 4]) for i in range(len(tokens) - 3)
    )


def test_a_text_longer_than_a_block_loses_no_shingle() -> None:
    tokens = [f"w{number}" for number in range(3000)]
    text = " ".join(tokens)
    assert _shingles(text) == sorted(_hash(*tokens[i : i + 5]) for i in range(2996))
    halves = np.array([np.uint32(shingle >> 32) for shingle in _shingles(text)])
    maps = minhash.maps(7)
    expected = [int((halves * factor + term).min()) for factor, term in zip(*maps, strict=True)]
    assert _signatures(text, permutations=7).tolist() == [expected]


def test_texts_of_a_batch_are_apart() -> None:
    flat, starts = minhash.shingles(pa.array(["a b", "", "c", "!"]), 5, 5)
    assert starts.tolist() == [0, 1, 1, 2, 2]
    assert flat.tolist() == [_hash("a", "b"), _hash("c")]


def test_tokens_and_stop_words_are_counted() -> None:
    texts = pa.array(["The cat is 中的", ""])
    assert minhash.signatures(texts, 4, minhash.shingler(5, 5))[1].tolist() == [[5, 4], [0, 0]]


def test_signatures_never_change() -> None:
    assert _signatures("the quick brown fox jumps over", permutations=3).tolist() == [
        [1126650816, 1098479458, 1756505729]
    ]


def test_signatures_agree_about_as_often_as_the_jaccard_index_says() -> None:
    words = [f"word{number}" for number in range(2000)]
    one, other = _signatures(" ".join(words[:1500]), " ".join(words[500:]), permutations=512)
    assert np.mean(one == other) == pytest.approx(0.5, abs=0.08)


def test_a_text_without_tokens_has_a_signature_of_nothing() -> None:
    assert (_signatures("", "!?") == NOTHING).all()


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
