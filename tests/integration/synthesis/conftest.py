"""A dataset to write about, a task folder, and a model server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import SPLITS, Manifest, Split, write_manifest
from integration.synthesis.author import Author
from task_folder import TaskFolder

SEAS = ("Pacific", "Indian", "Coral", "Arabian", "Timor", "Tasman", "Solomon", "Bismarck", "Philippine", "Java")


def english(number: int) -> str:
    """A document of three sentences nobody else has."""
    sea = SEAS[number % len(SEAS)]
    return (
        f"Harbour {number} of the {sea} Sea has a lighthouse of {number + 20} metres above grey rocks. "
        f"Fishermen of village {number} repair nets beneath {sea} palm trees every autumn evening. "
        f"Museum {number} keeps the old {sea} charts drawn by captains before the great storm of {1800 + number}."
    )


def chinese(number: int) -> str:
    """The same in Chinese."""
    kind = "渔货帆游"[number % 4]
    return (
        f"第{number}号{kind}船码头的灯塔高{number + 20}米、建在灰色的岩石上。"
        f"每年秋天第{number}村的{kind}船工人都在棕榈树下修补渔网。"
        f"第{number}博物馆收藏着{1800 + number}年大风暴以前{kind}船船长绘制的海图。"
    )


def dataset(store: BlobStore, folder: Path, train: int, heldout: int) -> str:
    """The digest of a dataset of so many documents, every fourth in Chinese."""
    splits = {name: Split((), 0) for name in SPLITS}
    for side, numbers in (("train", range(train)), ("heldout", range(train, train + heldout))):
        writer = SplitWriter(store, folder, SPLITS[side])
        for number in numbers:
            text = chinese(number) if number % 4 == 3 else english(number)
            writer.add({"id": f"doc{number}", "text": text, "source": "s0:test"})
        splits[side] = writer.close()
    return write_manifest(store, Manifest(splits, {}, [], {}, "CC0-1.0", []))


@pytest.fixture
def model() -> Iterator[Author]:
    made = Author()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path, "atoll.data.engine.synthesis.run")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that outlives an attempt."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def wanted(folder: TaskFolder, model: Author) -> dict[str, Any]:
    """The input of a small synthesis: 12 documents, two questions each."""
    folder.root.joinpath("blobs").mkdir(exist_ok=True)
    return {
        "manifest": dataset(folder.store, folder.root, 8, 4),
        "model": "author",
        "project": "red",
        "door": model.url,
        "per_document": 2,
        "parallel": 4,
        "known_within_s": 0.5,
    }
