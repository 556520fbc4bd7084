"""Nothing crosses a split."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.blobs import BlobStore
from atoll.data.engine.run import curate
from atoll.data.engine.split import cluster_names, heldout_names
from atoll.data.manifest import read_split

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)


@given(IDS, st.integers(1, 20), st.floats(0, 0.5), st.integers(0, 2**63 - 1), st.randoms(use_true_random=False))
def test_a_cluster_is_on_one_side_whatever_the_order(ids, clusters, fraction, seed, random) -> None:
    numbered = [(name, place % clusters) for place, name in enumerate(ids)]
    names = dict(zip(ids, cluster_names([number for _, number in numbered], ids), strict=True))
    shuffled = random.sample(numbered, len(numbered))
    again = cluster_names([number for _, number in shuffled], [name for name, _ in shuffled])
    assert dict(zip([name for name, _ in shuffled], again, strict=True)) == names
    heldout = heldout_names(names.values(), fraction, seed)
    assert heldout_names([names[name] for name, _ in shuffled], fraction, seed) == heldout
    assert heldout <= set(names.values())
    assert heldout != set(names.values())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.5), st.booleans())
def test_no_near_copy_and_no_answer_is_on_both_sides(seed: int, fraction: float, drops: bool) -> None:
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
