"""The engine as an agent starts it: a child process in a task directory."""

from pathlib import Path

from atoll.core.blobs import BlobStore
from curating import RECIPE, finish, shards_of, task_in, write_documents


def test_one_worker_and_two_make_the_same_bytes(tmp_path: Path) -> None:
    docs = write_documents(tmp_path / "docs")
    made = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        sources = [{"kind": "folder", "path": str(docs)}]
        code, result = finish(folder, task_in(folder, {"sources": sources, "recipe": RECIPE, "workers": workers}))
        assert code == 0, result
        assert list((folder / "work").iterdir()) == []
        made.append((result["manifest"], shards_of(folder, result["manifest"]), result["counts"], result["funnel"]))
    assert made[0] == made[1]
    dropped = {step["rule"]: step["dropped"] for step in made[0][3]}
    assert all(dropped[rule] for rule in ("unreadable", "many_digits", "url_duplicate", "near_duplicate"))


def test_a_wrong_input_is_a_permanent_failure_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    code, result = finish(folder, task_in(folder, {"sources": [{"kind": "folder", "path": str(tmp_path / "no")}]}))
    assert code == 3
    assert result["error"]["code"] == "invalid"
    assert result["error"]["details"]["field"].startswith("sources[0]")
    assert list(BlobStore(str(folder / "blobs")).digests()) == []
