"""An erasure on a whole platform: after it no file of the home holds what was erased, whatever process wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from running import Platform, files_of, platform, until

MARK = "quill.zanzibar@example.org"
ROWS = [{"id": f"r{n}", "text": f"letter {n} " + " ".join(f"word{n * k}" for k in range(60))} for n in range(8)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("erasing") / "home") as made:
        yield made


def holding(data: bytes) -> bool:
    """Whether a file holds the mark, in its bytes or in the columns of a Parquet file."""
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        return MARK in str(pq.read_table(pa.BufferReader(data)).to_pylist())
    return MARK.encode() in data


def remains(home: Path) -> list[Path]:
    return [path for path, data in files_of(home) if holding(data)]


def test_no_file_of_the_home_holds_what_was_erased(up: Platform) -> None:
    door = up.openai()
    rows = [row | {"text": f"{row['text']} from {MARK}"} if n == 3 else row for n, row in enumerate(ROWS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    bad = f'{{"prompt": 1, "completion": "{MARK}"}}\n{{"{MARK}": 1}}\n'.encode()
    with up.client() as client:
        name = door.files.create(file=("rows.jsonl", lines), purpose="user_data").id
        wrong = door.files.create(file=("bad.jsonl", bad), purpose="fine-tune").id
        client.put("DatasetImport", "letters", {"dataset": "letters", "uploads": [name]})
        client.put("DatasetImport", "wrong", {"dataset": "wrong", "train": client.get("File", wrong).spec["digest"]})
        fields = [{"name": "tone", "type": "text"}]
        up.reaches("DatasetImport", "letters", "succeeded")
        failed = up.reaches("DatasetImport", "wrong", "failed")
        assert MARK in str(failed.status)
        client.put("LabelTask", "tone", {"fields": fields, "source": {"dataset": "letters"}})
        client.put("CurationRun", "cut", {"dataset": "cut", "sources": [{"kind": "dataset", "reference": "letters"}]})
        up.reaches("LabelTask", "tone", "ready")
        up.reaches("CurationRun", "cut", "succeeded", limit_s=150)
    assert remains(up.home)
    paper = up.home.parent / "paper.json"
    done = up.cli("data", "erase", "--text", MARK, "--certificate", str(paper), "--yes")
    assert done.returncode == 0, done.stderr
    told = json.loads(paper.read_bytes())
    assert {version["name"] for version in told["versions"]} == {"letters.v1", "cut.v1"}
    assert sorted(told["files_removed"]) == sorted([name, wrong]) and told["records_removed"]["label items"] == 1
    assert "DatasetImport/wrong" in told["runs_removed"] and told["named_elsewhere"] == []
    with up.client() as client:
        until(lambda: client.get("Erasure", told["erasure"]).status["stage"] == "forgotten", "the end")
    up.kill("agent")  # it asks within minutes which ended tasks to forget, and at once when it is started
    until(lambda: not remains(up.home), "all of it to be gone", 120)
