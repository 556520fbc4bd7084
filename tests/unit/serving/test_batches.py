"""The life of a batch at the centre: one key, one workload, files at the end, nothing left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from atoll.compute.jobs import CANCEL
from atoll.core.blobs import BlobStore
from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.reconcile import Loop
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.sealed import SealedBlobs
from atoll.core.store import Create, Remove, SetSpec, SetStatus, Store
from atoll.governance.resources import API_KEY, PROJECT
from atoll.governance.secrets import Secrets
from atoll.server import kinds
from atoll.serving.batches import BATCH, ENDING_S, BatchController, BatchStatus

assert kinds.DOMAINS
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m"}}


class Office:
    """A store with a key, and the controller of batches."""

    def __init__(self, store: Store, clock: VirtualClock, blobs: BlobStore) -> None:
        self.store, self.clock, self.blobs = store, clock, blobs
        self.scope = store.everything("test")
        self.secrets = Secrets([bytes(32)])
        controllers = [BatchController(blobs, self.secrets, "http://door"), Collector()]
        self.loop = Loop(store, clock, controllers, random.Random(1))
        self.key()

    def key(self, **fields: Any) -> None:
        spec = API_KEY.parse_spec({"sha256": "0" * 64, **fields})
        existing = self.scope.find("ApiKey", "key-1", "red")
        write = Create("ApiKey", "red", "key-1", spec) if existing is None else SetSpec(existing, spec)
        self.scope.write([write])

    def begin(self, content: bytes = json.dumps(LINE).encode()) -> Resource:
        return self.begin_stored(self.blobs.put_bytes(content).digest)

    def begin_sealed(self, content: bytes) -> Resource:
        self.scope.write([Create("Project", SYSTEM_PROJECT, "red", PROJECT.parse_spec({}), {"phase": "ready"})])
        keys = self.secrets.data_keys(self.scope, "red")
        return self.begin_stored(SealedBlobs(self.blobs, keys).put_stream([content], 1 << 20).digest, sealed=True)

    def begin_stored(self, digest: str, **fields: Any) -> Resource:
        wanted = {"input_file": "file-1", "digest": digest, "endpoint": "/v1/embeddings", **fields}
        spec = BATCH.parse_spec({**wanted, "creator": "red/key-1", "window_s": 1000.0, "results_kept_s": 60.0})
        self.scope.write([Create("Batch", "red", "batch-1", spec, BatchStatus().model_dump(mode="json"))])
        return self.run()

    def run(self) -> Resource:
        self.loop.take_changes()
        while self.loop.step():
            self.loop.take_changes()
        return self.batch

    def after(self, seconds: float) -> Resource:
        self.clock.advance(seconds)
        self.loop.resync()
        return self.run()

    @property
    def batch(self) -> Resource:
        return self.scope.get("Batch", "batch-1", "red")

    def find(self, kind: str, name: str = "key-batch-batch-1") -> Resource | None:
        return self.scope.find(kind, name, "red")

    def workload(self) -> Resource | None:
        return self.find("Workload", "batch-batch-1")

    def secret(self) -> str:
        """The key as the batch's task reads it."""
        return self.secrets.value(self.scope, "red", "key-batch-batch-1/KEY", owners=(self.batch.uid,))

    def report(self, phase: str, **status: Any) -> Resource:
        workload = self.workload()
        assert workload is not None
        self.scope.write([SetStatus(workload, workload.status | {"phase": phase, **status})])
        return self.run()

    def cancel(self) -> Resource:
        batch = self.batch
        self.scope.write([SetSpec(batch, batch.spec, {CANCEL: str(self.clock.now())})])
        return self.run()


