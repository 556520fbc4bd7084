"""Clusters of near duplicates against the plain definition: all pairs, every Jaccard index."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.annotate.minhash import band_keys
from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.curate.mapped import PORTION_BYTES, Rows
from atoll.data.engine.dedup import Near, candidates, near, raw, verify
from atoll.data.engine.dedup.exact import groups
from atoll.data.engine.dedup.forest import members_of
from atoll.data.engine.dedup.verify import jaccards, shingle_sets
from atoll.data.engine.hashing import powers
from duplicates import corpus_of, stages_in

NEAR = Near(threshold=0.6)
"""Signatures of 112 entries propose a pair at .6 with probability .994, one at .75 with 1 - 1e-8."""


def indices(corpus: Corpus) -> np.ndarray:
    """The Jaccard index of every two documents."""
    count = len(corpus)
    pairs = np.array([(one, other) for one in range(count) for other in range(count)], np.int64).reshape(-1, 2)
    found = jaccards(*shingle_sets(corpus, np.arange(count), NEAR), pairs)
    return found.reshape(count, count)


def components(edges: np.ndarray) -> list[int]:
    """The least member of each one's component."""
    reach = edges | np.eye(len(edges), dtype=bool)
    for _ in range(len(edges)):
        reach = reach | ((reach.astype(int) @ reach.astype(int)) > 0)
    return [int(np.flatnonzero(row)[0]) for row in reach]


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Copies with some words replaced, so that Jaccard indices of every size occur."""
    texts = []
    for family in range(draw(st.integers(1, 3))):
        words = [f"f{family}w{place}" for place in range(draw(st.integers(1, 80)))]
        for copy in range(draw(st.integers(1, 6))):
            edits = draw(st.sets(st.integers(0, len(words) - 1), max_size=6))
            texts.append(" ".join(f"{copy}e" if place in edits else word for place, word in enumerate(words)))
    return texts


@settings(max_examples=40, deadline=None)
@given(families(), st.data())
def test_clusters_lie_between_the_sure_pairs_and_all_pairs(texts: list[str], data: st.DataObject) -> None:
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder) / "corpus", texts, batch_rows=4, near=NEAR)
        found = near.find(corpus, stages_in(Path(folder) / "stages"), NEAR, members, groups(corpus))
        index = indices(corpus)
    equal = np.array([[one == other for one in texts] for other in texts])
    both = members[:, None] & members[None, :]
    for clusters, allowed in ((found.members, both), (found.everything, np.ones_like(both))):
        together = clusters[:, None] == clusters[None, :]
        sure, possible = components(((index >= 0.75) | equal) & allowed), components(((index >= 0.6) | equal) & allowed)
        assert all(together[one, sure[one]] for one in range(len(texts)))
        assert all(possible[one] == possible[other] for one, other in zip(*np.nonzero(together), strict=True))
        assert all(cluster == np.flatnonzero(together[one])[0] for one, cluster in enumerate(clusters.tolist()))


def proposed(corpus: Corpus, folder: Path) -> np.ndarray:
    """The candidate pairs as a matrix."""
    found = candidates.candidates(corpus, stages_in(folder), NEAR, groups(corpus).firsts)
    pairs = found.standing[np.concatenate([np.empty((0, 2), np.int64), *(_pairs_in(path) for path in found.pairs)])]
    result = np.zeros((len(corpus), len(corpus)), bool)
    result[pairs[:, 0], pairs[:, 1]] = result[pairs[:, 1], pairs[:, 0]] = True
    return result


def _pairs_in(path: Path) -> np.ndarray:
    return members_of(raw.read(path, np.uint64))


@settings(max_examples=40, deadline=None)
@given(families(), st.data(), st.integers(1, 3000), st.integers(1, 40))
def test_clusters_are_the_components_of_the_candidates_that_verify_however_they_are_portioned(
    texts: list[str], data: st.DataObject, cluster_bytes: int, pairs_at_once: int
) -> None:
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    check_components(texts, members, cluster_bytes, pairs_at_once)


@pytest.mark.parametrize("seed", range(8))
def test_pairs_that_many_others_surround_are_looked_at_until_nothing_is_apart(seed: int) -> None:
    """Variants of one text, all about as alike as the threshold: a forest's pairs often fail, and others have to do."""
    rng = np.random.default_rng(seed)
    words = [f"w{place}" for place in range(120)]
    texts = []
    for copy in range(16):
        edits = rng.choice(len(words), 3 + copy % 2, replace=False)
        texts.append(" ".join(f"{copy}e{place}" if place in edits else word for place, word in enumerate(words)))
    check_components(texts, rng.random(len(texts)) < 0.6, cluster_bytes=1, pairs_at_once=50)
    check_components(texts, rng.random(len(texts)) < 0.6, cluster_bytes=1 << 20, pairs_at_once=50)


def test_members_are_joined_by_their_own_likeness_though_a_stranger_is_nearer_to_both() -> None:
    words = [f"w{place}" for place in range(120)]
    texts = [" ".join([*words[:place], "edited", *words[place + 1 :]]) for place in (30, 90)]
    check_components([*texts, " ".join(words)], np.array([True, True, False]), 1 << 20, 100)


