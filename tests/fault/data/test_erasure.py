"""An erasure's engine killed again and again gives what one that was let alone gives."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from atoll.data.manifest import Manifest, Shard, Split, open_split, read_manifest, write_manifest
from small_datasets import dataset, document, question
from task_folder import TaskFolder

KILLS = 4
ERASER_THAT_DIES = """
import os, signal
from atoll.data.engine.versions import erase

keep, left = erase._keep, int(os.environ["STEPS"])

def keep_and_die(path, value):
    global left
    left -= 1
    if left == 0 and os.environ["MOMENT"] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    keep(path, value)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

erase._keep = keep_and_die
erase.main()
"""
"""It kills itself where it remembers a step: who watched from outside might come too late."""

ANN = "ann@example.org"


def order(task: TaskFolder) -> dict[str, Any]:
    versions = []
    for number in range(2):
        rows = [
            [document(f"{s}-{n}", f"row {s} {n} of {number} {ANN if n == s else ''}") for n in range(40)]
            for s in range(4)
        ]
        questions = [[question(f"q{s}", f"{s}-{s}", "x"), question(f"p{s}", f"{s}-39", "y")] for s in range(4)]
        manifest = dataset(task.store, task.root, {"train": rows, "qa_train": questions})
        versions.append({"name": f"docs.v{number}", "manifest": manifest})
    told = {"documents": [], "sources": [], "texts": [ANN], "files": []}
    return {"versions": versions, "files": [], "match": {**told, "digests": []}, "told": told, "salt": "s"}


def test_a_killed_erasure_goes_on_to_the_same_end(tmp_path: Path) -> None:
    calm = TaskFolder(tmp_path / "calm", "atoll.data.engine.versions.erase")
    calm.root.mkdir()
    wanted = order(calm)
    code, expected = calm.run(wanted)
    assert code == 0, calm.log
    assert all(v["removed"] == {"train": 4, "qa_train": 4} for v in expected["versions"])
    rough = TaskFolder(tmp_path / "rough", "atoll.data.engine.versions.erase")
    rough.root.mkdir()
    assert order(rough) == wanted
    rng = random.Random(4)
    (tmp_path / "eraser_that_dies.py").write_text(ERASER_THAT_DIES)
    dying = TaskFolder(rough.root, "eraser_that_dies")
    for _ in range(KILLS):
        dying.prepare(wanted)
        when = {"STEPS": str(rng.randint(1, 4)), "MOMENT": rng.choice(["before", "after"])}
        with dying.start(PYTHONPATH=str(tmp_path), **when) as process:
            assert process.wait(60) == -signal.SIGKILL, rough.log
    assert (rough.root / "work").exists()
    code, result = rough.run(wanted)
    assert code == 0, rough.log
    assert result == expected
    for version in result["versions"]:
        manifest = read_manifest(rough.store, version["after"])
        for split in ("train", "qa_train"):
            assert all(ANN not in str(row) for row in open_split(rough.store, manifest, split))


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_version_stops_an_erasure_by_name(tmp_path: Path, damage: str) -> None:
    task = TaskFolder(tmp_path, "atoll.data.engine.versions.erase")
    wanted = order(task)
    manifest = read_manifest(task.store, wanted["versions"][0]["manifest"])
    digest = manifest.splits["train"].shards[0].digest
    path = Path(task.store.path_of(digest))
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, result = task.run(wanted)
    told = result["error"]["message"]
    assert code == 3 and digest in told and f"version {wanted['versions'][0]['name']}: " in told


def test_a_shard_that_is_no_parquet_stops_an_erasure_by_name(tmp_path: Path) -> None:
    task = TaskFolder(tmp_path, "atoll.data.engine.versions.erase")
    wanted = order(task)
    rubbish = task.store.put_bytes(b"no Parquet").digest
    splits = {"train": Split((Shard(rubbish, 1, 10),), 1)}
    wanted["versions"][0]["manifest"] = write_manifest(task.store, Manifest(splits, {}, [], {}, "", []))
    code, result = task.run(wanted)
    told = result["error"]["message"]
    assert code == 3 and f"version {wanted['versions'][0]['name']}: shard {rubbish} cannot be read as Parquet" in told
