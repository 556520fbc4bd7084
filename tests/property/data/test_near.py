"""Clusters of near duplicates against the plain definition: all pairs, every Jaccard index."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup import Near, candidates, near
from atoll.data.engine.dedup.verify import jaccards, shingle_sets
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
        found = near.find(corpus, stages_in(Path(folder) / "stages"), NEAR, members)
        index = indices(corpus)
    equal = np.array([[one == other for one in texts] for other in texts])
    both = members[:, None] & members[None, :]
    for clusters, allowed in ((found.members, both), (found.everything, np.ones_like(both))):
        together = clusters[:, None] == clusters[None, :]
        sure, possible = components(((index >= 0.75) | equal) & allowed), components(((index >= 0.6) | equal) & allowed)
        assert all(together[one, sure[one]] for one in range(len(texts)))
        assert all(possible[one] == possible[other] for one, other in zip(*np.nonzero(together), strict=True))
        assert all(cluster == np.flatnonzero(together[one])[0] for one, cluster in enumerate(clusters.tolist()))


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
