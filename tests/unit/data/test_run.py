import json
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey, SealedBlobs
from atoll.data.engine.curate.run import curate
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
        "duplicate_id": 0,
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
    assert list((tmp_path / "work").iterdir()) == []


def test_the_splits_hold_what_the_counts_say(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    result = curate(_input(folder), store, tmp_path / "work")
    manifest = read_manifest(store, result["manifest"])
    assert manifest.counts == result["counts"]
    tables = {name: read_split(store, result["manifest"], name) for name in manifest.splits}
    assert set(tables) == {"train", "heldout", "qa_train", "qa_heldout"}
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
    others = {curate({**_input(folder), "seed": seed}, store, tmp_path / "two")["manifest"] for seed in (8, 9, 10)}
    assert others != {first["manifest"]}


def test_what_a_broken_attempt_left_does_not_change_the_next(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    left = tmp_path / "work" / "read-0123456789abcdef0123" / "read" / ".000000-torn" / "texts.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"ARROW1 torn")
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
    assert {"s0/copy.md", "s1/gang.md"} <= ids
    assert manifest.licence == "CC0-1.0 AND unknown"
    assert [source["path"] for source in manifest.sources] == [str(folder), str(other)]


def test_progress_is_told_stage_by_stage(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    curate(_input(folder), store, tmp_path / "work", lambda *values: told.append(values))
    stages = list(dict.fromkeys(stage.partition("-")[0] for stage, *_ in told))
    assert stages == ["read", "decide", "dedup", "write", "ask", "finish"]
    assert ("read", 1, 1, "part") in told
    assert told[-1] == ("finish", 1, 1, "dataset")


def test_a_wrong_input_leaves_nothing_behind(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        curate(_input(tmp_path / "nowhere"), store, tmp_path / "work")
    assert not (tmp_path / "work").exists() or list((tmp_path / "work").iterdir()) == []


def test_every_document_has_its_reason_in_the_notes_and_its_text_among_the_rejected(
    folder: Path, store: BlobStore, tmp_path: Path
) -> None:
    digest = curate(_input(folder), store, tmp_path / "work")["manifest"]
    notes = {row["id"]: row for row in read_split(store, digest, "notes").to_pylist()}
    assert len(notes) == 15
    reasons = {name: row["reason"] for name, row in notes.items() if row["reason"]}
    expected = {"short.txt": "too_short", "figures.txt": "few_letters"}
    assert expected.items() <= reasons.items()
    assert notes["gang.md"]["cluster"] == notes["copy.md"]["cluster"]
    assert notes["short.txt"]["characters"] == len("too little")
    rejected = {row["id"]: row for row in read_split(store, digest, "rejected").to_pylist()}
    assert {name: row["reason"] for name, row in rejected.items()} == reasons
    assert rejected["short.txt"]["text"] == "too little"
    (quarantined,) = read_split(store, digest, "quarantined").to_pylist()
    assert quarantined == {"name": "empty.txt", "line": 0, "reason": "the file is empty"}


def test_personal_data_is_acted_on_wherever_a_text_is_written(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    (folder / "gate.md").write_text(_article("gate") + "\nWrite to jane.doe@lagoon-works.net today.\n")
    (folder / "tiny.md").write_text("jane.doe@lagoon-works.net")
    result = curate(_input(folder, privacy={}), store, tmp_path / "work")
    assert result["privacy"] == {"email": {"mask": 1}}
    manifest = read_manifest(store, result["manifest"])
    assert manifest.privacy == result["privacy"]
    parts = [read_split(store, result["manifest"], name) for name in ("train", "heldout", "rejected")]
    texts = [text for part in parts for text in part["text"].to_pylist()]
    assert sum("[EMAIL]" in text for text in texts) == 2
    assert not any("jane.doe" in text for text in texts)
    assert "jane.doe" not in str(result["funnel"])
    notes = {row["id"]: row["pii_email"] for row in read_split(store, result["manifest"], "notes").to_pylist()}
    assert notes["gate.md"] == 1 == notes["tiny.md"]


def test_a_document_with_personal_data_may_be_dropped(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    (folder / "gate.md").write_text(_article("gate") + "\nWrite to jane.doe@lagoon-works.net today.\n")
    result = curate(_input(folder, privacy={"actions": {"email": "drop"}}), store, tmp_path / "work")
    assert {step["rule"]: step["dropped"] for step in result["funnel"]}["privacy"] == 1
    rejected = {row["id"]: row for row in read_split(store, result["manifest"], "rejected").to_pylist()}
    assert rejected["gate.md"]["text"] == ""


def test_sensitive_words_drop_mask_or_are_only_counted(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    words = [
        {"name": "secret", "words": ["lease7"], "action": "drop"},
        {"name": "rude", "words": ["queue7"], "action": "mask"},
        {"name": "noted", "words": ["site7"]},
    ]
    result = curate(_input(folder, words=words), store, tmp_path / "work")
    rows = {row["id"]: row for row in read_split(store, result["manifest"], "notes").to_pylist()}
    assert rows["lease.md"]["reason"] == "sensitive_words"
    assert rows["site.md"]["words_noted"] > 0 and rows["site.md"]["reason"] == ""
    texts = [t for n in ("train", "heldout") for t in read_split(store, result["manifest"], n)["text"].to_pylist()]
    assert not any("queue7" in text for text in texts)
    assert any("***" in text for text in texts)


def test_repeated_lines_are_cut_and_what_is_left_too_short_is_emptied(store: BlobStore, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shared = "This line stands in every one of these documents, word for word.\n"
    own = {n: " ".join(f"word{n}x{i}" for i in range(40)) + ".\n" for n in range(4)}
    for number, text in own.items():
        (docs / f"{number}.txt").write_text(shared + text)
    (docs / "x.txt").write_text("A few words of its own, thirty or so.\n" + shared)
    recipe = {"dedup": {"near": None, "lines": {}, "repeated_max": 1.0}, "min_characters": 60}
    result = curate(_input(docs, **recipe), store, tmp_path / "work")
    texts = [t for n in ("train", "heldout") for t in read_split(store, result["manifest"], n)["text"].to_pylist()]
    assert sum(shared.strip() in text for text in texts) == 1
    assert {step["rule"]: step["dropped"] for step in result["funnel"]}["emptied"] == 1
    assert result["counts"]["documents_cut"] == 3


def test_chats_become_rows_of_answers_and_texts_people_can_read(store: BlobStore, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is a {subject}?"},
                {"role": "assistant", "content": f"A {subject} is what {subject}{n} calls {subject}."},
            ]
        }
        for n, subject in enumerate(SUBJECTS)
    ]
    (docs / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    result = curate(_input(docs, preset="chat"), store, tmp_path / "work")
    tables = {name: read_split(store, result["manifest"], name) for name in ("train", "heldout")}
    texts = {row["id"]: row["text"] for table in tables.values() for row in table.to_pylist()}
    assert texts["chats.jsonl:1"].startswith("user: What is a gang?\n\nassistant: A gang is")
    rows = [r for n in ("qa_train", "qa_heldout") for r in read_split(store, result["manifest"], n).to_pylist()]
    assert len(rows) == result["counts"]["documents_out"]
    for row in rows:
        assert texts[row["document"]][row["span_start"] : row["span_end"]] == row["answer"]
        assert json.loads(row["messages"]) == [{"role": "user", "content": row["question"]}]


def test_sources_are_mixed_by_weight(store: BlobStore, tmp_path: Path) -> None:
    sources = []
    for name in ("news", "books"):
        docs = tmp_path / name
        docs.mkdir()
        for number in range(30):
            (docs / f"{number}.txt").write_text(" ".join(f"{name}{number}x{i}" for i in range(50)))
        sources.append({"kind": "folder", "path": str(docs), "name": name})
    recipe = {"mix": {"weights": {"news": 3}}, "split": {"heldout_fraction": 0}, "questions": {"enabled": False}}
    result = curate({"sources": sources, "recipe": recipe}, store, tmp_path / "work")
    ids = read_split(store, result["manifest"], "train")["id"].to_pylist()
    assert sum(name.startswith("news/") for name in ids) == 30
    assert 9 <= sum(name.startswith("books/") for name in ids) <= 11
    assert {s["rule"]: s["dropped"] for s in result["funnel"]}["not_sampled"] == 60 - len(ids)


def test_texts_are_packed_beside_the_splits(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    result = curate(_input(folder, pack={"tokenizer": "bytes", "length": 256}), store, tmp_path / "work")
    packed = read_split(store, result["manifest"], "packed")
    assert packed.num_rows == result["counts"]["packed"] > 0
    assert all(len(tokens) == 256 for tokens in packed["tokens"].to_pylist())
    train = set(read_split(store, result["manifest"], "train")["id"].to_pylist())
    assert {name for names in packed["documents"].to_pylist() for name in names} == train


def test_what_shares_text_with_an_evaluation_set_is_dropped(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    sentence = " ".join(_article("ledger").split()[3:30])
    (tmp_path / "exam.txt").write_text(f"{sentence}\n")
    recipe = {"decontaminate": {"sets": [str(tmp_path / "exam.txt")]}}
    result = curate(_input(folder, **recipe), store, tmp_path / "work")
    assert {step["rule"]: step["dropped"] for step in result["funnel"]}["contaminated"] == 1


def test_a_record_with_an_id_that_is_taken_is_dropped_and_said(store: BlobStore, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    rows = [{"id": "a" if n < 2 else f"d{n}", "text": _article(subject)} for n, subject in enumerate(SUBJECTS)]
    (docs / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    result = curate(_input(docs), store, tmp_path / "work")
    steps = {step["rule"]: step for step in result["funnel"]}
    assert steps["duplicate_id"]["dropped"] == 1
    assert steps["duplicate_id"]["samples"][0].startswith("a: # On the queue")
    assert steps["unreadable"]["samples"][0].startswith(f"rows.jsonl line {len(rows) + 1}: ")


def test_a_dataset_is_a_source_and_a_parent(folder: Path, store: BlobStore, tmp_path: Path) -> None:
    first = curate(_input(folder), store, tmp_path / "work")
    sources = [{"kind": "dataset", "reference": first["manifest"]}]
    second = curate({"sources": sources, "recipe": {}, "seed": 1}, store, tmp_path / "work")
    assert second["counts"]["documents_out"] == first["counts"]["documents_out"]
    assert read_manifest(store, second["manifest"]).parents == [first["manifest"]]


def test_an_upload_is_read_by_its_name_or_by_how_it_begins(store: BlobStore, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": subject, "text": _article(subject)}) + "\n" for subject in SUBJECTS)
    digest = store.put_bytes(rows.encode()).digest
    wanted = {"sources": [{"kind": "upload", "digest": digest}], "recipe": {}}
    assert curate(wanted, store, tmp_path / "work")["counts"]["documents_in"] == len(SUBJECTS)
    named = curate(wanted | {"names": {digest: "notes.txt"}}, store, tmp_path / "work")
    assert named["counts"]["documents_in"] == 1


def test_sealed_uploads_give_what_plain_ones_give(store: BlobStore, tmp_path: Path) -> None:
    key = DataKey(bytes(range(32)))
    rows = "".join(json.dumps({"id": subject, "text": _article(subject)}) + "\n" for subject in SUBJECTS).encode()
    words = b"gang\nqueue\n"
    sealed = SealedBlobs(store, [key])
    digests = [(sealed.put_stream([data], 1 << 20).digest, store.put_bytes(data).digest) for data in (rows, words)]
    results = []
    for side in (0, 1):
        recipe = {"words": [{"name": "own", "digest": digests[1][side]}]}
        wanted = {"sources": [{"kind": "upload", "digest": digests[0][side]}], "recipe": recipe}
        told = {"sealed": [found[0] for found in digests]}
        results.append(curate(wanted | told, store, tmp_path / f"work-{side}", keys=[key]))
    assert results[0]["counts"] == results[1]["counts"] and results[0]["funnel"] == results[1]["funnel"]
    assert not (tmp_path / "work-0" / "inputs").exists()
