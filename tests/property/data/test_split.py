"""Nothing crosses a split."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.blobs import BlobStore
from atoll.data.engine.compose.split import TRAIN, hash_ids, name_clusters, sides
from atoll.data.manifest import read_split

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)
FRACTIONS = st.lists(st.floats(0, 0.3), min_size=1, max_size=3)


@settings(deadline=None)
@given(IDS, st.integers(1, 20), FRACTIONS, st.integers(0, 2**63 - 1), st.integers(1, 7), st.randoms())
def test_a_cluster_is_on_one_side_whatever_the_order(ids, clusters, fractions, seed, batch, random) -> None:
    order = np.array(random.sample(range(len(ids)), len(ids)))
    numbers = np.arange(len(ids)) % clusters
    shuffled = [ids[place] for place in order]
    batches = [shuffled[start : start + batch] for start in range(0, len(ids), batch)]
    names = name_clusters(numbers, hash_ids(pa.array(ids)))
    again = name_clusters(numbers[order] * 3 + 1, hash_ids(pa.chunked_array(batches, pa.string())))
    assert again.tolist() == names[order].tolist()
    side = sides(names, fractions, seed)
    assert sides(again, fractions, seed).tolist() == side[order].tolist()
    families = {(int(number), int(found)) for number, found in zip(numbers, side, strict=True)}
    assert len(families) == len(set(numbers.tolist()))
    assert TRAIN in side
    enough = len(families) > sum(fraction > 0 for fraction in fractions)
    assert not enough or {i for i, fraction in enumerate(fractions, 1) if fraction > 0} <= set(side.tolist())


@settings(deadline=None, max_examples=20)
@given(st.floats(0.02, 0.5), st.integers(0, 2**63 - 1))
def test_the_fraction_is_close_and_only_the_growing_side_changes(fraction, seed) -> None:
    names = hash_ids(pa.array([f"d{number}" for number in range(4000)]))
    few, more = sides(names, [fraction], seed), sides(names, [fraction * 1.2], seed)
    assert abs(np.count_nonzero(few) / len(names) - fraction) < 0.04
    assert (more[few == 1] == 1).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.5), st.booleans())
def test_no_near_copy_and_no_answer_is_on_both_sides(seed: int, fraction: float, drops: bool) -> None:
    from atoll.data.engine.curate.run import curate

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "docs").mkdir()
        for number in range(12):
            text = " ".join(f"word{number}x{place}" for place in range(60))
            for copy in range(1 + number % 3):
                edited = text if copy == 0 else text.replace(f"x{copy * 20} ", f"x{copy * 20} edited ")
                shared = "A lagoon is a body of water that a ring of islands encloses."
                (folder / "docs" / f"{number}-{copy}.txt").write_text(f"{edited}.\n\n{shared}\n")
        recipe = {"split": {"heldout_fraction": fraction}, "dedup": {"near": {} if drops else None}}
        task_input = {"sources": [{"kind": "folder", "path": str(folder / "docs")}], "recipe": recipe, "seed": seed}
        store = BlobStore(str(folder / "blobs"))
        digest = curate(task_input, store, folder / "work")["manifest"]
        sides = [read_split(store, digest, split)["id"].to_pylist() for split in ("train", "heldout")]
        families = [{name.split("-")[0] for name in side} for side in sides]
        assert not families[0] & families[1]
        pairs = [read_split(store, digest, split) for split in ("qa_train", "qa_heldout")]
        assert not set(pairs[0]["answer"].to_pylist()) & set(pairs[1]["answer"].to_pylist())
        assert not set(pairs[0]["question"].to_pylist()) & set(pairs[1]["question"].to_pylist())
