"""A rotated key: uploads are sealed anew whatever is killed meanwhile, and older keys go when nothing needs them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.blobs import BlobStore
from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.errors import IntegrityError
from atoll.core.reconcile import Loop, Writer
from atoll.core.resources import SYSTEM_PROJECT, Key, Resource
from atoll.core.sealed import SealedBlobs
from atoll.core.store import Create, MarkDeleting, SetSpec, SetStatus, Store
from atoll.data.files import UPLOAD, create_file, find_file
from atoll.data.imports import DATASET_IMPORT
from atoll.data.resealing import KEPT_S, DataKeyController
from atoll.governance.resources import PROJECT
from atoll.governance.secrets import Secrets
from atoll.server import kinds

assert kinds.DOMAINS
PLAIN = {f"file-{n}": f"the words of upload {n}; ".encode() * (2_000 * n + 1) for n in range(5)}


class Killed(BaseException):
    """As a kill at this moment: nothing catches it."""


class Vault:
    """A project with sealed files, and the controller of its keys."""

    def __init__(self, store: Store, clock: VirtualClock, folder: Path) -> None:
        self.store, self.clock = store, clock
        self.scope = store.everything("test")
        self.secrets = Secrets([os.urandom(32)])
        self.blobs = BlobStore(str(folder / "blobs"))
        self.controller = DataKeyController(self.blobs, self.secrets)
        self.begin()
        for name in ("red", "blue"):
            self.scope.write([Create("Project", SYSTEM_PROJECT, name, PROJECT.parse_spec({}), {"phase": "ready"})])
        for name, plain in PLAIN.items():
            self.add(name, plain)

    def begin(self) -> None:
        self.loop = Loop(self.store, self.clock, [self.controller, Collector()], random.Random(1))

    def add(self, name: str, plain: bytes, project: str = "red") -> None:
        made = self.sealed(project).put_stream([plain], 1 << 30)
        told = {"digest": made.digest, "size_bytes": made.size_bytes, "sealed": True}
        self.scope.write([create_file(project, name, name, "user_data", **told)])

    def sealed(self, project: str = "red") -> SealedBlobs:
        return SealedBlobs(self.blobs, self.secrets.data_keys(self.scope, project))

    def rotate(self) -> str:
        write = self.secrets.new_data_key(self.scope, "red")
        self.scope.write([write])
        return write.name

    def settle(self, name: str = "uploads-1") -> Resource:
        self.loop.resync()
        while self.loop.step():
            self.loop.take_changes()
        return self.scope.get("DataKey", name, "red")

    def after(self, seconds: float, name: str = "uploads-1") -> Resource:
        self.clock.advance(seconds)
        return self.settle(name)

    def file(self, name: str) -> Resource:
        return self.scope.get("File", name, "red")

    def read(self, name: str) -> bytes:
        with self.sealed().open(self.file(name).spec["digest"]) as stream:
            return stream.read()

    def run(self, phase: str = "running", **spec: Any) -> Resource:
        """An import with a workload, as it was made before a rotation."""
        wanted = DATASET_IMPORT.parse_spec({"dataset": "d", "uploads": ["file-1"], **spec})
        self.scope.write([Create("DatasetImport", "red", "take", wanted, {"phase": phase})])
        run = self.scope.get("DatasetImport", "take", "red")
        load = WORKLOAD.parse_spec({"roles": [{"command": ["true"]}]})
        self.scope.write([Create("Workload", "red", "take", load, {"phase": phase}, owner=run.uid)])
        return run


@pytest.fixture
def vault(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Vault:
    return Vault(sqlite_store, clock, tmp_path)


def test_uploads_are_sealed_anew_and_the_older_keys_are_destroyed(vault: Vault) -> None:
    before = {name: vault.file(name).spec["digest"] for name in PLAIN}
    (old,) = vault.secrets.data_keys(vault.scope, "red")
    vault.rotate()
    key = vault.settle()
    assert key.status["resealed"] == len(PLAIN) and "an hour" in key.status["reason"] and key.phase == "running"
    assert vault.secrets.data_keys(vault.scope, "red")[1] == old, "it opens what is begun"
    for name, plain in PLAIN.items():
        assert vault.file(name).spec["digest"] != before[name] and vault.read(name) == plain
        assert find_file(vault.scope, "red", before[name]) == vault.file(name)
    key = vault.after(KEPT_S)
    assert key.phase == "ready" and key.spec["is_alone"], key.status
    assert old not in vault.secrets.data_keys(vault.scope, "red")
    with pytest.raises(IntegrityError, match="under another key"):
        vault.sealed().open(before["file-1"])
    vault.rotate()
    vault.settle("uploads-2")
    vault.after(KEPT_S, "uploads-2")
    assert vault.scope.find("DataKey", "uploads-1", "red") is None, "a random key is gone for good"
    assert all(vault.read(name) == plain for name, plain in PLAIN.items())
    assert len(vault.file("file-0").spec["formerly"]) == 2


def test_another_project_is_left_alone(vault: Vault) -> None:
    vault.add("theirs", b"of blue", "blue")
    before = vault.scope.get("File", "theirs", "blue")
    vault.rotate()
    vault.after(KEPT_S)
    assert vault.scope.get("File", "theirs", "blue") == before
    with vault.sealed("blue").open(before.spec["digest"]) as stream:
        assert stream.read() == b"of blue"


def kills(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Kills the next write to blobs or store, then the one after it, and so on, until nothing is left to kill."""
    calls = {"left": 0, "all": 0}

    def counted(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] < 0:
                raise Killed
            return real(*args, **more)

        return call

    for owner, name in ((BlobStore, "_write"), (BlobStore, "upload"), (Writer, "write"), (SealedBlobs, "open")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    for number in range(10_000):
        calls["left"] = number
        yield number
        if calls["left"] >= 0:
            return


def test_a_kill_at_any_moment_loses_nothing(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.rotate()
    killed = 0
    with monkeypatch.context() as patch:
        for _ in kills(vault, patch):
            vault.begin()
            try:
                vault.after(KEPT_S / 100)
            except Killed:
                killed += 1
    assert killed > len(PLAIN)
    assert vault.after(KEPT_S).phase == "ready"
    assert all(vault.read(name) == plain for name, plain in PLAIN.items())
    living = {vault.file(name).spec["digest"] for name in PLAIN}
    former = {f"sha256:{name}" for file in PLAIN for name in vault.file(file).spec["formerly"]}
    assert set(vault.blobs.digests()) == living | former, "what was begun anew gave the same blobs"
    assert all(len(vault.file(name).spec["formerly"]) == 1 for name in PLAIN)


def test_an_older_key_stays_while_a_run_may_need_it(vault: Vault) -> None:
    run = vault.run()
    vault.rotate()
    key = vault.after(2 * KEPT_S)
    assert "waits for DatasetImport/red/take" in key.status["reason"] and not key.spec["is_alone"]
    vault.add("written", b"by a task that was given the older key")
    late = SealedBlobs(vault.blobs, vault.secrets.data_keys(vault.scope, "red")[1:]).put_stream([b"late"], 9)
    file = vault.file("written")
    vault.scope.write([SetSpec(file, file.spec | {"digest": late.digest})])
    vault.scope.write([SetStatus(vault.scope.get("DatasetImport", run.name, "red"), {"phase": "succeeded"})])
    key = vault.after(60)
    assert key.phase == "ready" and vault.read("written") == b"late"


def test_a_run_that_was_made_later_of_an_older_blob_is_waited_for(vault: Vault) -> None:
    digest = vault.file("file-2").spec["digest"]
    vault.rotate()
    vault.clock.advance(1)
    spec = DATASET_IMPORT.parse_spec({"dataset": "d", "train": digest})
    vault.scope.write([Create("DatasetImport", "red", "late", spec, {"phase": "pending"})])
    assert "waits for DatasetImport/red/late" in vault.after(2 * KEPT_S).status["reason"]
    vault.scope.write([MarkDeleting(vault.scope.get("DatasetImport", "late", "red"))])
    assert vault.after(60).phase == "ready"


def test_parts_of_an_upload_under_way_are_waited_for(vault: Vault) -> None:
    part = {"id": "p", "digest": vault.file("file-1").spec["digest"], "sealed": True, "size_bytes": 1}
    wanted = {"filename": "x", "purpose": "user_data", "size_bytes": 2, "expires_at": 9e9, "parts": [part]}
    vault.scope.write([Create("Upload", "red", "upload-1", UPLOAD.parse_spec(wanted), {"phase": "ready"})])
    vault.rotate()
    assert "waits for Upload/red/upload-1" in vault.after(2 * KEPT_S).status["reason"]
    upload = vault.scope.get("Upload", "upload-1", "red")
    vault.scope.write([SetSpec(upload, upload.spec | {"state": "completed", "parts": []})])
    assert vault.after(60).phase == "ready"


def test_a_file_that_does_not_open_is_named_and_holds_nothing_up(vault: Vault) -> None:
    damaged, gone = vault.file("file-3").spec["digest"], vault.file("file-4").spec["digest"]
    path = vault.blobs.local_path(damaged)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    vault.blobs.delete(gone)
    vault.rotate()
    key = vault.after(KEPT_S)
    assert (key.phase, key.status["lost"], key.status["resealed"]) == ("ready", ["file-3", "file-4"], 3)


def test_two_rotations_in_a_row_end_in_the_last(vault: Vault) -> None:
    vault.rotate()
    vault.settle()
    assert vault.rotate() == "uploads-2"
    vault.settle("uploads-2")
    assert vault.after(KEPT_S, "uploads-2").phase == "ready"
    assert vault.scope.find("DataKey", "uploads-1", "red") is None
    assert all(vault.read(name) == plain for name, plain in PLAIN.items())


def test_a_key_is_told_to_nobody(vault: Vault) -> None:
    vault.rotate()
    key = vault.settle()
    assert "sealed" not in key.to_dict()["spec"]
    assert (
        vault.controller.reconcile(
            Key("DataKey", "red", "none"), Writer(vault.store, vault.clock, "DataKey", "t", None)
        )
        is None
    )
