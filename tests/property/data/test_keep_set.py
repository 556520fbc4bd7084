"""Which documents stay depends on the documents, not on their order or the batches they came in."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine import spool as spools
from atoll.data.engine.dedup import jaccard
from atoll.data.engine.minhash import shingles
from atoll.data.engine.plan import plan_of
from atoll.data.engine.run import Verdict, annotate, judge
from atoll.data.engine.scan import scan
from atoll.data.engine.spool import Document, Spool

PLAN = plan_of({"sources": [{"kind": "stdlib"}], "recipe": {"min_characters": 0, "rules": []}})


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    """Families of texts that are copies of each other but for a few words."""
    texts = []
    for family in range(draw(st.integers(1, 4))):
        words = [f"w{family}x{place}" for place in range(draw(st.integers(3, 60)))]
        for _ in range(draw(st.integers(1, 5))):
            edits = draw(st.lists(st.integers(0, len(words) - 1), max_size=3))
            texts.append(" ".join("edited" if place in edits else word for place, word in enumerate(words)))
    return texts


def _judged(documents: list[tuple[str, str]], batch_bytes: int) -> tuple[dict[str, bool], Verdict, Spool]:
    whole, spools.BATCH_BYTES = spools.BATCH_BYTES, batch_bytes
    try:
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(Path(folder) / "spool")
            for name, text in documents:
                spool.add(Document(name, text, name, name, "text"))
            spool.flush()
            notes = annotate(spool, PLAN.near.permutations, lambda *_: None)
            verdict = judge(PLAN, spool, notes, lambda *_: None)
            return dict(zip(spool.ids, verdict.kept.tolist(), strict=True)), verdict, spool
    finally:
        spools.BATCH_BYTES = whole


@settings(max_examples=60, deadline=None)
@given(corpora(), st.randoms(use_true_random=False), st.integers(1, 2000))
def test_the_keep_set_is_the_same_in_any_order_and_batches(texts: list[str], random, batch_bytes: int) -> None:
    documents = [(f"d{number:03d}", text) for number, text in enumerate(texts)]
    kept, verdict, spool = _judged(documents, 1 << 20)
    shuffled = random.sample(documents, len(documents))
    kept_again, verdict_again, spool_again = _judged(shuffled, batch_bytes)
    assert kept_again == kept
    clusters = dict(zip(spool.ids, verdict.clusters, strict=True))
    assert dict(zip(spool_again.ids, verdict_again.clusters, strict=True)) == clusters
    for rule, dropped in verdict.reasons.items():
        again = {spool_again.ids[index] for index in verdict_again.reasons[rule]}
        assert again == {spool.ids[index] for index in dropped}


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_a_dropped_document_has_a_near_copy_and_kept_ones_have_none_left(texts: list[str]) -> None:
    documents = [(f"d{number:03d}", text) for number, text in enumerate(texts)]
    kept, verdict, _ = _judged(documents, 1 << 20)
    import pyarrow as pa

    sets = [np.unique(shingles(scan(pa.array([text])).tokens)) for text in texts]
    for one, (name, _) in enumerate(documents):
        copies = [
            other
            for other in range(len(texts))
            if other != one and jaccard(sets[one], sets[other]) >= PLAN.near.threshold
        ]
        if not kept[name]:
            assert copies
        assert all(
            verdict.clusters[other] == verdict.clusters[one]
            for other in copies
            if sets[one].tolist() == sets[other].tolist()
        )
    assert len({verdict.clusters[index] for index in np.flatnonzero(verdict.kept)}) == verdict.kept.sum()
