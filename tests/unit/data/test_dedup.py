import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine import dedup
from atoll.data.engine.dedup import Duplicates, Forest, ShingleSets, buckets, exact_groups, jaccard, losers
from atoll.data.engine.minhash import shingles, signatures
from atoll.data.engine.scan import scan
from atoll.data.engine.statistics import exact_digests

WORDS = [f"word{number}" for number in range(400)]
LONG = " ".join(WORDS[:200])
NEARLY = " ".join([*WORDS[:190], *WORDS[300:310]])
OTHER = " ".join(WORDS[200:])


def _duplicates(texts: list[str], threshold: float = 0.75) -> Duplicates:
    batch = pa.array(texts)
    found = scan(batch)
    return Duplicates(
        exact_digests(batch), signatures(found, 112), lambda index: shingles(found.tokens_of(index)), threshold
    )


def _all(texts: list[str]) -> np.ndarray:
    return np.ones(len(texts), bool)


def test_equal_and_nearly_equal_texts_share_a_cluster() -> None:
    texts = [LONG, OTHER, NEARLY, LONG]
    assert _duplicates(texts).cluster(_all(texts)).tolist() == [0, 1, 0, 0]


def test_chinese_copies_with_a_few_edits_share_a_cluster() -> None:
    text = "".join(chr(0x4E00 + number * 7) for number in range(300))
    copy = text[:100] + "改" + text[101:]
    assert _duplicates([text, copy, text[::-1]]).cluster(np.ones(3, bool)).tolist() == [0, 0, 2]


def test_a_candidate_below_the_threshold_is_not_joined() -> None:
    texts = [LONG, NEARLY]
    assert _duplicates(texts, threshold=0.95).cluster(_all(texts)).tolist() == [0, 1]


def test_texts_without_words_are_equal_only_when_they_are() -> None:
    texts = ["!!", "??", "!!"]
    assert _duplicates(texts).cluster(_all(texts)).tolist() == [0, 1, 0]


def test_a_text_outside_the_members_joins_nothing_until_it_is_a_member() -> None:
    bridge = " ".join(WORDS[:100])
    one, other = " ".join(WORDS[:82]), " ".join(WORDS[18:100])
    texts = [bridge, one, other]
    duplicates = _duplicates(texts)
    assert duplicates.cluster(np.array([False, True, True])).tolist() == [0, 1, 2]
    assert duplicates.cluster(_all(texts)).tolist() == [0, 0, 0]


def test_a_refused_pair_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counting(one, other):
        seen.append((one, other))
        return jaccard(one, other)

    monkeypatch.setattr(dedup, "jaccard", counting)
    texts = [LONG, NEARLY]
    duplicates = _duplicates(texts, threshold=0.95)
    duplicates.cluster(_all(texts))
    duplicates.cluster(_all(texts))
    assert len(seen) == 1


def test_many_equal_texts_need_no_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "jaccard", lambda one, other: pytest.fail("verified equal texts"))
    assert set(_duplicates([LONG] * 500).cluster(np.ones(500, bool)).tolist()) == {0}


def test_a_bucket_of_copies_needs_one_verification_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(dedup, "jaccard", lambda one, other: seen.append(1) or jaccard(one, other))
    texts = [f"{LONG} end{number}" for number in range(60)]
    assert set(_duplicates(texts).cluster(_all(texts)).tolist()) == {0}
    assert len(seen) == 59


def test_progress_is_told_band_by_band() -> None:
    told = []
    _duplicates([LONG]).cluster(np.ones(1, bool), lambda done, total: told.append((done, total)))
    assert told[-1] == (22, 22)


def test_jaccard_of_sets() -> None:
    one, other = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4], np.uint64)
    assert jaccard(one, other) == 0.5
    assert jaccard(one, one) == 1
    assert jaccard(one[:0], other[:0]) == 0


def test_shingle_sets_are_computed_again_when_they_were_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "SHINGLES_BYTES_MAX", 100)
    computed: list[int] = []

    def shingles_of(text: int):
        computed.append(text)
        return np.arange(10, dtype=np.uint64)[::-1] + np.uint64(text)

    sets = ShingleSets(shingles_of)
    assert sets[0].tolist() == list(range(10))
    assert sets[0] is sets[0]
    assert sets[1][0] == 1
    assert sets[0][0] == 0
    assert computed == [0, 1, 0]


def test_a_forest_joins_and_names_the_least() -> None:
    forest = Forest(6)
    for one, other in ((5, 4), (4, 3), (1, 2)):
        forest.join(one, other)
    assert forest.roots().tolist() == [0, 1, 1, 3, 3, 3]


def test_exact_groups_name_the_first() -> None:
    assert exact_groups([b"a", b"b", b"a", b"b"]).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("keys", "groups"), [([], []), ([7], []), ([7, 7], [[0, 1]]), ([3, 1, 3, 2, 1], [[1, 4], [0, 2]]), ([0, 1], [])]
)
def test_buckets_are_the_groups_of_equal_keys(keys: list[int], groups: list[list[int]]) -> None:
    assert [group.tolist() for group in buckets(np.array(keys, np.uint64))] == groups


def test_the_longest_of_a_cluster_stays_and_of_equals_the_smallest_id() -> None:
    clusters, characters = np.array([0, 0, 0, 3, 3]), np.array([5, 9, 9, 1, 1])
    lost = losers(clusters, np.ones(5, bool), characters, ["a", "c", "b", "x", "y"])
    assert lost.tolist() == [True, True, False, False, True]


def test_what_is_not_a_member_neither_stays_nor_goes() -> None:
    members = np.array([True, False])
    assert losers(np.array([0, 0]), members, np.array([1, 9]), ["a", "b"]).tolist() == [False, False]
