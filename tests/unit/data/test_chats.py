"""Examples as they are uploaded become rows of a dataset; what is wrong is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey, SealedBlobs
from atoll.data.engine.versions.chats import import_chats, rows_of
from atoll.data.manifest import open_split, read_manifest


def said(*turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text, **fields} for role, text in turns]}


def made(tmp_path: Path, *lines: Any, heldout: tuple[Any, ...] = ()) -> tuple[BlobStore, dict[str, Any]]:
    store = BlobStore(str(tmp_path / "blobs"))
    digests = [
        store.put_bytes("\n".join(x if isinstance(x, str) else json.dumps(x) for x in part).encode()).digest
        for part in (lines, heldout)
    ]
    wanted = {"train": digests[0], "heldout": digests[1] if heldout else "", "licence": "MIT"}
    return store, import_chats(wanted, store, tmp_path)


def test_sealed_and_older_files_go_together(tmp_path: Path) -> None:
    store, key = BlobStore(str(tmp_path / "blobs")), DataKey(bytes(range(32)))
    lines = [json.dumps({"prompt": word, "completion": "c"}).encode() for word in ("new", "old")]
    sealed = SealedBlobs(store, [key]).put_stream([lines[0]], 1000).digest
    wanted = {"train": sealed, "heldout": store.put_bytes(lines[1]).digest, "sealed": ["train"]}
    result = import_chats(wanted, store, tmp_path, keys=[key])
    manifest = read_manifest(store, result["manifest"])
    assert [row["question"] for part in ("qa_train", "qa_heldout") for row in open_split(store, manifest, part)] == [
        "new",
        "old",
    ]
    assert manifest.sources[0] == {"kind": "file", "digest": sealed}


def test_every_answer_becomes_a_row_with_what_was_said_before(tmp_path: Path) -> None:
    chat = said(("developer", "be short"), ("user", "one?"), ("assistant", "1"), ("user", "two?"), ("assistant", "2"))
    store, result = made(
        tmp_path,
        chat,
        "",
        {"prompt": "p", "completion": "c"},
        heldout=(said(*[("user", "q")] * 1, ("assistant", "a")),),
    )
    manifest = read_manifest(store, result["manifest"])
    rows = list(open_split(store, manifest, "qa_train"))
    assert [(r["question"], r["answer"]) for r in rows] == [("one?", "1"), ("two?", "2"), ("p", "c")]
    assert [m["role"] for m in json.loads(rows[1]["messages"])] == ["system", "user", "assistant", "user"]
    assert result["counts"] == {"train": 0, "heldout": 0, "qa_train": 3, "qa_heldout": 1}
    assert len({r["id"] for r in rows}) == 3
    assert manifest.licence == "MIT"


def test_equal_files_give_equal_datasets(tmp_path: Path) -> None:
    chat = said(("user", "q"), ("assistant", "a"))
    assert made(tmp_path, chat)[1] == made(tmp_path, chat)[1]


def test_an_answer_of_weight_nought_is_context_only() -> None:
    chat = said(("user", "one?"), ("assistant", "1"), ("user", "two?"), ("assistant", "2"))
    chat["messages"][1]["weight"] = 0
    rows = list(rows_of(json.dumps(chat).encode(), "x"))
    assert [r["answer"] for r in rows] == ["2"]
    assert "1" in rows[0]["messages"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("3", "not a JSON object"),
        ({}, "prompt cannot be None"),
        ({"messages": []}, "not empty"),
        (said(("user", "q")), "no answer"),
        (said(("assistant", "a")), "before any message of the user"),
        (said(("user", ""), ("assistant", "a")), r"messages\[0\].content"),
        (said(("wizard", "q"), ("assistant", "a")), "wizard"),
        (said(("user", "q"), ("assistant", "a"), tool_calls=[]), "tool_calls"),
        (said(("user", "q"), ("assistant", "a")) | {"tools": []}, "tools"),
        (said(("user", "q"), ("assistant", "a"), weight=2), "weight"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, words: str) -> None:
    with pytest.raises(Invalid, match=f"line 2 .*{words}") as caught:
        made(tmp_path, said(("user", "q"), ("assistant", "a")), line)
    assert [(e["line"], e["param"]) for e in caught.value.details["errors"]] == [(2, "training_file")]


def test_a_file_without_an_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no example"):
        made(tmp_path, "", " ")
