"""Which documents stay depends on the documents, not on their order or the batches they came in."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.dedup import Dedup, Lines, Substrings, Verdict, find_duplicates
from duplicates import corpus_of, stages_in

SPEC = Dedup(url=True, lines=Lines(characters_min=5), substrings=Substrings(32))


@st.composite
def corpora(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Families of texts that are copies of each other but for a few words; some have a URL."""
    documents = []
    for family in range(draw(st.integers(1, 4))):
        words = [f"w{family}x{place}" for place in range(draw(st.integers(3, 60)))]
        for _ in range(draw(st.integers(1, 5))):
            edits = draw(st.lists(st.integers(0, len(words) - 1), max_size=3))
            changed = ["edited" if place in edits else word for place, word in enumerate(words)]
            text = draw(st.sampled_from([" ", "\n"])).join(changed[: draw(st.integers(1, len(words)))])
            documents.append((text, draw(st.sampled_from(["", "", "http://a.b/1", "http://a.b/2"]))))
    return documents


def _judged(
    documents: list[tuple[str, str, str]], outside: set[str], batch_rows: int
) -> tuple[Verdict, dict[str, object]]:
    """The verdict, and the same by the names of documents."""
    names, texts, urls = ([document[place] for document in documents] for place in range(3))
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder) / "corpus", texts, names, batch_rows, url=urls)
        members = np.array([name not in outside for name in names])
        verdict = find_duplicates(corpus, stages_in(Path(folder) / "stages"), SPEC, members)
        cuts = set()
        for number, batch in enumerate(corpus):
            spans = verdict.cuts[number]
            for row, start, stop in zip(spans.rows, spans.starts, spans.stops, strict=True):
                if verdict.kept[batch.first + row]:
                    cuts.add((names[batch.first + row], int(start), int(stop)))
    clusters: dict[int, set[str]] = {}
    for name, cluster in zip(names, verdict.clusters.tolist(), strict=True):
        clusters.setdefault(cluster, set()).add(name)
    reasons = {reason: {names[number] for number in np.flatnonzero(lost)} for reason, lost in verdict.reasons.items()}
    return verdict, {"reasons": reasons, "clusters": {frozenset(own) for own in clusters.values()}, "cuts": cuts}


@settings(max_examples=25, deadline=None)
@given(corpora(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_keep_set_is_the_same_in_any_order_and_batches(
    documents: list[tuple[str, str]], random, batch_rows: int
) -> None:
    named = [(f"d{number:03d}", *document) for number, document in enumerate(documents)]
    outside = {name for name, _, _ in named if random.random() < 0.1}
    verdict, found = _judged(named, outside, 1000)
    _, again = _judged(random.sample(named, len(named)), outside, batch_rows)
    assert again == found
    members = {name for name, _, _ in named} - outside
    dropped = [name for lost in found["reasons"].values() for name in lost]
    assert len(dropped) == len(set(dropped))
    assert {named[number][0] for number in np.flatnonzero(verdict.kept)} == members - set(dropped)
    for number, cluster in enumerate(verdict.clusters.tolist()):
        assert cluster == min(np.flatnonzero(verdict.clusters == verdict.clusters[number]))