@pytest.fixture
def office(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Office:
    return Office(sqlite_store, clock, BlobStore(str(tmp_path / "blobs")))


def result(office: Office, **fields: Any) -> dict[str, Any]:
    blob = office.blobs.put_bytes(b"{}\n")
    stored = {"digest": blob.digest, "size_bytes": blob.size_bytes}
    counts = {"total": 1, "completed": 1, "failed": 0}
    figures = {"outcome": "completed", "reason": "", "counts": counts, "started_at": 1.0, "finalizing_at": 2.0}
    return {"output": stored, "error": None, **figures, **fields}


def test_a_batch_gets_a_key_of_its_own_that_its_task_reads_from_a_secret(office: Office) -> None:
    office.key(limits={"requests_per_minute": 7})
    batch = office.begin()
    key, workload = office.find("ApiKey"), office.workload()
    assert key is not None and workload is not None
    assert (key.owner, key.spec["models"], key.spec["priority"]) == (batch.uid, ["m"], "batch")
    assert (key.spec["charged_to"], key.spec["limits"]["requests_per_minute"]) == ("red/key-1", 7)
    (role,) = workload.spec["roles"]
    assert role["secrets"] == {"ATOLL_UPLOADS_KEY": "atoll-uploads/KEY", "ATOLL_BATCH_KEY": "key-batch-batch-1/KEY"}
    assert role["input"]["expires_at"] == batch.created_at + 1000
    assert office.secret().startswith("sk-atoll-")
    assert batch.status["model"] == "m"


def test_the_model_is_read_from_a_sealed_file_and_the_task_is_told(office: Office) -> None:
    batch = office.begin_sealed(json.dumps(LINE).encode())
    workload = office.workload()
    assert workload is not None and workload.spec["roles"][0]["input"]["sealed"] is True
    assert batch.status["model"] == "m"
    stored = {**result(office)["output"], "sealed": True}
    office.report("succeeded", result=result(office, output=stored))
    (file,) = office.scope.find_all("File")
    assert file.spec["sealed"] is True


def test_results_become_files_once_and_the_key_ends(office: Office) -> None:
    office.begin()
    batch = office.report("succeeded", result=result(office))
    assert (batch.phase, batch.status["outcome"], batch.status["error_file"]) == ("succeeded", "completed", "")
    (file,) = office.scope.find_all("File")
    assert (file.name, file.spec["purpose"]) == (batch.status["output_file"], "batch_output")
    assert file.spec["expires_at"] == office.clock.now() + 60
    key = office.find("ApiKey")
    assert key is not None and key.spec["revoked"]
    assert office.after(1.0).phase == "succeeded"
    assert office.find("Secret") is None
    assert len(office.scope.find_all("File")) == 1


def test_a_batch_cancelled_before_it_begins_ends_at_once(office: Office) -> None:
    office.begin()
    batch = office.cancel()
    assert (batch.phase, batch.status["outcome"]) == ("succeeded", "cancelled")
    office.after(1.0)
    assert office.workload() is None


def test_a_cancelled_batch_that_works_is_left_to_put_its_results_together(office: Office) -> None:
    office.begin()
    office.report("running", epoch=1, progress={"stage": "ask", "counts": {"total": 9, "completed": 4, "failed": 0}})
    assert office.cancel().phase == "running"
    assert office.batch.status["counts"]["completed"] == 4
    batch = office.report("succeeded", result=result(office, outcome="cancelled"))
    assert (batch.phase, batch.status["outcome"]) == ("succeeded", "cancelled")


def test_one_that_cannot_is_cut_off_after_a_while(office: Office) -> None:
    office.begin()
    office.report("running", epoch=1)
    office.cancel()
    assert office.after(ENDING_S - 1).phase == "running"
    assert office.after(2).status["outcome"] == "cancelled"


def test_a_batch_nobody_works_off_ends_after_its_window(office: Office) -> None:
    office.begin()
    office.report("pending", epoch=3, reason="no node")
    assert office.after(1000 + ENDING_S - 1).phase == "running"
    batch = office.after(2)
    assert (batch.phase, batch.status["outcome"]) == ("succeeded", "expired")


def test_wrong_lines_of_the_task_are_the_batchs_errors(office: Office) -> None:
    office.begin()
    wrong = [{"code": "duplicate_custom_id", "line": 3, "message": "again", "param": None}]
    batch = office.report("failed", reason="line 3 again", error={"code": "invalid", "details": {"errors": wrong}})
    assert (batch.phase, batch.status["errors"]) == ("failed", wrong)
    batch = office.batch
    key = office.find("ApiKey")
    assert key is not None and key.spec["revoked"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b"[]", b'{"body": {}}', b'{"body": {"model": 3}}'])
def test_a_file_without_a_model_begins_nothing(office: Office, content: bytes) -> None:
    assert office.begin(content).phase == "failed"
    assert office.workload() is None
    assert office.find("ApiKey") is None


@pytest.mark.parametrize("fields", [{"revoked": True}, {"expires_at": 1.0}, {"models": ["other"]}])
def test_a_key_that_may_not_makes_no_key(office: Office, fields: dict[str, Any]) -> None:
    office.key(**fields)
    assert office.begin().phase == "failed"
    assert office.find("ApiKey") is None


def test_a_try_that_was_cut_short_is_gone_on_from_with_a_new_key(office: Office) -> None:
    office.begin()
    first = office.secret()
    workload = office.workload()
    assert workload is not None
    office.scope.write([Remove(workload)])
    office.after(0.0)
    assert office.workload() is not None
    assert office.secret() != first