def check_components(texts: list[str], members: np.ndarray, cluster_bytes: int, pairs_at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        corpus = corpus_of(Path(folder) / "corpus", texts, batch_rows=4, near=NEAR)
        patch.setattr(candidates, "BAND_TEXTS", 3 * len(texts))
        patch.setattr(near, "PAIRS_AT_ONCE", pairs_at_once)
        patch.setattr(near, "CLUSTER_BYTES", cluster_bytes)
        patch.setattr(verify, "CLUSTER_BYTES", cluster_bytes)
        patch.setattr(verify, "PORTION_BYTES", cluster_bytes // 2 + 1)
        found = near.find(corpus, stages_in(Path(folder) / "stages"), NEAR, members, groups(corpus))
        verifies = proposed(corpus, Path(folder) / "again") & (indices(corpus) >= NEAR.threshold)
    first = np.array([texts.index(text) for text in texts])  # who stands for a text may differ from who is a member
    equal = first[:, None] == first[None, :]
    edges = verifies[np.ix_(first, first)] | verifies | equal
    edges = edges | (equal.astype(int) @ verifies.astype(int) @ equal.astype(int) > 0)
    both = members[:, None] & members[None, :]
    assert found.everything.tolist() == components(edges)
    assert found.members.tolist() == components(edges & both)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 300), max_size=200), min_size=1, max_size=12), st.data())
def test_near_sets_are_told_by_the_index_and_only_while_something_is_apart(
    sets: list[set[int]], data: st.DataObject
) -> None:
    ends = st.tuples(st.integers(0, len(sets) - 1), st.integers(0, len(sets) - 1))
    pairs = np.array(data.draw(st.lists(ends, max_size=40)), np.int64).reshape(-1, 2)
    threshold = data.draw(st.sampled_from((0.3, 0.5, 2 / 3, 0.75, 1.0)))
    unsorted = [data.draw(st.permutations(sorted(one))) for one in sets]
    flat = np.array([value for one in unsorted for value in one], np.uint64) * np.uint64(2**61 + 1)
    starts = np.cumsum([0, *map(len, sets)])
    found = verify.nears(flat, starts, pairs, threshold)
    near_ones = np.zeros((len(sets), len(sets)), bool)
    for (one, other), is_found in zip(pairs.tolist(), found.tolist(), strict=True):
        union = sets[one] | sets[other]
        is_near = bool(union) and len(sets[one] & sets[other]) / len(union) >= threshold
        roots = components(near_ones)
        assert is_found == (is_near and roots[one] != roots[other])
        near_ones[one, other] |= is_near
        near_ones[other, one] |= is_near


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 8), st.integers(1, 6))
def test_the_keys_of_all_bands_are_those_of_each(seed: int, texts: int, rows: int, bands: int) -> None:
    signatures = np.random.default_rng(seed).integers(0, 2**32, (texts, rows * bands + 1), np.uint32)
    keys = np.empty((bands, texts), np.uint64)
    candidates._key(signatures, rows, powers(rows), keys)
    assert all((keys[band] == band_keys(signatures, band, rows)).all() for band in range(bands))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(17, 120), st.integers(2, 8))
def test_a_large_bucket_proposes_linearly_many_pairs_that_connect_its_families(
    seed: int, texts: int, families: int
) -> None:
    random = np.random.default_rng(seed)
    family = random.integers(0, families, texts)
    sketch = random.integers(0, 256, (families, 112), np.uint8)[family]
    changed = random.random(sketch.shape) < 0.08
    sketch[changed] = random.integers(0, 256, int(changed.sum()), np.uint8)
    parts = []
    for first_row in range(5, 60, 5):  # a pair of this likeness shares more than half of the bands
        found = candidates.pairs_of(np.zeros(texts, np.uint64), sketch, first_row, candidates.agreements_min(Near()))
        assert len(found) <= texts * (candidates.NEIGHBOURS + 1)
        parts.append(found)
    pairs = np.concatenate(parts)
    edges = np.zeros((texts, texts), bool)
    one, other = (pairs >> np.uint64(32)).astype(int), (pairs & np.uint64(0xFFFFFFFF)).astype(int)
    edges[one, other] = edges[other, one] = True
    roots = components(edges)
    connected = sum(roots[a] == roots[b] for a in range(texts) for b in range(a) if family[a] == family[b])
    assert connected >= 0.99 * sum(family[a] == family[b] for a in range(texts) for b in range(a))
    assert all(family[roots[a]] == family[a] for a in range(texts))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8))
def test_sketches_in_a_file_give_the_pairs_of_those_in_memory(seed: int, families: int) -> None:
    texts, width = 3 * PORTION_BYTES // 112, 112  # so that no portion holds all
    random = np.random.default_rng(seed)
    sketch = random.integers(0, 256, (families, width), np.uint8)[random.integers(0, families, texts)]
    keys = random.integers(0, texts, texts).astype(np.uint64)
    with tempfile.TemporaryDirectory() as folder:
        raw.write(Path(folder) / "sketch", sketch)
        held = Rows(Path(folder) / "sketch", width)
        in_file = candidates.pairs_of(keys, held, 8, candidates.agreements_min(Near()))
        some = np.flatnonzero(random.random(texts) < 0.01)
        assert (held[some] == sketch[some]).all()
    pairs = members_of(in_file)
    assert (in_file == candidates.pairs_of(keys, sketch, 8, candidates.agreements_min(Near()))).all()
    assert (pairs[:, 0] < pairs[:, 1]).all() and (keys[pairs[:, 0]] == keys[pairs[:, 1]]).all()
