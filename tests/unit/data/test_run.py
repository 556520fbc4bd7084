from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.run import curate
from atoll.data.manifest import read_manifest, read_split

SUBJECTS = ["gang", "queue", "replica", "checkpoint", "gateway", "ledger", "lease", "site", "pool", "route", "budget"]


def _article(subject: str) -> str:
    """An article unlike the others: its words carry the subject."""
    sentences = [
        f"The {subject} number {n} of kind {subject}{n} waits for {subject}{n * 7} and stops." for n in range(9)
    ]
    limits = f"## Limits of a {subject}\n\nA {subject} may hold no more than seven {subject}s at a time.\n"
    return f"# On the {subject}\n\n{' '.join(sentences)}\n\n{limits}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for subject in SUBJECTS:
        (docs / f"{subject}.md").write_text(_article(subject))
    (docs / "copy.md").write_text(_article("gang"))
    (docs / "near.md").write_text(_article("queue").replace("number 3", "number three"))
    (docs / "short.txt").write_text("too little")
    (docs / "figures.txt").write_text("1234 5678 -- " * 40)
    (docs / "empty.txt").write_bytes(b"")
    return docs


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def _input(folder: Path, **recipe: Any) -> dict[str, Any]:
    return {"sources": [{"kind": "folder", "path": str(folder)}], "recipe": recipe, "seed": 7}


def test_a_run_makes_a_dataset_and_says_what_it_dropped(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    result = curate(_input(folder), store, tmp_path / "work")
    funnel = {step["rule"]: step["dropped"] for step in result["funnel"]}
    assert funnel == {
        "unreadable": 1,
        "too_short": 1,
        "too_long": 0,
        "few_letters": 1,
        "long_words": 0,
        "repeated_lines": 0,
        "exact_duplicate": 1,
        "near_duplicate": 1,
    }
    counts = result["counts"]
    assert counts["documents_in"] == 16
    assert counts["documents_out"] == 11 == counts["train"] + counts["heldout"]
    assert counts["documents_in"] - sum(funnel.values()) == counts["documents_out"]
    samples = {step["rule"]: step["samples"] for step in result["funnel"]}
    assert samples["unreadable"] == ["empty.txt: the file is empty"]
    assert samples["too_short"] == ["short.txt: too little"]
    assert samples["exact_duplicate"][0].startswith("gang.md: # On the gang")
    assert not (tmp_path / "work" / "spool").exists()


def test_the_splits_hold_what_the_counts_say(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    result = curate(_input(folder), store, tmp_path / "work")
    manifest = read_manifest(store, result["manifest"])
    assert manifest.counts == result["counts"]
    tables = {name: read_split(store, result["manifest"], name) for name in manifest.splits}
    assert {name: table.num_rows for name, table in tables.items()} == {n: result["counts"][n] for n in tables}
    texts = {row["id"]: row["text"] for name in ("train", "heldout") for row in tables[name].to_pylist()}
    assert sum(map(len, texts.values())) == result["counts"]["characters"]
    for side in ("train", "heldout"):
        own = set(tables[side]["id"].to_pylist())
        for row in tables[f"qa_{side}"].to_pylist():
            assert row["document"] in own
            assert texts[row["document"]][row["span_start"] : row["span_end"]] == row["answer"]
    assert tables["qa_train"].num_rows > 10


def test_equal_input_gives_the_same_manifest_and_a_seed_another(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    first = curate(_input(folder), store, tmp_path / "one")
    assert curate(_input(folder), store, tmp_path / "two")["manifest"] == first["manifest"]
    assert curate({**_input(folder), "seed": 8}, store, tmp_path / "two")["manifest"] != first["manifest"]


def test_what_a_killed_run_left_does_not_change_the_next(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    left = tmp_path / "work" / "spool" / "000000.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"ARROW1 torn")
    (left.parent / "shard.parquet").write_bytes(b"PAR1 torn")
    result = curate(_input(folder), store, tmp_path / "work")
    assert result["manifest"] == curate(_input(folder), store, tmp_path / "other")["manifest"]


def test_duplicates_stay_when_the_recipe_says_so_and_still_share_a_side(
    folder: Path, store: BlobStore, tmp_path: Path
) -> None:
    for seed in range(6):
        recipe = {"dedup": {"exact": False, "near": None}, "split": {"heldout_fraction": 0.5}}
        result = curate({**_input(folder, **recipe), "seed": seed}, store, tmp_path / "work")
        assert result["counts"]["documents_out"] == 13
        heldout = set(read_split(store, result["manifest"], "heldout")["id"].to_pylist())
        assert len(heldout & {"gang.md", "copy.md"}) != 1
        assert len(heldout & {"queue.md", "near.md"}) != 1


def test_rules_of_the_recipe_drop_under_their_own_names(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    rules = [{"rule": "has_headings", "drop": "lines > 3"}]
    result = curate(_input(folder, rules=rules), store, tmp_path / "work")
    assert {step["rule"]: step["dropped"] for step in result["funnel"]}["has_headings"] == 13
    assert result["counts"]["documents_out"] == 1


def test_questions_can_be_left_out(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    result = curate(_input(folder, questions={"enabled": False}), store, tmp_path / "work")
    assert result["counts"]["qa_train"] == result["counts"]["qa_heldout"] == 0


def test_a_run_that_would_drop_everything_fails_and_says_why(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="all 15 documents were dropped: unreadable 1, too_short 15") as caught:
        curate(_input(folder, min_characters=100_000), store, tmp_path / "work")
    assert caught.value.field == "recipe"
    assert list(store.digests()) == []


def test_two_documents_of_one_name_both_stay(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "gang.md").write_text(_article("federation"))
    task_input = _input(folder)
    task_input["sources"].append({"kind": "folder", "path": str(other), "licence": "CC0-1.0"})
    result = curate(task_input, store, tmp_path / "work")
    manifest = read_manifest(store, result["manifest"])
    ids = {
        row for side in ("train", "heldout") for row in read_split(store, result["manifest"], side)["id"].to_pylist()
    }
    assert {"copy.md", "gang.md#2"} <= ids
    assert manifest.licence == "CC0-1.0 AND unknown"
    assert [source["path"] for source in manifest.sources] == [str(folder), str(other)]


def test_progress_is_told_stage_by_stage(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    curate(_input(folder), store, tmp_path / "work", lambda *values: told.append(values))
    assert list(dict.fromkeys(stage for stage, *_ in told)) == ["read", "annotate", "deduplicate", "write"]
    assert told[-1] == ("write", 11, 11, "document")


def test_a_missing_folder_leaves_nothing_behind(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        curate(_input(tmp_path / "nowhere"), store, tmp_path / "work")
    assert not (tmp_path / "work" / "spool").exists()
